"""The settings as data: what there is, under which dotted and environment name, derived from the types in settings.py.

Owns the tree of tables and leaves, the names, and the reference table of docs/configuration.md
(`python -m server.settings_schema FILE` writes it anew, and evenflow.schema.json beside it). Refuses to know any value but the defaults.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from actors import Secret

from .settings import Settings, UpstreamRef

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Where a value stands: names of tables and settings, and indices into [[routes]].
SettingPath: TypeAlias = tuple[str | int, ...]

PREFIX: Final = "EVENFLOW_"
#: Variables that are no setting's own name. The texts go to the reference.
SHORTCUTS: Final = {
    "EVENFLOW_CONFIG": "the TOML file to read; the flag --config goes before it, ./evenflow.toml is read without either",
    "EVENFLOW_UPSTREAM": "base_url of the one upstream, `default`, for every model; the file's upstreams and routes do not count then",
    "EVENFLOW_UPSTREAM_KEY": "the key of the one upstream: the key itself, not the name of a variable",
}


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting.

    Args:
      annotation: its full type, as msgspec.convert takes it.
      default: its default, meaningless if `required`.
      internal: it has a field but no name that anybody could set.
    """

    annotation: Any
    default: object
    required: bool
    unit: str
    why: str
    example: str
    internal: bool

    @property
    def base(self) -> Any:
        return _bare(self.annotation)

    @property
    def is_container(self) -> bool:
        return get_origin(self.base) in (tuple, dict)

    def choices(self) -> tuple[str, ...]:
        return get_args(self.base) if get_origin(self.base) is Literal else ()

    def wanted(self) -> str:
        """What a value has to be, in words for whoever wrote something else."""
        if self.choices():
            return f"one of {', '.join(self.choices())}"
        if get_origin(self.base) in (tuple, dict):
            kind = "a list" if get_origin(self.base) is tuple else "a table"
        elif self.base in (int, float):
            metas = [m for m in get_args(self.annotation)[1:] if isinstance(m, Meta)]
            bounds = [
                f"{sign} {bound:g}"
                for m in metas
                for sign, bound in ((">=", m.ge), (">", m.gt), ("<=", m.le), ("<", m.lt))
                if bound is not None
            ]
            kind = ("a whole number" if self.base is int else "a number") + (" of seconds" if self.unit == "s" else "")
            kind += f", {' and '.join(bounds)}" if bounds else ""
        else:
            kind = "true or false" if self.base is bool else "a text in quotes"
        return kind + (f", for example {self.example}" if self.example else "")


@dataclass(frozen=True, slots=True)
class Table:
    """A table with fixed names. `partial`: it overrides another of the same names, so that only what is written counts."""

    fields: Mapping[str, Node]
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Named:
    """A table of tables whose names the user chooses: [upstreams.NAME]."""

    item: Table


@dataclass(frozen=True, slots=True)
class Listed:
    """An array of tables: [[routes]]."""

    item: Table


Node: TypeAlias = Leaf | Table | Named | Listed


@functools.cache
def schema() -> Table:
    """The tree of all settings."""
    return _table(Settings)


def _table(struct: type[Struct], *, partial: bool = False) -> Table:
    return Table({f.encode_name: _node(f) for f in msgspec.structs.fields(struct)}, partial)


def _node(info: msgspec.structs.FieldInfo) -> Node:
    bare, metas = _bare(info.type), [m for m in get_args(info.type)[1:] if isinstance(m, Meta)]
    extra = {name: value for m in metas for name, value in (m.extra or {}).items()}
    if "table" in extra:
        return _table(extra["table"], partial=extra.get("partial", False))
    if _is_struct(bare):
        return _table(bare)
    arguments = get_args(bare)
    if get_origin(bare) is dict and _is_struct(arguments[1]):
        return Named(_table(arguments[1]))
    if get_origin(bare) is tuple and _is_struct(arguments[0]):
        return Listed(_table(arguments[0]))
    return Leaf(
        annotation=info.type,
        default=info.default_factory() if info.default_factory is not msgspec.NODEFAULT else info.default,
        required=info.required,
        unit=extra.get("unit", ""),
        why=next((m.description for m in metas if m.description), ""),
        example=next((str(m.examples[0]) for m in metas if m.examples), ""),
        internal=extra.get("internal", False),
    )


def _bare(annotation: Any) -> Any:
    """The type without its annotations and without `| None`."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    arguments = [a for a in get_args(annotation) if a is not type(None)]
    is_optional = type(None) in get_args(annotation)
    return (arguments[0] if len(arguments) == 1 else Union[tuple(arguments)]) if is_optional else annotation  # noqa: UP007


def _is_struct(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, Struct)


def node_at(path: SettingPath) -> Node:
    """What stands at a path that exists."""
    node: Node = schema()
    for part in path:
        match node:
            case Table():
                node = node.fields[str(part)]
            case Named() | Listed():
                node = node.item
            case Leaf():
                raise KeyError(path)
    return node


# ---- names ----------------------------------------------------------------------------------------------------------


def dotted(path: SettingPath) -> str:
    """`("routes", 0, "model")` -> `routes[0].model`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def environment_name(path: SettingPath) -> str:
    """`("timers", "first_token")` -> `EVENFLOW_TIMERS__FIRST_TOKEN`."""
    return PREFIX + "__".join(str(part) for part in path).upper().replace("-", "_")


def leaves(table: Table, path: SettingPath = ()) -> Iterator[tuple[SettingPath, Leaf]]:
    """Every setting, with NAME for the name of an upstream and N for the index of a route; internal ones left out."""
    for name, node in table.fields.items():
        match node:
            case Leaf():
                if not node.internal:
                    yield (*path, name), node
            case Table():
                yield from leaves(node, (*path, name))
            case Named():
                yield from leaves(node.item, (*path, name, "NAME"))
            case Listed():
                yield from leaves(node.item, (*path, name, "N"))


def nearest(table: Table, path: SettingPath, name: str) -> str:
    """What somebody who wrote `name` may have meant."""
    if path[:1] == ("upstreams",) and name.lower() in ("key", "api_key", "apikey", "token", "secret"):
        return "a key does not belong in the file: name its variable with key_env, or its file with key_file"
    if near := difflib.get_close_matches(name, table.fields, 1):
        return f"did you mean {near[0]}?"
    elsewhere = [p for p, _ in leaves(schema()) if p[-1] == name and "N" not in p and "NAME" not in p]
    if elsewhere and len(elsewhere[0]) == 1:
        return f"{name} stands at the top of the file, above the first [table]"
    if elsewhere:
        return f"did you mean {dotted(elsewhere[0])}?"
    return f"known here: {', '.join(n for n, field_ in table.fields.items() if not (isinstance(field_, Leaf) and field_.internal))}"


# ---- values as text -------------------------------------------------------------------------------------------------


def shown(value: object, unit: str = "") -> str:
    """A value as `evenflow check` and the reference print it: TOML's spelling, credentials masked."""
    match value:
        case Secret():
            return _masked(value)
        case None:
            return "(none)"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value:.15g}" + (f" {unit}" if unit else "")
        case tuple():
            return f"[{', '.join(shown(v) for v in value)}]"
        case dict():
            return "{" + ", ".join(f"{k} = {shown(v)}" for k, v in value.items()) + "}"
        case UpstreamRef(upstream, model):
            return f"{{upstream = {shown(upstream)}" + (f", model = {shown(model)}}}" if model is not None else "}")
        case _:
            return json.dumps(str(value), ensure_ascii=False)


def _masked(secret: Secret) -> str:
    """Of a URL only the user part is secret; anything else shows what `Secret` shows."""
    text = secret.reveal()
    return re.sub(r"//.*@", "//****@", text) if re.match(r"[a-z][a-z0-9+]*://", text) else repr(secret)


# ---- the reference --------------------------------------------------------------------------------------------------

_BEGIN, _END = "<!-- settings: written by `python -m server.settings_schema` -->\n", "<!-- /settings -->\n"


def reference() -> str:
    """The tables of docs/configuration.md: one per section, every setting with environment name, default, unit and reason."""
    sections: dict[SettingPath, list[tuple[SettingPath, Leaf]]] = {}
    for path, leaf in leaves(schema()):
        sections.setdefault(path[:-1], []).append((path, leaf))
    parts = [f"### {_title(section)}\n\n{_section(section, settings)}" for section, settings in sections.items()]
    rows = "".join(f"| `{name}` | {why} |\n" for name, why in SHORTCUTS.items())
    return "\n".join([*parts, f"### Shortcuts in the environment\n\n| variable | what |\n|---|---|\n{rows}"])


def _title(section: SettingPath) -> str:
    name = ".".join(str(part) for part in section if part != "N")
    return ("`[[routes]]`" if section == ("routes", "N") else f"`[{name}]`") if section else "Top level"


def _section(section: SettingPath, settings: list[tuple[SettingPath, Leaf]]) -> str:
    in_routes = "N" in section
    if _is_override(section):
        names = ", ".join(f"`{path[-1]}`" for path, _ in settings)
        variables = "`EVENFLOW_ROUTES` as JSON" if in_routes else f"`{environment_name((*section, ''))}` and the name"
        return f"Goes before `[{section[-1]}]`, where units and reasons stand. Environment: {variables}.\n\n{names}\n"
    rows = ["| name | environment | default | unit | what and why |\n|---|---|---|---|---|\n"]
    for path, leaf in settings:
        variable = "`EVENFLOW_ROUTES` as JSON" if in_routes else f"`{environment_name(path)}`"
        default = "required" if leaf.required else f"`{shown(leaf.default)}`"
        choices = f" ({', '.join(f'`{choice}`' for choice in leaf.choices())})" if leaf.choices() else ""
        rows.append(f"| `{path[-1]}` | {variable} | {default} | {leaf.unit} | {leaf.why}{choices} |\n")
    return "".join(rows)


def with_reference(document: str) -> str:
    """`document` with the part between its two markers written anew."""
    before, _, rest = document.partition(_BEGIN)
    return f"{before}{_BEGIN}\n{reference()}\n{_END}{rest.partition(_END)[2]}"


def _is_override(section: SettingPath) -> bool:
    node = node_at(section)
    return isinstance(node, Table) and node.partial


if __name__ == "__main__":
    from server.settings_json_schema import schema_text  # it imports this module

    file = Path(sys.argv[1])
    (file.parent / "evenflow.schema.json").write_text(schema_text(), "utf-8")
    file.write_text(with_reference(file.read_text("utf-8")), "utf-8")

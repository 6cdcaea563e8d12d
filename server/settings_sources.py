"""Where the values come from: file, environment and flags, in rising precedence, each value with its origin.

Owns reading and converting each source, their precedence, and the credentials behind `key_env`, `key_file` and `env:NAME`. Each source
becomes a `Layer`. Layers are laid over one another, and the result is one `Settings`. Refuses to know what contradicts what
(settings_checks.py).
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from actors import Secret

from .settings import Settings
from .settings_checks import Problem, SettingsError, contradictions, no_upstream
from .settings_credentials import resolve_credential, variable
from .settings_layers import Layer, Origin, Rank
from .settings_loaded import Loaded
from .settings_renames import Rename, renamed_setting, renamed_variable
from .settings_schema import (
    PREFIX,
    SHORTCUTS,
    Leaf,
    Listed,
    Named,
    Node,
    SettingPath,
    Table,
    dotted,
    environment_name,
    leaves,
    nearest,
    node_at,
    schema,
)
from .settings_toml import key_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: The upstream that --upstream and EVENFLOW_UPSTREAM speak of.
_DEFAULT: Final = "default"
_DEFAULT_FILE: Final = "evenflow.toml"
_NOT_SET: Final = " is not set"
#: What TOML lets stand without quotes, so that a dotted name is never in doubt; no `__`, which separates in the environment.
_NAME = re.compile(r"(?!.*__)[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line said; None where it said nothing."""

    config: str | None = None
    bind: str | None = None
    admin_bind: str | None = None
    workers: int | None = None
    upstream: str | None = None
    upstream_key_env: str | None = None
    allow_anonymous: bool | None = None


def load(
    flags: Flags | None = None, environ: Mapping[str, str] | None = None, *, directory: Path | None = None, with_upstreams: bool = True
) -> Loaded:
    """Read every source and check the result.

    Args:
      environ: the environment, the process's own by default.
      directory: where ./evenflow.toml is looked for, the current one by default.
      with_upstreams: False for `evenflow dev`, which brings its own upstream and wants no configuration: ./evenflow.toml is not
        looked for, upstreams and routes are left out.

    Raises:
      SettingsError: with every problem found.
    """
    return _Loading(flags or Flags(), os.environ if environ is None else environ, directory or Path(), with_upstreams).run()


class _Loading:
    """One run of `load`: collects problems and warnings while it goes."""

    def __init__(self, flags: Flags, environ: Mapping[str, str], directory: Path, with_upstreams: bool) -> None:
        self._flags, self._environ, self._directory, self._with_upstreams = flags, environ, directory, with_upstreams
        self._problems: list[Problem] = []
        self._warnings: list[str] = []
        self._named: set[str] = {flags.upstream_key_env or ""}  # variables that a setting names, so that they are none themselves
        self._moved: list[tuple[SettingPath, Any, Origin, SettingPath]] = []  # new path, value, origin and path of an old name
        self._base = directory  # what relative paths in the file are relative to

    def run(self) -> Loaded:
        merged = self._from_file()
        merged = self._from_environment(merged).lay_over(merged)
        merged = self._from_flags(merged).lay_over(merged)
        if not self._with_upstreams:
            merged.drop(lambda p: p[0] in ("upstreams", "routes"))
        self._let_the_one_upstream_stand_alone(merged)
        self._raise()
        self._require(merged)
        for path in [p for p in merged.items if p[0] == "upstreams"]:
            self._problems += resolve_credential(merged.values, path, self._environ, self._base, self._directory)
        self._raise()
        settings = msgspec.convert(merged.nested(), Settings, dec_hook=lambda _, value: value)
        found, warned = contradictions(settings, merged.origin_of)
        self._problems += found
        self._warnings += warned
        if self._with_upstreams and not settings.configured_upstreams:
            self._problems.append(no_upstream())
        self._raise()
        return Loaded(settings, tuple(self._warnings), merged.values)

    def _raise(self) -> None:
        if self._problems:
            raise SettingsError(self._problems)

    # ---- sources ----

    def _from_file(self) -> Layer:
        named = self._flags.config or self._environ.get("EVENFLOW_CONFIG")
        file = Path(named) if named else self._directory / _DEFAULT_FILE
        if not named and not (self._with_upstreams and file.exists()):
            return Layer()
        name = named or _DEFAULT_FILE
        try:
            text = file.read_text("utf-8-sig")
            data = tomllib.loads(text)
        except OSError as exc:
            source = "" if not named else " (named by --config)" if self._flags.config else " (named by EVENFLOW_CONFIG)"
            raise SettingsError([Problem(name, f"cannot be read: {exc.strerror}{source}", "correct the path or its permissions")]) from None
        except UnicodeDecodeError:
            raise SettingsError([Problem(name, "is not UTF-8", "save it as UTF-8")]) from None
        except tomllib.TOMLDecodeError as exc:
            # Its text names a place and the rule that was broken, never a value.
            line = re.search(r"at line (\d+)", str(exc))
            raise SettingsError([Problem(f"{name}:{line[1]}" if line else name, f"no valid TOML: {exc}", "correct that line")]) from None
        self._base = file.parent
        lines, layer = key_lines(text), Layer()

        def origin(path: SettingPath) -> Origin:
            line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)
            return Origin(Rank.FILE, f"{name}:{line}" if line is not None else name)

        self._take(schema(), data, (), layer, origin)
        self._move(layer)
        return layer

    def _from_environment(self, lower: Layer) -> Layer:
        layer, unknown = Layer(), []
        for name, text in sorted(self._environ.items()):
            # An empty variable is what compose files and shells make of an unset one.
            if not name.startswith(PREFIX) or name in SHORTCUTS or not text:
                continue
            origin = Origin(Rank.ENVIRONMENT, name)
            current = name
            if (renamed := renamed_variable(name)) is not None:
                rename, current = renamed
                if self._environ.get(current):
                    self._problems.append(Problem(name, f"and its new name {current} are both set", "remove the old one"))
                    continue
                if not self._tell_of(rename, Problem(name, *rename.described(current))):
                    continue
            if (found := self._path_of(current, lower)) is None:
                unknown.append(name)
                continue
            path, node = found
            layer.items |= {path[:2]: origin} if path[0] == "upstreams" else {}
            if isinstance(node, Listed) or (isinstance(node, Leaf) and node.is_container):
                if text.lstrip()[:1] in ("[", "{"):
                    try:
                        value = json.loads(text)
                    except ValueError:
                        self._problems.append(Problem(name, "is not valid JSON", "correct it, or set this in the file"))
                        continue
                else:
                    value = [part.strip() for part in text.split(",") if part.strip()]
                self._take(node, value, path, layer, lambda _, origin=origin: origin)  # type: ignore[misc]
            elif isinstance(node, Leaf):
                self._convert(node, text, path, layer, origin, strict=False)
        self._named |= {str(value) for path, (value, _) in (*lower.values.items(), *layer.values.items()) if path[-1] == "key_env"}
        self._warn_of_unknown([name for name in unknown if name not in self._named])
        for name, setting in (("EVENFLOW_UPSTREAM", "base_url"), ("EVENFLOW_UPSTREAM_KEY", "key")):
            if text := self._environ.get(name, ""):
                self._take_one_upstream(layer, lower, setting, text, Origin(Rank.ENVIRONMENT, name))
        return layer

    def _from_flags(self, lower: Layer) -> Layer:
        layer, flags = Layer(), self._flags
        for setting in ("bind", "admin_bind", "workers", "allow_anonymous"):
            if (value := getattr(flags, setting)) is not None:
                layer.values[(setting,)] = (value, Origin(Rank.FLAG, f"--{setting.replace('_', '-')}"))
        for flag, setting, text in (("--upstream", "base_url", flags.upstream), ("--upstream-key-env", "key_env", flags.upstream_key_env)):
            if text is not None:
                self._take_one_upstream(layer, layer.lay_over(lower), setting, text, Origin(Rank.FLAG, flag))
        return layer

    def _take_one_upstream(self, layer: Layer, lower: Layer, setting: str, text: str, origin: Origin) -> None:
        """A shortcut speaks of the upstream `default`, or of the only one there is."""
        if not self._with_upstreams:
            return
        names = list(dict.fromkeys(str(p[1]) for p in (*lower.items, *layer.items) if p[0] == "upstreams"))
        name = _DEFAULT
        if setting != "base_url" and not self._one_upstream(layer) and not self._one_upstream(lower) and self._flags.upstream is None:
            if len(names) > 1:
                remedy = "set key_env under [upstreams.NAME] of the one that is meant"
                self._problems.append(Problem(str(origin), f"there are several upstreams ({', '.join(names)})", remedy))
                return
            if not names:
                self._problems.append(Problem(str(origin), "there is no upstream to give the key to", "name one with --upstream URL"))
                return
            name = names[0]
        path = ("upstreams", name)
        layer.items[path] = origin
        layer.values[*path, setting] = (Secret(text) if setting == "key" else text, origin)

    def _one_upstream(self, layer: Layer) -> Origin | None:
        """Which shortcut names the upstream, if one does."""
        _, origin = layer.values.get(("upstreams", _DEFAULT, "base_url"), (None, Origin()))
        return origin if origin.text in ("--upstream", "EVENFLOW_UPSTREAM") else None

    def _let_the_one_upstream_stand_alone(self, merged: Layer) -> None:
        if (origin := self._one_upstream(merged)) is None:
            return
        if merged.drop(lambda p: p[0] == "routes" or (p[0] == "upstreams" and p[1] != _DEFAULT)):
            self._warnings.append(f"{origin} takes the place of the other configured upstreams and routes")

    # ---- conversion ----

    def _take(self, node: Node, raw: Any, path: SettingPath, layer: Layer, origin: Callable[[SettingPath], Origin]) -> None:
        """Convert `raw`, as TOML or JSON gave it, into the values of `layer`."""
        match node:
            case Leaf():
                self._convert(node, raw, path, layer, origin(path), strict=True)
            case Table() if isinstance(raw, dict):
                for name, value in raw.items():
                    if (field_ := node.fields.get(name)) is None or (isinstance(field_, Leaf) and field_.internal):
                        self._take_unknown(node, value, (*path, name), origin)
                    else:
                        self._take(field_, value, (*path, name), layer, origin)
            case Named(item) if isinstance(raw, dict):
                for name, value in raw.items():
                    if not _NAME.fullmatch(name):
                        what = f"{name!r} is no name for an upstream"
                        self._problem(origin((*path, name)), path, what, "use at most 64 letters, digits, - and _ (no __)")
                        continue
                    layer.items[*path, name] = origin((*path, name))
                    self._take(item, value, (*path, name), layer, origin)
            case Listed(item) if isinstance(raw, list):
                for index, value in enumerate(raw):
                    layer.items[*path, index] = origin((*path, index))
                    self._take(item, value, (*path, index), layer, origin)
            case Listed():
                self._problem(origin(path), path, "is no list of tables", f"write [[{dotted(path)}]] above each")
            case _:
                self._problem(origin(path), path, "is no table", f"write [{dotted(path)}] and its settings below it")

    def _take_unknown(self, table: Table, raw: Any, path: SettingPath, origin: Callable[[SettingPath], Origin]) -> None:
        """A name that `table` does not have; it may have had it once."""
        if (found := renamed_setting(path)) is None:
            self._problem(origin(path), path, "unknown setting", nearest(table, path[:-1], str(path[-1])))
        elif self._tell_of(found[0], Problem.at(origin(path), path, *found[0].described(dotted(found[1])))):
            self._moved.append((found[1], raw, origin(path), path))

    def _tell_of(self, rename: Rename, told: Problem) -> bool:
        """Warn of an old name, or refuse it; whether it still works."""
        if rename.works:
            self._warnings.append(str(told))
        else:
            self._problems.append(told)
        return rename.works

    def _move(self, layer: Layer) -> None:
        """Give what stood under an old name to the new one, once it is known that nobody else has."""
        for path, raw, origin, old in self._moved:
            if any(known[: len(path)] == path for known in layer.values):
                self._problem(origin, old, f"and its new name {dotted(path)} are both set", "remove the old one")
            else:
                self._take(node_at(path), raw, path, layer, lambda _, origin=origin: origin)  # type: ignore[misc]
        self._moved.clear()

    def _convert(self, leaf: Leaf, raw: object, path: SettingPath, layer: Layer, origin: Origin, *, strict: bool) -> None:
        try:
            value = msgspec.convert(raw, leaf.annotation, strict=strict, dec_hook=self._secret)
        except msgspec.ValidationError as exc:
            # msgspec quotes a value only for a choice, and no choice is a secret.
            what, _, place = str(exc).replace("`", "").partition(" - at $")
            near = difflib.get_close_matches(str(raw), leaf.choices(), 1) if leaf.choices() else []
            remedy = f"write {leaf.wanted()}" + (f"; did you mean {near[0]}?" if near else "")
            if what.endswith(_NOT_SET):
                remedy = "set it, or remove this"
            self._problem(
                origin, path, (what[:1].lower() + what[1:]).replace("enum ", "") + (f" in {place}" if place.strip("[.]") else ""), remedy
            )
            return
        if isinstance(value, float) and not math.isfinite(value):
            self._problem(origin, path, "is not finite", f"write {leaf.wanted()}; 0 is off where that is possible")
            return
        layer.values[path] = (value, origin)

    def _secret(self, _: type, raw: object) -> Secret:
        """A credential in the settings: the text itself or `env:NAME`."""
        if not isinstance(raw, str):
            raise ValueError(f"expected str, got {type(raw).__name__}")
        if raw.startswith("env:"):
            name = raw.removeprefix("env:")
            self._named.add(name)
            if not (value := self._environ.get(name, "").strip()):
                raise ValueError(variable(name) + _NOT_SET)
            return Secret(value)
        return Secret(raw.strip())

    def _problem(self, origin: Origin, path: SettingPath, what: str, remedy: str) -> None:
        self._problems.append(Problem.at(origin, path, what, remedy))

    def _path_of(self, variable: str, lower: Layer) -> tuple[SettingPath, Node] | None:
        """The setting that an environment variable names, None if none."""
        node: Node = schema()
        path: SettingPath = ()
        for part in variable.removeprefix(PREFIX).lower().split("__"):
            match node:
                case Table(fields) if part in fields:
                    node, path = fields[part], (*path, part)
                case Named(item) if _NAME.fullmatch(part):
                    # Variables know neither case nor hyphens, so a name of the file that reads the same is meant.
                    known = (str(p[-1]) for p in lower.items if p[:-1] == path)
                    name = next((k for k in known if k.lower().replace("-", "_") == part), part)
                    node, path = item, (*path, name)
                case _:
                    return None
        if (isinstance(node, Leaf) and not node.internal) or isinstance(node, Listed):
            return path, node
        return None

    def _warn_of_unknown(self, names: list[str]) -> None:
        known = [environment_name(path) for path, _ in leaves(schema())] + list(SHORTCUTS)
        strangers = []
        for name in names:
            near = difflib.get_close_matches(name, known, 1, 0.85)
            if near:
                self._warnings.append(f"{name}: no such setting, ignored; did you mean {near[0]}?")
            else:
                strangers.append(name)
        if strangers:
            self._warnings.append(f"{', '.join(strangers)}: no such settings, ignored")

    # ---- after merging ----

    def _require(self, merged: Layer) -> None:
        for path, origin in merged.items.items():
            node = schema().fields[str(path[0])]
            assert isinstance(node, Named | Listed)
            for name, leaf in node.item.fields.items():
                if isinstance(leaf, Leaf) and leaf.required and (*path, name) not in merged.values:
                    self._problem(origin, (*path, name), "is missing", f"write {leaf.wanted()}")

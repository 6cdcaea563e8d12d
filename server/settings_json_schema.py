"""The settings as a JSON Schema, by which editors complete and check a configuration file while it is written.

Derived from the same types as everything else about the settings. It belongs to one minor release, which its `$id` names: within one,
settings are only added. Draft 7, which is what TOML editors (Taplo, Even Better TOML) read. Refuses to know what contradicts what: a
file that it accepts may still be refused by `evenflow check`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, get_args, get_origin

import msgspec
from msgspec import Meta

from actors import Secret

from .settings_schema import Leaf, Listed, Named, Node, Table, schema
from .version import MINOR

_DRAFT: Final = "http://json-schema.org/draft-07/schema#"
#: How an upstream may be called; that it has no `__` is left to the start, since not every editor's regular expressions could say it.
_NAME: Final = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


def json_schema() -> dict[str, Any]:
    """The schema of evenflow.toml, as JSON values."""
    definitions: dict[str, Any] = {}
    body = _described(schema(), definitions)
    return {
        "$schema": _DRAFT,
        "$id": f"urn:evenflow:settings:{MINOR}",
        "title": f"evenflow.toml of evenflow {MINOR}",
        **body,
        "definitions": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    """The same as a file."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _described(node: Node, definitions: dict[str, Any]) -> dict[str, Any]:
    match node:
        case Leaf():
            return _leaf(node, definitions)
        case Table(fields):
            named = {name: field for name, field in fields.items() if not (isinstance(field, Leaf) and field.internal)}
            table = {
                "type": "object",
                "properties": {name: _described(field, definitions) for name, field in named.items()},
                "additionalProperties": False,
            }
            # A table that only overrides another needs none of its names.
            required = [] if node.partial else [name for name, field in named.items() if isinstance(field, Leaf) and field.required]
            return {**table, "required": required} if required else table
        case Named(item):
            return {"type": "object", "patternProperties": {_NAME: _described(item, definitions)}, "additionalProperties": False}
        case Listed(item):
            return {"type": "array", "items": _described(item, definitions)}


def _leaf(leaf: Leaf, definitions: dict[str, Any]) -> dict[str, Any]:
    # TOML has no null, so that `| None` is said by leaving the setting out.
    metas = tuple(meta for meta in get_args(leaf.annotation)[1:] if isinstance(meta, Meta)) if _is_annotated(leaf.annotation) else ()
    annotation = Annotated[(leaf.base, *metas)] if metas else leaf.base
    (described,), found = msgspec.json.schema_components([annotation], schema_hook=_secret, ref_template="#/definitions/{name}")
    definitions |= {name: _without_null(definition) for name, definition in found.items()}
    # An example is written as TOML, for people; as JSON it would be a text where a list is wanted.
    described.pop("examples", None)
    described["description"] = leaf.why + (f" ({leaf.unit})" if leaf.unit else "")
    if not leaf.required and leaf.default is not None and not leaf.is_container:
        described["default"] = leaf.default
    return described


def _is_annotated(annotation: Any) -> bool:
    return get_origin(annotation) is Annotated


def _secret(kind: type) -> dict[str, Any]:
    assert kind is Secret
    return {"type": "string"}


def _without_null(definition: dict[str, Any]) -> dict[str, Any]:
    for described in definition.get("properties", {}).values():
        if described.get("default", ...) is None:
            del described["default"]
        kinds = [kind for kind in described.pop("anyOf", ()) if kind != {"type": "null"}]
        described |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {}
    return definition

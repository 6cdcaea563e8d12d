"""The schema that editors read: it takes what evenflow takes, and marks what a look at the types can find wrong."""

from __future__ import annotations

import importlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from server.settings_json_schema import json_schema, schema_text
from server.settings_schema import Leaf, SettingPath, leaves, schema
from server.version import VERSION

from .settings_files import MAIN

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.toml"))
LEAVES = list(leaves(schema()))


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema: Any = importlib.import_module("jsonschema")  # its types are a package of their own
    return jsonschema.Draft7Validator(json_schema())


def test_the_file_in_docs_is_up_to_date() -> None:
    """If this fails: python -m server.settings_schema docs/configuration.md."""
    assert (DOCS / "evenflow.schema.json").read_text("utf-8") == schema_text()


def test_it_is_a_schema_and_names_its_version(validator: Any) -> None:
    validator.check_schema(json_schema())
    assert json_schema()["$id"] == f"urn:evenflow:settings:{VERSION.rpartition('.')[0]}"


@pytest.mark.parametrize("example", EXAMPLES, ids=[e.stem for e in EXAMPLES])
def test_the_examples_pass_and_name_it(validator: Any, example: Path) -> None:
    text = example.read_text("utf-8")
    validator.validate(tomllib.loads(text))
    first = text.splitlines()[0]
    assert first.startswith("#:schema ")
    assert (example.parent / first.removeprefix("#:schema ")).resolve() == DOCS / "evenflow.schema.json"


@pytest.mark.parametrize(
    "text",
    [
        "drian = 1",
        "drain = '30s'",
        "drain = -1",
        "timers.frist_token = 3",
        "streaming.engine = 'actor'",
        "streaming.rollout_percent = 101",
        "client_keys = [3]",
        "upstreams.a.key = 'sk'\nupstreams.a.base_url = 'http://a/v1'",  # a key has no name in the file
        "[upstreams.a]",
        "[upstreams.'a b']\nbase_url = 'http://a/v1'",
        "upstreams.a.base_url = 'http://a/v1'\nupstreams.a.timers.idle = -1",
        "[[routes]]\nupstreams = ['main']",
        "[[routes]]\nmodel = 'm'\nupstreams = [{model = 'x'}]",
        "[routes]\nmodel = 'm'",
    ],
)
def test_what_is_wrong_is_marked(validator: Any, text: str) -> None:
    assert not validator.is_valid(tomllib.loads(text))


@pytest.mark.parametrize("text", ["", MAIN, "[[routes]]\nmodel = 'm'\nupstreams = ['a', {upstream = 'b', model = 'x'}]\ntimers.idle = 3"])
def test_what_is_right_is_not(validator: Any, text: str) -> None:
    validator.validate(tomllib.loads(text))


@pytest.mark.parametrize(("path", "leaf"), LEAVES, ids=[".".join(map(str, path)) for path, _ in LEAVES])
def test_every_setting_is_there_with_its_reason_and_takes_its_own_default(validator: Any, path: SettingPath, leaf: Leaf) -> None:
    node = json_schema()
    for part in path:
        match part:
            case "NAME":
                (node,) = node["patternProperties"].values()
            case "N":
                node = node["items"]
            case _:
                node = node["properties"][part]
    assert node["description"].startswith(leaf.why)
    if "default" in node:
        assert validator.evolve(schema=node).is_valid(json.loads(json.dumps(node["default"])))

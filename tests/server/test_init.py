"""What `evenflow init` writes is a configuration that works, and that does so with any of its commented lines taken in."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path
from typing import Any

import click.testing
import pytest

from server.cli import evenflow
from server.cli_configuration import init
from server.init_file import KINDS, configuration
from server.settings_json_schema import json_schema, schema_text
from server.settings_sources import Flags, load

#: Everything that a written file may ask of the environment.
VARIABLES = dict.fromkeys(
    [kind.key_env for kind in KINDS.values() if kind.key_env] + ["VLLM_API_KEY", "EVENFLOW_CLIENT_KEY", "OWN"], "k" * 20
)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def invoke(*arguments: str, **environ: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(evenflow, arguments, env=environ)


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_passes_check_without_a_warning(kind: str) -> None:
    result = invoke("init", kind)
    assert (result.exit_code, result.stderr) == (0, "")
    checked = invoke("check", **{name: VARIABLES[name] for name in [KINDS[kind].key_env] if name})
    assert (checked.exit_code, checked.stderr) == (0, "")
    assert KINDS[kind].base_url in checked.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_every_commented_setting_can_be_taken_in_and_stands_at_its_default(kind: str, tmp_path: Path) -> None:
    text = configuration(kind)
    lines = re.findall(r"(?m)^# ((?:[a-z_]+\.)?[a-z_]+ = .+)$", text)
    assert len(lines) > 15
    before = load(Flags(config=_file(tmp_path, text)), VARIABLES).settings
    taken = re.sub(r"(?m)^# ((?:[a-z_]+\.)?[a-z_]+ = .+|\[\[routes\]\])$", r"\1", text)
    after = load(Flags(config=_file(tmp_path, taken)), VARIABLES)
    assert after.warnings == ()
    same = set(before.__struct_fields__) - {"client_keys", "configured_routes", "configured_upstreams"}
    assert {name: getattr(after.settings, name) for name in same} == {name: getattr(before, name) for name in same}
    for line in lines:  # also each by itself, where it stands
        alone = text.replace(f"# {line}", line)
        if "upstreams = " not in line and "model = " not in line:
            load(Flags(config=_file(tmp_path, alone)), VARIABLES)


def _file(folder: Path, text: str) -> str:
    file = folder / "tried.toml"
    file.write_text(text, "utf-8")
    return str(file)


@pytest.mark.parametrize("kind", KINDS)
def test_it_fits_the_schema_that_lies_beside_it(kind: str) -> None:
    jsonschema: Any = importlib.import_module("jsonschema")
    jsonschema.Draft7Validator(json_schema()).validate(tomllib.loads(configuration(kind)))
    invoke("init", kind)
    assert Path("evenflow.toml").read_text("utf-8").splitlines()[0] == "#:schema ./evenflow.schema.json"
    assert Path("evenflow.schema.json").read_text("utf-8") == schema_text()


def test_without_a_terminal_it_asks_nothing_and_says_for_what_it_wrote() -> None:
    result = invoke("init")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].startswith("wrote evenflow.toml for Ollama")


def test_on_a_terminal_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.cli_configuration.is_a_person_there", lambda: True)
    result = click.testing.CliRunner().invoke(init, input="vllm\nhttps://gpu-1/v1\n")
    assert result.exit_code == 0
    assert load(Flags(), {}).settings.upstreams()[0].base_url == "https://gpu-1/v1"


def test_the_next_steps_name_what_is_missing() -> None:
    result = invoke("init", "openai", "--output", "my own.toml")
    assert [line.strip() for line in result.stdout.splitlines()[1:]] == [
        "export OPENAI_API_KEY=...   # its key",
        "evenflow check --config 'my own.toml'",
        "evenflow serve --config 'my own.toml'",
    ]
    assert "export" not in invoke("init", "openai", OPENAI_API_KEY="k").stdout


def test_what_is_given_goes_before_what_is_usual() -> None:
    invoke("init", "vllm", "--base-url", 'https://gpu-1/"v1"', "--key-env", "OWN")
    upstream = tomllib.loads(Path("evenflow.toml").read_text("utf-8"))["upstreams"]["vllm"]
    assert (upstream["base_url"], upstream["key_env"]) == ('https://gpu-1/"v1"', "OWN")


def test_nothing_is_overwritten_unless_it_shall_be() -> None:
    Path("evenflow.toml").write_text("mine", "utf-8")
    result = invoke("init", "ollama")
    assert result.exit_code == 2
    assert result.stderr == "evenflow: evenflow.toml exists already; choose another name with --output FILE, or overwrite it with --force\n"
    assert Path("evenflow.toml").read_text("utf-8") == "mine"
    assert not Path("evenflow.schema.json").exists()
    assert invoke("init", "ollama", "--force").exit_code == 0
    assert "ollama" in Path("evenflow.toml").read_text("utf-8")
    Path("evenflow.schema.json").write_text("{}", "utf-8")
    assert invoke("init", "vllm", "--output", "other.toml").exit_code == 2
    assert not Path("other.toml").exists()


def test_an_older_schema_of_ours_is_renewed() -> None:
    Path("evenflow.schema.json").write_text('{"$id": "urn:evenflow:settings:0.0"}', "utf-8")
    assert invoke("init").exit_code == 0
    assert Path("evenflow.schema.json").read_text("utf-8") == schema_text()


def test_a_place_that_cannot_be_written_is_one_line() -> None:
    result = invoke("init", "ollama", "--output", "gone/evenflow.toml")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("evenflow: gone/evenflow.toml cannot be written: No such file or directory; ")


def test_an_unknown_kind_names_the_known_ones() -> None:
    result = invoke("init", "azure")
    assert result.exit_code == 2
    assert all(kind in result.stderr for kind in KINDS)

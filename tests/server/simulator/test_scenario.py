"""Scenario files: what they say, and what is said about those that cannot be followed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.simulator import Recording, Scenario, ScenarioError, ScenarioStep, load_scenario, parse_scenario, read_recordings
from server.simulator import scenario as module

if TYPE_CHECKING:
    from pathlib import Path


def test_the_example_of_the_documentation_is_one() -> None:
    assert module.__doc__ is not None
    example = "\n".join(line[4:] for line in module.__doc__.splitlines() if line.startswith("    "))
    assert parse_scenario(example) == Scenario(
        steps=(ScenarioStep("http-503", "gpt-4o", 1), ScenarioStep("ok", "gpt-4o", pace=0.005, text="Only here.")),
        pace=0.02,
        text="Hello there.",
    )


def test_an_empty_file_changes_nothing() -> None:
    assert parse_scenario("") == Scenario()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[step", "no valid TOML"),
        ("speed = 1", "the file: unknown key 'speed'; known: pace_ms, text, step"),
        ("step = [1]", r"step 1: write \[\[step\]\]"),
        ("[step]\nanswer = 'ok'", "step must be list"),
        ("[[step]]\nmodel = 'x'", "step 1: answer is missing"),
        ("[[step]]\nanswer = 'ok'\n[[step]]\nanswer = 'oops'", "step 2: .*no fault model 'oops'"),
        ("[[step]]\nanswer = 'cut:after=x'", "step 1: after: a number"),
        ("[[step]]\nanswer = 'ok'\ntimes = -1", "step 1: times must not be negative"),
        ("[[step]]\nanswer = 'ok'\ntimes = true", "step 1: times must be int"),
        ("[[step]]\nanswer = 'ok'\npace_ms = nan", "step 1: pace_ms must be from 0"),
        ("pace_ms = -1", "the file: pace_ms must be from 0"),
        ("text = 1", "the file: text must be str"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        parse_scenario(text)


def test_a_file_is_named_in_its_error(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    with pytest.raises(ScenarioError, match=r"a\.toml: .*No such file"):
        load_scenario(path)
    path.write_text("x = 1")
    with pytest.raises(ScenarioError, match=r"a\.toml: the file: unknown key"):
        load_scenario(path)
    path.write_text("pace_ms = 4")
    assert load_scenario(path).pace == 0.004


def test_recordings_are_named_as_their_files(tmp_path: Path) -> None:
    (tmp_path / "one.sse").write_bytes(b"data: 1\n\n")
    (tmp_path / "note.md").write_text("not one")
    assert read_recordings(tmp_path) == {"one": Recording((b"data: 1\n\n",))}

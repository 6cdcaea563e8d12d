"""Scenario files: which fault model answers which request, by their order instead of by name.

    pace_ms = 20            # milliseconds between events; optional
    text = "Hello there."   # what every answer says; optional

    [[step]]                # the first request for gpt-4o gets a 503 ...
    model = "gpt-4o"        # a name or a glob; "*" if left out
    answer = "http-503"     # a fault model with its arguments
    times = 1               # how many requests it answers; 0, the default, is all that follow

    [[step]]                # ... and every other one this stream
    model = "gpt-4o"
    answer = "ok"
    pace_ms = 5             # only here
    text = "Only here."

The first step that matches a request's model and is not used up answers it. Where none does, the model's own name counts.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from .ask import BadRequest, parse_model
from .faults import MODELS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FILE_KEYS: Final[Mapping[str, tuple[type, ...]]] = {"pace_ms": (int, float), "text": (str,), "step": (list,)}
_STEP_KEYS: Final[Mapping[str, tuple[type, ...]]] = {
    "model": (str,),
    "answer": (str,),
    "times": (int,),
    "pace_ms": (int, float),
    "text": (str,),
}


class ScenarioError(ValueError):
    """A scenario file that cannot be followed; one line that says why."""


@dataclass(frozen=True, slots=True)
class ScenarioStep:
    """Requests for models like `model` are answered by `answer`, `times` of them (0: all that follow)."""

    answer: str
    model: str = "*"
    times: int = 0
    pace: float | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A parsed scenario; immutable: what is used up is the simulator's business. `pace` in seconds."""

    steps: tuple[ScenarioStep, ...] = ()
    pace: float | None = None
    text: str | None = None


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file.

    Raises:
      ScenarioError: the file cannot be read or followed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ScenarioError(f"{path}: {exc}") from exc
    try:
        return parse_scenario(text)
    except ScenarioError as exc:
        raise ScenarioError(f"{path}: {exc}") from exc


def parse_scenario(text: str) -> Scenario:
    """A scenario from its TOML text.

    Raises:
      ScenarioError: no TOML, an unknown key, a value of the wrong kind, or an answer no fault model gives.
    """
    try:
        file = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ScenarioError(f"no valid TOML: {exc}") from exc
    _check(file, _FILE_KEYS, "the file")
    steps = tuple(_step(step, number) for number, step in enumerate(file.get("step", []), 1))
    return Scenario(steps, _seconds(file, "the file"), file.get("text"))


def _step(step: Any, number: int) -> ScenarioStep:
    where = f"step {number}"
    if not isinstance(step, dict):
        raise ScenarioError(f"{where}: write [[step]]")
    _check(step, _STEP_KEYS, where)
    if "answer" not in step:
        raise ScenarioError(f"{where}: answer is missing")
    try:
        parse_model(step["answer"], MODELS)
    except BadRequest as exc:
        raise ScenarioError(f"{where}: {exc}") from exc
    if (times := step.get("times", 0)) < 0:
        raise ScenarioError(f"{where}: times must not be negative")
    return ScenarioStep(step["answer"], step.get("model", "*"), times, _seconds(step, where), step.get("text"))


def _check(table: dict[str, Any], known: Mapping[str, tuple[type, ...]], where: str) -> None:
    for key, value in table.items():
        if key not in known:
            raise ScenarioError(f"{where}: unknown key '{key}'; known: {', '.join(known)}")
        if not isinstance(value, known[key]) or isinstance(value, bool):
            raise ScenarioError(f"{where}: {key} must be {' or '.join(kind.__name__ for kind in known[key])}")


def _seconds(table: dict[str, Any], where: str) -> float | None:
    if "pace_ms" not in table:
        return None
    if not 0 <= table["pace_ms"] <= 3_600_000:  # an hour between events: beyond is a slip; also rejects nan
        raise ScenarioError(f"{where}: pace_ms must be from 0 to 3600000")
    return float(table["pace_ms"]) / 1000


def applies(step: ScenarioStep, model: str, used: int) -> bool:
    """Whether `step`, which has answered `used` requests, answers the next one for `model`."""
    return (step.times == 0 or used < step.times) and fnmatchcase(model, step.model)

"""The table of `make bench`: figures by scenario and target, the goals beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .goals import judge
from .scenarios import SCENARIOS
from .targets import OURS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .goals import Medians

_NAME: Final = 38
_COLUMN: Final = 10


def table(medians: Medians, targets: Sequence[str], machine: Mapping[str, Any]) -> str:
    """For people."""
    ours = tuple(target for target in targets if target.partition("@")[0] in OURS)
    goals = {(one.goal.scenario, one.goal.figure): one for one in judge(medians, ours)}
    lines = [f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {machine['date']}"]
    for name, by_target in medians.items():
        scenario = SCENARIOS[name]
        shown = [target for target in targets if target in by_target]
        lines += [
            "",
            f"{f'{name}: {scenario.title}':<{_NAME + 2}}" + "".join(f"{_short(target):>{_COLUMN}}" for target in shown) + "   goal",
        ]
        for figure, title in scenario.figures.items():
            row = "".join(f"{number(by_target[target].get(figure), target):>{_COLUMN}}" for target in shown)
            goal = goals.get((name, figure))
            told = ""
            if goal is not None and goal.verdicts:
                verdicts = ", ".join(f"{_short(target)} {verdict}" for target, verdict in goal.verdicts.items())
                told = f"   {goal.goal.text(goal.limit)}: {verdicts}"
            lines.append(f"  {title:<{_NAME}}{row}{told}")
    return "\n".join(lines)


def markdown(medians: Medians, targets: Sequence[str], machine: Mapping[str, Any], measured: str) -> str:
    """The same for a page of the documentation: a row for each figure; what evenflow reached in bold where it is a goal.

    Args:
      measured: how: repeats, windows.
    """
    ours = tuple(target for target in targets if target.partition("@")[0] in OURS)
    goals = {(one.goal.scenario, one.goal.figure): one for one in judge(medians, ours)}
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {machine['date']}; {measured}. `{machine['command']}`",
        "",
        "| | " + " | ".join(targets) + " | goal |",
        "|---|" + "--:|" * len(targets) + "---|",
    ]
    for name, by_target in medians.items():
        for figure, title in SCENARIOS[name].figures.items():
            goal = goals.get((name, figure))
            cells = []
            for target in targets:
                cell = number(by_target[target].get(figure), target) if target in by_target else ""
                cells.append(f"**{cell}**" if goal is not None and goal.verdicts.get(target) == "reached" else cell)
            told = goal.goal.text(goal.limit) if goal is not None else ""
            lines.append(f"| {SCENARIOS[name].title}: {title} | {' | '.join(cells)} | {told} |")
    return "\n".join([*lines, ""])


def _short(target: str) -> str:
    """ "actors@/home/me/before" is "a@before" in a narrow column."""
    engine, _, tree = target.partition("@")
    return f"{engine[0]}@{tree.rstrip('/').rpartition('/')[2]}"[: _COLUMN - 1] if tree else engine


def number(value: float | None, target: str = "") -> str:
    """Three digits that count; what was not measured or never happened is a dash or "never"."""
    if value is None:
        return "never"
    if value == 0 and target == "direct":
        return "-"
    if abs(value) >= 10_000:
        return f"{value / 1000:.0f}k"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"

"""What evenflow has to reach, and whether it did.

The goals were set on one machine beside the figures of peers there. Machines differ and drift, ratios within one run hold: so a goal is
scaled by how much slower or faster the peers of the run at hand are than they were there, by the geometric mean of all that are in the
run. A goal that was set as a multiple of one of them counts as that multiple. Goals without peers (a share, memory, a delay) stand as they
are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Medians by scenario, target and figure.
Medians = dict[str, dict[str, dict[str, float | None]]]


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal.

    Args:
      limit: as it was set; at most this, or at least.
      then: figures of peers on the machine on which it was set.
      added: what counts is the figure less that of the way without a proxy.
    """

    scenario: str
    figure: str
    limit: float
    then: Mapping[str, float] = field(default_factory=dict)
    least: bool = False
    added: bool = False

    def text(self, here: float | None) -> str:
        """For the table; `here` is the limit on this machine."""
        sign = ">=" if self.least else "<="
        less = " added" if self.added else ""
        if not self.then or here is None:
            return f"{sign} {self.limit:g}{less}"
        if len(self.then) == 1:
            ((peer, figure),) = self.then.items()
            return f"{sign} {here:.3g}{less} ({self.limit / figure:.2g} x {peer})"
        return f"{sign} {here:.3g}{less} ({self.limit:g} there)"


GOALS: Final = (
    Goal("paced-20", "cpu_us_per_chunk", 1.2 * 145, {"floor": 145}),
    Goal("paced-100", "cpu_us_per_chunk", 110, {"nginx": 26, "floor": 84, "naive": 172}),
    Goal("paced-100", "delay_p50_ms", 0.3, added=True),
    Goal("paced-100", "delay_p99_ms", 4.0, added=True),
    Goal("paced-1000", "cpu_us_per_chunk", 80, {"nginx": 29, "floor": 88, "naive": 350}),
    Goal("paced-1000", "delivered", 0.99, least=True),
    Goal("paced-1000", "delay_p99_ms", 20.0),
    Goal("paced-1000", "kb_per_stream", 50),
    Goal("flood", "cpu_us_per_chunk", 8, {"nginx": 4, "floor": 7, "naive": 133}),
    Goal("flood", "chunks_per_second", 60_000, {"nginx": 75_000, "floor": 101_000, "naive": 8_500}, least=True),
    Goal("short", "cpu_ms_per_stream", 1.2, {"nginx": 0.22, "floor": 0.54, "naive": 4.4}),
    Goal("short-1000", "cpu_ms_per_stream", 1.2, {"nginx": 0.22, "floor": 0.54}),
    Goal("json", "cpu_us_per_request", 600, {"nginx": 33, "floor": 198, "naive": 2827}),
    Goal("first", "first_p50_ms", 0.8, {"nginx": 0.1, "floor": 0.4, "naive": 4.5}, added=True),
    Goal("leave-flowing", "seen_p50_ms", 1.0),
    Goal("leave-silent", "seen_p50_ms", 1.0),
    Goal("leave-flowing", "seen", 1.0, least=True),
    Goal("leave-silent", "seen", 1.0, least=True),
    # No growth: what the allocator does beside it is less than a megabyte.
    Goal("slow", "growth_mb", 1.0),
)

Verdict = Literal["reached", "MISSED", "unknown"]


@dataclass(frozen=True, slots=True)
class Judged:
    """A goal, what it means on this machine, and who reached it."""

    goal: Goal
    limit: float | None
    verdicts: Mapping[str, Verdict]


def judge(medians: Medians, ours: tuple[str, ...]) -> list[Judged]:
    """Hold the medians of our engines against every goal whose scenario was run."""
    return [_judge(goal, medians[goal.scenario], ours) for goal in GOALS if goal.scenario in medians]


def _judge(goal: Goal, by_target: Mapping[str, Mapping[str, float | None]], ours: tuple[str, ...]) -> Judged:
    def figure(target: str) -> float | None:
        value = by_target.get(target, {}).get(goal.figure)
        if value is None or not goal.added:
            return value
        direct = by_target.get("direct", {}).get(goal.figure)
        return None if direct is None else value - direct

    limit: float | None = goal.limit
    if goal.then:
        ratios = [here / then for peer, then in goal.then.items() if (here := figure(peer)) is not None and here > 0]
        limit = goal.limit * math.prod(ratios) ** (1 / len(ratios)) if ratios else None
    verdicts: dict[str, Verdict] = {}
    for target in ours:
        if target in by_target:
            value = figure(target)
            if limit is None or not by_target[target]:
                verdicts[target] = "unknown"
            elif value is None:
                verdicts[target] = "MISSED"  # it gave no figure: nothing arrived, or nothing was seen
            else:
                verdicts[target] = "reached" if (value >= limit if goal.least else value <= limit) else "MISSED"
    return Judged(goal, limit, verdicts)

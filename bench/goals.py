"""What evenflow has to reach, and whether it did.

Each goal was set on one machine beside the figures of the peers. Machines differ and drift, ratios within one run hold: a goal that has a
reference counts as the same multiple of that reference's figure in the run at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
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
      reference: the target whose figure it is a multiple of; "": the limit stands as it is.
      then: the reference's figure on the machine on which the limit was set.
      added: what counts is the figure less that of the way without a proxy.
    """

    scenario: str
    figure: str
    limit: float
    reference: str = ""
    then: float = 1.0
    least: bool = False
    added: bool = False

    @property
    def ratio(self) -> float:
        """How many times the reference."""
        return self.limit / self.then

    def text(self, here: float | None) -> str:
        """For the table; `here` is the limit on this machine."""
        sign = ">=" if self.least else "<="
        less = " added" if self.added else ""
        if not self.reference:
            return f"{sign} {self.limit:g}{less}"
        return f"{sign} {self.ratio:.2f} x {self.reference}{less}" + (f" = {here:.3g}" if here is not None else "")


GOALS: Final = (
    Goal("paced-20", "cpu_us_per_chunk", 1.2 * 145, "floor", 145),
    Goal("paced-100", "cpu_us_per_chunk", 110, "floor", 84),
    Goal("paced-100", "delay_p50_ms", 0.3, added=True),
    Goal("paced-100", "delay_p99_ms", 4.0, "nginx", 2.8),
    Goal("paced-1000", "cpu_us_per_chunk", 80, "floor", 88),
    Goal("paced-1000", "delivered", 0.99, least=True),
    Goal("paced-1000", "delay_p99_ms", 20.0),
    Goal("paced-1000", "kb_per_stream", 50),
    # Not a multiple of the floor, which handles no events: what counts here is work on each event, not wake-ups.
    Goal("flood", "cpu_us_per_chunk", 8),
    Goal("flood", "chunks_per_second", 60_000, "floor", 101_000, least=True),
    Goal("short", "cpu_ms_per_stream", 1.2, "floor", 0.54),
    Goal("short-1000", "cpu_ms_per_stream", 1.2, "floor", 0.54),
    Goal("json", "cpu_us_per_request", 600, "floor", 198),
    Goal("first", "first_p50_ms", 0.8, "floor", 0.4, added=True),
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

    reference = figure(goal.reference) if goal.reference else 1.0
    limit = None if reference is None else goal.limit if not goal.reference else goal.ratio * reference
    verdicts: dict[str, Verdict] = {}
    for target in ours:
        if target in by_target:
            value = figure(target)
            if limit is None or target not in by_target or not by_target[target]:
                verdicts[target] = "unknown"
            elif value is None:
                verdicts[target] = "MISSED"  # it gave no figure: nothing arrived, or nothing was seen
            else:
                verdicts[target] = "reached" if (value >= limit if goal.least else value <= limit) else "MISSED"
    return Judged(goal, limit, verdicts)

"""Which engine serves a stream, what became of the streams of each, and the way back when the new one fails.

Owns the share of streams that the actors get, sticky per client; the comparison of the engines; and the fallback: when the actors' own
faults pass a bound, all new streams go to the relay until somebody says otherwise. Faults of upstreams never count. One object per
process, the same under every configuration. Waits for nothing; time is handed in.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from actors import End, FaultKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors import Outcome, ShadowVerdict

    from .settings import StreamingSettings

Engine: TypeAlias = Literal["actors", "relay"]

_logger: Final = logging.getLogger("evenflow.rollout")
#: Streams of each engine whose times are kept: enough for a p99.
_KEPT: Final = 1_000
#: What a shadow's verdict can be beside what the relay did.
COMPARISONS: Final = ("alike", "repaired", "unfinished", "cancelled", "incomplete", "crashed")
#: Parts of a percent: so finely can streams be shared out.
_PARTS: Final = 100


@dataclass(frozen=True, slots=True)
class RolloutStatistics:
    """What metrics tell of the roll-out.

    Args:
      percent: share of streams that the actors serve now.
      fallen_back: it is 0 because the actors failed.
      own_faults: streams in which evenflow itself failed, by engine.
      shadowed: relayed streams that were looked at, by what would have been different.
    """

    percent: float
    fallen_back: bool
    own_faults: dict[str, int]
    shadowed: dict[str, int]


@dataclass(slots=True)
class _Record:
    """What became of one engine's streams."""

    streams: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    own_faults: int = 0
    first_token: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    holds: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def as_json(self) -> dict[str, object]:
        return {
            "streams": self.streams,
            "ends": dict(self.ends),
            "faults": dict(self.faults),
            "repairs": dict(self.repairs),
            "own_faults": self.own_faults,
            "first_token_ms": _quantiles(self.first_token),
            "longest_hold_ms": _quantiles(self.holds),
        }


class Rollout:
    """Decides per stream, and remembers.

    Args:
      settings: `streaming` of the configuration.
    """

    def __init__(self, settings: StreamingSettings) -> None:
        self._settings = settings
        self._percent = settings.rollout_percent
        self._failures: deque[float] = deque()
        self._fallback = ""
        self._records: dict[str, _Record] = {"actors": _Record(), "relay": _Record()}
        self._shadowed: Counter[str] = Counter()
        self._would = _Record()

    def reconfigure(self, settings: StreamingSettings) -> None:
        """Go on under other settings. What an operator reads anew ends a fallback, and a percentage that was set at run time."""
        self._settings = settings
        self.set_percent(settings.rollout_percent)

    def set_percent(self, percent: float) -> None:
        """Give the actors another share of the streams to come, and end a fallback."""
        if self._fallback:
            _logger.warning("the actors engine serves streams again: %g %% of them", percent)
        self._percent = percent
        self._fallback = ""
        self._failures.clear()

    @property
    def percent(self) -> float:
        """The share of streams that the actors serve now."""
        return 0.0 if self._settings.engine == "relay" or self._fallback else self._percent

    @property
    def fallback(self) -> str:
        """Why the relay serves everything, "" if it does not or was told to."""
        return self._fallback

    @property
    def shadowing(self) -> bool:
        """Whether streams that the relay serves are looked at by the actors' machine."""
        return self._settings.shadow

    def engine(self, sticky: str) -> Engine:
        """The engine of one stream: the same for the same `sticky` as long as the percentage stays, and no less of it when that grows."""
        return "actors" if zlib.crc32(sticky.encode()) % (100 * _PARTS) < self.percent * _PARTS else "relay"

    def ended(self, outcome: Outcome, engine: Engine, now: float) -> None:
        """A stream is over."""
        record = self._records[engine]
        record.streams += 1
        record.ends[outcome.end.value] += 1
        if outcome.fault is not None:
            record.faults[outcome.fault.kind.value] += 1
        tally = outcome.tally
        if tally.repairs:
            record.repairs.update(tally.repairs)
        if tally.first_token is not None:
            record.first_token.append(tally.first_token - tally.started)
        if tally.holds:
            record.holds.append(tally.longest_hold)
        if reason := own_fault(outcome):
            record.own_faults += 1
            if engine == "actors":
                self._failed(reason, now)

    def compared(self, outcome: Outcome, verdict: ShadowVerdict) -> None:
        """A relayed stream is over, and its shadow."""
        self._shadowed[_comparison(outcome, verdict)] += 1
        would = self._would
        would.streams += 1
        would.ends[verdict.end.value] += 1
        if verdict.fault is not None:
            would.faults[verdict.fault.value] += 1
        would.repairs.update(verdict.repairs)
        would.own_faults += bool(verdict.crashed)
        if verdict.holds:
            would.holds.append(verdict.longest_hold)

    def report(self) -> dict[str, object]:
        """The engines side by side, ready for JSON."""
        return {
            "engine": self._settings.engine,
            "percent": self.percent,
            "fallback": self._fallback,
            "engines": {name: record.as_json() for name, record in self._records.items()},
            "shadow": {"on": self.shadowing, "comparison": dict(self._shadowed), "would_have": self._would.as_json()},
        }

    def statistics(self) -> RolloutStatistics:
        """For the metrics; every label that can be has its value."""
        faults = {name: record.own_faults for name, record in self._records.items()}
        return RolloutStatistics(self.percent, bool(self._fallback), faults, {name: self._shadowed[name] for name in COMPARISONS})

    def _failed(self, reason: str, now: float) -> None:
        settings, failures = self._settings, self._failures
        if not settings.fallback_faults or self._fallback:
            return
        failures.append(now)
        while failures[0] < now - settings.fallback_window:
            failures.popleft()
        if len(failures) >= settings.fallback_faults:
            self._fallback = f"{len(failures)} faults of its own within {settings.fallback_window:g} s, the last: {reason}"
            _logger.critical(
                "the actors engine failed too often (%s): the relay serves all new streams until `evenflow rollout PERCENT`", self._fallback
            )


def own_fault(outcome: Outcome) -> str:
    """What evenflow itself did wrong in a stream, "" if nothing. Whatever an upstream or a client did is no fault of ours."""
    if outcome.fault is not None and outcome.fault.kind is FaultKind.INTERNAL:
        return "a stage crashed"
    if (outcome.end is End.ERROR) != (outcome.fault is not None):
        return "an end and a fault that contradict each other"
    if outcome.end is End.DONE and outcome.status != 200:
        return f"a stream that is done under the status {outcome.status}"
    if outcome.tally.ended is None:
        return "an end without a time"
    return ""


def _comparison(outcome: Outcome, verdict: ShadowVerdict) -> str:
    """What would have been different, in one word for the report and the metrics."""
    if verdict.crashed:
        return "crashed"
    if verdict.dropped:
        return "incomplete"
    if outcome.end is End.CANCELLED:
        return "cancelled"
    if outcome.end is End.DONE and verdict.end is not End.DONE:
        return "unfinished"  # it looked complete, and was not
    if verdict.repairs:
        return "repaired"
    return "alike"


def _quantiles(values: Iterable[float]) -> dict[str, float]:
    """p50 and p99 of seconds, in milliseconds; nothing of nothing."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {f"p{part}": round(1000 * ordered[math.ceil(part / 100 * len(ordered)) - 1], 2) for part in (50, 99)}

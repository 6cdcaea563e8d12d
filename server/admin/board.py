"""What the dashboard knows: the last minutes second by second, what happened, and the streams that ended.

Looks once a second at the counters that streams keep anyway, so that a stream pays nothing for being looked at. Everything in here has
an end: so many seconds, so many entries. Refuses to know who looks and how it is drawn.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from actors import End

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from actors import Outcome, Tally

    from ..services import Processor

#: Seconds that the plots reach back.
KEPT: Final = 600
#: Entries of what happened, ended streams, and changes of circuits.
_HAPPENED: Final = 200
_ENDED: Final = 40
_TRANSITIONS: Final = 200
#: Live streams that are listed; the others are counted.
_LISTED: Final = 50
#: What of a stream's story is shown as it happens; the rest is in its timeline.
_NEWS: Final = frozenset({"fault", "retry", "repair", "resume", "loop"})


@dataclass(slots=True)
class _Live:
    """One running stream as it was a second ago."""

    facts: Mapping[str, str]
    tally: Tally
    processor: Processor
    events: int = 0
    bytes: int = 0
    told: int = 0
    seen_first: bool = False
    rate: float = 0.0


@dataclass(slots=True)
class _Second:
    """What gathers until the next look."""

    events: int = 0
    bytes: int = 0
    first_tokens: list[float] = field(default_factory=list)
    holds: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Board:
    """The memory of one process.

    Args:
      wall: seconds of the wall's clock.
    """

    wall: Callable[[], float]
    series: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))
    happened: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_HAPPENED))
    ended: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_ENDED))
    transitions: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_TRANSITIONS))
    totals: Counter[str] = field(default_factory=Counter)
    _live: dict[Processor, _Live] = field(default_factory=dict)
    _second: _Second = field(default_factory=_Second)
    _looked: float | None = None
    _serial: int = 0

    # ---- what it is told

    def stream_begins(self, processor: Processor, tally: Tally, facts: Mapping[str, str]) -> None:
        """A stream begins.

        Args:
          facts: its id, model, client and engine.
        """
        self._live[processor] = _Live(facts, tally, processor)

    def stream_ended(self, processor: Processor, outcome: Outcome, now: float) -> None:
        """A stream that began has ended."""
        if (live := self._live.pop(processor, None)) is None:
            return
        self._note(live, now)
        tally = outcome.tally
        self.totals[outcome.end.value] += 1
        self.totals["repairs"] += tally.repairs.total()
        self.totals["retries"] += tally.retries
        if tally.holds:
            self._second.holds.append(tally.longest_hold)
        started, ended = tally.started, tally.ended if tally.ended is not None else now
        self._keep(
            self.ended,
            {
                "id": live.facts["id"],
                "model": live.facts["model"],
                "upstream": outcome.upstream,
                "outcome": outcome.end.value,
                "fault": outcome.fault.kind.value if outcome.fault is not None else "",
                "total": ended - started,
                "first_token": tally.first_token - started if tally.first_token is not None else None,
                "events": tally.events,
                "attempts": tally.attempts,
                "repairs": _counted(tally.repairs),
                "story": [(round(at - started, 4), kind, words) for at, kind, words in tally.story],
            },
        )
        if outcome.end is End.ERROR and not any(kind == "fault" for _, kind, _ in tally.story):
            assert outcome.fault is not None  # an error has one
            self._keep(self.happened, {"kind": "fault", "text": f"{outcome.fault.kind.value} ({live.facts['model']})"})

    def circuit_changed(self, upstream: str, before: str, after: str, reason: str) -> None:
        """A circuit changed its state."""
        self._keep(self.transitions, {"upstream": upstream, "from": before, "to": after, "reason": reason})
        self._keep(self.happened, {"kind": "circuit", "text": f"{upstream}: {before} -> {after}{f' ({reason})' if reason else ''}"})

    def look(self, now: float) -> None:
        """A second has passed: gather what the running streams have counted."""
        passed = now - self._looked if self._looked is not None else 1.0
        self._looked = now
        for live in self._live.values():
            events = live.events
            self._note(live, now)
            live.rate = (live.events - events) / passed
        second, self._second = self._second, _Second()
        first, holds = sorted(second.first_tokens), sorted(second.holds)
        self._keep(
            self.series,
            {
                "streams": len(self._live),
                "events": round(second.events / passed, 1),
                "bytes": round(second.bytes / passed),
                "first_token": _quantile(first, 0.5),
                "first_token_p99": _quantile(first, 0.99),
                "held": _quantile(holds, 0.5),
                "held_p99": _quantile(holds, 0.99),
            },
        )

    # ---- what it tells

    def news(self, after: int) -> dict[str, Any]:
        """Everything that came after a serial number, ready for JSON; 0 is from the beginning. `serial` is for the next time."""
        return {
            "serial": self._serial,
            "series": list(_since(self.series, after)),
            "happened": list(_since(self.happened, after)),
            "ended": list(_since(self.ended, after)),
            "transitions": list(_since(self.transitions, after)),
            "totals": {name: self.totals[name] for name in ("done", "error", "cancelled", "repairs", "retries")},
        }

    def live(self, now: float) -> dict[str, Any]:
        """The streams that run: how many in which state, and the oldest of them."""
        states = Counter(live.processor.state for live in self._live.values())
        return {
            "streams_active": len(self._live),
            "states": dict(sorted(states.items())),
            "streams": [
                {
                    **live.facts,
                    "state": live.processor.state,
                    "upstream": live.processor.upstream,
                    "age": round(now - live.tally.started, 2),
                    "events": live.tally.events,
                    "rate": round(live.rate, 1),
                    "attempts": live.tally.attempts,
                    "repairs": _counted(live.tally.repairs),
                }
                for live in islice(self._live.values(), _LISTED)
            ],
        }

    # ----

    def _note(self, live: _Live, now: float) -> None:
        tally, second = live.tally, self._second
        second.events += tally.events - live.events
        second.bytes += tally.bytes_out - live.bytes
        live.events, live.bytes = tally.events, tally.bytes_out
        if tally.first_token is not None and not live.seen_first:
            live.seen_first = True
            second.first_tokens.append(tally.first_token - tally.started)
        story = tally.story
        if len(story) > live.told:
            for at, kind, words in islice(story, live.told, None):
                if kind in _NEWS:
                    model = live.facts["model"]
                    self._keep(self.happened, {"kind": kind, "text": f"{words} ({model})"}, at=self.wall() - (now - at))
            live.told = len(story)

    def _keep(self, ring: deque[dict[str, Any]], entry: dict[str, Any], at: float | None = None) -> None:
        self._serial += 1
        ring.append({"serial": self._serial, "at": round(self.wall() if at is None else at, 3), **entry})


def _since(ring: Iterable[dict[str, Any]], after: int) -> Iterator[dict[str, Any]]:
    return (entry for entry in ring if entry["serial"] > after)


def _quantile(ordered: list[float], share: float) -> float | None:
    return round(ordered[math.ceil(share * len(ordered)) - 1], 5) if ordered else None


def _counted(counter: Counter[str]) -> str:
    return " ".join(f"{name}:{count}" for name, count in sorted(counter.items()) if count)

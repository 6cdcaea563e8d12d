"""What the dashboard knows: the last minutes second by second, what happened, and the streams that ended.

Looks once a second at the counters that streams keep anyway, so that a stream pays nothing for being looked at. Everything in here has
an end: so many seconds, so many entries. Refuses to know who looks and how it is drawn.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NoReturn

import trio

from actors import End

from .snapshot import Point, see

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import TypeAlias

    from actors import Outcome, Tally

    from ..services import Processor

    #: Serial number, the wall's time, the stream's facts, what became of it, and when by the clock of its tally.
    _Ended: TypeAlias = tuple[int, float, Mapping[str, str], Outcome, float]

#: Seconds that the plots reach back.
KEPT: Final = 600
#: Entries of what happened, ended streams, and changes of circuits.
MOST: Final = {"happened": 200, "ended": 40, "transitions": 200}
#: Live streams that are listed; the others are counted.
LISTED: Final = 50
#: What of a stream's story is shown as it happens; the rest is in its timeline.
_NEWS: Final = frozenset({"fault", "retry", "repair", "resume", "loop"})


@dataclass(slots=True)
class Shown:
    """One stream as it was a second ago. For the board alone; others hand it back."""

    facts: Mapping[str, str]
    tally: Tally
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
    first_token: dict[float, int] = field(default_factory=dict)
    held: dict[float, int] = field(default_factory=dict)


@dataclass(slots=True)
class Board:
    """The memory of one process.

    Args:
      wall: seconds of the wall's clock.
    """

    wall: Callable[[], float]
    series: deque[Point] = field(default_factory=lambda: deque(maxlen=KEPT))
    happened: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MOST["happened"]))
    ended: deque[_Ended] = field(default_factory=lambda: deque(maxlen=MOST["ended"]))
    transitions: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MOST["transitions"]))
    totals: Counter[str] = field(default_factory=Counter)
    _live: dict[Processor, Shown] = field(default_factory=dict)
    _second: _Second = field(default_factory=_Second)
    _looked: tuple[float, int] | None = None
    _serial: int = 0

    # ---- what it is told

    def stream_begins(self, processor: Processor, tally: Tally, facts: Mapping[str, str]) -> None:
        """A stream begins.

        Args:
          facts: its id, model, client and engine.
        """
        self._live[processor] = Shown(facts, tally)

    def stream_leaves(self, processor: Processor) -> Shown | None:
        """A stream runs no more. What became of it is told with what this returns; None if it never began."""
        return self._live.pop(processor, None)

    def stream_ended(self, shown: Shown, outcome: Outcome, now: float, at: float) -> None:
        """What became of a stream that has left.

        Args:
          now: when it ended, on the clock of its tally.
          at: the same, in seconds of the wall's clock.
        """
        self._note(shown, now, at)
        tally, totals = outcome.tally, self.totals
        totals[outcome.end.value] += 1
        if tally.repairs:
            totals["repairs"] += tally.repairs.total()
        totals["retries"] += tally.retries
        if tally.holds:
            see(self._second.held, tally.longest_hold)
        self._serial += 1
        self.ended.append((self._serial, at, shown.facts, outcome, now))
        if outcome.end is End.ERROR and not any(kind == "fault" for _, kind, _ in tally.story):
            assert outcome.fault is not None  # an error has one
            self._keep(self.happened, {"kind": "fault", "text": f"{outcome.fault.kind.value} ({shown.facts['model']})"}, at)

    def circuit_changed(self, upstream: str, before: str, after: str, reason: str) -> None:
        """A circuit changed its state."""
        at = self.wall()
        self._keep(self.transitions, {"upstream": upstream, "from": before, "to": after, "reason": reason}, at)
        self._keep(self.happened, {"kind": "circuit", "text": f"{upstream}: {before} -> {after}{f' ({reason})' if reason else ''}"}, at)

    def look(self, now: float, tick: int) -> None:
        """A second has passed: gather what the running streams have counted.

        Args:
          tick: which second it was, by a clock that all processes of the machine share.
        """
        before, ticked = self._looked if self._looked is not None else (now - 1.0, tick - 1)
        self._looked = now, tick
        passed = now - before
        wall = self.wall()
        for live in self._live.values():
            events = live.events
            self._note(live, now, wall)
            live.rate = (live.events - events) / passed
        second, self._second = self._second, _Second()
        self._serial += 1
        self.series.append(
            Point(
                self._serial,
                round(wall, 3),
                tick,
                max(1, tick - ticked),
                len(self._live),
                second.events / passed,
                second.bytes / passed,
                second.first_token,
                second.held,
            )
        )

    # ---- what it tells

    def news(self, after: int) -> dict[str, Any]:
        """Everything that came after a serial number; 0 is from the beginning. `serial` is for the next time."""
        return {
            "serial": self._serial,
            "series": [point for point in self.series if point.serial > after],
            "happened": list(_since(self.happened, after)),
            "ended": [_row(ended) for ended in self.ended if ended[0] > after],
            "transitions": list(_since(self.transitions, after)),
            "totals": {name: self.totals[name] for name in ("done", "error", "cancelled", "repairs", "retries")},
        }

    def live(self, now: float) -> dict[str, Any]:
        """The streams that run: how many in which state, and the oldest of them."""
        states = Counter(processor.state for processor in self._live)
        return {
            "streams_active": len(self._live),
            "states": dict(sorted(states.items())),
            "streams": [
                {
                    **live.facts,
                    "state": processor.state,
                    "upstream": processor.upstream,
                    "age": round(now - live.tally.started, 2),
                    "events": live.tally.events,
                    "rate": round(live.rate, 1),
                    "attempts": live.tally.attempts,
                    "repairs": _counted(live.tally.repairs),
                }
                for processor, live in islice(self._live.items(), LISTED)
            ],
        }

    # ----

    def _note(self, live: Shown, now: float, wall: float) -> None:
        tally, second = live.tally, self._second
        second.events += tally.events - live.events
        second.bytes += tally.bytes_out - live.bytes
        live.events, live.bytes = tally.events, tally.bytes_out
        if tally.first_token is not None and not live.seen_first:
            live.seen_first = True
            see(second.first_token, tally.first_token - tally.started)
        story = tally.story
        if len(story) > live.told:
            for at, kind, words in islice(story, live.told, None):
                if kind in _NEWS:
                    model = live.facts["model"]
                    self._keep(self.happened, {"kind": kind, "text": f"{words} ({model})"}, wall - (now - at))
            live.told = len(story)

    def _keep(self, ring: deque[dict[str, Any]], entry: dict[str, Any], at: float) -> None:
        self._serial += 1
        ring.append({"serial": self._serial, "at": round(at, 3), **entry})


async def look_every_second(board: Board) -> NoReturn:
    """At the whole seconds of the machine's monotonic clock: so those of several processes fall together, and no date can move them."""
    while True:
        moment = time.monotonic()
        tick = round(moment)
        board.look(trio.current_time(), tick)
        await trio.sleep(tick + 1 - moment)


def _since(ring: Iterable[dict[str, Any]], after: int) -> Iterator[dict[str, Any]]:
    return (entry for entry in ring if entry["serial"] > after)


def _row(ended: _Ended) -> dict[str, Any]:
    """An ended stream as a page lists it: made when somebody looks, for most are never looked at."""
    serial, at, facts, outcome, now = ended
    tally = outcome.tally
    started = tally.started
    return {
        "serial": serial,
        "at": round(at, 3),
        "id": facts["id"],
        "model": facts["model"],
        "upstream": outcome.upstream,
        "outcome": outcome.end.value,
        "fault": outcome.fault.kind.value if outcome.fault is not None else "",
        "total": (tally.ended if tally.ended is not None else now) - started,
        "first_token": tally.first_token - started if tally.first_token is not None else None,
        "events": tally.events,
        "attempts": tally.attempts,
        "repairs": _counted(tally.repairs),
        "story": [(round(at - started, 4), kind, words) for at, kind, words in tally.story],
    }


def _counted(counter: Counter[str]) -> str:
    return " ".join(f"{name}:{count}" for name, count in sorted(counter.items()) if count)

"""One stream while it runs: what came, what was decided, and when. Appends to a list and does nothing else.

What it may hold is bounded: beyond its share of memory a chunk is kept as its length alone, beyond its number of entries nothing is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from actors import StreamMachine
from actors.sansio.chunks import AttemptEnded, AttemptFailed, AttemptsExhausted, AttemptStarted

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors import LoopGuard, SmartBuffer, StreamPolicy, Tally
    from actors.sansio.effects import Effects
    from actors.sansio.loop_guard import Loop
    from actors.sansio.smart_buffer import Released
    from actors.sansio.stream_machine import Item
    from actors.sansio.stream_state import StreamEvent, StreamState
    from actors.sansio.trace import Judgement

#: Entries of one flight. A stream of 128 Ki tokens has one or two for each; longer ones end in a note that says so.
_MOST_ENTRIES: Final = 200_000

Facts: TypeAlias = "dict[str, object]"


class Entry(NamedTuple):
    """One thing that happened.

    Args:
      now: of the monotonic clock.
      kind: "chunk", "length", "released", "state", "judged", "loop", "attempt", "failed", "over".
      what: bytes of a chunk, its length, or facts ready for JSON.
    """

    now: float
    kind: str
    what: Any


class Flight:
    """Collects one stream. A `Trace` of its machine and of its detectors.

    Args:
      hold: asked before bytes are kept; False keeps their number only.
      started: when the request was accepted (monotonic).
      facts: of the request, ready for JSON.
    """

    def __init__(self, hold: Callable[[int], bool], started: float, facts: Facts) -> None:
        self._hold = hold
        self.started = started
        self.facts = facts
        self.entries: list[Entry] = []
        self.held = 0
        self.left_out = 0

    def came(self, item: Item, now: float) -> None:
        """The machine is given this."""
        match item:
            case list():
                for chunk in item:
                    self._keep_chunk(chunk.raw, now)
            case AttemptStarted(number=number, upstream=upstream, resumes=resumes):
                self._add(now, "attempt", {"number": number, "upstream": upstream, "resumes": resumes})
            case AttemptFailed(number=number, fault=fault):
                self._add(now, "failed", {"number": number, "fault": fault.kind.value, "upstream": fault.upstream})
            case AttemptEnded(number=number, fault=fault):
                self._add(now, "over", {"number": number, "fault": fault.kind.value if fault is not None else ""})
            case AttemptsExhausted(fault=fault):
                self._add(now, "failed", {"number": 0, "fault": fault.kind.value, "upstream": fault.upstream})

    # ---- Trace

    def judged(self, one: Judgement, now: float) -> None:
        readings = [{"shape": r.shape, "odds": round(r.odds, 2), "verdict": r.verdict, "factors": list(r.factors)} for r in one.readings]
        lane = f"{one.delta.choice} {one.delta.field.value}"
        self._add(now, "judged", {"lane": lane, "held": one.held, "threshold": one.threshold, "readings": readings})

    def released(self, one: Released, now: float) -> None:
        if one.shape or one.held_for > 0:
            self._add(now, "released", {"shape": one.shape, "held_ms": round(1000 * one.held_for, 2), "dropped": not one.frame})

    def advanced(self, before: StreamState, event: StreamEvent, after: StreamState, now: float) -> None:
        self._add(now, "state", [type(before).__name__, type(event).__name__, type(after).__name__])

    def looped(self, loop: Loop, now: float) -> None:
        self._add(now, "loop", {"position": loop.position, "length": len(loop.unit)})

    # ----

    def _keep_chunk(self, raw: bytes, now: float) -> None:
        if self._hold(len(raw)):
            self.held += len(raw)
            self._add(now, "chunk", raw)
        else:
            self._add(now, "length", len(raw))

    def _add(self, now: float, kind: str, what: Any) -> None:
        if len(self.entries) < _MOST_ENTRIES:
            self.entries.append(Entry(now, kind, what))
        else:
            self.left_out += 1


class RecordedMachine(StreamMachine):
    """A StreamMachine that tells a flight what it is given, and as its trace what it decides. Other arguments as StreamMachine's."""

    def __init__(
        self,
        policy: StreamPolicy,
        open_buffer: Callable[[str], SmartBuffer],
        tally: Tally,
        now: float,
        flight: Flight,
        open_guard: Callable[[str], LoopGuard | None],
    ) -> None:
        super().__init__(policy, open_buffer, tally, now, flight, open_guard)
        self._flight = flight

    def receive(self, item: Item, now: float) -> Effects:
        self._flight.came(item, now)
        return super().receive(item, now)

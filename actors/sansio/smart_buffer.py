"""Holds whole events while one of their lanes is ambiguous, in one queue, so that order is kept.

Owns how long and how much is held, and why a hold ends:

    size        more than `BufferPolicy.events` or `BufferPolicy.size` are held
    age         the oldest has waited for `BufferPolicy.hold`
    pattern     a finish_reason, an error, [DONE], the end, the start of a tool call, or a delta that refutes the suspicion
    confidence  the odds for a repeat have passed the threshold

Knows nothing of what makes a delta ambiguous (lane.py), and nothing of JSON (chunk_rewriter.py). The unit of release is the
event: one that needs no repair leaves as the very bytes it came in.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import msgspec

from .chunk_rewriter import rewrite
from .chunks import Chunk, Event
from .shapes import SHAPES
from .ticket import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable

    from .stuttering_detector import StutteringDetector


@dataclass(frozen=True, slots=True)
class BufferPolicy:
    """The bounds of a hold (DESIGN section 4).

    Args:
      hold: seconds that an event may wait. 0.4 is felt as a pause, not as a stall; two 250 ms chunks (large-chunk upstreams) fit.
      events: events that may be held.
      size: bytes of events that may be held.
    """

    hold: float = 0.4
    events: int = 16
    size: int = 64 * 1024


class Released(msgspec.Struct, frozen=True, gc=False):
    """One chunk that leaves.

    Args:
      chunk: as it came.
      frame: the bytes to send, `event.raw` itself if nothing was repaired, b"" if nothing is left of it.
      shape: what was repaired (STUTTER section 2), "" for nothing, joined by "+" where it was more than one thing.
      held_for: seconds between its arrival and now.
      texts: what the frame has instead of a delta's own text, by the delta's place in the event.
    """

    chunk: Chunk
    frame: bytes
    shape: str = ""
    held_for: float = 0.0
    texts: dict[int, str] | None = None


class SmartBuffer:
    """The queue of one attempt's events.

    Args:
      detector: judges each event's deltas; with its policy's mode "off" nobody is asked, with "observe" nothing is held or changed.

    Attributes:
      flushes: how many holds ended for which reason.
      passes: takes the next event if it can be told at a glance that it leaves as it came; False if `take` has to be asked. Not
        to be called while something is held.
      refused: repairs that were thought of and not proven, by shape.
      repairs: events repaired (mode "observe": that would have been), by shape.
    """

    def __init__(self, detector: StutteringDetector, policy: BufferPolicy | None = None) -> None:
        self._detector = detector
        self._policy = policy or BufferPolicy()
        self._off = detector.policy.mode == "off"
        self._observing = detector.policy.mode == "observe"
        self._queue: deque[Ticket] = deque()
        self._size = 0
        self.passes: Callable[[Event, float], bool] = detector.passes if not self._off else lambda event, now: True
        self.flushes = detector.flushes
        self.refused = detector.refused
        self.repairs: Counter[str] = Counter()

    @property
    def deadline(self) -> float:
        """When the oldest hold must be released; `math.inf` if nothing is held."""
        return self._queue[0].arrived + self._policy.hold if self._queue else math.inf

    @property
    def holding(self) -> bool:
        return bool(self._queue) and not self._observing

    def add(self, event: Event, now: float) -> list[Released]:
        """Takes the next event. Returns: what leaves now, in order."""
        released = self.take(event, now)
        return [Released(event, event.raw)] if released is None else released

    def take(self, event: Event, now: float) -> list[Released] | None:
        """The same; None is the event itself, as it came, with nothing held before or after: nearly every event of every stream."""
        if self._off:
            return None
        ticket = self._detector.judge(event, now)
        if not self._queue and (ticket is None or not ticket.unsettled):
            if ticket is None or not (ticket.changed or ticket.returned):
                return None
            released = self._leave(ticket, now)
        else:
            released = self._enqueue(ticket or Ticket(event, now), now)
        return released if not self._observing else [Released(event, event.raw)]

    def add_other(self, raw: Chunk, now: float) -> list[Released]:
        """Takes a chunk that has no lanes (a comment): it stays in its place."""
        if not self._queue or self._observing:
            return [Released(raw, raw.raw)]
        return self._enqueue(Ticket(raw, now), now)

    def expire(self, now: float) -> list[Released]:
        """Lets go what has waited too long; to be called at `deadline`."""
        released: list[Released] = []
        while self._queue and self.deadline <= now:
            self._detector.release(self._queue[0], "age")
            released += self._drain(now)
        return released if not self._observing else []

    def flush(self, now: float) -> list[Released]:
        """Lets everything go: an error, [DONE] or the end follows."""
        released = self._give_back(self._detector.finish()) + self._drain(now)
        return released if not self._observing else []

    def close(self, now: float) -> None:
        """The attempt is over."""
        if not self._off:
            self._detector.close(self.repairs, now)

    def trailer(self, earlier: Counter[str]) -> bytes:
        """The comment that tells a client what was repaired in its stream, b"" where none is wanted.

        Args:
          earlier: repairs of the stream's earlier attempts.
        """
        if not self._detector.policy.trailer or self._off:
            return b""
        counts = earlier + self.repairs
        told = " ".join(f"{shape}={counts[shape]}" for shape in SHAPES)
        return f": evenflow {'would have ' if self._observing else ''}repaired {told}\n\n".encode()

    def _enqueue(self, ticket: Ticket, now: float) -> list[Released]:
        self._queue.append(ticket)
        self._size += len(ticket.chunk.raw)
        released = self._drain(now)
        while len(self._queue) > self._policy.events or (self._queue and self._size > self._policy.size):
            self._detector.release(self._queue[0], "size")
            released += self._drain(now)
        return released

    def _drain(self, now: float) -> list[Released]:
        """What stands at the front of the queue with nothing left to decide."""
        released = []
        while self._queue and not self._queue[0].unsettled:
            ticket = self._queue.popleft()
            self._size -= len(ticket.chunk.raw)
            released += self._leave(ticket, now)
        return released

    def _give_back(self, events: list[Event]) -> list[Released]:
        """Events that a replay had swallowed, which then turned out to be none (F3): no repair, nothing lost, late."""
        if events:
            self.repairs["F1"] -= len(events)
        return [Released(event, event.raw) for event in events]

    def _leave(self, ticket: Ticket, now: float) -> list[Released]:
        return [*self._give_back(ticket.returned), self._leave_alone(ticket, now)]

    def _leave_alone(self, ticket: Ticket, now: float) -> Released:
        chunk, held_for = ticket.chunk, max(0.0, now - ticket.arrived)
        if not ticket.changed:
            return Released(chunk, chunk.raw, "", held_for)
        shapes = ticket.shapes
        self.repairs.update(shapes)
        if self._observing:
            return Released(chunk, chunk.raw, "+".join(shapes), held_for)
        event = cast("Event", chunk)  # nothing else is ever changed
        frame = b"" if ticket.dropped else rewrite(event, ticket.texts, labels=ticket.labels) or b""
        return Released(chunk, frame, "+".join(shapes), held_for, ticket.texts)

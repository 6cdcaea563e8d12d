"""How a stream goes on when an attempt failed: what the client has so far, and how a later attempt's events look to it.

One answer has one identity: the first attempt's id, created, model and fingerprint are kept, the second role is dropped. Where
reasoning was sent already, the new attempt's reasoning is swallowed until its answer begins (DESIGN section 5 (a)); where output was
sent, the new attempt is laid over it (splice.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .chunk_parser import ChunkParser
from .chunk_rewriter import rewrite
from .chunks import Event, Weight
from .effects import Resume
from .event_json import read_json
from .resume_plan import REASONING, ResumePlan, ResumeStrategy
from .splice import SentText, Splice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .chunks import AttemptStarted
    from .faults import Fault
    from .smart_buffer import Released
    from .stream_policy import StreamPolicy

#: The fields by which a client knows one completion from another.
_IDENTITY: Final = ("id", "created", "model", "system_fingerprint")


class Resumption:
    """Restates the events of one later attempt.

    Args:
      first: the first event that the client got.
      replay: only reasoning was sent, so this attempt's is swallowed.
      strategy: how the attempt takes up output that was sent, None if none was.
      splice: lays it over that output.
    """

    def __init__(self, first: Event, *, replay: bool, strategy: ResumeStrategy | None = None, splice: Splice | None = None) -> None:
        fields = read_json(first.data)
        self._identity = {name: fields[name] for name in _IDENTITY if name in fields}
        self._replaying = replay
        self._splice = splice
        self.strategy = strategy

    @property
    def swallowing(self) -> bool:
        """The attempt has said nothing yet that the client does not have."""
        return self._replaying or (self._splice is not None and not self._splice.joined)

    @property
    def differs(self) -> bool:
        """The attempt says something else than what was sent."""
        return self._splice is not None and self._splice.differs

    @property
    def may_end(self) -> bool:
        """If the answer is over now, it is the answer that was begun."""
        return self._splice is None or self._splice.joined or self._splice.said_again

    def restate(self, one: Released) -> Event | None:
        """What the client may see of an event that leaves the buffer, None if nothing of it is left."""
        assert isinstance(one.chunk, Event)
        event = one.chunk if one.frame is one.chunk.raw else _read(one.frame)
        texts: dict[int, str] = {}
        if self._replaying:
            if event.weight is not Weight.OUTPUT:
                return None
            self._replaying = False
            texts = {number: "" for number, delta in enumerate(event.deltas) if delta.field in REASONING}
        elif self._splice is not None and not self._splice.joined:
            rests = self._splice.lay(event)
            if rests is None:
                return None
            texts = rests
        # An event without choices (usage, a server's own) has no role, and nowhere to look for one.
        frame = rewrite(event, texts, envelope=self._identity, drop_role=bool(event.choices))
        return _read(frame) if frame is not None else None


def _read(frame: bytes) -> Event:
    (event,) = ChunkParser().feed(frame)
    assert isinstance(event, Event)
    return event


class Progress:
    """What the client has of the answer, and what may follow if its attempt fails.

    Args:
      policy: of the stream.

    Attributes:
      weight: the most that was sent.
      broken_by: the fault that ended the last attempt of which something was sent, None while none did.
      settled: no further event changes what is known.
    """

    def __init__(self, policy: StreamPolicy) -> None:
        self._policy = policy
        self._first: Event | None = None
        self._text = SentText() if policy.resume else None
        self.weight = Weight.NOTHING
        self.broken_by: Fault | None = None
        self.settled = False

    def note(self, event: Event, texts: Mapping[int, str] | None) -> None:
        """An event was sent. `texts`: what it had instead of a delta's own text, by the delta's place in the event."""
        if self._first is None or (event.id and not self._first.id):
            self._first = event  # Azure's first event has an empty id
        if event.weight > self.weight:
            self.weight = event.weight
        if self._text is not None:
            self._text.note(event, texts)
        else:
            self.settled = self.weight is Weight.OUTPUT and bool(self._first.id)

    def order_after(self, fault: Fault, resumption: Resumption | None) -> Resume | None:
        """What to order when an attempt failed, None if that is the end.

        Args:
          resumption: of the attempt that failed.
        """
        if self.weight is not Weight.NOTHING and (resumption is None or not resumption.swallowing):
            self.broken_by = fault
        if self.weight is Weight.NOTHING:
            return Resume(fault, replay=False)
        if self.weight is Weight.REASONING:
            may_replay = self._policy.replay_reasoning and self._policy.choices == 1
            return Resume(fault, replay=True) if may_replay else None
        lanes = self._text.lanes() if self._text is not None else None
        return Resume(fault, replay=False, plan=ResumePlan(lanes, self._policy.resume)) if lanes else None

    def resumption(self, attempt: AttemptStarted, plan: ResumePlan | None) -> Resumption | None:
        """How a further attempt goes on from here, None if nothing was sent yet.

        Args:
          plan: of the last order.
        """
        if self._first is None:
            return None
        if plan is None:
            return Resumption(self._first, replay=self.weight is not Weight.NOTHING)
        strategy = ResumeStrategy(attempt.resumes or "align")  # who does not say so was asked the same again
        return Resumption(self._first, replay=False, strategy=strategy, splice=Splice.of(plan, strategy))

    def comment(self, upstream: str, strategy: ResumeStrategy) -> bytes:
        """The line that tells the client where its answer was taken up. Every word of it is ours or configured."""
        cause = self.broken_by.kind.value if self.broken_by is not None else ""
        return f": evenflow resumed after {cause} on upstream '{upstream}' ({strategy})\n\n".encode()

    def fault_to_tell(self, fault: Fault) -> Fault:
        """What the client is told at the end: what broke the answer it has, not what befell the attempts to take it up."""
        return self.broken_by if self.weight is Weight.OUTPUT and self.broken_by is not None else fault

"""StreamMachine: what a stream does next. State, lanes, buffer and recovery behind `receive(item, now)` and `wake(now)`.

Theory of operation
-------------------
Items come in the order the reader sent them; each call returns the `Effects` it has: a response head, bytes for the client, an
order for the reader, the stream's end. The machine never waits: it has one `deadline`, and whoever drives it calls `wake()` then.

Two facts are kept apart. *Head sent*: the status is fixed, and only the shape of a final failure changes (an error frame
instead of a status). *Output sent* (`_sent`, a Weight): how much of an answer the client has; up to NOTHING an attempt can be
thrown away, up to REASONING it can be replayed with the new reasoning swallowed, beyond that a failure is the end.

Each started attempt gets exactly one order, perhaps early ([DONE], an error inside the stream, a deadline). Once it is given,
everything else of that attempt is discarded.

The honest end: with [DONE] a stream is done. Without it, it is done if every choice seen, and every one asked for, has a
finish_reason; then [DONE] is added. Otherwise it was cut, whatever HTTP says.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeAlias

from . import stream_state as st
from .chunks import (
    AttemptEnded,
    AttemptFailed,
    AttemptsExhausted,
    AttemptStarted,
    Chunk,
    Comment,
    Done,
    Event,
    InBandError,
    Malformed,
    Weight,
)
from .completion import Completion
from .effects import Complete, Effects, Failed, Finish, Head, Order, Resume
from .faults import Fault, FaultKind, classify_in_band
from .resumption import Resumption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..outcome import Tally
    from .loop_guard import Loop, LoopGuard
    from .smart_buffer import Released, SmartBuffer
    from .stream_policy import StreamPolicy
    from .trace import Trace

KEEP_ALIVE: Final = b": keep-alive\n\n"
DONE_FRAME: Final = b"data: [DONE]\n\n"

Item: TypeAlias = list[Chunk] | AttemptFailed | AttemptStarted | AttemptEnded | AttemptsExhausted


class StreamMachine:
    """The decisions of one stream.

    Args:
      policy: what it may do.
      open_buffer: makes the SmartBuffer (with its detector) of one attempt, given the upstream's name.
      tally: counts of the stream.
      now: when the request was accepted (seconds, monotonic).
      trace: watches every decision, None in production.
      open_guard: makes the LoopGuard of one attempt, given the upstream's name; None does not look for loops.
    """

    def __init__(
        self,
        policy: StreamPolicy,
        open_buffer: Callable[[str], SmartBuffer],
        tally: Tally,
        now: float,
        trace: Trace | None = None,
        open_guard: Callable[[str], LoopGuard | None] = lambda _: None,
    ) -> None:
        self._policy = policy
        self._open_buffer = open_buffer
        self._open_guard = open_guard
        self._tally = tally
        self._trace = trace
        self._state: st.StreamState = st.StateInitial()
        self._head_sent = False
        self._sent = Weight.NOTHING
        self._attempt: AttemptStarted | None = None
        self._ordered = True  # no order is due before the first attempt started
        self._buffer: SmartBuffer | None = None
        self._guard: LoopGuard | None = None
        self._cut_for: Loop | None = None
        self._completion = Completion(policy.choices)
        self._first_sent: Event | None = None
        self._resumption: Resumption | None = None
        self._result: Complete | Failed | None = None
        self._started_at = now
        self._last_write = now
        self._last_token = math.inf
        self._last_comment = -math.inf

    # ---- what others may see

    @property
    def state(self) -> st.StreamState:
        return self._state

    @property
    def head_sent(self) -> bool:
        return self._head_sent

    @property
    def output_sent(self) -> Weight:
        return self._sent

    @property
    def upstream(self) -> str:
        return self._attempt.upstream if self._attempt is not None else ""

    @property
    def ended(self) -> bool:
        return isinstance(self._state, st.StateTerminating)

    @property
    def end(self) -> Complete | Failed | None:
        """How the stream ended, None while it has not."""
        return self._result

    @property
    def deadline(self) -> float:
        """When `wake()` is due (seconds, monotonic); `math.inf` once the stream ended."""
        if self.ended:
            return math.inf
        held = self._buffer.deadline if self._buffer is not None else math.inf
        return min(held, self._keepalive_at, self._idle_at, self._total_at)

    @property
    def _keepalive_at(self) -> float:
        return self._last_write + (self._policy.keepalive_interval if self._head_sent else self._policy.keepalive_after)

    @property
    def _idle_at(self) -> float:
        return self._last_token + self._attempt.idle if self._attempt is not None and not self._ordered else math.inf

    @property
    def _total_at(self) -> float:
        return self._started_at + self._policy.total

    # ---- the two entrances, and one correction

    def receive(self, item: Item, now: float) -> Effects:
        """Take the next item from the reader's side."""
        effects = Effects()
        if self.ended:
            return effects
        if type(item) is list:
            for chunk in item:
                if self._ordered:
                    break  # all that follows belongs to an attempt that has had its order
                self._take(chunk, now, effects)
            if now >= self.deadline:  # a steady flow of items must not put off what is due
                self._wake(now, effects)
            return effects
        match item:
            case AttemptStarted():
                self._begin(item, now)
            case AttemptFailed():
                self._advance(st.AttemptFailed(), now)
            case AttemptsExhausted(fault=fault):
                self._end(Failed(fault), now, effects)
            case AttemptEnded(fault=fault) if not self._ordered:
                if fault is None or self._completion.complete:
                    self._body_over(now, effects)
                else:
                    self._fail_attempt(fault, now, effects)
        return effects

    def wake(self, now: float) -> Effects:
        """The deadline passed, or a little earlier: do what is due, which may be nothing."""
        effects = Effects()
        if not self.ended:
            self._wake(now, effects)
        return effects

    def _wake(self, now: float, effects: Effects) -> None:
        if now >= self._total_at:
            fault = self._timeout(FaultKind.TOTAL_TIMEOUT, "timers.total", self._policy.total)
            self._flush(now, effects)
            self._give_up(fault, now, effects)
            return
        if self._buffer is not None and now >= self._buffer.deadline:
            self._release(self._buffer.expire(now), now, effects)
        if now >= self._idle_at and self._completion.complete:
            self._body_over(now, effects)  # the upstream said everything, and forgot to end
        elif now >= self._idle_at and self._attempt is not None:
            self._fail_attempt(self._timeout(FaultKind.IDLE_TIMEOUT, "timers.idle", self._attempt.idle), now, effects)
        elif now >= self._keepalive_at:
            self._tally.keepalives += 1
            self._write(KEEP_ALIVE, now, effects)

    def client_blocked(self, seconds: float) -> None:
        """The client took nothing for so long: that time is not the upstream's silence."""
        self._last_token += seconds

    # ---- an attempt's life

    def _begin(self, attempt: AttemptStarted, now: float) -> None:
        self._close_buffer()
        self._attempt = attempt
        self._ordered = False
        self._buffer = self._open_buffer(attempt.upstream)
        self._guard = self._open_guard(attempt.upstream)
        if self._first_sent is not None:
            replay = self._sent is not Weight.NOTHING
            self._resumption = Resumption(self._first_sent, replay=replay)
            self._tally.replayed += replay
        self._last_token = now
        self._completion = Completion(self._policy.choices)

    def _take(self, chunk: Chunk, now: float, effects: Effects) -> None:
        assert self._buffer is not None
        match chunk:
            case Event():
                self._take_event(chunk, now, effects)
            case Comment():
                if now - self._last_comment < 1.0 / self._policy.comments_per_second:
                    self._tally.comments_dropped += 1
                    return
                self._last_comment = now
                self._release(self._buffer.add_other(chunk, now), now, effects)
            case Done():
                self._flush(now, effects)
                self._join(now)
                self._write(chunk.raw, now, effects)
                self._order(Finish(None), effects)
                self._end(Complete(), now, effects)
            case InBandError():
                self._fail_attempt(classify_in_band(chunk, self.upstream), now, effects)
            case Malformed(oversize=True):
                fault = Fault(FaultKind.EVENT_TOO_LARGE, f"upstream '{self.upstream}': {chunk.reason}", upstream=self.upstream)
                self._fail_attempt(fault, now, effects)
            case Malformed():
                if chunk.may_carry_output and not self._policy.skip_bad_chunks:
                    text = f"upstream '{self.upstream}' sent a chunk that cannot be read: {chunk.reason}"
                    self._fail_attempt(Fault(FaultKind.BAD_CHUNK, text, upstream=self.upstream), now, effects)
                else:
                    self._tally.skipped += 1

    def _take_event(self, event: Event, now: float, effects: Effects) -> None:
        assert self._buffer is not None
        assert self._attempt is not None
        self._tally.events += 1
        if event.weight is not Weight.NOTHING:
            self._last_token = now
            if self._tally.first_token is None:
                self._tally.first_token = now
        self._completion.note(event)
        if self._resumption is not None:
            restated = self._resumption.restate(event)
            if restated is None:
                return
            event = restated
        self._release(self._buffer.add(event, now), now, effects)
        if self._cut_for is not None and not self._completion.complete:
            self._flush(now, effects)
            self._give_up(self._cut_for.fault(self.upstream), now, effects)

    def _body_over(self, now: float, effects: Effects) -> None:
        """The HTTP body ended without [DONE]: done if every choice finished, cut if not."""
        if not self._completion.complete:
            fault = Fault(
                FaultKind.TRUNCATED,
                f"upstream '{self.upstream}' ended the stream without finish_reason or [DONE]; the answer is incomplete",
                upstream=self.upstream,
            )
            self._fail_attempt(fault, now, effects)
            return
        self._flush(now, effects)
        self._join(now)
        self._tally.done_added = True
        self._write(DONE_FRAME, now, effects)
        self._order(Finish(None), effects)
        self._end(Complete(), now, effects)

    def _fail_attempt(self, fault: Fault, now: float, effects: Effects) -> None:
        """The attempt is over. What follows depends on what the client already has."""
        self._flush(now, effects)
        replay = self._sent is Weight.REASONING
        if self._sent is Weight.OUTPUT or (replay and not self._may_replay):
            self._give_up(fault, now, effects)
            return
        self._advance(st.AttemptFailed(), now)
        self._order(Resume(fault, replay), effects)

    @property
    def _may_replay(self) -> bool:
        return self._policy.replay_reasoning and self._policy.choices == 1

    # ---- effects

    def _order(self, order: Order, effects: Effects) -> None:
        self._ordered = True
        effects.order = order

    def _give_up(self, fault: Fault, now: float, effects: Effects) -> None:
        self._order(Finish(fault), effects)
        self._end(Failed(fault), now, effects)

    def _flush(self, now: float, effects: Effects) -> None:
        if self._buffer is not None:
            released = self._buffer.flush(now)
            self._emit(released, now, effects)

    def _release(self, released: Iterable[Released], now: float, effects: Effects) -> None:
        """Write what the buffer let go, and follow its holding with the state."""
        assert self._buffer is not None
        self._emit(released, now, effects)
        holding = self._buffer.holding
        stuttering = isinstance(self._state, st.StateStuttering)
        if holding and not stuttering:
            self._join(now)
            self._advance(st.HoldBegan(), now)
        elif stuttering and not holding:
            self._advance(st.HoldResolved(), now)

    def _emit(self, released: Iterable[Released], now: float, effects: Effects) -> None:
        for one in released:
            if one.held_for > 0.0:
                self._tally.holds += 1
                self._tally.longest_hold = max(self._tally.longest_hold, one.held_for)
            if self._trace is not None:
                self._trace.released(one, now)
            if not one.frame:
                continue
            chunk = one.chunk
            if type(chunk) is Event:
                if self._first_sent is None or (chunk.id and not self._first_sent.id):
                    self._first_sent = chunk  # Azure's first event has an empty id
                if chunk.weight is not Weight.NOTHING:
                    self._join(now)
                    if type(self._state) is st.StateInitial:
                        self._advance(st.FirstOutput(), now)
                    if chunk.weight > self._sent:
                        self._sent = chunk.weight
            self._write(one.frame, now, effects)
            if self._guard is not None and type(chunk) is Event and (loop := self._guard.observe(chunk, one.texts)) is not None:
                self._note_loop(loop, self._guard.policy.action, now, effects)

    def _note_loop(self, loop: Loop, action: str, now: float, effects: Effects) -> None:
        self._guard = None  # once per attempt is enough
        self._tally.loops[action] += 1
        if self._trace is not None:
            self._trace.looped(loop, now)
        if action == "warn":
            self._write(loop.comment, now, effects)
        elif action == "cut":
            self._cut_for = loop  # what is released with it leaves first

    def _join(self, now: float) -> None:
        if isinstance(self._state, st.StateRecovering):
            self._advance(st.Joined(), now)

    def _write(self, data: bytes, now: float, effects: Effects) -> None:
        if not self._head_sent:
            self._head_sent = True
            self._tally.head_sent = now
            attempt = self._attempt
            known = attempt is not None and not self._ordered
            effects.head = Head(attempt.upstream, attempt.number, attempt.headers) if known and attempt else Head()
        self._last_write = now
        effects.frames.append(data)

    def _end(self, end: Complete | Failed, now: float, effects: Effects) -> None:
        if isinstance(self._state, st.StateRecovering):
            self._advance(st.GaveUp(), now)
        else:
            self._advance(st.Ended(), now)
        effects.end = self._result = end
        self._close_buffer()

    def _close_buffer(self) -> None:
        if self._buffer is not None:
            self._tally.flushes.update(self._buffer.flushes)
            self._tally.repairs.update(self._buffer.repairs)
            self._buffer = None

    def _advance(self, event: st.StreamEvent, now: float) -> None:
        before = self._state
        self._state = st.advance(before, event)
        if self._trace is not None:
            self._trace.advanced(before, event, self._state, now)
        self._tally.transitions[type(before).__name__, type(event).__name__, type(self._state).__name__] += 1

    def _timeout(self, kind: FaultKind, setting: str, seconds: float) -> Fault:
        who = f"upstream '{self.upstream}'" if self.upstream else "the request"
        what = "sent no token" if kind is FaultKind.IDLE_TIMEOUT else "was not complete"
        return Fault(kind, f"{who} {what} within {setting} = {seconds:g} s", upstream=self.upstream, setting=setting)

"""StreamMachine: what a stream does next. State, lanes, buffer and recovery behind `receive(item, now)` and `wake(now)`.

Theory of operation
-------------------
Items come in the order the reader sent them; each call returns the `Effects` it has: a response head, bytes for the client, an
order for the reader, the stream's end. The machine never waits: it has one `deadline`, and whoever drives it calls `wake()` then.

Nearly every item is one event of text that is no news to anybody but the client: the answer flows, nothing is held, resumed or traced.
Whether it does is decided when something else has happened (`_look_ahead`) and not for each event. Where streams are slow or few the
caches are cold, and each function that need not be entered counts: from the read to the write 13 instead of 40 (measured: 3.0 us
instead of 6.3 warm, 24 instead of 63 with caches emptied before each event).

Two facts are kept apart. *Head sent*: the status is fixed, and only the shape of a final failure changes (an error frame
instead of a status). *Output sent* (a Weight): how much of an answer the client has; up to NOTHING an attempt can be thrown
away, up to REASONING it can be replayed with the new reasoning swallowed, beyond that it can be resumed at most: the state stays
StateRecovering until the new attempt has said again what was sent, and what is refused at the first difference was never seen.

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
from .classifier import classify_in_band
from .completion import Completion
from .delivery import Delivery
from .effects import Complete, Effects, Failed, Finish, Order
from .faults import FaultKind, shutdown_fault
from .resumption import Progress
from .smart_buffer import Released
from .stream_faults import differed_fault, malformed_fault, timeout_fault, truncated_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..outcome import Tally
    from .faults import Fault
    from .loop_guard import Loop, LoopGuard
    from .resume_plan import ResumePlan
    from .resumption import Resumption
    from .smart_buffer import SmartBuffer
    from .stream_policy import StreamPolicy
    from .trace import Trace

_NOTHING: Final = Weight.NOTHING  # a look through the class of an enumeration takes as long as three others
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

    Attributes:
      ended: nothing follows any more.
      deadline: when `wake()` is due (seconds, monotonic); `math.inf` once the stream ended.
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
        self._delivery = Delivery(policy, tally, now)
        self._attempt: AttemptStarted | None = None
        self._ordered = True  # no order is due before the first attempt started
        self._buffer: SmartBuffer | None = None
        self._guard: LoopGuard | None = None
        self._cut_for: Loop | None = None
        self._completion = Completion(policy.choices)
        self._progress = Progress(policy)
        self._plan: ResumePlan | None = None
        self._resumption: Resumption | None = None
        self._result: Complete | Failed | None = None
        self._total_at = now + policy.total
        self._last_token = math.inf
        self._last_comment = -math.inf
        self._shut_down_at = math.inf
        self._flowing = False  # an event that the buffer lets pass leaves as it came, and nothing else follows from it
        self._pause = math.inf  # while it flows: from an event until something is due, but for ...
        self._end_at = math.inf  # ... the time at which the stream ends in any case
        self.ended = False
        self.deadline = math.inf
        self._look_ahead()

    # ---- what others may see

    @property
    def state(self) -> st.StreamState:
        return self._state

    @property
    def head_sent(self) -> bool:
        return self._delivery.head_sent

    @property
    def output_sent(self) -> Weight:
        return Weight.NOTHING if self._delivery.keeping else self._progress.weight

    @property
    def upstream(self) -> str:
        return self._attempt.upstream if self._attempt is not None else ""

    @property
    def end(self) -> Complete | Failed | None:
        """How the stream ended, None while it has not."""
        return self._result

    @property
    def _idle_at(self) -> float:
        return self._last_token + self._attempt.idle if self._attempt is not None and not self._ordered else math.inf

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
                if isinstance(chunk, Event):
                    self._take_event(chunk, now, effects)
                else:
                    self._take(chunk, now, effects)
                    self._look_ahead()
            if self._resumption is not None:
                self._check_difference(now, effects)
                self._look_ahead()
            if now >= self.deadline:  # a steady flow of items must not put off what is due
                self._wake(now, effects)
                self._look_ahead()
            return effects
        match item:
            case AttemptStarted():
                self._begin(item, now)
            case AttemptFailed():
                self._advance(st.AttemptFailed(), now)
            case AttemptsExhausted(fault=fault):
                if self._plan is not None and not self._resuming:
                    self._tally.resumes["none", "exhausted"] += 1
                self._end(Failed(self._progress.fault_to_tell(fault)), now, effects)
            case AttemptEnded(fault=fault) if not self._ordered:
                if fault is None or self._completion.complete:
                    self._body_over(now, effects)
                else:
                    self._fail_attempt(fault, now, effects)
        self._look_ahead()
        return effects

    def wake(self, now: float) -> Effects:
        """The deadline passed, or a little earlier: do what is due, which may be nothing."""
        effects = Effects()
        if not self.ended:
            self._wake(now, effects)
            self._look_ahead()
        return effects

    def _wake(self, now: float, effects: Effects) -> None:
        if now >= self._shut_down_at:
            if not self._ordered and self._completion.complete:
                self._body_over(now, effects)  # only the [DONE] was missing
            else:
                self._flush(now, effects)
                self._give_up(shutdown_fault(), now, effects)
            return
        if now >= self._total_at:
            fault = timeout_fault(FaultKind.TOTAL_TIMEOUT, "timers.total", self._policy.total, self.upstream)
            self._flush(now, effects)
            self._give_up(fault, now, effects)
            return
        if self._buffer is not None and now >= self._buffer.deadline:
            self._release(self._buffer.expire(now), now, effects)
            self._check_difference(now, effects)
        if self.ended:
            return
        if now >= self._idle_at and self._completion.complete:
            self._body_over(now, effects)  # the upstream said everything, and forgot to end
        elif now >= self._idle_at and self._attempt is not None:
            self._fail_attempt(timeout_fault(FaultKind.IDLE_TIMEOUT, "timers.idle", self._attempt.idle, self.upstream), now, effects)
        elif now >= self._delivery.keepalive_at:
            self._delivery.keep_alive(now, effects)

    def shut_down(self, now: float) -> None:
        """The process is about to end: so does the stream, at the next call of either entrance; `deadline` is `now` at the latest."""
        self._shut_down_at = min(self._shut_down_at, now)
        self._look_ahead()

    def client_blocked(self, seconds: float) -> None:
        """The client took nothing for so long: that time is neither the upstream's silence nor ours."""
        self._last_token += seconds
        self._delivery.client_blocked(seconds)
        self._look_ahead()

    def abandon(self, now: float) -> None:
        """Nobody waits for this stream any more: what was counted so far is told. Idempotent, harmless after the end."""
        self._close_buffer(now)
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Decide what holds until something else comes than an event that passes: when what is due, and whether such an event flows."""
        self._flowing = False
        if self.ended:
            self.deadline = math.inf
            return
        attempt, buffer, delivery = self._attempt, self._buffer, self._delivery
        self._end_at = min(self._total_at, self._shut_down_at)
        held_until = buffer.deadline if buffer is not None else math.inf
        self.deadline = min(self._end_at, delivery.keepalive_at, held_until)
        if attempt is None or self._ordered:
            return
        self.deadline = min(self.deadline, self._last_token + attempt.idle)
        if type(self._state) is st.StateNormalFlow and buffer is not None and held_until == math.inf and delivery.open:
            self._pause = min(self._policy.keepalive_interval, attempt.idle)
            self._flowing = self._resumption is None and self._trace is None and self._cut_for is None

    # ---- an attempt's life

    def _begin(self, attempt: AttemptStarted, now: float) -> None:
        self._close_buffer(now)
        self._attempt = self._delivery.attempt = attempt
        self._tally.tell(now, "attempt", f"{attempt.number}: {attempt.upstream} answers{' to a resume' if attempt.resumes else ''}")
        self._ordered = False
        self._buffer = self._open_buffer(attempt.upstream)
        self._guard = self._open_guard(attempt.upstream)
        self._resumption = self._progress.resumption(attempt, self._plan)
        if self._resumption is not None and self._resumption.strategy is None:
            self._tally.replayed += self._resumption.swallowing
        self._last_token = now
        self._completion = Completion(self._policy.choices)

    def _take(self, chunk: Comment | Done | InBandError | Malformed, now: float, effects: Effects) -> None:
        assert self._buffer is not None
        match chunk:
            case Comment():
                if now - self._last_comment < 1.0 / self._policy.comments_per_second:
                    self._tally.comments_dropped += 1
                    return
                self._last_comment = now
                self._release(self._buffer.add_other(chunk, now), now, effects)
            case Done():
                self._complete(chunk.raw, now, effects)
            case InBandError():
                self._fail_attempt(classify_in_band(chunk, self.upstream), now, effects)
            case Malformed():
                if chunk.oversize or (chunk.may_carry_output and not self._policy.skip_bad_chunks):
                    self._fail_attempt(malformed_fault(chunk, self.upstream), now, effects)
                else:
                    self._tally.skipped += 1

    def _take_event(self, event: Event, now: float, effects: Effects) -> None:
        # Every event of every stream comes through here, so that calls which would change nothing are left out: what Completion and
        # Progress have noted already; and while the answer flows, with output that the buffer lets pass, what `_release` and `_look_ahead`
        # would find is known.
        assert self._buffer is not None
        weight, tally, completion = event.weight, self._tally, self._completion
        tally.events += 1
        if weight is not _NOTHING:
            self._last_token = now
            if tally.first_token is None:
                tally.first_token = now
        if event.id != completion.id or event.choices != completion.usual or event.finished:
            completion.note(event)
        flows = self._flowing and weight is not _NOTHING
        released = None if flows and self._buffer.passes(event, now) else self._buffer.take(event, now)
        if flows and released is None:
            if not self._progress.settled:
                self._progress.note(event, None)
            self._delivery.last_write = now
            effects.frames.append(event.raw)
            due = now + self._pause
            self.deadline = due if due < self._end_at else self._end_at
            if self._guard is None or (loop := self._guard.observe(event, None)) is None:
                return
            self._note_loop(loop, self._guard.policy.action, now, effects)
        else:
            self._release([Released(event, event.raw)] if released is None else released, now, effects)
        if self._cut_for is not None and not self._completion.complete:
            self._flush(now, effects)
            self._give_up(self._cut_for.fault(self.upstream), now, effects)
        self._look_ahead()

    def _body_over(self, now: float, effects: Effects) -> None:
        """The HTTP body ended without [DONE]: done if every choice finished, cut if not."""
        if not self._completion.complete:
            self._fail_attempt(truncated_fault(self.upstream), now, effects)
            return
        self._complete(DONE_FRAME, now, effects)
        self._tally.done_added = isinstance(self._result, Complete)

    def _complete(self, done: bytes, now: float, effects: Effects) -> None:
        self._flush(now, effects)
        if self._resumption is not None and not self._resumption.may_end:
            self._refuse_attempt(now, effects)
            return
        self._join(now, effects)
        self._write_trailer(now, effects)
        self._delivery.deliver(done, now, effects)
        self._delivery.let_go(now, effects)
        self._order(Finish(None), effects)
        self._end(Complete(), now, effects)

    def _fail_attempt(self, fault: Fault, now: float, effects: Effects) -> None:
        """The attempt is over. What follows depends on what the client already has."""
        self._flush(now, effects)
        if self._resumption is not None and self._resumption.differs:
            self._refuse_attempt(now, effects)
            return
        if self._delivery.keeping:
            self._delivery.drop()
            self._progress = Progress(self._policy)
        if self._resuming:
            self._count_resume("cut")
        order = self._progress.order_after(fault, self._resumption)
        if order is None:
            self._give_up(fault, now, effects)
            return
        self._plan = order.plan
        self._advance(st.AttemptFailed(), now)
        self._order(order, effects)

    def _check_difference(self, now: float, effects: Effects) -> None:
        if not self._ordered and self._resumption is not None and self._resumption.differs:
            self._refuse_attempt(now, effects)

    def _refuse_attempt(self, now: float, effects: Effects) -> None:
        """A second answer that is not the first one's: the client keeps what it has, and is told what broke it."""
        self._count_resume("differed")
        differed = differed_fault(self.upstream)
        self._order(Finish(differed), effects)
        self._end(Failed(self._progress.fault_to_tell(differed)), now, effects)

    @property
    def _resuming(self) -> bool:
        """The attempt takes up output that was sent, and has not caught up with it yet."""
        return self._resumption is not None and self._resumption.strategy is not None and self._resumption.swallowing

    def _count_resume(self, result: str) -> None:
        if self._resumption is not None and self._resumption.strategy is not None:
            self._tally.resumes[self._resumption.strategy.value, result] += 1

    # ---- effects

    def _order(self, order: Order, effects: Effects) -> None:
        self._ordered = True
        self._delivery.attempt = None
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
        # What is swallowed may be held as well; but then nothing has joined the stream.
        holding = self._buffer.holding and not (self._resumption is not None and self._resumption.swallowing)
        stuttering = isinstance(self._state, st.StateStuttering)
        if holding and not stuttering:
            self._join(now, effects)
            self._advance(st.HoldBegan(), now)
        elif stuttering and not holding:
            self._advance(st.HoldResolved(), now)

    def _emit(self, released: Iterable[Released], now: float, effects: Effects) -> None:
        for one in released:
            if one.held_for > 0.0:
                self._tally.holds += 1
                self._tally.longest_hold = max(self._tally.longest_hold, one.held_for)
                self._tally.tell(
                    now, "repair" if one.shape else "hold", f"{one.shape or 'left as it came'} after {one.held_for * 1000:.0f} ms"
                )
            elif one.shape:
                self._tally.tell(now, "repair", one.shape)
            if self._trace is not None:
                self._trace.released(one, now)
            if not one.frame:
                continue
            chunk, frame, texts = one.chunk, one.frame, one.texts
            if type(chunk) is not Event:
                self._delivery.deliver(frame, now, effects)
                continue
            if self._resumption is not None:
                restated = self._resumption.restate(one)
                if restated is None:
                    continue
                chunk, frame, texts = restated, restated.raw, None
            if chunk.weight is not Weight.NOTHING:
                self._join(now, effects)
                if type(self._state) is st.StateInitial:
                    self._advance(st.FirstOutput(), now)
            self._pass(chunk, texts, frame, now, effects)

    def _pass(self, event: Event, texts: dict[int, str] | None, frame: bytes, now: float, effects: Effects) -> None:
        """An event leaves for the client."""
        self._progress.note(event, texts)
        self._delivery.deliver(frame, now, effects)
        if self._guard is not None and (loop := self._guard.observe(event, texts)) is not None:
            self._note_loop(loop, self._guard.policy.action, now, effects)

    def _note_loop(self, loop: Loop, action: str, now: float, effects: Effects) -> None:
        self._guard = None  # once per attempt is enough
        self._tally.loops[action] += 1
        self._tally.tell(now, "loop", f"{len(loop.unit)} characters again and again: {action}")
        if self._trace is not None:
            self._trace.looped(loop, now)
        if action == "warn":
            self._delivery.deliver(loop.comment, now, effects)
        elif action == "cut":
            self._cut_for = loop  # what is released with it leaves first

    def _join(self, now: float, effects: Effects) -> None:
        if not isinstance(self._state, st.StateRecovering):
            return
        self._advance(st.Joined(), now)
        if self._resumption is not None and self._resumption.strategy is not None:
            self._count_resume("joined")
            self._delivery.deliver(self._progress.comment(self.upstream, self._resumption.strategy), now, effects)

    def _write_trailer(self, now: float, effects: Effects) -> None:
        if self._buffer is not None and (trailer := self._buffer.trailer(self._tally.repairs)):
            self._delivery.deliver(trailer, now, effects)

    def _end(self, end: Complete | Failed, now: float, effects: Effects) -> None:
        if isinstance(self._state, st.StateRecovering):
            self._advance(st.GaveUp(), now)
        else:
            self._advance(st.Ended(), now)
        effects.end = self._result = end
        self.ended = True
        self._close_buffer(now)

    def _close_buffer(self, now: float) -> None:
        if self._buffer is not None:
            self._buffer.close(now)
            tally, buffer = self._tally, self._buffer
            for total, counted in ((tally.flushes, buffer.flushes), (tally.repairs, buffer.repairs), (tally.refused, buffer.refused)):
                if counted:
                    total.update(counted)
            self._buffer = None

    def _advance(self, event: st.StreamEvent, now: float) -> None:
        before = self._state
        self._state = st.advance(before, event)
        if self._trace is not None:
            self._trace.advanced(before, event, self._state, now)
        if type(before) is not type(self._state):
            self._tally.tell(now, "state", f"{st.words_of(before)} -> {st.words_of(self._state)}")
        self._tally.transitions[type(before).__name__, type(event).__name__, type(self._state).__name__] += 1

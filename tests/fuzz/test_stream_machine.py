"""The stream machine under arbitrary scripts: attempts, words, ends, silences, a client that blocks, a process that stops, in any order.

`Stream` (machine_script.py) asserts at every step what holds of one call: one head, one order per attempt, one end and nothing after it,
whole events only, [DONE] exactly if the stream is done. Here is what holds of a stream's whole life: it never waits for what is due
already, every attempt gets its order, and what the client has is what an attempt said, neither more nor less nor something else.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as hs
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors import BufferPolicy, Complete, LoopGuard, LoopPolicy, SmartBuffer, StreamPolicy, StutteringDetector, StutterPolicy
from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Event, Field
from actors.sansio.effects import Effects, Resume
from actors.sansio.resume_plan import ResumeStrategy, units

from ..actors.sansio.machine_script import CUT, Stream
from ..actors.sansio.test_stream_machine_invariants import BLOCKS
from ..fakes import DONE, content, finish, reasoning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.sansio.resume_plan import ResumePlan

Lane = tuple[int, Field, int]

ANSWER = "The river bends twice before it reaches the mill, and each bend keeps a little of the morning. 🚀 Then it is noon."
THOUGHTS = (Field.REASONING, Field.REASONING_CONTENT)
POLICIES = hs.builds(
    StreamPolicy,
    choices=hs.sampled_from([1, 1, 1, 2]),
    replay_reasoning=hs.booleans(),
    resume=hs.sets(hs.sampled_from(ResumeStrategy)).map(frozenset),
    whole=hs.booleans(),
    skip_bad_chunks=hs.booleans(),
    keepalive_after=hs.sampled_from([2.0, math.inf]),
    keepalive_interval=hs.sampled_from([2.0, math.inf]),
    total=hs.sampled_from([100.0, math.inf]),
)
LOOPS = hs.sampled_from(["off", "observe", "warn", "cut"])


def texts(data: bytes) -> dict[Lane, str]:
    """The text of each lane, as UTF-16 units."""
    found: dict[Lane, str] = {}
    for chunk in ChunkParser().feed(data):
        for delta in chunk.deltas if isinstance(chunk, Event) else ():
            lane = delta.choice, delta.field, delta.call_index
            found[lane] = found.get(lane, "") + units(delta.text)
    return found


class Attempt:
    """What one attempt said before its order, and how it takes up what was sent.

    Args:
      plan: of the order before it, None if it says everything.
      strategy: how it takes up the answer, None if it begins one.
    """

    def __init__(self, plan: ResumePlan | None, strategy: ResumeStrategy | None, orders: int) -> None:
        prefix = strategy is ResumeStrategy.PREFIX and plan is not None
        self.kept = units(plan.sent[Field.CONTENT])[: plan.cut] if prefix and plan is not None else ""
        self.strategy = strategy
        self.script = ANSWER
        self.said = b""
        self.orders = orders  # given before it began

    def full(self) -> list[dict[Lane, str]]:
        """The answers that it may stand for, by lane: Mistral says a prefix again, others go on from it."""
        own = texts(self.said)
        lane = 0, Field.CONTENT, -1
        return [own, {**own, lane: self.kept + own.get(lane, "")}] if self.kept else [own]


class AnyStream(RuleBasedStateMachine):
    """One stream, and whatever may happen to it."""

    @initialize(
        policy=POLICIES,
        mode=hs.sampled_from(["off", "observe", "repair"]),
        loops=LOOPS,
        idle=hs.sampled_from([5.0, math.inf]),
        patience=hs.integers(0, 3),
        stops=hs.integers(0, 5),
    )
    def accept(self, policy: StreamPolicy, mode: Any, loops: Any, idle: float, patience: int, stops: int) -> None:
        self.patience = patience  # tries that may fail
        self.stops = stops == 5  # what ends streams must not end nearly all of them
        guard = LoopPolicy(action=loops, window=1024, repetitions=3, characters=100)
        self.stream = Stream(
            policy,
            open_buffer=lambda _: SmartBuffer(StutteringDetector(StutterPolicy(mode=mode)), BufferPolicy()),
            open_guard=lambda _: LoopGuard(guard) if loops != "off" else None,
        )
        self.policy, self.mode, self.idle = policy, mode, idle
        self.now = 0.0
        self.attempts: list[Attempt] = []
        self.reading = False  # an attempt was begun and its end was not told
        self.replayed = False
        if patience < 3:
            self.begin(ResumeStrategy.ALIGN)

    # ---- what may happen

    def seeking(self) -> bool:
        return hasattr(self, "stream") and not self.reading and self.stream.end is None

    def begin(self, strategy: ResumeStrategy) -> None:
        order = self.stream.orders[-1] if self.stream.orders else None
        plan = order.plan if isinstance(order, Resume) else None
        if plan is None:
            chosen = None
        elif strategy in plan.strategies and (strategy is ResumeStrategy.ALIGN or plan.cut is not None):
            chosen = strategy
        else:
            return  # no upstream can be asked
        self.replayed |= isinstance(order, Resume) and order.replay
        attempt = Attempt(plan, chosen, len(self.stream.orders))
        if attempt.kept and units(ANSWER).startswith(attempt.kept):
            attempt.script = units(ANSWER)[len(attempt.kept) :]
        self.attempts.append(attempt)
        self.reading = True
        self.stream.start(self.now, idle=self.idle, resumes=chosen.value if chosen else "")

    @precondition(lambda self: self.seeking())
    @rule()
    def fail_to_begin(self) -> None:
        self.patience -= 1
        if self.patience >= 0:
            self.stream.failed(now=self.now)
        elif self.attempts and self.stops:
            self.stream.exhausted(now=self.now)

    @rule(length=hs.integers(1, 60), thought=hs.booleans(), strategy=hs.sampled_from(ResumeStrategy))
    def go_on(self, length: int, thought: bool, strategy: ResumeStrategy) -> None:
        if self.seeking():
            self.begin(strategy)
        if not self.reading:
            return
        script = self.attempts[-1].script
        self.attempts[-1].script = script[length:]
        if thought and not self.attempts[-1].said:
            self.arrive(reasoning("Let me think."))
            self.attempts[-1].script = script
        elif script:
            self.arrive(content(script[:length]))
        else:
            self.arrive(finish() + DONE)

    @rule(strategy=hs.sampled_from(ResumeStrategy))
    def say_the_rest(self, strategy: ResumeStrategy) -> None:
        """Rules are drawn evenly; without this one few streams would ever be done."""
        for _ in range(2):
            self.go_on(len(ANSWER), thought=False, strategy=strategy)

    @precondition(lambda self: self.reading)
    @rule(length=hs.integers(20, 90))
    def break_off(self, length: int) -> None:
        self.go_on(length, thought=False, strategy=ResumeStrategy.ALIGN)
        self.end_attempt(CUT)

    @precondition(lambda self: self.reading)
    @rule(blocks=hs.lists(BLOCKS | hs.just(content("ha " * 50)), min_size=1, max_size=4))
    def say_anything(self, blocks: list[bytes]) -> None:
        for block in blocks:
            self.arrive(block)

    @precondition(lambda self: self.reading and self.stream.end is None)
    @rule(fault=hs.sampled_from([None, CUT]))
    def end_attempt(self, fault: Any) -> None:
        self.reading = False
        self.stream.over(fault, self.now)
        assert self.stream.end is not None or len(self.stream.orders) == self.attempts[-1].orders + 1, "an attempt without its order"

    @rule(seconds=hs.sampled_from([0.01, 0.3, 0.5, 3.0, 9.0]), punctual=hs.booleans())
    def wait(self, seconds: float, punctual: bool) -> None:
        until = self.now + seconds
        while punctual and self.stream.machine.deadline <= until:
            self.now = max(self.now, self.stream.machine.deadline)
            self.wake()
        self.now = until

    @rule(seconds=hs.sampled_from([0.2, 4.0]))
    def block(self, seconds: float) -> None:
        self.now += seconds
        self.stream.machine.client_blocked(seconds)

    @precondition(lambda self: self.stops)
    @rule()
    def shut_down(self) -> None:
        self.stream.machine.shut_down(self.now)

    def arrive(self, block: bytes) -> None:
        attempt = self.attempts[-1]
        if len(self.stream.orders) == attempt.orders and self.stream.end is None:
            attempt.said += block
        self.stream.data(block, now=self.now)

    def wake(self) -> None:
        self.stream.wake(self.now)

    # ---- what holds all the while

    @invariant()
    def nothing_is_due_for_ever(self) -> None:
        if not hasattr(self, "stream"):
            return
        for _ in range(5):
            if self.stream.machine.deadline > self.now:
                break
            self.wake()
        assert self.stream.machine.deadline > self.now, "it would be woken again and again"

    @invariant()
    def the_client_has_what_an_attempt_said(self) -> None:
        if not hasattr(self, "stream") or not self.stream.written:
            return
        has = self.lanes(texts(self.stream.written))
        answers = [self.lanes(answer) for attempt in self.attempts for answer in attempt.full()]
        ended = self.stream.end is not None
        if not self.stream.tally.repairs or self.mode == "observe":
            held = self.mode == "repair" and not ended
            fits = any(prefix(has, answer) if held or self.policy.whole else has == answer for answer in answers)
            assert fits or not has, (has, answers)
        else:
            assert any(all(within(text, answer.get(lane, "")) for lane, text in has.items()) for answer in answers) or len(answers) > 1
        if isinstance(self.stream.end, Complete) and not self.stream.tally.repairs:
            assert has in [self.lanes(answer) for answer in self.attempts[-1].full()], "not the whole answer, and called done"

    def lanes(self, by_lane: Mapping[Lane, str]) -> dict[Lane, str]:
        """Those that are told whole by one attempt: thoughts of which some were swallowed are not."""
        mixed = self.replayed or any(attempt.strategy is ResumeStrategy.PREFIX for attempt in self.attempts)
        return {lane: text for lane, text in by_lane.items() if not (mixed and lane[1] in THOUGHTS)}

    def teardown(self) -> None:
        if not hasattr(self, "stream"):
            return
        if self.reading:
            self.end_attempt(CUT)
        self.stream.exhausted(now=self.now)
        assert self.stream.end is not None
        assert self.stream.machine.deadline == math.inf
        written = self.stream.written
        assert (
            self.stream.start() == self.stream.data(content("late")) == self.stream.over() == self.stream.wake(self.now + 1e6) == Effects()
        )
        assert self.stream.written == written
        assert all(json.loads(json.dumps(event)) for event in self.stream.events)


def prefix(has: Mapping[Lane, str], whole: Mapping[Lane, str]) -> bool:
    return all(whole.get(lane, "").startswith(text) for lane, text in has.items())


def within(text: str, came: str) -> bool:
    """Whether `text` is `came` with something left out."""
    rest = iter(came)
    return all(character in rest for character in text)


TestAnyStream = AnyStream.TestCase
TestAnyStream.settings = settings(deadline=None, stateful_step_count=40)

"""The stream machine's deadlines: keep-alive, idle, total, the age of a hold, and the pace of comments."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from actors import Complete, FaultKind, StreamPolicy
from actors.sansio.delivery import KEEP_ALIVE
from actors.sansio.effects import Effects, Finish, Resume

from ...fakes import DONE, choice, content, event, finish, reasoning, role
from .machine_script import Stream

if TYPE_CHECKING:
    from collections.abc import Callable


def test_keep_alives_come_after_silence_and_never_inside_an_event() -> None:
    stream = Stream(StreamPolicy(keepalive_after=15.0, keepalive_interval=10.0))
    stream.start()
    assert stream.machine.deadline == 15.0
    assert stream.wake(14.9).frames == []
    assert stream.wake(15.0).frames == [KEEP_ALIVE]
    assert stream.machine.deadline == 25.0
    half = content("Hello")
    stream.data(half[:20], now=24.0)  # half an event is no news for the client
    assert stream.wake(25.0).frames == [KEEP_ALIVE]
    stream.data(half[20:], now=26.0)
    assert stream.machine.deadline == 36.0
    assert stream.tally.keepalives == 2
    assert stream.written == KEEP_ALIVE * 2 + content("Hello")


def test_a_steady_flow_of_nothing_does_not_put_off_the_keep_alive() -> None:
    stream = Stream(StreamPolicy(keepalive_after=math.inf, keepalive_interval=2.0))
    stream.start()
    stream.data(b": first\n\n", now=0.0)
    stream.data(b": flood\n\n" * 5, now=0.5)
    assert stream.data(b": flood\n\n", now=3.0).frames == [b": flood\n\n"]
    assert stream.tally.comments_dropped == 5


def test_upstream_comments_pass_at_most_one_a_second() -> None:
    stream = Stream()
    stream.start()
    comments = [b": %d\n\n" % number for number in range(40)]
    for number, comment in enumerate(comments):
        stream.data(comment, now=number / 10)
    assert stream.written == b"".join(comments[::10])
    assert stream.tally.comments_dropped == 36


def test_a_comment_keeps_its_place_among_held_events() -> None:
    stream = Stream()
    stream.start()
    stream.data(content("Hello"), content("Hello"), b": ping\n\n", now=1.0)
    stream.data(finish(), DONE, now=1.1)
    assert stream.written == content("Hello") * 2 + b": ping\n\n" + finish() + DONE


def test_idle_counts_from_the_last_token_and_comments_are_none() -> None:
    stream = Stream()
    stream.start(1.0, idle=10.0)
    stream.data(content("Hello"), now=5.0)
    assert stream.machine.deadline == 15.0
    stream.data(b": ping\n\n", role(), now=14.0)
    assert stream.machine.deadline == 15.0
    effects = stream.wake(15.0)
    assert stream.failure.kind is FaultKind.IDLE_TIMEOUT
    assert (stream.failure.setting, effects.order) == ("timers.idle", Finish(stream.failure))
    assert "timers.idle = 10 s" in stream.failure.message


def test_idle_before_output_seeks_another_attempt() -> None:
    stream = Stream()
    stream.start(0.0, idle=10.0)
    order = stream.wake(10.0).order
    assert isinstance(order, Resume)
    assert order.fault.kind is FaultKind.IDLE_TIMEOUT
    assert stream.machine.deadline == math.inf  # while an attempt is sought, nobody is idle


def test_reasoning_and_tool_calls_are_tokens() -> None:
    call = {"index": 0, "id": "t", "function": {"name": "f", "arguments": "{"}}
    for block in (reasoning("hm"), event(choice(tool_calls=[call])), event(choice(refusal="no"))):
        stream = Stream()
        stream.start(0.0, idle=10.0)
        stream.data(block, now=7.0)
        assert stream.machine.deadline == 17.0


def test_time_in_which_the_client_takes_nothing_is_not_the_upstreams_silence() -> None:
    stream = Stream()
    stream.start(0.0, idle=10.0)
    stream.data(content("Hello"), now=1.0)
    stream.machine.client_blocked(20.0)
    assert stream.machine.deadline == 31.0
    assert stream.wake(30.9) == Effects()
    assert stream.wake(31.0).end is not None


def test_an_answer_that_is_whole_is_done_when_its_upstream_never_ends() -> None:
    stream = Stream()
    stream.start(0.0, idle=10.0)
    stream.data(content("Hello"), finish(), now=1.0)
    effects = stream.wake(11.0)
    assert effects.end == Complete()
    assert effects.order == Finish(None)


def test_total_ends_everything_in_every_phase() -> None:
    phases: dict[str, Callable[[Stream], object]] = {
        "before the first attempt": lambda stream: None,
        "between attempts": lambda stream: stream.failed(),
        "in an attempt": lambda stream: stream.start(),
        "after output": lambda stream: (stream.start(), stream.data(content("Hello"))),
        "with something held": lambda stream: (stream.start(), stream.data(content("Hello"), content("Hello"), now=59.9)),
    }
    for prepare in phases.values():
        stream = Stream(StreamPolicy(total=60.0, keepalive_after=math.inf, keepalive_interval=math.inf))
        prepare(stream)
        effects = stream.wake(60.0)
        assert isinstance(effects.order, Finish)
        assert stream.failure.kind is FaultKind.TOTAL_TIMEOUT
        assert stream.failure.setting == "timers.total"
    assert stream.written == content("Hello") * 2  # what was held is not lost


def test_a_steady_flow_of_items_does_not_put_off_the_total() -> None:
    stream = Stream(StreamPolicy(total=60.0))
    stream.start()
    stream.data(content("Hello"), now=59.0)
    stream.data(content(" world"), now=61.0)
    assert stream.failure.kind is FaultKind.TOTAL_TIMEOUT
    assert stream.text() == "Hello world"


def test_a_total_that_passes_with_the_attempts_fault_calls_the_search_off() -> None:
    stream = Stream(StreamPolicy(total=60.0))
    stream.start()
    effects = stream.data(b'data: {"error": {"message": "overloaded"}}\n\n', now=61.0)
    assert effects.order == Finish(stream.failure)


def test_a_hold_ends_at_its_age() -> None:
    stream = Stream()
    stream.start()
    stream.data(content("Hello"), content("Hello"), now=1.0)
    assert stream.machine.deadline == pytest.approx(1.4)
    assert stream.wake(stream.machine.deadline).frames == [content("Hello")]
    stream.data(DONE)
    assert stream.tally.flushes["age"] == 1
    assert stream.tally.holds == 1

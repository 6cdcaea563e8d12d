"""The end of the process, as a stream sees it: through the machine's own entrances, behind what was read."""

from __future__ import annotations

import math

from actors import Complete, FaultKind
from actors.sansio.effects import Finish

from ...fakes import content, finish, reasoning, role
from .machine_script import REFUSED, Stream


def shut_down(stream: Stream, now: float) -> None:
    """What its processor does."""
    stream.machine.shut_down(now)
    assert stream.machine.deadline == now
    stream.wake(now)


def test_row_68_a_stream_ends_with_a_frame_behind_its_text() -> None:
    stream = Stream()
    stream.start()
    stream.data(role(), content("Hello"))
    shut_down(stream, 1.0)
    assert stream.text() == "Hello"
    assert stream.failure.kind is FaultKind.SHUTDOWN
    assert (stream.failure.code, stream.failure.http_status) == ("server_shutdown", 503)
    assert stream.orders == [Finish(stream.failure)]


def test_row_68_what_was_held_is_released_first() -> None:
    stream = Stream()
    stream.start()
    stream.data(content("Hello"), content("Hello wor"))
    assert stream.text() == "Hello"
    shut_down(stream, 0.1)
    assert stream.text() == "HelloHello wor"


def test_row_68_the_next_item_does_as_well_as_a_wake() -> None:
    stream = Stream()
    stream.start()
    stream.data(content("Hello"))
    stream.machine.shut_down(1.0)
    stream.data(content(" world"), now=1.0)
    assert stream.text() == "Hello world"
    assert stream.failure.kind is FaultKind.SHUTDOWN


def test_row_68_a_stream_without_an_attempt_ends_too() -> None:
    stream = Stream()
    stream.failed(REFUSED)
    shut_down(stream, 1.0)
    assert not stream.heads
    assert stream.failure.retry_after == 1.0


def test_row_68_an_answer_that_only_lacks_its_done_is_complete() -> None:
    stream = Stream()
    stream.start()
    stream.data(content("Hello"), finish())
    shut_down(stream, 1.0)
    assert stream.end == Complete()
    assert stream.tally.done_added


def test_row_68_reasoning_is_not_replayed_any_more() -> None:
    stream = Stream()
    stream.start()
    stream.data(reasoning("Let me think"))
    shut_down(stream, 1.0)
    assert stream.failure.kind is FaultKind.SHUTDOWN


def test_row_68_after_its_end_nothing_happens() -> None:
    stream = Stream()
    stream.exhausted()
    stream.machine.shut_down(1.0)
    assert stream.machine.deadline == math.inf
    stream.wake(1.0)
    assert stream.failure == REFUSED

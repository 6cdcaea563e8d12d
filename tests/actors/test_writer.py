"""The writer: heads, frames and ends into the outlet, and what becomes of it when the client is lost."""

from __future__ import annotations

import json
import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors import Complete, Failed, Fault, FaultKind, ResponseHead, ResponseHeaders, Tally
from actors.sansio.effects import Effects, Head
from actors.writer import Loss, Written, write_frames

from ..fakes import DONE, FakeOutlet, content

HELLO = content("Hello")
FAULT = Fault(FaultKind.SERVER_ERROR, "upstream 'a' answered 503: busy", 503, "a", retry_after=1.2)
HEADERS = ResponseHeaders("req-1", "actors")
START = Effects(head=Head("a", 2, ((b"x-more", b"1"),)), frames=[HELLO])


class Writing:
    """A writer, and what it leaves behind."""

    def __init__(self, outlet: FakeOutlet) -> None:
        self.outlet = outlet
        self.written = Written()
        self.tally = Tally(attempts=3)
        self.lost = trio.CancelScope()
        self.effects, self._inbox = trio.open_memory_channel[Effects](math.inf)

    async def run(self, *effects: Effects) -> None:
        """Write these and whatever else lies there, until the channel closes."""
        for one in effects:
            self.effects.send_nowait(one)
        self.effects.close()
        await self.follow()

    async def follow(self) -> None:
        await write_frames(self._inbox, self.outlet, HEADERS, self.tally, self.written, self.lost)
        assert not self._inbox.statistics().open_receive_channels


async def test_a_stream_is_a_head_frames_and_an_end() -> None:
    writing = Writing(FakeOutlet())
    await writing.run(START, Effects(frames=[HELLO, DONE], end=Complete()))
    outlet = writing.outlet
    assert (outlet.status, outlet.finished, outlet.aborted) == (200, True, False)
    assert outlet.writes == [HELLO, HELLO + DONE]  # one write per effects
    assert outlet.headers == {
        "content-type": "text/event-stream",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
        "x-request-id": "req-1",
        "x-evenflow-engine": "actors",
        "x-evenflow-upstream": "a",
        "x-evenflow-attempts": "2",
        "x-more": "1",
    }
    assert writing.written == Written(status=200, end=Complete())
    assert writing.tally.bytes_out == len(outlet.body)
    assert not writing.lost.cancel_called


async def test_what_was_kept_for_a_whole_answer_leaves_in_pieces() -> None:
    """A slow client that takes a piece in time is not given up for the size of the sum."""
    writing = Writing(FakeOutlet())
    frames = [content("x" * 1000) for _ in range(200)]
    await writing.run(Effects(head=Head(), frames=[*frames, DONE], end=Complete()))
    assert writing.outlet.body == b"".join(frames) + DONE
    assert max(map(len, writing.outlet.writes)) <= 65_536
    assert writing.tally.bytes_out == len(writing.outlet.body)


async def test_a_head_that_names_nobody_has_no_such_headers() -> None:
    writing = Writing(FakeOutlet())
    await writing.run(Effects(head=Head(), frames=[b": keep-alive\n\n"]), Effects(end=Complete()))
    assert not {"x-evenflow-upstream", "x-evenflow-attempts"} & set(writing.outlet.headers)


async def test_an_error_before_the_head_is_a_status() -> None:
    writing = Writing(FakeOutlet())
    await writing.run(Effects(end=Failed(FAULT)))
    outlet = writing.outlet
    assert (outlet.status, outlet.finished) == (503, True)
    assert outlet.body == FAULT.to_json()
    assert outlet.headers["content-type"] == "application/json"
    assert outlet.headers["content-length"] == str(len(outlet.body))
    assert outlet.headers["retry-after"] == "2"  # rounded up
    assert outlet.headers["x-evenflow-attempts"] == "3"
    assert writing.written.status == 503
    assert writing.written.end == Failed(FAULT)


async def test_an_error_after_the_head_is_a_frame_behind_the_text() -> None:
    writing = Writing(FakeOutlet())
    await writing.run(START, Effects(frames=[HELLO], end=Failed(FAULT)))
    outlet = writing.outlet
    assert outlet.body == HELLO * 2 + FAULT.to_frame()
    assert json.loads(outlet.body.rsplit(b"data: ")[-1])["error"]["message"] == FAULT.message
    assert outlet.finished
    assert writing.tally.bytes_out == len(outlet.body)


async def test_its_input_closes_without_an_end() -> None:
    writing = Writing(FakeOutlet())
    await writing.run(START)
    assert not writing.outlet.finished
    assert not writing.outlet.aborted  # it stands at a frame boundary: whoever supervises may still say why
    assert writing.written == Written(status=200)


async def test_the_client_is_gone() -> None:
    writing = Writing(FakeOutlet(gone_after=len(HELLO)))
    await writing.run(START, Effects(frames=[HELLO]), Effects(frames=[HELLO]))
    assert writing.written.loss is Loss.GONE
    assert writing.outlet.aborted
    assert writing.lost.cancel_called
    assert writing.written.end is None


async def test_the_client_takes_nothing(autojump_clock: MockClock) -> None:
    writing = Writing(FakeOutlet(room=len(HELLO), stall=30.0))
    began = trio.current_time()
    await writing.run(START, Effects(frames=[HELLO]))
    assert trio.current_time() - began == pytest.approx(30.0)
    assert writing.written.loss is Loss.STALLED
    assert writing.outlet.aborted
    assert writing.lost.cancel_called


async def test_it_is_cancelled_inside_a_write() -> None:
    writing = Writing(FakeOutlet(room=len(HELLO)))
    writing.effects.send_nowait(START)
    writing.effects.send_nowait(Effects(frames=[HELLO]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writing.follow)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert writing.outlet.aborted  # part of the write may be out
    assert writing.written.busy
    assert writing.written.loss is None


async def test_it_is_cancelled_between_two_writes() -> None:
    writing = Writing(FakeOutlet())
    writing.effects.send_nowait(START)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writing.follow)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not writing.outlet.aborted
    assert not writing.written.busy


async def test_a_bug_in_the_outlet_is_loud_and_leaves_it_dead() -> None:
    writing = Writing(FakeOutlet(crash=RuntimeError("bug")))
    with pytest.raises(RuntimeError, match="bug"):
        await writing.run(START)
    assert writing.outlet.aborted
    assert not writing.lost.cancel_called


async def test_the_first_bytes_leave_with_the_head_and_the_last_with_the_end(autojump_clock: MockClock) -> None:
    calls: list[tuple[str, bytes]] = []

    class Noting(FakeOutlet):
        async def start(self, head: ResponseHead, data: bytes = b"") -> None:
            calls.append(("start", data))

        async def write(self, data: bytes) -> None:
            calls.append(("write", data))

        async def finish(self, data: bytes = b"") -> None:
            calls.append(("finish", data))

    await Writing(Noting()).run(START, Effects(frames=[HELLO]), Effects(frames=[DONE], end=Complete()))
    assert calls == [("start", HELLO), ("write", HELLO), ("finish", DONE)]


async def test_a_client_that_stalls_behind_the_head_has_its_status(autojump_clock: MockClock) -> None:
    writing = Writing(FakeOutlet(room=0, stall=1.0))
    await writing.run(START)
    assert (writing.written.status, writing.written.loss, writing.tally.bytes_out) == (200, Loss.STALLED, 0)

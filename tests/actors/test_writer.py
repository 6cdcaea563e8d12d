"""The writer: heads, frames and ends into the outlet, and what becomes of it when the client is lost."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors import Complete, Failed, Fault, FaultKind, ResponseHead, ResponseHeaders, Tally
from actors.sansio.effects import Effects, Head
from actors.writer import Loss, Writer, Written

from ..fakes import DONE, FakeOutlet, content

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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

    def writer(self, nursery: trio.Nursery) -> Writer:
        return Writer(self.outlet, HEADERS, self.tally, self.written, nursery=nursery, lose_client=self.lost)

    async def run(self, *effects: Effects) -> None:
        """Write these, each when there is room for it, and let the writer come to rest."""
        with self.lost:
            async with trio.open_nursery() as nursery:
                writer = self.writer(nursery)
                for one in effects:
                    if not writer.put(one):
                        await writer.room()


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


@pytest.mark.parametrize("head", [None, Head()], ids=["behind the head", "with it"])
@pytest.mark.parametrize("end", [None, Complete()], ids=["going on", "ending"])
@pytest.mark.parametrize(
    "sizes",
    [(), (1,), (65_536,), (65_537,), (200_000,), (10, 200_000, 10), (65_530, 6, 1), (200_000, 65_536, 131_072), (40_000, 40_000, 40_000)],
    ids=str,
)
async def test_frames_of_any_size_leave_whole_and_in_pieces(sizes: tuple[int, ...], head: Head | None, end: Complete | None) -> None:
    frames = [bytes([65 + place]) * size for place, size in enumerate(sizes)]
    writing = Writing(FakeOutlet())
    before = [] if head else [Effects(head=Head())]
    await writing.run(*before, Effects(head=head, frames=frames, end=end), *([] if end else [Effects(end=Complete())]))
    assert writing.outlet.body == b"".join(frames)
    assert all(len(write) <= 65_536 for write in writing.outlet.writes)
    assert len(writing.outlet.writes) <= sum(sizes) // 32_768 + 2  # small ones are joined
    assert (writing.outlet.finished, writing.tally.bytes_out) == (True, sum(sizes))


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
    async with trio.open_nursery() as nursery:
        writer = writing.writer(nursery)
        writer.put(START)
        writer.put(Effects(frames=[HELLO]))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert writing.outlet.aborted  # part of the write may be out
    assert writing.written.busy
    assert writing.written.loss is None


async def test_it_is_cancelled_between_two_writes() -> None:
    writing = Writing(FakeOutlet())
    async with trio.open_nursery() as nursery:
        writing.writer(nursery).put(START)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not writing.outlet.aborted
    assert not writing.written.busy


async def test_a_bug_in_the_outlet_is_loud_and_leaves_it_dead() -> None:
    writing = Writing(FakeOutlet(crash=RuntimeError("bug")))
    with pytest.raises(ExceptionGroup, check=lambda group: "bug" in str(group.exceptions[0])):
        await writing.run(START)
    assert writing.outlet.aborted
    assert not writing.lost.cancel_called


# ---- what needs no task -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def started(outlet: FakeOutlet) -> AsyncIterator[tuple[Writing, Writer, trio.Nursery]]:
    """A writer that has written START and rests."""
    writing = Writing(outlet)
    async with trio.open_nursery() as nursery:
        writer = writing.writer(nursery)
        writer.put(START)
        await writer.room()
        await wait_all_tasks_blocked()
        yield writing, writer, nursery


async def test_what_the_client_takes_at_once_is_written_at_once() -> None:
    async with started(FakeOutlet()) as (writing, writer, nursery):
        assert writer.put(Effects(frames=[HELLO, HELLO]))
        assert writing.outlet.writes == [HELLO, HELLO * 2]
        assert not nursery.child_tasks
        assert writer.has_room
        assert not writing.written.busy
        assert writing.tally.bytes_out == len(HELLO * 3)


async def test_what_it_does_not_take_is_waited_for_and_nothing_overtakes_it() -> None:
    async with started(FakeOutlet(room=len(HELLO))) as (writing, writer, _nursery):
        second, third, last = content("second"), content("third"), Effects(frames=[DONE], end=Complete())
        assert writer.put(Effects(frames=[second]))  # one may be on its way
        assert writing.written.busy
        assert not writer.put(Effects(frames=[third]))
        assert not writer.put(last)  # who does not wait is served all the same
        await wait_all_tasks_blocked()
        assert writing.outlet.writes == [HELLO]
        writing.outlet.read_on()
        await writer.room()
        assert writer.has_room
    assert writing.outlet.body == HELLO + second + third + DONE
    assert writing.written == Written(status=200, end=Complete())
    assert writing.tally.bytes_out == len(writing.outlet.body)


async def test_two_may_wait_for_room() -> None:
    async with started(FakeOutlet(room=len(HELLO))) as (writing, writer, nursery):
        writer.put(Effects(frames=[HELLO]))
        nursery.start_soon(writer.room)
        nursery.start_soon(writer.room)
        await wait_all_tasks_blocked()
        writing.outlet.read_on()
        with trio.fail_after(60):
            await writer.room()


async def test_a_client_that_is_gone_is_found_at_once() -> None:
    async with started(FakeOutlet(gone_after=len(HELLO))) as (writing, writer, nursery):
        writer.put(Effects(frames=[HELLO]))
        assert writing.written.loss is Loss.GONE
        assert writing.outlet.aborted
        assert writing.lost.cancel_called
        assert not nursery.child_tasks


async def test_a_bug_in_a_write_at_once_is_the_senders_and_leaves_the_outlet_dead() -> None:
    async with started(FakeOutlet()) as (writing, writer, _):
        writing.outlet.crash = RuntimeError("bug")
        with pytest.raises(RuntimeError, match="bug"):
            writer.put(Effects(frames=[HELLO]))
        assert writing.outlet.aborted
        assert writing.written.busy


async def test_it_is_cancelled_while_a_part_is_out(autojump_clock: MockClock) -> None:
    for steps in range(3):
        async with started(FakeOutlet(room=len(HELLO))) as (writing, writer, nursery):
            writer.put(Effects(frames=[HELLO]))
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert writing.outlet.aborted
        assert writing.written.loss is None


async def test_a_client_that_stalls_on_the_rest_is_given_up(autojump_clock: MockClock) -> None:
    async with started(FakeOutlet(room=len(HELLO), stall=30.0)) as (writing, writer, _nursery):
        began = trio.current_time()
        writer.put(Effects(frames=[HELLO]))
        with writing.lost:
            await writer.room()
        assert trio.current_time() - began == pytest.approx(30.0)
        assert writing.written.loss is Loss.STALLED
        assert writing.outlet.aborted


# ---- calls are joined ---------------------------------------------------------------------------------------------------


async def test_the_first_bytes_leave_with_the_head_and_the_last_with_the_end(autojump_clock: MockClock) -> None:
    calls: list[tuple[str, bytes]] = []

    class Noting(FakeOutlet):
        def start_nowait(self, head: ResponseHead, data: bytes, *, ends: bool = False) -> bool:
            calls.append(("start and finish" if ends else "start", data))
            return True

        def write_nowait(self, data: bytes) -> bool:
            calls.append(("write", data))
            return True

        def finish_nowait(self, data: bytes) -> bool:
            calls.append(("finish", data))
            return True

    await Writing(Noting()).run(START, Effects(frames=[HELLO]), Effects(frames=[DONE], end=Complete()))
    assert calls == [("start", HELLO), ("write", HELLO), ("finish", DONE)]
    calls.clear()
    await Writing(Noting()).run(Effects(head=Head(), frames=[HELLO, DONE], end=Complete()))
    assert calls == [("start and finish", HELLO + DONE)]


async def test_what_a_slow_client_left_of_the_end_is_waited_for() -> None:
    async with started(FakeOutlet(room=len(HELLO))) as (writing, writer, _nursery):
        assert writer.put(Effects(frames=[DONE], end=Complete()))
        await wait_all_tasks_blocked()
        assert (writing.written.busy, writing.written.end, writing.outlet.finished) == (True, None, False)
        writing.outlet.read_on()
        await writer.room()
        assert (writing.written, writing.outlet.finished) == (Written(status=200, end=Complete()), True)
        assert writing.tally.bytes_out == len(HELLO + DONE)


async def test_a_client_that_stalls_behind_the_head_has_its_status(autojump_clock: MockClock) -> None:
    writing = Writing(FakeOutlet(room=0, stall=1.0))
    await writing.run(START)
    assert (writing.written.status, writing.written.loss, writing.tally.bytes_out) == (200, Loss.STALLED, 0)

"""The detector: feeds the machine, keeps its deadline, passes on what it asks for."""

from __future__ import annotations

import math
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors import Complete, Failed, Fault, FaultKind, StreamMachine, StreamPolicy, Tally, open_alarms
from actors.detector import Detector
from actors.orders import Orders
from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import AttemptEnded, AttemptsExhausted, AttemptStarted
from actors.sansio.delivery import KEEP_ALIVE
from actors.sansio.effects import Finish, Resume

from ..fakes import DONE, content, plain_buffer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from actors.sansio.effects import Effects
    from actors.sansio.stream_machine import Item

CUT = Fault(FaultKind.DISCONNECTED, "reset", upstream="a")


def chunks(*blocks: bytes) -> Item:
    return [*ChunkParser().feed(b"".join(blocks))]


@dataclass
class Page:
    """A writer that takes everything, unless it is blocked."""

    written: deque[tuple[Effects, float]] = field(default_factory=deque)
    blocked: bool = False
    _free: trio.Event = field(default_factory=trio.Event)
    _came: trio.Event = field(default_factory=trio.Event)

    @property
    def has_room(self) -> bool:
        return not self.blocked

    def put(self, effects: Effects) -> bool:
        self.written.append((effects, trio.current_time()))
        self._came.set()
        return self.has_room

    async def room(self) -> None:
        if self.blocked:
            await self._free.wait()

    def unblock(self) -> None:
        self.blocked = False
        self._free.set()

    async def next(self) -> tuple[Effects, float]:
        """The next effects, and when they came."""
        while not self.written:
            self._came = trio.Event()
            await self._came.wait()
        return self.written.popleft()

    async def frames(self) -> list[bytes]:
        return (await self.next())[0].frames


@dataclass
class Detecting:
    """A detector that runs, between a test that plays the parser and a page."""

    machine: StreamMachine
    orders: Orders
    page: Page
    detector: Detector
    nursery: trio.Nursery

    async def send(self, item: Item) -> None:
        if not self.detector.put(item):
            await self.detector.room()

    async def start(self, idle: float = math.inf) -> None:
        await self.send(AttemptStarted(1, "a", (), idle))


@asynccontextmanager
async def detecting(policy: StreamPolicy | None = None) -> AsyncIterator[Detecting]:
    machine = StreamMachine(policy or StreamPolicy(), plain_buffer, Tally(), trio.current_time())
    orders, page = Orders(), Page()
    async with open_alarms() as alarms, trio.open_nursery() as nursery:
        detector = Detector(machine, orders, page, nursery=nursery, alarms=alarms)
        yield Detecting(machine, orders, page, detector, nursery)


async def test_it_passes_on_what_the_machine_asks_for_and_ends_with_the_stream() -> None:
    with trio.fail_after(60):
        async with detecting() as detector:
            await detector.start()
            await detector.send(chunks(content("Hello")))
            assert await detector.page.frames() == [content("Hello")]
            await detector.send(chunks(DONE))
            last, _ = await detector.page.next()
            assert (last.frames, last.end) == ([DONE], Complete())
            assert detector.orders.take() == Finish(None)
            await detector.send(chunks(content("what the reader still says")))  # it is taken, and concerns nobody
            assert not detector.page.written


async def test_a_stream_that_ends_before_anything_falls_due_has_no_task(autojump_clock: MockClock) -> None:
    async with detecting() as detector:
        await detector.start()
        await detector.send(chunks(content("Hello")))
        await detector.send(chunks(DONE))
        assert not detector.nursery.child_tasks
        detector.detector.nudge()  # whoever ends the process does not know that it is over
        await trio.sleep(10_000)
        assert not detector.nursery.child_tasks


async def test_a_stream_that_is_given_up_leaves_nothing_that_rings(autojump_clock: MockClock) -> None:
    async with detecting() as detector:
        await detector.start()
        detector.detector.close()
        detector.detector.nudge()
        await trio.sleep(10_000)
        assert not detector.nursery.child_tasks
        assert not detector.page.written


async def test_an_item_is_looked_at_by_its_sender_without_a_checkpoint() -> None:
    async with detecting() as detector:
        with trio.CancelScope() as scope:
            scope.cancel()
            await detector.start()
            await detector.send(chunks(content("Hello")))
            assert detector.page.written
        assert not scope.cancelled_caught
        detector.nursery.cancel_scope.cancel()


# ---- the deadline -------------------------------------------------------------------------------------------------------


async def test_its_deadline_is_kept_while_nothing_comes(autojump_clock: MockClock) -> None:
    async with detecting(StreamPolicy(keepalive_after=15.0, keepalive_interval=10.0)) as detector:
        began = trio.current_time()
        for due in (15.0, 25.0, 35.0):
            effects, at = await detector.page.next()
            assert effects.frames == [KEEP_ALIVE]
            assert at - began == pytest.approx(due)
        detector.nursery.cancel_scope.cancel()


async def test_events_put_a_keep_alive_off_without_moving_it_each_time(autojump_clock: MockClock) -> None:
    async with detecting(StreamPolicy(keepalive_after=15.0, keepalive_interval=15.0)) as detector:
        await detector.start()
        for number in range(40):  # 20 s in all
            await detector.send(chunks(content(f"{number} ")))
            await trio.sleep(0.5)
        assert KEEP_ALIVE not in [frame for effects, _ in detector.page.written for frame in effects.frames]
        detector.page.written.clear()
        last = trio.current_time() - 0.5
        effects, at = await detector.page.next()
        assert effects.frames == [KEEP_ALIVE]
        assert at - last == pytest.approx(15.0)
        detector.nursery.cancel_scope.cancel()


async def test_what_arrived_while_the_loop_stood_still_is_no_silence(mock_clock: MockClock) -> None:
    """A starved process finds the upstream's bytes and the deadline that they would have put off in the same turn."""
    for _ in range(20):  # the order of two tasks of one turn is trio's coin
        async with detecting() as detector:
            await detector.start(idle=60.0)
            arrived = trio.Event()

            async def read(arrived: trio.Event = arrived, detector: Detecting = detector) -> None:
                await arrived.wait()
                await detector.send(chunks(content("Hello")))

            detector.nursery.start_soon(read)
            await wait_all_tasks_blocked()
            mock_clock.jump(100.0)
            arrived.set()
            await wait_all_tasks_blocked()
            assert [effects.frames for effects, _ in detector.page.written] == [[content("Hello")]]
            mock_clock.jump(100.0)
            await wait_all_tasks_blocked()
            assert isinstance(detector.orders.take(), Finish)  # and silence is still silence
            detector.nursery.cancel_scope.cancel()


async def test_a_held_event_leaves_at_its_age(autojump_clock: MockClock) -> None:
    async with detecting() as detector:
        await detector.start()
        await detector.send(chunks(content("Hello"), content("Hello")))
        assert await detector.page.frames() == [content("Hello")]
        began = trio.current_time()
        assert await detector.page.frames() == [content("Hello")]
        assert trio.current_time() - began == pytest.approx(0.4)
        detector.nursery.cancel_scope.cancel()


async def test_hold_after_hold_none_is_ever_longer_than_its_limit(autojump_clock: MockClock) -> None:
    """Each begins when the last one's deadline still stands, at many distances from it."""
    async with detecting() as detector:
        await detector.start()
        await detector.send(chunks(content("begin ")))
        for number in range(30):
            word = content(f"word{number} ")
            await detector.send(chunks(content(f"a{number} "), content(f"b{number} "), word, word))  # the last one is held
            held_at = trio.current_time()
            detector.page.written.clear()
            effects, at = await detector.page.next()
            assert effects.frames == [word]
            assert at - held_at == pytest.approx(0.4)
            await trio.sleep(0.013 * number)
        detector.nursery.cancel_scope.cancel()


async def test_a_nudge_wakes_it_at_once() -> None:
    async with detecting() as detector:
        await detector.start()
        await wait_all_tasks_blocked()
        detector.machine.shut_down(trio.current_time())
        detector.detector.nudge()
        with trio.fail_after(60):
            effects, _ = await detector.page.next()
        assert isinstance(effects.end, Failed)
        assert effects.end.fault.kind is FaultKind.SHUTDOWN


# ---- a slow client ------------------------------------------------------------------------------------------------------


async def test_a_slow_client_is_not_blamed_on_the_upstream(autojump_clock: MockClock) -> None:
    async with detecting(StreamPolicy(keepalive_after=math.inf, keepalive_interval=math.inf)) as detector:
        await detector.start(idle=10.0)
        detector.page.blocked = True
        detector.nursery.start_soon(detector.send, chunks(content("Hello")))
        await trio.sleep(60.0)  # the writer has no room: both tasks wait for it
        assert await detector.page.frames() == [content("Hello")]
        assert not detector.page.written
        detector.page.unblock()
        began = trio.current_time()
        effects, at = await detector.page.next()
        assert isinstance(effects.end, Failed)
        assert effects.end.fault.kind is FaultKind.IDLE_TIMEOUT
        assert at - began == pytest.approx(10.0)


async def test_a_slow_client_gets_no_keep_alive_behind_what_it_has_not_taken(autojump_clock: MockClock) -> None:
    async with detecting(StreamPolicy(keepalive_after=15.0, keepalive_interval=15.0)) as detector:
        await detector.start()
        detector.page.blocked = True
        detector.nursery.start_soon(detector.send, chunks(content("Hello")))
        await trio.sleep(100.0)
        detector.page.unblock()
        began = trio.current_time()
        assert await detector.page.frames() == [content("Hello")]
        effects, at = await detector.page.next()
        assert effects.frames == [KEEP_ALIVE]
        assert at - began == pytest.approx(15.0)
        detector.nursery.cancel_scope.cancel()


# ---- orders -------------------------------------------------------------------------------------------------------------


async def test_an_order_goes_to_the_reader_before_the_client_has_taken_the_frames() -> None:
    async with detecting() as detector:
        await detector.start()
        detector.page.blocked = True
        detector.nursery.start_soon(detector.send, chunks(content("Hello"), DONE))
        await wait_all_tasks_blocked()
        assert detector.orders.pending
        assert (await detector.page.next())[0].end == Complete()
        detector.page.unblock()


async def test_an_attempt_that_can_be_thrown_away_is_ordered_anew() -> None:
    async with detecting() as detector:
        await detector.start()
        await detector.send(AttemptEnded(1, CUT))
        assert detector.orders.take() == Resume(CUT, replay=False)
        await detector.send(AttemptsExhausted(CUT))
        assert (await detector.page.next())[0].end == Failed(CUT)


@pytest.mark.parametrize("blocked", [False, True])
async def test_it_is_cancelled_while_it_waits(blocked: bool) -> None:
    async with detecting() as detector:
        await detector.start()
        detector.page.blocked = blocked
        detector.nursery.start_soon(detector.send, chunks(content("Hello")))
        await wait_all_tasks_blocked()
        detector.nursery.cancel_scope.cancel()
    assert [effects.frames for effects, _ in detector.page.written] == [[content("Hello")]]  # what was sent was taken

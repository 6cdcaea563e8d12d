"""The detector's task: feeds the machine, keeps its deadline, passes on what it asks for."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors import Complete, Failed, Fault, FaultKind, StreamMachine, StreamPolicy, Tally
from actors.detector import Nudge, detect_stutter
from actors.orders import Orders
from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import AttemptEnded, AttemptsExhausted, AttemptStarted
from actors.sansio.delivery import KEEP_ALIVE
from actors.sansio.effects import Effects, Finish, Resume
from actors.sansio.stream_machine import Item

from ..fakes import DONE, content, plain_buffer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CUT = Fault(FaultKind.DISCONNECTED, "reset", upstream="a")


def chunks(*blocks: bytes) -> Item:
    return [*ChunkParser().feed(b"".join(blocks))]


@dataclass
class Detecting:
    """A detector that runs, between a test that plays the parser and one that plays the writer."""

    machine: StreamMachine
    orders: Orders
    items: trio.MemorySendChannel[Item]
    effects: trio.MemoryReceiveChannel[Effects]
    nursery: trio.Nursery

    async def start(self, idle: float = math.inf) -> None:
        await self.items.send(AttemptStarted(1, "a", (), idle))

    async def frames(self) -> list[bytes]:
        return (await self.effects.receive()).frames


@asynccontextmanager
async def detecting(policy: StreamPolicy | None = None, *, slots: int = 1) -> AsyncIterator[Detecting]:
    machine = StreamMachine(policy or StreamPolicy(), plain_buffer, Tally(), trio.current_time())
    orders = Orders()
    items, inbox = trio.open_memory_channel[Item](1)
    outbox, effects = trio.open_memory_channel[Effects](slots)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(detect_stutter, machine, orders, Nudge(), inbox, outbox)
        yield Detecting(machine, orders, items, effects, nursery)


async def test_it_passes_on_what_the_machine_asks_for_and_ends_with_the_stream() -> None:
    async with detecting() as detector:
        await detector.start()
        await detector.items.send(chunks(content("Hello")))
        assert await detector.frames() == [content("Hello")]
        await detector.items.send(chunks(DONE))
        last = await detector.effects.receive()
        assert (last.frames, last.end) == ([DONE], Complete())
        assert detector.orders.take() == Finish(None)
        with pytest.raises(trio.EndOfChannel):
            await detector.effects.receive()
        await detector.items.send(chunks(content("what the reader still says")))  # it is taken, and concerns nobody
        detector.items.close()


async def test_its_deadline_is_kept_while_nothing_comes(autojump_clock: MockClock) -> None:
    async with detecting(StreamPolicy(keepalive_after=15.0, keepalive_interval=10.0)) as detector:
        began = trio.current_time()
        assert await detector.frames() == [KEEP_ALIVE]
        assert trio.current_time() - began == pytest.approx(15.0)
        assert await detector.frames() == [KEEP_ALIVE]
        assert trio.current_time() - began == pytest.approx(25.0)
        detector.nursery.cancel_scope.cancel()


async def test_a_held_event_leaves_at_its_age(autojump_clock: MockClock) -> None:
    async with detecting() as detector:
        await detector.start()
        await detector.items.send(chunks(content("Hello"), content("Hello")))
        assert await detector.frames() == [content("Hello")]
        began = trio.current_time()
        assert await detector.frames() == [content("Hello")]
        assert trio.current_time() - began == pytest.approx(0.4)
        detector.nursery.cancel_scope.cancel()


async def test_a_slow_client_is_not_blamed_on_the_upstream(autojump_clock: MockClock) -> None:
    async with detecting(StreamPolicy(keepalive_after=math.inf, keepalive_interval=math.inf), slots=0) as detector:
        await detector.start(idle=10.0)
        await detector.items.send(chunks(content("Hello")))
        await trio.sleep(60.0)  # the writer takes nothing
        began = trio.current_time()
        assert await detector.frames() == [content("Hello")]
        end = (await detector.effects.receive()).end
        assert isinstance(end, Failed)
        assert end.fault.kind is FaultKind.IDLE_TIMEOUT
        assert trio.current_time() - began == pytest.approx(10.0)
        detector.items.close()


async def test_an_order_goes_to_the_reader_before_the_client_has_taken_the_frames() -> None:
    async with detecting(slots=0) as detector:
        await detector.start()
        await detector.items.send(chunks(content("Hello"), DONE))
        await wait_all_tasks_blocked()
        assert detector.orders.pending
        assert (await detector.effects.receive()).end == Complete()
        detector.items.close()


async def test_an_attempt_that_can_be_thrown_away_is_ordered_anew() -> None:
    async with detecting() as detector:
        await detector.start()
        await detector.items.send(AttemptEnded(1, CUT))
        await wait_all_tasks_blocked()
        assert detector.orders.take() == Resume(CUT, replay=False)
        await detector.items.send(AttemptsExhausted(CUT))
        assert (await detector.effects.receive()).end == Failed(CUT)
        detector.items.close()


async def test_its_input_closes_before_the_stream_ended() -> None:
    """Only a crashed or cancelled neighbour does that: it is no ordinary end, and the reader is let go."""
    orders = Orders()
    items, inbox = trio.open_memory_channel[Item](1)
    outbox, effects = trio.open_memory_channel[Effects](1)
    items.close()
    with pytest.raises(trio.EndOfChannel):
        await detect_stutter(StreamMachine(StreamPolicy(), plain_buffer, Tally(), trio.current_time()), orders, Nudge(), inbox, outbox)
    assert orders.pending
    with pytest.raises(trio.EndOfChannel):
        effects.receive_nowait()


async def test_its_consumer_leaves() -> None:
    orders = Orders()
    items, inbox = trio.open_memory_channel[Item](2)
    outbox, effects = trio.open_memory_channel[Effects](1)
    effects.close()
    items.send_nowait(AttemptStarted(1, "a", (), math.inf))
    items.send_nowait(chunks(content("Hello")))
    with pytest.raises(trio.BrokenResourceError):
        await detect_stutter(StreamMachine(StreamPolicy(), plain_buffer, Tally(), trio.current_time()), orders, Nudge(), inbox, outbox)
    assert orders.pending


@pytest.mark.parametrize("slots", [0, 1])
async def test_it_is_cancelled_while_it_waits(slots: int) -> None:
    async with detecting(slots=slots) as detector:
        await detector.start()
        await detector.items.send(chunks(content("Hello")))  # without a slot it waits for the writer, else for the parser
        await wait_all_tasks_blocked()
        detector.nursery.cancel_scope.cancel()
    assert detector.orders.pending


@pytest.mark.parametrize("neighbour", ["parser", "writer"])
async def test_a_neighbour_that_was_cancelled_first_is_no_crash(neighbour: str) -> None:
    """All stages are cancelled together; whichever runs first closes its channels under the others, who could go on."""
    async with detecting() as detector:
        await detector.start()
        await wait_all_tasks_blocked()
        await detector.items.send(chunks(content("Hello")))
        detector.nursery.cancel_scope.cancel()
        if neighbour == "parser":
            detector.items.close()
        else:
            detector.effects.close()

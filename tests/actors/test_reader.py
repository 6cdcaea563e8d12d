"""The reader: what it sends per attempt, and how it obeys orders in every phase."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors import Fault, FaultKind, Tally
from actors.errors import UpstreamDisconnected
from actors.orders import DRAIN_SECONDS, Orders
from actors.reader import DRAIN_BYTES, RawItem, read_upstream
from actors.sansio.chunks import AttemptEnded, AttemptFailed, AttemptsExhausted, AttemptStarted
from actors.sansio.effects import Finish, Resume

from ..fakes import DONE, ChannelOutbox, FakeAttempts, FakeResponse, Silence, Wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REFUSED = Fault(FaultKind.CONNECT, "refused", upstream="a")
BROKEN = Fault(FaultKind.IN_BAND_ERROR, "overloaded", upstream="a")
START = AttemptStarted(1, "a", (), math.inf)


@dataclass
class Reading:
    """A reader that runs, its orders, and what it sends."""

    orders: Orders
    items: trio.MemoryReceiveChannel[RawItem]
    scope: trio.CancelScope

    async def next(self, count: int = 1) -> list[RawItem]:
        return [await self.items.receive() for _ in range(count)]

    async def rest(self) -> list[RawItem]:
        """What it sends until it ends."""
        return [item async for item in self.items]


@asynccontextmanager
async def reading(attempts: FakeAttempts) -> AsyncIterator[Reading]:
    orders = Orders()
    send, receive = trio.open_memory_channel[RawItem](1)
    with trio.fail_after(60):  # whatever the script, the reader ends
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                with send:
                    await read_upstream(attempts.as_attempts, orders, ChannelOutbox(send))

            with receive:
                yield Reading(orders, receive, nursery.cancel_scope)


def attempts_of(*script: FakeResponse | Fault | Silence) -> FakeAttempts:
    return FakeAttempts(Tally(), *script)


# ---- it works -----------------------------------------------------------------------------------------------------------


async def test_an_attempt_is_a_start_its_bytes_and_one_end(autojump_clock: MockClock) -> None:
    attempts = attempts_of(FakeResponse(b"one", b"two"))
    async with reading(attempts) as reader:
        assert await reader.next(4) == [START, b"one", b"two", AttemptEnded(1, None)]
        await wait_all_tasks_blocked()
        assert attempts.verdicts == [None]  # the attempt stays open until its order is there
        reader.orders.give(Finish(None))
        assert await reader.rest() == []
    assert attempts.verdicts == ["success"]
    assert attempts.all_given_back()


async def test_a_cut_is_the_attempts_end_with_its_fault(autojump_clock: MockClock) -> None:
    attempts = attempts_of(FakeResponse(b"one", UpstreamDisconnected("reset")))
    async with reading(attempts) as reader:
        *_, end = await reader.next(3)
        assert isinstance(end, AttemptEnded)
        assert end.fault is not None
        assert end.fault.kind is FaultKind.DISCONNECTED
        reader.orders.give(Finish(end.fault))
        assert await reader.rest() == []
    assert attempts.verdicts == ["failure"]
    assert attempts.tally.faults["a", "disconnected"] == 1
    assert attempts.all_given_back()


async def test_after_resume_the_next_attempt_follows_and_is_told_why(autojump_clock: MockClock) -> None:
    attempts = attempts_of(FakeResponse(b"one"), REFUSED, FakeResponse(b"two"))
    async with reading(attempts) as reader:
        await reader.next(3)
        reader.orders.give(Resume(BROKEN, replay=False))
        assert await reader.next(4) == [
            AttemptFailed(1, REFUSED),
            AttemptStarted(2, "a", (), math.inf),
            b"two",
            AttemptEnded(2, None),
        ]
        reader.orders.give(Finish(None))
    assert attempts.faults == [None, BROKEN, None]
    assert attempts.verdicts == ["failure", "success"]


async def test_when_no_attempt_is_left_it_says_so_and_ends(autojump_clock: MockClock) -> None:
    async with reading(attempts_of(REFUSED, REFUSED)) as reader:
        assert await reader.rest() == [AttemptFailed(0, REFUSED), AttemptsExhausted(REFUSED)]


async def test_the_end_of_a_whole_body_is_not_waited_for(autojump_clock: MockClock) -> None:
    """The order for a stream that ended without [DONE] comes when the body is over: there is nothing to drain."""
    async with reading(attempts_of(FakeResponse(b"one"))) as reader:
        await reader.next(3)
        began = trio.current_time()
        reader.orders.give(Finish(None))
        assert await reader.rest() == []
        assert trio.current_time() == began


# ---- early orders -------------------------------------------------------------------------------------------------------


async def test_an_early_resume_ends_a_read_of_a_silent_upstream(autojump_clock: MockClock) -> None:
    attempts = attempts_of(FakeResponse(b"one", Silence()), FakeResponse(b"two"))
    async with reading(attempts) as reader:
        await reader.next(2)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        reader.orders.give(Resume(BROKEN, replay=False))
        assert await reader.next(2) == [AttemptStarted(2, "a", (), math.inf), b"two"]
        assert trio.current_time() == began
        reader.orders.give(Finish(None))
        assert await reader.rest() == []  # no AttemptEnded after an order
    assert attempts.verdicts == ["failure", "success"]
    assert attempts.all_given_back()


async def test_after_done_the_bodys_end_is_reached_so_that_the_connection_can_be_used_again(autojump_clock: MockClock) -> None:
    response = FakeResponse(b"one", Wait(DRAIN_SECONDS / 2), b"late", b"later")
    async with reading(attempts_of(response)) as reader:
        await reader.next(2)
        await wait_all_tasks_blocked()
        reader.orders.give(Finish(None))
        assert await reader.rest() == []
    assert response.complete
    assert response.closed


@pytest.mark.parametrize("surplus", [[Silence()], [b"x" * (DRAIN_BYTES // 2)] * 3 + [Silence()]], ids=["silent", "endless"])
async def test_but_not_at_any_price(surplus: list[bytes | Silence], autojump_clock: MockClock) -> None:
    response = FakeResponse(b"one", Wait(0.1), *surplus)
    attempts = attempts_of(response)
    async with reading(attempts) as reader:
        await reader.next(2)
        await wait_all_tasks_blocked()
        reader.orders.give(Finish(None))
        with trio.fail_after(DRAIN_SECONDS + 0.01):
            assert await reader.rest() == []
    assert not response.complete
    assert response.closed
    assert attempts.verdicts == ["success"]


async def test_a_fault_after_done_changes_nothing(autojump_clock: MockClock) -> None:
    attempts = attempts_of(FakeResponse(DONE, Wait(0.1), UpstreamDisconnected("reset")))
    async with reading(attempts) as reader:
        await reader.next(2)
        reader.orders.give(Finish(None))
        assert await reader.rest() == []
    assert attempts.verdicts == ["success"]


async def test_an_order_ends_the_search_for_an_attempt(autojump_clock: MockClock) -> None:
    async with reading(attempts_of(Silence())) as reader:
        await wait_all_tasks_blocked()
        reader.orders.give(Finish(Fault(FaultKind.TOTAL_TIMEOUT, "too long")))
        assert await reader.rest() == []


# ---- its consumer leaves, it is cancelled -------------------------------------------------------------------------------------


async def test_its_consumer_leaves() -> None:
    attempts = attempts_of(FakeResponse(b"one", b"two", Silence()))
    send, receive = trio.open_memory_channel[RawItem](0)
    receive.close()
    with pytest.raises(trio.BrokenResourceError):
        await read_upstream(attempts.as_attempts, Orders(), ChannelOutbox(send))
    assert attempts.all_given_back()
    assert attempts.verdicts == ["given back"]


@pytest.mark.parametrize("taken", range(5))
async def test_it_is_cancelled_at_any_point(taken: int, autojump_clock: MockClock) -> None:
    attempts = attempts_of(FakeResponse(b"one", b"two"))
    async with reading(attempts) as reader:
        await reader.next(min(taken, 4))
        await wait_all_tasks_blocked()
        if taken == 4:
            reader.orders.give(Resume(BROKEN, replay=False))  # an order that it may no longer obey
        reader.scope.cancel()
    assert attempts.all_given_back()
    assert attempts.verdicts == ["given back"]

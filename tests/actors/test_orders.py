"""Orders: giving one ends what the reader waits for, at once or after a little patience."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors import Fault, FaultKind
from actors.orders import DRAIN_SECONDS, Orders
from actors.sansio.effects import Finish, Resume

if TYPE_CHECKING:
    from actors.sansio.effects import Order

CUT = Fault(FaultKind.DISCONNECTED, "reset")


@pytest.mark.parametrize(
    ("order", "patience"),
    [(Resume(CUT, replay=False), 0.0), (Finish(CUT), 0.0), (Finish(None), DRAIN_SECONDS)],
    ids=["resume", "fail", "done"],
)
async def test_an_order_ends_the_readers_wait(order: Order, patience: float, autojump_clock: MockClock) -> None:
    orders = Orders()
    taken: list[tuple[Order, float]] = []

    async def wait() -> None:
        with orders.interrupting():
            await trio.sleep_forever()  # as a read of a silent upstream
        taken.append((orders.take(), trio.current_time()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(5.0)
        orders.give(order)
        assert orders.pending
    assert [one for one, _ in taken] == [order]
    assert taken[0][1] == pytest.approx(5.0 + patience)
    assert not orders.pending


async def test_at_the_bodys_end_there_is_nothing_to_be_patient_for(autojump_clock: MockClock) -> None:
    orders = Orders()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            with orders.interrupting():
                await orders.wait()
            assert orders.take() == Finish(None)
            assert trio.current_time() == began

        await wait_all_tasks_blocked()
        began = trio.current_time()
        orders.give(Finish(None))


async def test_an_order_that_came_before_the_wait_ends_it_at_once() -> None:
    orders = Orders()
    orders.give(Finish(CUT))
    with orders.interrupting() as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert orders.take() == Finish(CUT)
    with orders.interrupting() as scope:  # the next wait is undisturbed
        await trio.lowlevel.checkpoint()
    assert not scope.cancelled_caught


async def test_a_second_order_replaces_one_that_was_not_taken() -> None:
    orders = Orders()
    orders.give(Resume(CUT, replay=False))
    orders.give(Finish(CUT))
    assert orders.take() == Finish(CUT)
    assert not orders.pending


async def test_whoever_is_cancelled_from_outside_while_an_order_lies_there_stays_cancelled() -> None:
    orders = Orders()
    orders.give(Finish(None))
    with trio.CancelScope() as outer:
        outer.cancel()
        with orders.interrupting():
            await trio.sleep_forever()
        raise AssertionError("the inner scope swallowed the outer one's cancellation")
    assert outer.cancelled_caught

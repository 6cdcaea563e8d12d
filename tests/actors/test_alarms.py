"""The alarms: rung once and in time, whatever was set and turned off in between."""

from __future__ import annotations

import math
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from actors import open_alarms


@pytest.mark.parametrize("order", [(1.0, 2.0, 3.0), (3.0, 2.0, 1.0), (2.0, 1.0, 3.0)])
async def test_each_rings_once_at_its_time(order: tuple[float, ...], autojump_clock: MockClock) -> None:
    rung: list[float] = []
    async with open_alarms() as alarms:
        began = trio.current_time()

        def ring() -> None:
            rung.append(trio.current_time() - began)

        for after in order:
            alarms.at(began + after, ring)
            await trio.lowlevel.checkpoint()
        await trio.sleep(10)
    assert rung == pytest.approx([1.0, 2.0, 3.0])


async def test_one_that_is_past_rings_and_one_that_never_comes_does_not(autojump_clock: MockClock) -> None:
    rung: list[str] = []
    async with open_alarms() as alarms:
        alarms.at(trio.current_time() - 1, lambda: rung.append("past"))
        alarms.at(math.inf, lambda: rung.append("never"))
        await trio.testing.wait_all_tasks_blocked()
        assert rung == ["past"]
        await trio.sleep(80_000)
    assert rung == ["past"]


async def test_one_may_be_set_by_another_that_rings(autojump_clock: MockClock) -> None:
    rung: list[float] = []
    async with open_alarms() as alarms:
        began = trio.current_time()

        def ring() -> None:
            rung.append(trio.current_time() - began)
            if len(rung) < 4:
                alarms.at(trio.current_time() + 1, ring)

        alarms.at(began + 1, ring)
        await trio.sleep(10)
    assert rung == pytest.approx([1, 2, 3, 4])


@given(script=st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=30))
def test_those_that_were_turned_off_never_ring_and_keep_nobody_from_it(script: list[tuple[int, bool]]) -> None:
    rung: list[int] = []

    async def run() -> None:
        async with open_alarms() as alarms:
            began = trio.current_time()
            made = [(alarms.at(began + after, partial(rung.append, number)), off) for number, (after, off) in enumerate(script)]
            for alarm, off in made:
                if off:
                    alarm.off()
                    alarm.off()
            await trio.sleep(30)
            assert not any(alarm.is_set for alarm, _ in made)

    trio.run(run, clock=MockClock(autojump_threshold=0))
    expected = [number for number, (_, off) in enumerate(script) if not off]
    assert rung == sorted(expected, key=lambda number: script[number][0])


async def test_those_that_were_turned_off_do_not_pile_up(autojump_clock: MockClock) -> None:
    """A thousand short streams a second, each with half an hour to end, are no million entries."""
    rung: list[int] = []
    async with open_alarms() as alarms:
        soon = trio.current_time() + 1800.0
        for number in range(20_000):
            alarm = alarms.at(soon + number / 20_000, partial(rung.append, number))
            if number % 100:
                alarm.off()
                alarm.off()
        assert len(alarms) < 2_500
        await trio.sleep(2000)
        assert rung == list(range(0, 20_000, 100))
        assert len(alarms) == 0

"""Waits of one length: who is woken when, and who is not."""

from __future__ import annotations

import trio
import trio.testing

from server.edge_patience import open_patience


class One:
    def __init__(self) -> None:
        self.woken: list[float] = []

    def wake(self) -> None:
        self.woken.append(trio.current_time())


async def test_each_is_woken_when_his_own_time_is_up(autojump_clock: trio.testing.MockClock) -> None:
    async with open_patience(10.0, 3.0) as (long, short):
        began = trio.current_time()
        ones = [One() for _ in range(4)]
        for one in ones:
            assert long.begin(one) == trio.current_time() + 10.0
            await trio.sleep(1.0)
        long.end(ones[2])
        long.end(ones[2])
        quick = One()
        short.begin(quick)
        await trio.sleep(100.0)
        assert [[at - began for at in one.woken] for one in ones] == [[10.0], [11.0], [], [13.0]]
        assert [at - began for at in quick.woken] == [7.0]


async def test_whoever_comes_when_nobody_waits_any_more_is_looked_after(autojump_clock: trio.testing.MockClock) -> None:
    async with open_patience(10.0) as (patience,):
        for _ in range(3):
            one = One()
            patience.begin(one)
            await trio.sleep(4.0)
            patience.end(one)  # the task still sleeps until his deadline
            late = One()
            until = patience.begin(late)
            await trio.sleep(50.0)
            assert (one.woken, late.woken) == ([], [until])

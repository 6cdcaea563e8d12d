"""The record: counters, waiting for it, forgetting it."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from server.simulator import Ending, Observer, Seen
from server.simulator.observer import moment


def arrive(observer: Observer, model: str = "m") -> Seen:
    return observer.arrived(1, "POST", "/v1/x", {"authorization": "Bearer secret-9876", "host": "h"}, b"{}", moment(), model=model)


async def test_waiting_ends_with_the_change_that_was_waited_for() -> None:
    observer = Observer()
    told: list[str] = []

    async def wait(name: str, closes: int) -> None:
        await observer.wait_for(lambda observer: observer.closes >= closes)
        told.append(name)

    async with trio.open_nursery() as nursery:
        for name, closes in (("two", 2), ("one", 1), ("none", 0)):
            nursery.start_soon(wait, name, closes)
        await wait_all_tasks_blocked()
        assert told == ["none"]
        for expected in (["none", "one"], ["none", "one", "two"]):
            observer.ended(arrive(observer), Ending.CLIENT_CLOSED)
            await wait_all_tasks_blocked()
            assert told == expected


async def test_only_the_first_ending_counts() -> None:
    observer = Observer()
    seen = arrive(observer)
    assert observer.active == 1
    observer.ended(seen, Ending.CLIENT_CLOSED)
    ended = seen.ended_ns
    observer.ended(seen, Ending.COMPLETED)
    await observer.wait_for(lambda observer: observer.active == 0)
    assert (seen.ending, seen.ended_ns) == (Ending.CLIENT_CLOSED, ended)
    assert (observer.closes, observer.completed, observer.active) == (1, 0, 0)


async def test_what_runs_is_not_forgotten() -> None:
    observer = Observer()
    over, running = arrive(observer, "over"), arrive(observer, "running")
    observer.ended(over, Ending.COMPLETED)
    observer.reset()
    await observer.wait_for(lambda observer: observer.requests == 1)
    assert list(observer.seen) == [running]
    assert (observer.requests, observer.completed, observer.active) == (1, 0, 1)
    assert arrive(observer).id == 3
    observer.ended(running, Ending.ABORTED_BY_FAULT)
    assert observer.aborted == 1
    assert observer.of("running") == [running]


async def test_a_key_is_known_by_its_last_four_only() -> None:
    observer = Observer()
    arrive(observer)
    await observer.wait_for(lambda observer: observer.requests == 1)
    [seen] = observer.seen
    assert seen.headers == {"authorization": "...9876", "host": "h"}

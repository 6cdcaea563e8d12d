"""What was left with the clerk is written: soon, in order, in small portions, and at the latest before the log is flushed."""

from __future__ import annotations

import logging
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from server import clerk as clerk_module
from server.clerk import AT_ONCE, DELAY, MOST, Clerk, open_clerk
from server.log import flush_logging

if TYPE_CHECKING:
    from trio.testing import MockClock


class Entry:
    def __init__(self, number: int, written: list[int]) -> None:
        self._number = number
        self._written = written

    def write(self) -> None:
        if self._number < 0:
            raise RuntimeError(f"no entry {self._number}")
        self._written.append(self._number)


def leave(clerk: Clerk, written: list[int], *numbers: int) -> None:
    for number in numbers:
        clerk.leave(Entry(number, written), trio.current_time())


async def test_entries_are_written_together_a_moment_later_in_the_order_of_their_ends(mock_clock: MockClock) -> None:
    written: list[int] = []
    async with open_clerk() as clerk:
        for turn in range(3):  # it begins anew after it was idle
            leave(clerk, written, 1, 2)
            mock_clock.jump(DELAY / 2)
            leave(clerk, written, 3)
            mock_clock.jump(DELAY * 0.4)
            await trio.testing.wait_all_tasks_blocked()
            assert written == [1, 2, 3] * turn
            mock_clock.jump(DELAY * 0.2)
            await trio.testing.wait_all_tasks_blocked()
            assert written == [1, 2, 3] * (turn + 1)


async def test_whoever_has_it_catch_up_does_not_wait_for_the_time(mock_clock: MockClock) -> None:
    written: list[int] = []
    async with open_clerk() as clerk:
        leave(clerk, written, *range(100))
        await clerk.catch_up()
        assert written == list(range(100))
        await clerk.catch_up()
        leave(clerk, written, 100)  # its time is its own, not that of those before
        mock_clock.jump(DELAY * 1.1)
        await trio.testing.wait_all_tasks_blocked()
        assert written == list(range(101))


@pytest.mark.parametrize("asked", [False, True])
async def test_many_at_once_let_others_have_their_turn(asked: bool, mock_clock: MockClock) -> None:
    written: list[int] = []
    async with open_clerk() as clerk, trio.open_nursery() as nursery:
        leave(clerk, written, *range(1000))
        mock_clock.jump(0.0 if asked else DELAY)
        if asked:
            nursery.start_soon(clerk.catch_up)
        seen = [0]
        while seen[-1] < 1000:
            await trio.lowlevel.checkpoint()
            seen.append(len(written))
    # In a pass of the loop either goes first; so there may be two portions between two turns of somebody else.
    assert max(later - earlier for earlier, later in pairwise(seen)) <= 2 * AT_ONCE


async def test_one_that_fails_is_told_and_takes_no_other_along(caplog: pytest.LogCaptureFixture, mock_clock: MockClock) -> None:
    written: list[int] = []
    async with open_clerk() as clerk:
        leave(clerk, written, 1, -2, 3, -4)
        mock_clock.jump(DELAY)
        await trio.testing.wait_all_tasks_blocked()
        assert written == [1, 3]
        leave(clerk, written, 5)
    assert written == [1, 3, 5]
    assert [record.exc_info is not None and str(record.exc_info[1]) for record in caplog.records] == ["no entry -2", "no entry -4"]
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


async def test_more_than_may_lie_is_written_as_it_comes(mock_clock: MockClock) -> None:
    written: list[int] = []
    async with open_clerk() as clerk:
        leave(clerk, written, *range(MOST + 10))
        assert written == list(range(10))
    assert written == list(range(MOST + 10))


@pytest.mark.parametrize("how", ["end", "error", "cancelled"])
async def test_nothing_is_left_at_the_end_however_it_comes(how: str, mock_clock: MockClock) -> None:
    written: list[int] = []
    with trio.CancelScope() as scope:
        try:
            async with open_clerk() as clerk:
                leave(clerk, written, *range(100))
                if how == "error":
                    raise RuntimeError("something else")
                if how == "cancelled":
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        except* RuntimeError:
            assert how == "error"
    assert written == list(range(100))


async def test_whoever_flushes_the_log_gets_what_lies_there_in_any_thread(mock_clock: MockClock) -> None:
    written: list[int] = []
    async with open_clerk() as clerk:
        leave(clerk, written, 1)
        flush_logging(1.0)
        assert written == [1]
        leave(clerk, written, 2)
        await trio.to_thread.run_sync(flush_logging, 1.0)
        assert written == [1, 2]
    leave(clerk, written, 3)
    flush_logging(1.0)  # it is employed no more
    assert written == [1, 2]


def test_row_68_a_process_that_is_ended_by_force_writes_what_lies_there() -> None:
    program = """if True:
        import time, trio
        from server.clerk import open_clerk
        from server.log import configure_logging, log_reload
        from server.watchdogs import ExitWatchdog

        class Entry:
            def write(self):
                log_reload("accepted")

        async def main():
            async with open_clerk() as clerk:
                clerk.leave(Entry(), trio.current_time())
                ExitWatchdog().arm(0.2)
                time.sleep(600)

        configure_logging("json")
        trio.run(main)
    """
    root = Path(clerk_module.__file__).parents[1]
    ended = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert '"event": "reload"' in ended.stderr

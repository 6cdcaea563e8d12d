"""The watchdog of the event loop: it measures, warns with the place, and does not repeat itself."""

from __future__ import annotations

import io
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio

from server import watchdogs
from server.log import configure_logging
from server.watchdogs import BLOCKED, LoopWatch

if TYPE_CHECKING:
    from collections.abc import Iterator


class Tap(io.StringIO):
    def warnings(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines() if "loop_blocked" in line]


@pytest.fixture
def tap() -> Iterator[Tap]:
    tap = Tap()
    sink = configure_logging("json", "debug", tap)
    yield tap
    sink.close()


def block_here(seconds: float) -> None:
    time.sleep(seconds)


async def blocked(times: int = 1, seconds: float = BLOCKED + 0.25) -> list[float]:
    """Run a watch and block its loop; what it measured."""
    measured: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(LoopWatch(measured.append).run)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(times):
            before = len(measured)
            block_here(seconds)
            while len(measured) == before:  # noqa: ASYNC110  # the beat that was late
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    return measured


async def test_row_67_a_blocked_loop_is_measured_and_its_place_is_told(tap: Tap) -> None:
    measured = await blocked()
    assert max(measured) > BLOCKED
    configure_logging("json", "debug", io.StringIO())  # flushes
    (warning,) = tap.warnings()
    assert warning["level"] == "warning"
    assert warning["seconds"] >= BLOCKED
    assert "block_here" in warning["stack"]
    assert "time.sleep" in warning["stack"]


async def test_row_67_a_loop_that_is_blocked_again_and_again_is_told_once(tap: Tap) -> None:
    measured = await blocked(times=2)
    assert sum(late > BLOCKED for late in measured) >= 2
    configure_logging("json", "debug", io.StringIO())
    assert len(tap.warnings()) == 1


async def test_row_67_a_short_block_is_measured_and_not_told(tap: Tap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdogs, "BLOCKED", 20.0)  # on a machine that stands still for half a second short blocks are no short ones
    measured = await blocked(seconds=0.2)
    assert max(measured) > 0.05
    configure_logging("json", "debug", io.StringIO())
    assert tap.warnings() == []


async def test_its_thread_ends_with_it() -> None:
    await blocked(seconds=0.0)
    for thread in threading.enumerate():
        if thread.name == "evenflow-loop-watch":
            thread.join(20.0)
            assert not thread.is_alive()

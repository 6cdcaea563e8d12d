"""What systemd is told, on which socket, and when it is told nothing."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from server.sd_notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")


class Systemd:
    """Its end of the socket."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        listener.setblocking(False)

    def told(self) -> list[list[str]]:
        messages = []
        while True:
            try:
                messages.append(self._listener.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return messages


@contextmanager
def systemd(name: str) -> Iterator[Systemd]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        yield Systemd(listener)


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "path":
        return str(tmp_path / "notify")
    if sys.platform != "linux":
        pytest.skip("abstract names are Linux's")
    return f"@evenflow-{os.getpid()}-{tmp_path.name}"


def test_what_is_told(address: str) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    with systemd(address) as end:
        notifier.ready("listens on\nhttp://127.0.0.1:8143/v1")
        notifier.reloading()
        notifier.stopping("bye")
        ready, reloading, stopping = end.told()
    assert ready == ["READY=1", "STATUS=listens on http://127.0.0.1:8143/v1"]  # a line end would begin another message
    assert reloading[0] == "RELOADING=1"
    assert int(reloading[1].removeprefix("MONOTONIC_USEC=")) > 0
    assert stopping == ["STOPPING=1", "STATUS=bye"]


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
async def test_where_nobody_listens_nothing_happens(environ: dict[str, str], autojump_clock: trio.testing.MockClock) -> None:
    notifier = Notifier.from_environment({**environ, "WATCHDOG_USEC": "4000000"})
    notifier.ready("x")
    with trio.move_on_after(10):
        await notifier.feed_watchdog()


@pytest.mark.parametrize(
    ("environ", "beats"),
    [
        ({"WATCHDOG_USEC": "4000000"}, 10),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}, 10),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}, 0),
        ({"WATCHDOG_USEC": "0"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
        ({}, 0),
    ],
)
async def test_four_beats_per_watchdog_time(
    address: str, environ: dict[str, str], beats: int, autojump_clock: trio.testing.MockClock
) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address, **environ})
    with systemd(address) as end:
        with trio.move_on_after(10.5):
            await notifier.feed_watchdog()
        assert end.told() == [["WATCHDOG=1"]] * beats


async def test_a_loop_that_lags_gives_no_sign_of_life(address: str, mock_clock: trio.testing.MockClock) -> None:
    """The watchdog time is 4 s, so a beat is 1 s; the loop wakes the task later and later."""
    notifier = Notifier(address, watchdog=4.0)
    with systemd(address) as end:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notifier.feed_watchdog)
            alive = []
            for late in (0.0, 0.9, 1.1, 30.0, 0.0):
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(1.0 + late)
                await trio.testing.wait_all_tasks_blocked()
                alive.append(len(end.told()))
            nursery.cancel_scope.cancel()
    assert alive == [1, 1, 0, 0, 1]

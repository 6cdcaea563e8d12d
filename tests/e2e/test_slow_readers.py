"""Clients that do not read: what they cost is bounded, from their socket to the upstream's, and ends with `timers.client_stall`."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from server.listeners import set_write_timeout

from .raw_client import PATIENCE
from .running_command import admin_of, serving
from .running_proxy import eventually, running_proxy, settings_for, upstream_of

if TYPE_CHECKING:
    from server.simulator import Simulator

    from .running_command import Command
    from .running_proxy import LogTap, RunningProxy

pytestmark = pytest.mark.usefixtures("way")

BOTH_ENGINES = pytest.mark.parametrize("engine", ["actors", "relay"])
#: 250 MB, if anybody took it.
FLOOD = "big:events=5000,size=50000"
SOCKETS = Path("/proc/net/tcp")
#: What may be under way for one client: the kernel's buffers of two connections (4 to 6 MiB each at most, on Linux), and ours.
UNDER_WAY = 16 * 1024 * 1024


def _events_at_rest(simulator: Simulator) -> tuple[int, ...]:
    return tuple(seen.events for seen in simulator.observer.seen)


async def until_nothing_moves(simulator: Simulator) -> None:
    """Wait until the upstream has been held back for a quarter of a second."""
    while True:
        before = _events_at_rest(simulator)
        await trio.sleep(0.25)
        if before == _events_at_rest(simulator):
            return


@BOTH_ENGINES
async def test_row_44_a_client_that_never_reads_holds_the_upstream_back(engine: str, simulator: Simulator) -> None:
    settings = settings_for({"main": simulator}, engine=engine, timers={"client_stall": 60.0})
    async with running_proxy(settings, simulator) as proxy:
        async with proxy.client.open(FLOOD, receive_buffer=8192) as stalled:
            await stalled.read_until(b"data: ")
            await until_nothing_moves(simulator)
            (seen,) = simulator.observer.seen
            assert seen.events * 50_000 < UNDER_WAY
            assert (await proxy.client.ask("ok")).done  # others are served meanwhile


def memory_of(running: Command) -> int:
    """Resident bytes."""
    with open(f"/proc/{running.process.pid}/statm") as file:
        return int(file.read().split()[1]) * 4096


async def test_row_44_the_memory_of_twenty_stalled_clients_is_bounded(simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path, more="timers.client_stall = 60.0") as (running, client):
        await client.ask("ok")
        before = memory_of(running)
        async with AsyncExitStack() as stack:
            for _ in range(20):
                stalled = await stack.enter_async_context(client.open(FLOOD, receive_buffer=8192))
                await stalled.read_until(b"data: ")
            await until_nothing_moves(simulator)
            # What stands in our own memory, the kernel's buffers not in it: a network read of 64 KiB in each stage, in the forms it has
            # there. 1.8 MB each were measured.
            assert memory_of(running) - before < 20 * 4 * 1024 * 1024
        running.process.terminate()
        assert await running.ended() == 0


@BOTH_ENGINES
async def test_row_44_upstream_and_permit_are_free_after_the_stall(engine: str, simulator: Simulator, log: LogTap) -> None:
    settings = settings_for({"main": simulator}, engine=engine, timers={"client_stall": 0.3})
    async with running_proxy(settings, simulator) as proxy:
        async with proxy.client.open(FLOOD, receive_buffer=8192) as stalled:
            await stalled.read_until(b"data: ")
            with trio.fail_after(PATIENCE):
                await simulator.observer.wait_for(lambda observer: observer.closes == 1)
            await eventually(lambda: proxy.circuit("main").permits_out == 0)
    assert [line["termination"][0] for line in log.requests()] == ["c"]


@pytest.mark.skipif(not SOCKETS.exists(), reason="Linux tells of its sockets")
@BOTH_ENGINES
async def test_row_44_the_kernel_keeps_nothing_for_a_client_that_was_given_up(engine: str, simulator: Simulator) -> None:
    """Closed in the usual way, a socket goes on offering its megabytes to a client that lives and does not read, for minutes."""
    upstream = upstream_of(simulator, timers={"client_stall": 0.5})
    settings = settings_for({"main": upstream}, engine=engine, timers={"client_stall": 60.0})  # the kernel's own patience
    async with running_proxy(settings, simulator) as proxy:
        async with proxy.client.open(FLOOD, receive_buffer=8192) as stalled:
            await stalled.read_until(b"data: ")
            assert served(proxy)
            await eventually(lambda: not served(proxy), lambda: served(proxy))
            with pytest.raises(trio.BrokenResourceError):
                await stalled.half_close()


def served(proxy: RunningProxy) -> list[str]:
    """The kernel's rows for our end of the main listener's connections, those that are closed and not over included."""
    port = f":{proxy.client.address[1]:04X}"
    rows = [line.split() for line in SOCKETS.read_text().splitlines()[1:]]
    return [" ".join(row[1:5]) for row in rows if row[1].endswith(port) and not row[2].endswith(":0000")]


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has it")
async def test_row_44_the_kernel_is_told_how_long_to_wait_for_a_client(proxy: RunningProxy) -> None:
    """It alone ends a connection whose last bytes are in its buffer while nobody writes any more."""
    timeouts = [one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) for one in proxy.proxy._listeners]
    assert timeouts == [30_000, 30_000]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        set_write_timeout(listener, 7.0)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7_000, "not inherited"


async def test_row_52_slow_readers_leave_the_admin_listener_alone(simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path) as (running, client), AsyncExitStack() as stack:
        for _ in range(50):
            stalled = await stack.enter_async_context(client.open(FLOOD, receive_buffer=8192))
            await stalled.read_until(b"data: ")
        with trio.fail_after(PATIENCE):
            assert (await admin_of(running).get("/readyz")).status == 200
        running.process.terminate()
        assert await running.ended() == 0

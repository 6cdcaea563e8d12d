"""The real command under a socket like systemd's: what it says from its start to its end."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from .raw_client import CLIENT_KEY, UPSTREAM_KEY
from .running_command import CONFIG, PATIENCE, command, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from server.simulator import Simulator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")


@pytest.fixture
async def listener(tmp_path: Path) -> AsyncIterator[trio.socket.SocketType]:
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
        await opened.bind(str(tmp_path / "notify"))
        yield opened


async def until(listener: trio.socket.SocketType, wanted: str) -> list[str]:
    """What was told before, the watchdog's beats left out, and `wanted`."""
    told: list[str] = []
    with trio.fail_after(PATIENCE):
        while wanted not in told:
            told += [line for line in (await listener.recv(4096)).decode().split("\n") if line != "WATCHDOG=1" or wanted == line]
    return told


async def test_from_ready_to_stopping(simulator: Simulator, tmp_path: Path, listener: trio.socket.SocketType) -> None:
    (tmp_path / "evenflow.toml").write_text(CONFIG.format(drain=1, more="", upstream=simulator.base_url))
    variables = {"UP_KEY": UPSTREAM_KEY, "CALLERS": CLIENT_KEY, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    async with command("serve", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0", cwd=tmp_path, variables=variables) as running:
        assert (await until(listener, "READY=1"))[0] == "READY=1"
        url = await running.until_said(r"listens on (\S+)")
        assert url[1].startswith("http://127.0.0.1:")
        await until(listener, "WATCHDOG=1")
        running.process.send_signal(signal.SIGHUP)
        reloaded = await until(listener, "READY=1")
        assert "RELOADING=1" in reloaded
        running.process.terminate()
        await until(listener, "STOPPING=1")
        assert await running.ended() == 0


@pytest.mark.parametrize("command_line", [("serve", "--upstream", "http://127.0.0.1:9/v1"), ("dev",)], ids=["serve", "dev"])
async def test_row_73_nobody_takes_its_greeting(command_line: tuple[str, ...], tmp_path: Path, listener: trio.socket.SocketType) -> None:
    """Standard output is a full disk: it serves all the same, and ends as always."""
    flags = ("--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0")
    variables = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    with os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb") as full:
        async with command(*command_line, *flags, cwd=tmp_path, stdout=full, variables=variables) as running:
            await until(listener, "READY=1")
            running.process.terminate()
            assert await running.ended() == 0


#: What systemd does for MemoryDenyWriteExecute= on Linux 6.3 and later: prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN), inherited.
SHUT_IN = """\
import ctypes, sys
from server.cli import main
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0:
    sys.exit("no such restriction")
main()
"""


async def test_it_serves_where_no_memory_can_become_a_program(simulator: Simulator, tmp_path: Path) -> None:
    """Deny write-and-execute is the one restriction of the unit that can be had without systemd."""
    if ctypes.CDLL(None).prctl(66, 0, 0, 0, 0) < 0:  # PR_GET_MDWE
        pytest.skip("Linux before 6.3 cannot bar memory from execution this way")
    async with serving(simulator, tmp_path, program=SHUT_IN) as (running, client):
        answer = await client.ask("ok", stream=True)
        assert (answer.status, b"data: [DONE]" in answer.raw) == (200, True)
        running.process.terminate()
        assert await running.ended() == 0

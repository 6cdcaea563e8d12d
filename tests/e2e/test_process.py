"""`evenflow` as a real process: what it prints, with what it ends, and how it takes a signal. No traceback, ever."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio

from .raw_client import CLIENT_KEY, UPSTREAM_KEY, RawClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from server.simulator import Simulator

ROOT: Final = Path(__file__).resolve().parents[2]
#: Starting Python and importing everything takes a second on a busy machine.
PATIENCE: Final = 20.0
SIGNALS = pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])


class Command:
    """A running `evenflow` command.

    Args:
      process: the process.
      out, err: what it wrote so far.
    """

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.out = ""
        self.err = ""
        self._wrote = trio.Event()
        self._closed = False

    async def read(self, which: str) -> None:
        pipe = self.process.stdout if which == "out" else self.process.stderr
        assert pipe is not None
        async for data in pipe:
            setattr(self, which, getattr(self, which) + data.decode())
            self._wrote.set()
            self._wrote = trio.Event()
        if which == "out":
            self._closed = True
            self._wrote.set()

    async def until_said(self, pattern: str) -> re.Match[str]:
        """Wait until standard output holds `pattern`."""
        while (found := re.search(pattern, self.out)) is None:
            assert not self._closed, self.err
            await self._wrote.wait()
        return found

    async def ended(self) -> int:
        """Wait for its end; returns the exit code. Everything it wrote is free of tracebacks and keys."""
        code = await self.process.wait()
        for text in (self.out, self.err):
            assert "Traceback" not in text, text
            assert UPSTREAM_KEY not in text
            assert CLIENT_KEY not in text
        return code


@asynccontextmanager
async def command(*arguments: str, cwd: Path, **variables: str) -> AsyncIterator[Command]:
    """Run `evenflow ARGUMENTS`; killed if it outlives the block."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVENFLOW_")}
    environment = inherited | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"} | variables
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "server", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd, env=environment
    )
    running = Command(process)
    try:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(running.read, "out")
                nursery.start_soon(running.read, "err")
                yield running
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def run(*arguments: str, cwd: Path, **variables: str) -> tuple[int, str, str]:
    """A command that ends by itself: exit code, standard output, standard error."""
    async with command(*arguments, cwd=cwd, **variables) as running:
        code = await running.ended()
    return code, running.out, running.err


async def test_serve_without_an_upstream_names_the_four_ways_out(tmp_path: Path) -> None:
    code, out, err = await run("serve", cwd=tmp_path)
    assert (code, out) == (2, "")
    for way in ("--upstream", "EVENFLOW_UPSTREAM", "evenflow.toml", "evenflow dev"):
        assert way in err


@pytest.mark.parametrize("flag", ["--bind", "--admin-bind"])
async def test_row_74_a_port_in_use_is_one_line(flag: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = "--admin-bind" if flag == "--bind" else "--bind"
        code, _, err = await run("serve", "--upstream", "http://127.0.0.1:9/v1", flag, address, other, "127.0.0.1:0", cwd=tmp_path)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert address in err
    assert "in use" in err
    assert flag in err


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("drian = 3", "drian"),
        ('[upstreams.main]\nbase_url = "http://127.0.0.1:9/v1"\nkey_env = "NO_SUCH_VARIABLE"', "NO_SUCH_VARIABLE"),
        ("[[routes", "evenflow.toml"),
    ],
)
async def test_row_74_a_bad_configuration_is_one_line(toml: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "evenflow.toml").write_text(toml)
    code, _, err = await run("serve", cwd=tmp_path)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert told in err


async def test_a_listener_off_loopback_without_keys_is_refused(tmp_path: Path) -> None:
    code, _, err = await run("serve", "--upstream", "http://127.0.0.1:9/v1", "--bind", "0.0.0.0:0", cwd=tmp_path)
    assert code == 2
    assert "client_keys" in err
    assert "--allow-anonymous" in err


@asynccontextmanager
async def serving(simulator: Simulator, tmp_path: Path, drain: float) -> AsyncIterator[tuple[Command, RawClient]]:
    """`evenflow serve` in front of the simulator, with keys, and a client for it."""
    config = f'drain = {drain}\nclient_keys = ["env:CALLERS"]\n[upstreams.main]\nbase_url = "{simulator.base_url}"\nkey_env = "UP_KEY"\n'
    (tmp_path / "evenflow.toml").write_text(config)
    flags = ("--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0")
    async with command("serve", *flags, cwd=tmp_path, UP_KEY=UPSTREAM_KEY, CALLERS=CLIENT_KEY) as running:
        url = await running.until_said(r"listens on (\S+)")
        yield running, RawClient(url[1])


@SIGNALS
async def test_row_72_a_signal_ends_it_with_0(signum: signal.Signals, simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path, drain=0.0) as (running, client):
        assert (await client.ask("ok")).done
        running.process.send_signal(signum)
        assert await running.ended() == 0


@SIGNALS
async def test_row_68_a_running_stream_may_finish_within_the_drain(signum: signal.Signals, simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path, drain=10.0) as (running, client):
        async with client.open("count:50,pace=10") as exchange:
            await exchange.read_until(b"data: ")
            running.process.send_signal(signum)
            answer = await exchange.rest()
        assert answer.done
        assert await running.ended() == 0


@SIGNALS
async def test_row_68_a_stream_that_outlasts_the_drain_is_ended(signum: signal.Signals, simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path, drain=0.2) as (running, client):
        async with client.open("endless:pace=10") as exchange:
            await exchange.read_until(b"data: ")
            running.process.send_signal(signum)
            answer = await exchange.rest()
        assert not answer.done
        assert not answer.finish_reasons
        await simulator.observer.wait_for(lambda observer: observer.closes == 1)
        assert await running.ended() == 0


async def test_a_second_signal_ends_it_at_once(simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path, drain=60.0) as (running, client):
        async with client.open("endless:pace=10") as exchange:
            await exchange.read_until(b"data: ")
            running.process.send_signal(signal.SIGTERM)
            await trio.sleep(0.1)  # signals of one kind that come together are one
            running.process.send_signal(signal.SIGTERM)
            await exchange.rest()
        assert await running.ended() == 0


async def test_its_log_is_json_with_one_line_per_stream(simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path, drain=0.0) as (running, client):
        await client.ask("ok")
        await client.ask("cut")
        running.process.send_signal(signal.SIGTERM)
        await running.ended()
    lines = [json.loads(line) for line in running.err.splitlines()]
    streams = [line for line in lines if line["event"] == "stream"]
    assert [line["termination"] for line in streams] == ["--", "UD"]


@SIGNALS
async def test_dev_prints_what_to_try_and_leaves_no_traceback(signum: signal.Signals, tmp_path: Path) -> None:
    async with command("dev", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0", cwd=tmp_path) as running:
        url = (await running.until_said(r"listens on (\S+/v1)"))[1]
        await running.until_said(r"(?s)stutter-b1.*curl -N " + re.escape(url))
        assert (await RawClient(url, None).ask("count:2")).done
        running.process.send_signal(signum)
        assert await running.ended() == 0


async def test_row_74_check_prints_every_value_and_no_key(tmp_path: Path) -> None:
    config = (
        'client_keys = ["env:CALLERS"]\n[upstreams.main]\nbase_url = "http://127.0.0.1:9/v1"\nkey_env = "UP_KEY"\n'
        'headers = { x-secret = "env:UP_KEY" }\n'
    )
    (tmp_path / "evenflow.toml").write_text(config)
    code, out, err = await run("check", cwd=tmp_path, UP_KEY=UPSTREAM_KEY, CALLERS=CLIENT_KEY)
    assert (code, err) == (0, "")
    assert "upstreams.main.base_url" in out
    assert "timers.first_token" in out
    assert UPSTREAM_KEY not in out
    assert CLIENT_KEY not in out

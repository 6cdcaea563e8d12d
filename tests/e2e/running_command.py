"""`evenflow` as a real process, for the length of a block."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from .raw_client import CLIENT_KEY, UPSTREAM_KEY, RawClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from typing import IO

    from server.simulator import Simulator

ROOT: Final = Path(__file__).resolve().parents[2]
#: Starting Python and importing everything takes a second on a busy machine; 20 were seen on one with seven processes a core. Below the
#: drains and notices that nothing may wait out, which are 600 s.
PATIENCE: Final = 150.0


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

    async def until_logged(self, pattern: str) -> re.Match[str]:
        """Wait until standard error holds `pattern`."""
        while (found := re.search(pattern, self.err)) is None:
            await self._wrote.wait()
        return found

    async def until_all_ended(self) -> None:
        """Wait until nobody holds its standard output any more: it and every process it has started are gone."""
        while not self._closed:
            await self._wrote.wait()

    async def ended(self) -> int:
        """Wait for its end; returns the exit code. Everything it wrote is free of tracebacks and keys."""
        code = await self.process.wait()
        for text in (self.out, self.err):
            assert "Traceback" not in text, text
            assert UPSTREAM_KEY not in text
            assert CLIENT_KEY not in text
        return code


@asynccontextmanager
async def command(
    *arguments: str,
    cwd: Path,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.PIPE,
    program: str = "",
    variables: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
) -> AsyncIterator[Command]:
    """Run `evenflow ARGUMENTS`; killed if it outlives the block.

    Args:
      patience: seconds that the block may take.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVENFLOW_")}
    environment = inherited | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"} | dict(variables or {})
    process = await trio.lowlevel.open_process(
        [sys.executable, *(["-c", program] if program else ["-m", "server"]), *arguments],
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        env=environment,
    )
    running = Command(process)
    try:
        with trio.fail_after(patience):
            async with trio.open_nursery() as nursery:
                if process.stdout is not None:
                    nursery.start_soon(running.read, "out")
                if process.stderr is not None:
                    nursery.start_soon(running.read, "err")
                yield running
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def run(*arguments: str, cwd: Path, **variables: str) -> tuple[int, str, str]:
    """A command that ends by itself: exit code, standard output, standard error."""
    async with command(*arguments, cwd=cwd, variables=variables) as running:
        code = await running.ended()
    return code, running.out, running.err


CONFIG: Final = """\
drain = {drain}
client_keys = ["env:CALLERS"]
{more}
[upstreams.main]
base_url = "{upstream}"
key_env = "UP_KEY"
"""


@asynccontextmanager
async def serving(
    simulator: Simulator,
    tmp_path: Path,
    drain: float = 0.0,
    more: str = "",
    *,
    stderr: int | IO[bytes] = subprocess.PIPE,
    program: str = "",
    patience: float = PATIENCE,
) -> AsyncIterator[tuple[Command, RawClient]]:
    """`evenflow serve` in front of the simulator, with keys, and a client for it.

    Args:
      more: further settings of the top level, as TOML.
      stderr: where its log goes.
      program: Python to run instead of `-m server`.
      patience: seconds that the block may take.
    """
    (tmp_path / "evenflow.toml").write_text(CONFIG.format(drain=drain, more=more, upstream=simulator.base_url))
    flags = ("serve", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0")
    keys = {"UP_KEY": UPSTREAM_KEY, "CALLERS": CLIENT_KEY}
    async with command(*flags, cwd=tmp_path, stderr=stderr, program=program, variables=keys, patience=patience) as running:
        url = await running.until_said(r"(?s)listens on (\S+).*/metrics")
        yield running, RawClient(url[1])


def admin_of(running: Command) -> RawClient:
    """A client for its admin listener."""
    found = re.search(r"admin .*?(http\S+)/status", running.out)
    assert found is not None
    return RawClient(found[1], None)

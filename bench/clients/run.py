"""One client through its cases: a simulator, an evenflow of its own in front of it, the client as a process, and its end.

What is started here is stopped here, with all its children.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from bench.processes import running
from server.simulator import Ending, open_simulator

from .cases import CASES, Cell, Left, judge, scenario
from .client import Output, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from server.simulator import Observer, Simulator

    from .client import Client

_LISTENS: Final = re.compile(r"listens on http://([\d.:]+)/v1")
_PACE: Final = 0.005  # seconds between two events
#: Shipped defaults, but that comments come soon enough to be met: keep-alives, and the one that tells what was repaired.
_SETTINGS: Final = """\
bind = "127.0.0.1:0"
admin_bind = "127.0.0.1:0"
drain = 0.0
upstreams.main.base_url = "{upstream}"
timers = {{ keepalive_after = 0.2, keepalive_interval = 0.2 }}
stutter.trailer = true
"""
_LIMIT: Final = 150.0  # seconds for a case: aider takes 15 on this machine, an agent that tries again by itself a minute
_LEAVES_AFTER: Final = 40  # events of an endless answer
_SEES: Final = 5.0  # seconds the upstream gets to see that a client has left


async def run_client(
    client: Client,
    installed: Path,
    programs: Path,
    *,
    cases: Iterable[str] = tuple(CASES),
    straight: bool = False,
    tell: Callable[[str], None],
) -> dict[str, Cell]:
    """The verdicts on one client, by case.

    Args:
      installed, programs: as install.installed told.
      straight: without evenflow, to see what the client makes of the upstream itself.
      tell: shown the case that begins.

    Raises:
      CannotStart: evenflow did not start.
    """
    cells: dict[str, Cell] = {}
    with tempfile.TemporaryDirectory(prefix="evenflow-clients-", ignore_cleanup_errors=True) as folder:
        for case in cases:
            tell(case)
            home = Path(folder) / case
            home.mkdir()
            place = Place(case, "", installed, programs, home)
            async with open_simulator(pace=_PACE, scenario=scenario(client, place)) as simulator:
                if straight:
                    cells[case] = await _meet(client, _at(place, simulator.base_url), simulator)
                    continue
                settings = Path(folder) / f"{case}.toml"
                settings.write_text(_SETTINGS.format(upstream=simulator.base_url), "utf-8")
                serve = ["serve", "--config", str(settings)]
                async with running(serve, Path(folder) / f"{case}.log", _LISTENS) as (address,):
                    cells[case] = await _meet(client, _at(place, f"http://{address}/v1"), simulator)
    return cells


def _at(place: Place, url: str) -> Place:
    return Place(place.case, url, place.installed, place.bin, place.home)


async def _meet(client: Client, place: Place, simulator: Simulator) -> Cell:
    command = client.start(place)
    # Nothing of ours: a key, a proxy or a configuration of the user's would make it another test.
    variables = {
        "PATH": f"{place.bin}:{place.installed / 'node_modules' / '.bin'}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(place.home),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "NO_PROXY": "127.0.0.1",
    }
    logs = place.home.parent
    out, err = logs / f"{place.case}.out", logs / f"{place.case}.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = await trio.lowlevel.open_process(
            command.arguments,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            cwd=place.home,
            env=variables | dict(command.variables),
            start_new_session=True,  # Ctrl-C goes to it and its children, and not to us; and all can be ended together
        )
        left = None
        try:
            with trio.move_on_after(_LIMIT) as limit:
                if place.case == "disconnect":
                    left = await _leave(client, process, simulator)
                else:
                    await _end(process)
        finally:
            _signal(process, signal.SIGKILL)
            with trio.CancelScope(shield=True):  # killed: it ends
                await process.wait()
    if keep := os.environ.get("KEEP_CLIENT_OUTPUT"):
        _keep(Path(keep), client.name, place.case, out, err)
    if limit.cancelled_caught:
        return Cell("off", f"not through after {_LIMIT:.0f} s, asked {simulator.observer.requests} times")
    with trio.move_on_after(_SEES):  # a client may be through before the upstream's socket tells
        await simulator.observer.wait_for(lambda observer: observer.active == 0)
    said = client.read(Output(process.returncode or 0, out.read_text("utf-8", "replace"), err.read_text("utf-8", "replace"), place.home))
    if said.left_ns:
        left = Left(said.left_ns)
    return judge(client, place, said, simulator.observer.seen, left)


async def _end(process: trio.Process) -> None:
    """A client that is left alone; the end of its standard input lets a script of ours go."""
    assert process.stdin is not None
    await process.stdin.aclose()
    await process.wait()


async def _leave(client: Client, process: trio.Process, simulator: Simulator) -> Left | None:
    """It leaves in the middle: a program by Ctrl-C, a script by its own means; and the upstream sees it before the process ends."""
    if not client.interactive:
        with trio.move_on_after(_LIMIT / 2):
            await simulator.observer.wait_for(_closed)
        await _end(process)
        return None
    assert process.stdin is not None
    await process.stdin.aclose()
    with trio.move_on_after(_LIMIT / 2):
        await simulator.observer.wait_for(_flows)
    for presses, number in enumerate((signal.SIGINT, signal.SIGINT, signal.SIGKILL), 1):
        left = Left(time.monotonic_ns(), presses)
        _signal(process, number)
        with trio.move_on_after(_SEES) as waiting:
            await simulator.observer.wait_for(_closed)
        if not waiting.cancelled_caught:
            break
    return left


def _closed(observer: Observer) -> bool:
    return any(seen.ending is Ending.CLIENT_CLOSED for seen in observer.seen)


def _flows(observer: Observer) -> bool:
    return any(seen.answer.startswith("endless") and seen.events >= _LEAVES_AFTER for seen in observer.seen)


def _signal(process: trio.Process, number: int) -> None:
    with suppress(ProcessLookupError):  # it and its children are gone
        os.killpg(process.pid, number)


def _keep(folder: Path, name: str, case: str, *files: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / f"{name}-{case}{file.suffix}").write_bytes(file.read_bytes())

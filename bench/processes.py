"""The processes under load, and an address that never answers. What is started here is stopped here."""

from __future__ import annotations

import os
import re
import select
import socket
import sys
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import httpx
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

_T = TypeVar("_T")

#: What `evenflow simulate` says as soon as it listens (its HOST:PORT), and a proxy (its own and its admin listener's).
SIMULATOR: Final = re.compile(r"simulator: base_url http://([\d.:]+)/v1")
PROXY: Final = re.compile(r"listens on http://([\d.:]+)/v1.*?http://([\d.:]+)/status", re.DOTALL)
_ROOT: Final = Path(__file__).resolve().parent.parent
_START_LIMIT: Final = 30.0  # seconds; a second or two on an idle machine
_STOP_LIMIT: Final = 5.0


class CannotStart(Exception):
    """The load cannot be run here. The text says why in one line."""


class Failure(NamedTuple):
    """A load that has no result: why, and the exit code for that."""

    why: str
    code: int


def run_load(run: Callable[[], Awaitable[_T]]) -> _T | Failure:
    """Runs a load to its end, in an event loop of its own.

    Returns:
      Its result, or 2 and why it could not be run, 1 if a server stopped answering, 130 for Ctrl-C.
    """
    failure = Failure("", 2)
    try:
        return trio.run(run)
    except* KeyboardInterrupt:
        failure = Failure("interrupted", 130)
    except* CannotStart as group:
        failure = Failure(str(first(group)), 2)
    except* httpx.HTTPError as group:
        # The load itself did that: a promise broken, not a load that could not be run.
        failure = Failure(f"a server stopped answering: {first(group)!r}", 1)
    return failure


def first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception of a group, however deep."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


@asynccontextmanager
async def running(
    arguments: Sequence[str], output: Path, announced: re.Pattern[str], *, variables: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[str, ...]]:
    """Run `evenflow ARGUMENTS` as a process of its own for the length of a block.

    Args:
      output: file that gets its standard output and standard error.
      announced: what it writes as soon as it listens.
      variables: of its environment, beside ours.

    Returns:
      The groups of `announced`.

    Raises:
      CannotStart: it ended, or did not announce itself in time.
    """
    # Whoever has an EVENFLOW_ variable set means another proxy.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EVENFLOW_")} | dict(variables or {})
    with output.open("wb") as file:
        command = [sys.executable, "-m", "server", *arguments]
        process = await trio.lowlevel.open_process(command, stdout=file, stderr=file, cwd=_ROOT, env=environment)
    try:
        yield await _announcement(process, output, announced, arguments[0])
    finally:
        # Shielded: also when the load is cancelled, by Ctrl-C for example, its processes must not stay behind. Bounded: what does
        # not end by itself is killed.
        with trio.move_on_after(_STOP_LIMIT, shield=True):
            process.terminate()
            await process.wait()
        if process.returncode is None:
            process.kill()
            with trio.move_on_after(_STOP_LIMIT, shield=True):
                await process.wait()


async def _announcement(process: trio.Process, output: Path, announced: re.Pattern[str], name: str) -> tuple[str, ...]:
    with trio.move_on_after(_START_LIMIT):
        while True:
            await trio.sleep(0.02)
            ended = process.poll() is not None
            if match := announced.search(_text(output)):
                return match.groups()
            if ended:
                break
    said = _text(output).strip().splitlines() or ["nothing"]
    raise CannotStart(f"`evenflow {name}` did not start; its last line: {said[-1]}")


def _text(output: Path) -> str:
    return output.read_text("utf-8", "replace")


@contextmanager
def unanswered_address() -> Iterator[str]:
    """HOST:PORT on loopback where a connect is neither accepted nor refused: a listener whose queue is full.

    Raises:
      CannotStart: this system's queues do not fill.
    """
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(64):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
            if not select.select([], [waiting], [], 0.2)[1]:
                yield f"127.0.0.1:{listener.getsockname()[1]}"
                return
        raise CannotStart("this system accepts connections beyond a listener's backlog, so that no connect can be made to wait")

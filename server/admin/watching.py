"""The dashboard's stream of snapshots where several workers serve.

Owns one viewer's tasks: one per worker asks it once a second, and no other waits for that answer; so a worker that hangs is one that
does not answer, and nothing else. At most one question of a viewer is under way to each. Who watches nothing, asks nothing. Who may
watch is decided by a worker, by the rules of its own admin application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import trio

from .dashboard import FULL, PACE, VIEWERS, event_of
from .merged_board import MergedBoard
from .snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .fan_out import WorkerStatistics

_DECODER: Final = msgspec.json.Decoder(Snapshot)
_PLAIN: Final = (b"content-type", b"text/plain; charset=utf-8")
_EVENTS: Final = (b"content-type", b"text/event-stream")
_HEADERS: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"), (b"x-accel-buffering", b"no"))


class Watched(Protocol):
    """What is needed of the workers."""

    def statistics(self) -> Mapping[int, WorkerStatistics]: ...

    async def snapshot(self, number: int, after: int, /) -> bytes | None:
        """What came after a serial number, a Snapshot as JSON; None from a worker that is not there. Waits as long as the worker needs."""


class Watching:
    """All viewers.

    Args:
      workers: of whom they see.
    """

    def __init__(self, workers: Watched) -> None:
        self._workers = workers
        self._limit = trio.CapacityLimiter(VIEWERS)

    async def serve(self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        """Answer one viewer, until it leaves. It has been let in already."""
        viewer = object()
        try:
            self._limit.acquire_on_behalf_of_nowait(viewer)
        except trio.WouldBlock:
            await send({"type": "http.response.start", "status": 503, "headers": [_PLAIN, *_HEADERS]})
            await send({"type": "http.response.body", "body": FULL.encode()})
            return
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [_EVENTS, *_HEADERS]})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
                await self._show(nursery, send)
        finally:
            self._limit.release_on_behalf_of(viewer)

    async def _show(self, nursery: trio.Nursery, send: Callable[[Any], Awaitable[None]]) -> None:
        board = MergedBoard()
        heard = {number: trio.Event() for number in self._workers.statistics()}
        for number, event in heard.items():
            nursery.start_soon(self._follow, number, board, event)
        with trio.move_on_after(PACE):
            for event in heard.values():
                await event.wait()
        while True:
            document = board.news(self._workers.statistics(), trio.current_time())
            await send({"type": "http.response.body", "body": event_of(document), "more_body": True})
            await trio.sleep(PACE)

    async def _follow(self, number: int, board: MergedBoard, heard: trio.Event) -> None:
        """Ask one worker again and again; one that was started again is asked from the beginning."""
        pid, after = None, 0
        while True:
            known = self._workers.statistics()[number]
            if known.pid != pid:
                pid, after = known.pid, 0
            if (told := await self._workers.snapshot(number, after)) is not None:
                snapshot = _DECODER.decode(told)
                after = snapshot.serial
                board.take(number, pid, snapshot, trio.current_time())
            heard.set()
            await trio.sleep(PACE)


async def _until_gone(receive: Callable[[], Awaitable[Any]], scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()

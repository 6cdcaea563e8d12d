"""The applications of requests that h11 reads: each in a task of its own, with an inbox for what its client sends.

Owns that inbox: it breaks when its application ends, so that one which reads no more blocks nobody, and it ends when the client left.
Refuses to know what is said on the wire (edge_protocol.py). Requests in plain form have no inbox (edge_exchange.py).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio
from hypercorn.trio.task_group import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.config import Config

    from .asgi import AsgiApp

_log: Final = logging.getLogger("evenflow.edge")


class Applications(TaskGroup):
    """Runs the application of each request that h11 read, and hands it its messages."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__()
        self._running = nursery

    async def spawn_app(
        self, app: Any, config: Config, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        inbox_in, inbox_out = trio.open_memory_channel[Any](config.max_app_queue_size)
        self._running.start_soon(_run_application, app, scope, inbox_out, send)
        return partial(_put, inbox_in)


async def _put(inbox: trio.MemorySendChannel[Any], message: Any) -> None:
    """Hand over a message.

    `http.disconnect` does so without a checkpoint. It is the application's own last send that says it, and one that answers by
    cancelling itself (quart-trio does) must not stop that send halfway: the connection would be neither used again nor closed.
    """
    if message["type"] == "http.disconnect":
        inbox.close()
        return
    try:
        try:
            # Without a checkpoint: what came in one read is read to its end before the application may answer.
            inbox.send_nowait(message)
        except trio.WouldBlock:
            await inbox.send(message)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # nobody reads it any more


async def _run_application(app: AsgiApp, scope: Any, inbox: trio.MemoryReceiveChannel[Any], send: Callable[[Any], Awaitable[None]]) -> None:
    async def receive() -> Any:
        try:
            return await inbox.receive()
        except trio.EndOfChannel:
            return {"type": "http.disconnect"}

    with inbox:
        try:
            await app(scope, receive, send)
        except* Exception:  # a defect in one request is the end of that request alone
            _log.exception("a request failed")
    await send(None)  # hypercorn's sign for: nothing more will come

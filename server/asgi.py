"""The outermost ASGI callable: POST /v1/* to v1.py, everything else to Quart.

It also mends what Quart on trio and hypercorn break between them: hypercorn delivers `http.disconnect` from inside the last send of
a response, quart-trio cancels that very send, and the connection's idle timer never starts again. The last send is shielded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    AsgiApp = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class Edge:
    """The ASGI application that hypercorn serves.

    Args:
      v1: takes every POST below /v1.
      control: takes everything else.
    """

    def __init__(self, v1: AsgiApp | None, control: AsgiApp) -> None:
        self._v1 = v1
        self._control = control

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif self._v1 is not None and scope["method"] == "POST" and scope["path"].startswith("/v1/"):
            await self._v1(scope, receive, send)
        else:
            await self._control(scope, receive, _shield_last(send))


def _shield_last(send: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    async def shielded(message: Any) -> None:
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        with trio.CancelScope(shield=last):
            await send(message)

    return shielded


async def _lifespan(receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """Answer start and stop. An application that returns at once makes hypercorn's trio worker crash."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return

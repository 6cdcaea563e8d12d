"""An application behind the edge on a real socket, for the tests of server/test_edge_*.py."""

from __future__ import annotations

from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import trio

from server.edge_listener import open_edge
from server.listeners import open_listener
from server.settings import Address, EdgeSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Receive = Callable[[], Awaitable[Any]]
    Send = Callable[[Any], Awaitable[None]]
    App = Callable[[Any, Receive, Send], Awaitable[None]]

#: In plain form; the same bytes go through h11 where `plain` is false.
REQUEST = b"POST /v1/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
START = {"type": "http.response.start", "status": 200, "headers": []}


def part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


#: False in a test that takes the way through h11; set by `way` in conftest.py.
PLAIN = ContextVar("PLAIN", default=True)


@asynccontextmanager
async def serving(app: App, *, grace: float = 0.0, limits: EdgeSettings | None = None) -> AsyncIterator[tuple[str, int]]:
    """The address at which `app` is served."""
    listener = open_listener(Address("127.0.0.1", 0), "bind", backlog=16, write_timeout=30.0)
    address = listener.getsockname()
    with trio.fail_after(60):
        async with open_edge(app, listener, limits or EdgeSettings(), grace=grace, plain=PLAIN.get()):
            yield address


async def everything(stream: trio.SocketStream) -> bytes:
    return b"".join([data async for data in stream])


async def ask(address: tuple[str, int], sent: bytes = REQUEST) -> bytes:
    """What comes until the connection is closed by the server."""
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(sent)
        return await everything(stream)

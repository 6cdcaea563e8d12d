"""The connection under applications that misbehave, on real sockets."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from server.edge_connection import open_edge
from server.listeners import open_listener
from server.settings import Address, EdgeSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Receive = Callable[[], Awaitable[Any]]
    Send = Callable[[Any], Awaitable[None]]
    App = Callable[[Any, Receive, Send], Awaitable[None]]

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
START = {"type": "http.response.start", "status": 200, "headers": []}


def part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


@asynccontextmanager
async def serving(app: App, *, grace: float = 0.0) -> AsyncIterator[tuple[str, int]]:
    """The address at which `app` is served."""
    listener = open_listener(Address("127.0.0.1", 0), "--bind", backlog=16, write_timeout=30.0)
    address = listener.getsockname()
    with trio.fail_after(10):
        async with open_edge(app, listener, EdgeSettings(), grace=grace):
            yield address


async def everything(stream: trio.SocketStream) -> bytes:
    return b"".join([data async for data in stream])


async def ask(address: tuple[str, int], sent: bytes = REQUEST) -> bytes:
    """What comes until the connection is closed by the server."""
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(sent)
        return await everything(stream)


async def test_nothing_is_written_after_a_write_that_was_cancelled() -> None:
    """Part of a chunk may be out: whatever followed would be taken for the rest of it."""
    cancelled = trio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        with trio.move_on_after(0.1) as waiting:
            await send(part(b"x" * 30_000_000))  # more than the kernel takes
        assert waiting.cancelled_caught
        await send(part(b"LATER", more=False))
        cancelled.set()

    async with serving(app) as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(REQUEST)
        await cancelled.wait()
        received = bytearray()

        async def read() -> None:
            async for data in stream:
                received.extend(data)

        with pytest.raises(trio.BrokenResourceError):  # what was not sent yet is dropped, not kept for whoever does not read
            await read()
        assert received
        assert b"LATER" not in received


async def test_an_application_that_waits_for_a_client_that_does_not_read_ends_with_the_grace() -> None:
    began = trio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        began.set()
        await send(part(b"x" * 30_000_000))

    async with trio.open_nursery() as nursery:
        async with serving(app, grace=0.1) as address:
            stream = await trio.open_tcp_stream(*address)
            await stream.send_all(REQUEST)
            await began.wait()
        nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(stream)


async def test_a_crash_is_the_end_of_one_request(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["path"] == "/late":
            await send(START)
            await send(part(b"some"))
        if scope["path"] != "/":
            raise ZeroDivisionError("a defect")
        await send(START)
        await send(part(b"fine", more=False))

    async with serving(app) as address, await trio.open_tcp_stream(*address) as neighbour:
        assert b"HTTP/1.1 500" in await ask(address, REQUEST.replace(b"/", b"/early", 1))
        late = await ask(address, REQUEST.replace(b"/", b"/late", 1))
        assert b"some" in late
        assert not late.endswith(b"0\r\n\r\n")  # cut, so that nobody takes it for whole
        await neighbour.send_all(REQUEST)
        assert b"200" in await neighbour.receive_some()
    assert [(record.levelno, record.message) for record in caplog.records] == [(logging.ERROR, "a request failed")] * 2


async def test_disconnect_is_said_as_often_as_it_is_asked_for() -> None:
    told: list[str] = []
    done = trio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        told.extend([(await receive())["type"] for _ in range(4)])
        done.set()

    async with serving(app) as address:
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(REQUEST)
        await done.wait()
    assert told == ["http.request", "http.disconnect", "http.disconnect", "http.disconnect"]


async def test_a_body_waits_for_an_application_that_is_in_no_hurry() -> None:
    go_on, size = trio.Event(), 0

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        nonlocal size
        await go_on.wait()
        more = True
        while more:
            message = await receive()
            size += len(message["body"])
            more = message["more_body"]
        await send(START)
        await send(part(b"", more=False))

    async with serving(app) as address, await trio.open_tcp_stream(*address) as stream, trio.open_nursery() as nursery:
        body = b"x" * 20_000_000
        nursery.start_soon(stream.send_all, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        with trio.move_on_after(0.2):
            assert await stream.receive_some() == b"", "answered before it was read"
        go_on.set()
        assert b"HTTP/1.1 200" in await stream.receive_some()
    assert size == 20_000_000


@pytest.mark.parametrize("path", ["/", "/?a=%20b", "/%c3%a4"])
async def test_an_absolute_target_is_taken_as_its_path(path: str) -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await send(START)
        await send(part(b"", more=False))

    async with serving(app) as address:
        for target, host in ((path, "here"), (f"HTTP://user@here{path}", "elsewhere")):
            await ask(address, f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    first, second = ({name: scope[name] for name in ("path", "raw_path", "query_string", "headers")} for scope in scopes)
    assert first == second

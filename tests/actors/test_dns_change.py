"""An upstream's name gets another address: new connections go there once the pooled ones are too old to be used (FAULTS row 77)."""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import httpx
import trio

import actors.dialer
from actors.connection_pool import PoolLimits
from actors.transport import Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest


class Names(trio.abc.HostnameResolver):
    """One name, whose address can be changed."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked = 0

    async def getaddrinfo(self, host: object, port: object, *_: object) -> list[tuple[object, ...]]:  # type: ignore[override]
        self.asked += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.address, port))]

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        raise AssertionError("nobody asks")


@asynccontextmanager
async def server(address: str, port: int, said: bytes) -> AsyncIterator[int]:
    """Answers every request on every connection with `said`."""

    async def handle(stream: trio.SocketStream) -> None:
        while await stream.receive_some(65_536):
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, port, host=address))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_row_77_new_connections_follow_the_name_within_the_pools_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names("127.0.0.1")
    before = trio.socket.set_custom_hostname_resolver(names)
    monkeypatch.setattr(actors.dialer, "ADDRESS_LIFETIME", 0.05)
    transport = Transport(ssl.create_default_context(), PoolLimits(age=0.2))

    async def ask(port: int) -> bytes:
        outgoing = httpx.Request("GET", f"http://upstream.test:{port}/", extensions={"connected": lambda: None})
        response = await transport.handle_async_request(outgoing)
        body = bytes(await response.extensions["reader"].read())
        assert await response.extensions["reader"].read() == b""
        return body

    try:
        async with server("127.0.0.1", 0, b"old") as port, server("127.0.0.2", port, b"new"):
            assert await ask(port) == b"old"
            names.address = "127.0.0.2"
            with trio.fail_after(60):
                while (answer := await ask(port)) == b"old":  # noqa: ASYNC110
                    await trio.sleep(0.01)  # a connection that is busy all the time
            assert answer == b"new"
            assert transport.statistics().opened == 2
            assert transport.statistics().reused > 0
    finally:
        await transport.aclose()
        trio.socket.set_custom_hostname_resolver(before)

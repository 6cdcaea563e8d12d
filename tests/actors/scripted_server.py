"""A server whose connections follow scripts, and a transport that must have left nothing behind when its test is over."""

from __future__ import annotations

import gc
import socket
import ssl
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx
import pytest
import trio
import trustme

from actors.body_reader import Reader
from actors.transport import Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from actors.connection_pool import PoolLimits

    Stream: TypeAlias = trio.SocketStream | trio.SSLStream[trio.SocketStream]
    Script: TypeAlias = Callable[["Peer"], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
LONG = b"x" * 30_000_000  # more than the kernel keeps for a server that does not read
BOTH_SCHEMES = pytest.mark.parametrize("scheme", ["http", "https"])


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._data = b""

    async def request(self) -> bytes:
        """One request, its body included; b"" if the client left instead."""
        while b"\r\n\r\n" not in self._data or len(self._data) < self._end():
            received = await self.stream.receive_some(1 << 20)
            if not received:
                return b""
            self._data += received
        request, self._data = self._data[: self._end()], self._data[self._end() :]
        return request

    async def head(self) -> None:
        """Wait for a request's head."""
        while b"\r\n\r\n" not in self._data:
            self._data += await self.stream.receive_some()

    def _end(self) -> int:
        head = self._data.partition(b"\r\n\r\n")[0].lower()
        length = next((line.partition(b":")[2] for line in head.split(b"\r\n") if line.startswith(b"content-length:")), b"0")
        return len(head) + 4 + int(length)

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            await self.stream.send_all(piece)

    async def left(self) -> bool:
        """Wait until the client has closed."""
        try:
            while await self.stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        return True

    def reset(self) -> None:
        below = self.stream.transport_stream if isinstance(self.stream, trio.SSLStream) else self.stream
        below.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        below.socket.close()


class Server:
    """A server whose connections follow one script each; the last script serves all that come after."""

    def __init__(self, scripts: tuple[Script, ...], scheme: str) -> None:
        self._scripts = scripts
        self.connections = 0
        self.done = trio.Event()  # a script has come to its end
        self.url = f"{scheme}://127.0.0.1"

    async def handle(self, stream: Stream) -> None:
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        try:
            await script(Peer(stream))
        except trio.BrokenResourceError:
            pass  # it left, or did not trust us
        self.done.set()
        await trio.aclose_forcefully(stream)


AUTHORITY = trustme.CA()


def trust(authority: trustme.CA = AUTHORITY) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@asynccontextmanager
async def serving(*scripts: Script, scheme: str = "http", protocols: Sequence[str] = ("h2", "http/1.1")) -> AsyncIterator[Server]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server = Server(scripts, scheme)
    server.url += f":{listener.socket.getsockname()[1]}/v1?a=1"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(list(protocols))
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    listeners: list[Any] = [trio.SSLListener(listener, context, https_compatible=True) if scheme == "https" else listener]
    with trio.fail_after(3000):  # of a mock clock, in some tests
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, server.handle, listeners)
            yield server
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def transport_of(limits: PoolLimits | None = None, *, http2: bool = False) -> AsyncIterator[Transport]:
    transport = Transport(trust(), limits, http2=http2)
    try:
        yield transport
        assert transport.statistics().open == transport.statistics().idle
    finally:
        await transport.aclose()
    assert transport.statistics().open == 0
    gc.collect()  # what was dropped while suspended, and sockets left open, are reported here, as errors


async def send(transport: Transport, server: Server, method: str = "POST", body: bytes = b"{}", **extensions: Any) -> httpx.Response:
    stream = httpx.ByteStream(body)
    request = httpx.Request(method, server.url, headers=[(b"host", b"a")], stream=stream, extensions=extensions)
    return await transport.handle_async_request(request)


def reader_of(response: httpx.Response) -> Reader:
    reader = response.extensions["reader"]
    assert isinstance(reader, Reader)
    return reader


async def whole(response: httpx.Response) -> bytes:
    """Read a body to its end."""
    reader = reader_of(response)
    body = b""
    while data := await reader.read():
        body += data
    await reader.aclose()
    assert reader.complete
    return body


def answers(*responses: bytes) -> Script:
    """Answer each request with the next response, then wait for the client to leave."""

    async def script(peer: Peer) -> None:
        for response in responses:
            if not await peer.request():
                return
            await peer.send(response)
        await peer.left()

    return script


async def silent(peer: Peer) -> None:
    await peer.left()

"""A connection on which a test writes bytes of its own making, and reads responses one after the other.

For what no HTTP client would send. Knows as much of HTTP/1.1 as is needed to tell where a response ends.
"""

from __future__ import annotations

import json
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import trio

from .raw_client import CLIENT_KEY, PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def request(
    body: bytes | None = None, *headers: bytes, line: bytes = b"POST /v1/chat/completions HTTP/1.1", host: bytes = b"localhost"
) -> bytes:
    """A head with a good key, and the body if there is one, its length told by Content-Length."""
    lines = [line, b"Host: " + host, b"Authorization: Bearer " + CLIENT_KEY.encode(), b"Content-Type: application/json", *headers]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def asking(model: str, *, stream: bool = False) -> bytes:
    """The body of a completion request."""
    return json.dumps({"model": model, "stream": stream, "messages": []}).encode()


class Response(NamedTuple):
    """One response.

    Args:
      headers: names in lower case.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error object in OpenAI's form."""
        found = json.loads(self.body)["error"]
        assert isinstance(found, dict)
        assert set(found) == {"message", "type", "param", "code"}
        return found

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


class RawConnection:
    """An open connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._received = b""

    async def send(self, data: bytes) -> None:
        """Write; a peer that has had enough is no error here, its answer tells more."""
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError:
            pass

    async def response(self) -> Response:
        """The next response, of whatever status, without what follows it."""
        with trio.fail_after(PATIENCE):
            head = await self._until(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
            status, body = int(lines[0].split(" ")[1]), b""
            if headers.get("transfer-encoding") == "chunked":
                while size := int(await self._until(b"\r\n"), 16):
                    body += (await self._exactly(size + 2))[:-2]
                await self._until(b"\r\n")
            elif status >= 200:
                body = await self._exactly(int(headers.get("content-length", "0")))
            return Response(status, headers, body)

    async def closed(self) -> bytes:
        """What comes until the peer closes the connection. A reset is a failure: it can overtake the answer."""
        with trio.fail_after(PATIENCE):
            while data := await self.stream.receive_some(65_536):
                self._received += data
        return self._received

    async def is_closed(self) -> bool:
        """Whether the peer closed; a reset counts. To be asked of a connection that nothing more is expected on."""
        with trio.fail_after(PATIENCE):
            try:
                return not self._received and not await self.stream.receive_some(1)
            except trio.BrokenResourceError:
                return True

    def reset(self) -> None:
        """Let the next close be a RST."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    async def _until(self, marker: bytes) -> bytes:
        while (end := self._received.find(marker)) < 0:
            await self._more()
        found, self._received = self._received[:end], self._received[end + len(marker) :]
        return found

    async def _exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            await self._more()
        found, self._received = self._received[:size], self._received[size:]
        return found

    async def _more(self) -> None:
        data = await self.stream.receive_some(65_536)
        assert data, f"the connection ended in the middle of a response, after {self._received[-200:]!r}"
        self._received += data


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RawConnection]:
    """Connect to where `url` points."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    sock = trio.socket.socket(socket.AF_INET6 if ":" in parts.hostname else socket.AF_INET)
    await sock.connect((parts.hostname, parts.port))
    async with trio.SocketStream(sock) as stream:
        yield RawConnection(stream)

"""A client that sees the bytes: one connection per request, and a strict reading of what came back.

An HTTP library would repair, refuse or hide just what these tests are about. Knows HTTP/1.1 framing and the spelling of SSE; every
answer it reads is searched for the canary keys on the way.
"""

from __future__ import annotations

import json
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

#: Credentials that every proxy of these tests is configured with, and that nothing may show.
UPSTREAM_KEY: Final = "sk-canary-upstream-5d0c9be1f7"
CLIENT_KEY: Final = "sk-canary-client-a83e61f04c"

CHAT: Final = "/chat/completions"
#: Seconds; a test that hangs fails instead. Far beyond what anything here takes, on a slow machine too, and below what would end it
#: by the way: a client's stall is 30 s as shipped, and the drains, pauses and stalls that nothing may wait out are 60 s here.
PATIENCE: Final = 25.0


@dataclass(frozen=True)
class Answer:
    """One response, read until its connection ended.

    Args:
      raw: every byte.
      reset: the connection ended with a RST.
    """

    raw: bytes
    reset: bool = False

    @cached_property
    def _parts(self) -> tuple[bytes, bytes]:
        head, _, body = self.raw.partition(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 1"):  # informational: the answer is yet to come
            head, _, body = body.partition(b"\r\n\r\n")
        return head, body

    @cached_property
    def status(self) -> int:
        return int(self._parts[0].split(b" ", 2)[1])

    @cached_property
    def headers(self) -> list[tuple[str, str]]:
        rows = (line.split(b":", 1) for line in self._parts[0].split(b"\r\n")[1:])
        return [(name.decode("latin-1").lower(), value.strip().decode("latin-1")) for name, value in rows]

    def header(self, name: str) -> str:
        """The value of a header, "" where it is absent, all of them where it is repeated."""
        return ", ".join(value for key, value in self.headers if key == name)

    @cached_property
    def _chunks(self) -> tuple[bytes, bool]:
        """The chunked body, and whether it was ended properly."""
        rest, chunks = self._parts[1], []
        while rest:
            size, _, after = rest.partition(b"\r\n")
            length = int(size, 16)
            chunks.append(after[:length])
            if length == 0:
                return b"".join(chunks), True
            rest = after[length + 2 :]
        return b"".join(chunks), False

    @cached_property
    def body(self) -> bytes:
        return self._chunks[0] if self.header("transfer-encoding") == "chunked" else self._parts[1]

    @cached_property
    def whole(self) -> bool:
        """The body ended as its framing says it would; else the client knows that it was cut."""
        if self.reset:
            return False
        if self.header("transfer-encoding") == "chunked":
            return self._chunks[1]
        return len(self.body) == int(self.header("content-length"))

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @cached_property
    def blocks(self) -> list[bytes]:
        """The body cut behind every blank line; only for streams spelled with LF."""
        return [block + b"\n\n" for block in self.body.split(b"\n\n") if block]

    @property
    def comments(self) -> list[bytes]:
        return [block for block in self.blocks if block.startswith(b":")]

    @cached_property
    def data(self) -> list[str]:
        """The data of every event."""
        return [block[6:-2].decode() for block in self.blocks if block.startswith(b"data: ")]

    @property
    def events(self) -> list[Any]:
        return [json.loads(data) for data in self.data if data != "[DONE]"]

    @property
    def done(self) -> bool:
        """The last event is the only [DONE]."""
        return self.data.count("[DONE]") == 1 and self.data[-1] == "[DONE]"

    @property
    def error(self) -> dict[str, Any]:
        """The error object: of the body, or of the frame that has to be the stream's last event."""
        if self.header("content-type").startswith("text/event-stream"):
            assert self.data, self.raw
            assert "[DONE]" not in self.data
            found = json.loads(self.data[-1])["error"]
        else:
            found = self.json["error"]
        assert isinstance(found, dict)
        return found

    def text(self, field: str = "content", choice: int = 0) -> str:
        """The text of one lane, joined."""
        choices = (c for event in self.events for c in event.get("choices", ()) if c["index"] == choice)
        return "".join(c.get("delta", c).get(field) or "" for c in choices)

    @property
    def finish_reasons(self) -> list[str]:
        return [reason for event in self.events for c in event.get("choices", ()) if (reason := c.get("finish_reason"))]


class Exchange:
    """One request on a connection of its own, its answer read as far as the test likes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._raw = b""

    async def read_until(self, marker: bytes, times: int = 1) -> bytes:
        """Everything so far, as soon as `marker` is in it so often."""
        with trio.fail_after(PATIENCE):
            while self._raw.count(marker) < times:
                data = await self._stream.receive_some(65_536)
                assert data, f"the connection ended before {marker!r}: {self._raw[-300:]!r}"
                self._raw += data
        return self._raw

    async def rest(self) -> Answer:
        """Read until the connection ends."""
        reset = False
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    data = await self._stream.receive_some(65_536)
                except trio.BrokenResourceError:
                    reset = True
                    break
                if not data:
                    break
                self._raw += data
        for key in (UPSTREAM_KEY, CLIENT_KEY):
            assert key.encode() not in self._raw
        return Answer(self._raw, reset)

    async def leave(self) -> None:
        """Close as a client does whose user pressed escape: FIN."""
        await self._stream.aclose()

    async def half_close(self) -> None:
        """Say that no more will be sent, as some clients do that are about to leave."""
        await self._stream.send_eof()

    async def reset(self) -> None:
        """Close as a client does that was killed: RST."""
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await self._stream.aclose()


class RawClient:
    """Asks one server.

    Args:
      url: scheme, host, port and the path below which `path` is asked.
      key: sent as Bearer, None for none.
    """

    def __init__(self, url: str, key: str | None = CLIENT_KEY) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.address = parts.hostname, parts.port
        self._prefix = parts.path
        self._key = key
        #: The same server, without a path.
        self.root = f"{parts.scheme}://{parts.netloc}"

    @asynccontextmanager
    async def open(
        self,
        model: str = "",
        *,
        path: str = CHAT,
        headers: Mapping[str, str] | None = None,
        receive_buffer: int | None = None,
        **fields: Any,
    ) -> AsyncIterator[Exchange]:
        """Ask for a stream of `model`; `fields` go into the body beside it."""
        asked = {} if path != CHAT else {"messages": [{"role": "user", "content": "hello"}]}
        body = json.dumps({"model": model, "stream": True, **asked, **fields}).encode()
        async with self.send("POST", path, body, headers, receive_buffer=receive_buffer) as exchange:
            yield exchange

    @asynccontextmanager
    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        chunked: bool = False,
        receive_buffer: int | None = None,
    ) -> AsyncIterator[Exchange]:
        """Send one request. `headers` replace those that would be sent; an empty value leaves one out."""
        told = {"host": "localhost", "connection": "close"}
        if self._key is not None:
            told["authorization"] = f"Bearer {self._key}"
        if body is not None:
            told["content-type"] = "application/json"
            told |= {"transfer-encoding": "chunked"} if chunked else {"content-length": str(len(body))}
        told |= headers or {}
        lines = [f"{method} {self._prefix}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items() if value)]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked and body else body or b""
        sock = trio.socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await sock.connect(self.address)
        async with trio.SocketStream(sock) as stream:
            try:
                await stream.send_all(head + framed)
            except trio.BrokenResourceError:
                pass  # refused before it was read whole; the answer says why
            yield Exchange(stream)

    async def ask(self, model: str = "", *, path: str = CHAT, headers: Mapping[str, str] | None = None, **fields: Any) -> Answer:
        """One stream, read to its end."""
        async with self.open(model, path=path, headers=headers, **fields) as exchange:
            return await exchange.rest()

    async def get(self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
        async with self.send(method, path, None, headers) as exchange:
            return await exchange.rest()

    async def post(self, path: str, body: bytes, *, headers: Mapping[str, str] | None = None, chunked: bool = False) -> Answer:
        async with self.send("POST", path, body, headers, chunked=chunked) as exchange:
            return await exchange.rest()

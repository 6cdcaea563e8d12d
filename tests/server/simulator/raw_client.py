"""A client that sees the bytes: raw requests over a trio socket, and a strict reading of what came back.

httpx would repair, refuse or hide just what the simulator is there to do.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from server.simulator import Observer, Simulator


@dataclass(frozen=True, slots=True)
class Wire:
    """All bytes of one answer, up to the end of its connection, and how that ended."""

    raw: bytes
    end: Literal["fin", "rst"]

    @property
    def head(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[0]

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    @property
    def headers(self) -> dict[str, str]:
        rows = (line.split(b": ", 1) for line in self.head.split(b"\r\n")[1:])
        return {name.decode(): value.decode() for name, value in rows}

    @property
    def chunks(self) -> list[bytes]:
        """The body's chunks, an empty one last if it was ended. Stops before what is no chunk."""
        rest, chunks = self.raw.partition(b"\r\n\r\n")[2], []
        while rest:
            size, _, after = rest.partition(b"\r\n")
            try:
                length = int(size, 16)
            except ValueError:
                break
            if after[length : length + 2] != b"\r\n":
                break
            chunks.append(after[:length])
            rest = after[length + 2 :]
        return chunks

    @property
    def ended(self) -> bool:
        """Whether the body ended as its framing says."""
        if "content-length" in self.headers:
            return len(self.body) == int(self.headers["content-length"])
        return self.chunks[-1:] == [b""]

    @property
    def body(self) -> bytes:
        if "transfer-encoding" in self.headers:
            return b"".join(self.chunks)
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of each event, as JSON where it is JSON; only for streams in plain spelling."""
        data = [block[6:] for block in self.body.split(b"\n\n") if block.startswith(b"data: ")]
        return [json.loads(text) if text[:1] == b"{" else text.decode() for text in data]

    def texts(self, field: str = "content", choice: int = 0) -> list[str]:
        """The non-empty texts of one lane, in order."""
        found = (c for event in self.events if isinstance(event, dict) for c in event.get("choices", ()) if c["index"] == choice)
        return [text for c in found if (text := c.get("delta", c).get(field))]

    def arguments(self) -> list[str]:
        calls = (
            call for event in self.events if isinstance(event, dict) for c in event["choices"] for call in c["delta"].get("tool_calls", ())
        )
        return [text for call in calls if (text := call["function"]["arguments"])]


def request_bytes(
    model: str, *, stream: bool = True, path: str = "/v1/chat/completions", close: bool = True, fields: Mapping[str, object] | None = None
) -> bytes:
    """A whole completion request; `close` asks for the connection to end with the answer."""
    asked = {"messages": [{"role": "user", "content": "hello"}]} if "chat" in path else {"prompt": "hello"}
    body = json.dumps({"model": model, "stream": stream, **asked, **(fields or {})}).encode()
    extra = b"connection: close\r\n" if close else b""
    return b"POST %b HTTP/1.1\r\nhost: sim\r\n%bcontent-length: %d\r\n\r\n%b" % (path.encode(), extra, len(body), body)


async def soon(observer: Observer, predicate: Callable[[Observer], bool]) -> None:
    """Wait for what the observer must see; a test that waits in vain fails instead of hanging."""
    with trio.fail_after(30):
        await observer.wait_for(predicate)


async def connect(simulator: Simulator) -> trio.SocketStream:
    return await trio.open_tcp_stream(simulator.host, simulator.port)


async def read_to_end(stream: trio.SocketStream) -> Wire:
    """Everything until the simulator ends the connection."""
    raw = bytearray()
    with trio.fail_after(30):
        while True:
            try:
                data = await stream.receive_some(65_536)
            except trio.BrokenResourceError:
                return Wire(bytes(raw), "rst")
            if not data:
                return Wire(bytes(raw), "fin")
            raw += data


async def read_until(stream: trio.SocketStream, marker: bytes) -> bytes:
    """Everything until `marker` came."""
    raw = b""
    with trio.fail_after(30):
        while marker not in raw:
            data = await stream.receive_some(65_536)
            assert data, f"the connection ended before {marker!r}: {raw[-200:]!r}"
            raw += data
    return raw


async def send(simulator: Simulator, data: bytes) -> Wire:
    """Send bytes on a connection of their own and read all that comes back."""
    with trio.fail_after(30):
        async with await connect(simulator) as stream:
            await stream.send_all(data)
            return await read_to_end(stream)


async def ask(simulator: Simulator, model: str, *, stream: bool = True, path: str = "/v1/chat/completions", **fields: object) -> Wire:
    """One completion request and the whole answer."""
    return await send(simulator, request_bytes(model, stream=stream, path=path, fields=fields))


async def reset(stream: trio.SocketStream) -> None:
    """Leave with a RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    await stream.aclose()

"""One request over a socket of its own, and what came back: a client that repairs nothing and hides nothing.

Owns the reading of HTTP and of the two simple forms of body that the demo asks for, a stream and an error. Knows neither the
simulator nor evenflow: both sides of the picture are heard by this same code, and by nothing of evenflow's own parsing.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import h11
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

_READ: Final = 65_536


@dataclass(eq=False)
class Heard:
    """What one side said, so far.

    Args:
      status: HTTP status, 0 before the head.
      headers: lower-case names.
      text: of the first choice's deltas.
      error: the error object, whether it came as a whole body or as a frame of a stream.
      done: the stream said `[DONE]`.
      whole: the body ended as HTTP says it must.
      first_ms, total_ms: from the request to the head and to the end.
      closed_ns: `time.monotonic_ns` when we closed the connection.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    error: dict[str, Any] | None = None
    events: int = 0
    done: bool = False
    whole: bool = False
    first_ms: float = 0.0
    total_ms: float = 0.0
    closed_ns: int = 0

    @property
    def error_line(self) -> str:
        """The error's code and message."""
        told = self.error or {}
        return f"{told.get('code') or told.get('type')}: {told.get('message')}"


async def converse(
    base_url: str,
    body: dict[str, Any],
    heard: Heard,
    on_change: Callable[[], None] = lambda: None,
    *,
    leave_after: int | None = None,
) -> None:
    """POST a chat completion and listen until the answer is over.

    Args:
      heard: filled as bytes arrive.
      on_change: called after each addition to it.
      leave_after: close the connection once so many events came.

    Raises:
      OSError: nobody listens there.
    """
    parts = urlsplit(base_url)
    assert parts.hostname is not None
    assert parts.port is not None
    payload = json.dumps(body).encode()
    began = time.monotonic()
    async with await trio.open_tcp_stream(parts.hostname, parts.port) as stream:
        http = h11.Connection(h11.CLIENT)
        headers = [("host", parts.netloc), ("content-type", "application/json"), ("content-length", str(len(payload)))]
        request = h11.Request(method="POST", target=f"{parts.path}/chat/completions", headers=headers)
        await stream.send_all(b"".join(http.send(part) or b"" for part in (request, h11.Data(data=payload), h11.EndOfMessage())))
        reading = _Reading(heard)
        try:
            while not heard.whole and (leave_after is None or heard.events < leave_after):
                match http.next_event():
                    case h11.NEED_DATA:
                        http.receive_data(await stream.receive_some(_READ))
                    case h11.Response(status_code=status, headers=told):
                        heard.first_ms = (time.monotonic() - began) * 1000
                        heard.status = status
                        heard.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in told}
                    case h11.Data(data=data):
                        reading.feed(bytes(data))
                    case h11.EndOfMessage():
                        reading.finish()
                        heard.whole = True
                    case _:  # the peer closed before it answered
                        break
                on_change()
        except (h11.RemoteProtocolError, trio.BrokenResourceError):
            pass  # `whole` stays False, and that is what the picture shows
        heard.total_ms = (time.monotonic() - began) * 1000
        heard.closed_ns = time.monotonic_ns()


class _Reading:
    """The body's bytes, taken apart: SSE as these two servers write it, or one JSON document."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._pending = b""

    def feed(self, data: bytes) -> None:
        self._pending += data
        if not self._heard.headers.get("content-type", "").startswith("text/event-stream"):
            return
        *blocks, self._pending = self._pending.split(b"\n\n")
        for block in blocks:
            if block.startswith(b"data: "):
                self._heard.events += 1
                self._event(block.removeprefix(b"data: "))

    def finish(self) -> None:
        if self._pending:
            self._take(self._pending)

    def _event(self, data: bytes) -> None:
        if data == b"[DONE]":
            self._heard.done = True
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            document = json.loads(data)
        except ValueError:
            return  # half a document: the body's missing end says so already
        if "error" in document:
            self._heard.error = document["error"]
        for choice in document.get("choices", ()):
            said = choice.get("delta") or choice.get("message") or {}
            self._heard.text += said.get("content") or ""


async def fetch_json(url: str) -> Any:
    """GET a JSON document.

    Raises:
      OSError: nobody listens there.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    async with await trio.open_tcp_stream(parts.hostname, parts.port) as stream:
        await stream.send_all(f"GET {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\nconnection: close\r\n\r\n".encode())
        answer = b"".join([data async for data in stream])
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target=parts.path, headers=[("host", parts.netloc)]))
    http.receive_data(answer)
    http.receive_data(b"")
    body = b""
    while isinstance(event := http.next_event(), h11.Response | h11.Data):
        body += event.data if isinstance(event, h11.Data) else b""
    return json.loads(body)

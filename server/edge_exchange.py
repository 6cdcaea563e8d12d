"""One request in plain form and its response, without h11: the bytes of the body, the framing of the answer, the writes.

An exchange is two things at once. It is ASGI (`scope`, `receive`, `send`), so any application can be run on it; and for whoever finds it
in its scope (`outlets.py` does, under EXTENSION) it is a way to write that costs a framed `sock.send` and nothing else: no queue, no lock,
no task in between, no timer unless the socket is full. A write that is full waits where it can be cancelled, which tears the response;
the connection is closed then, so nobody takes a part for the whole.

Owns the state of one response: begun, its framing, ended. Refuses to know the next request (edge_connection.py) and what a head may be
(edge_head.py).
"""

from __future__ import annotations

import math
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .edge_head import PlainHead

#: Where an application finds its exchange: `scope["extensions"][EXTENSION]`.
EXTENSION: Final = "evenflow.exchange"
#: Bytes of a body that lie here until the application takes them; beyond that the client's kernel has to keep them.
_AHEAD_OF_APPLICATION: Final = 1024 * 1024
#: Their responses end with their heads.
_WITHOUT_BODY: Final = frozenset({204, 304})
_CRASHED: Final = b"HTTP/1.1 500 \r\ncontent-length: 0\r\ndate: %b\r\nconnection: close\r\n\r\n"


class Wire(Protocol):
    """What an exchange needs of its connection."""

    @property
    def is_last(self) -> bool:
        """No further request is taken, whatever the client would like."""

    async def transmit(self, data: bytes, patience: float = math.inf) -> None:
        """Send all of it; the connection is closed if that is cancelled or fails. OSError is that nobody is there to take it,
        TimeoutError that it was not taken within so many seconds."""

    def transmit_nowait(self, data: bytes) -> int:
        """Send as many bytes as need no waiting, and return how many. Whatever is left is transmitted next. OSError as above."""

    def read_on(self) -> None:
        """What the exchange was full of has been taken."""

    def exchanged(self, *, keep: bool) -> None:
        """The response is complete; without `keep` the connection ends."""

    def cut(self) -> None:
        """Close the socket now."""


class Exchange:
    """A request that is being answered.

    Args:
      wire: the connection.
      head: of the request.
      body: what has come of its body, never more than that.
      client, server: addresses, for the scope.

    Attributes:
      is_full: so much of the body lies here that no more shall be read until `Wire.read_on` is called.
    """

    __slots__ = (
        "_ahead",
        "_begun",
        "_chunked",
        "_ended",
        "_head",
        "_keeps",
        "_left",
        "_missing",
        "_on_left",
        "_owed",
        "_parts",
        "_told_all",
        "_wire",
        "_woken",
        "is_full",
        "scope",
    )

    def __init__(self, wire: Wire, head: PlainHead, body: bytes, client: tuple[str, int] | None, server: tuple[str, int] | None) -> None:
        self._wire = wire
        self._parts = [body] if body else []
        self._ahead = len(body)
        self._missing = head.length - len(body)
        self._told_all = False
        self._keeps = head.keeps
        self._begun = self._ended = self._left = False
        self._head = b""  # of the response, until it leaves with the first bytes of the body
        self._chunked = False
        self._owed: int | None = None  # bytes that a content-length still promises; None without one, and where there is no body
        self._on_left: Callable[[], None] | None = None
        self._woken: trio.Event | None = None
        self.is_full = False
        self.scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "method": "POST",
            "scheme": "http",
            "path": head.path.decode("ascii"),
            "raw_path": head.path,
            "query_string": head.query,
            "root_path": "",
            "headers": head.headers,
            "client": client,
            "server": server,
            "state": {},
            "extensions": {EXTENSION: self},
        }

    # ---- the connection's side ------------------------------------------------------------------------------------------

    @property
    def missing(self) -> int:
        """Bytes of the request's body that have not come."""
        return self._missing

    def feed(self, data: bytes) -> bytes:
        """Take what came of the body. Returns what is beyond it."""
        if not self._missing:
            return data
        part = data[: self._missing]
        self._missing -= len(part)
        if not self._ended:  # else nobody wants it any more
            self._parts.append(part)
            self._ahead += len(part)
            self.is_full = self._ahead > _AHEAD_OF_APPLICATION and self._missing > 0
        self._wake()
        return data[len(part) :]

    def leave(self) -> None:
        """The client is gone. Idempotent; of no effect once the response is complete."""
        if not self._left:
            self._left = True
            self._wake()
            if self._on_left is not None:
                self._on_left()

    def close(self) -> bytes:
        """The application has ended. Returns what it should have sent; b"" and a closed connection if it is too late for that, or nobody
        is there."""
        self.scope = {}  # it holds the exchange: a cycle, which only a collection would free
        if self._ended:
            return b""
        self._end()
        if self._left or (self._begun and not self._head):
            self._wire.cut()
            return b""
        return _CRASHED % _date()

    # ---- the application's side, as ASGI has it --------------------------------------------------------------------------

    async def receive(self) -> dict[str, Any]:
        while True:
            if self._parts or not (self._missing or self._told_all):
                return {"type": "http.request", "body": self.take(), "more_body": not self._told_all}
            if self._left or self._ended:
                return {"type": "http.disconnect"}
            self._woken = trio.Event()
            await self._woken.wait()

    async def send(self, message: dict[str, Any]) -> None:
        try:
            if message["type"] == "http.response.start":
                self.begin(message["status"], message.get("headers", ()))
            elif message["type"] == "http.response.body" and message.get("more_body", False):
                await self.write(message.get("body", b""))
            elif message["type"] == "http.response.body":
                await self.finish(message.get("body", b""))
            else:
                raise RuntimeError(f"{message['type']} has no place here")
        except OSError:
            pass  # as ASGI has it: what is sent to a client that left is lost without a word

    # ---- and past ASGI ---------------------------------------------------------------------------------------------------

    def take(self) -> bytes:
        """What has come of the body and was not taken yet; all of it if nothing is missing."""
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._ahead = 0
        self._told_all = not self._missing
        self._have_room()
        return body

    def watch(self, left: Callable[[], None] | None) -> None:
        """Call this once the client leaves, which may have happened; None calls nobody any more."""
        self._on_left = left
        if self._left and left is not None:
            left()

    def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Set the head of the response. It leaves with the first write, which may be one of no bytes."""
        if self._begun:
            raise RuntimeError("a second response head")
        self._begun = True
        lines = [b"HTTP/1.1 %d " % status]
        self._chunked = has_body = status not in _WITHOUT_BODY
        for name, value in headers:
            if name == b"connection":
                self._keeps = self._keeps and value.lower() != b"close"
                continue
            if name == b"content-length" and has_body:
                self._chunked, self._owed = False, int(value)
            lines.append(name + b": " + value)
        lines.append(b"date: " + _date())
        if self._chunked:
            lines.append(b"transfer-encoding: chunked")
        # Nobody reads the rest of a body that was not wanted: then say so.
        self._keeps = self._keeps and not self._missing and not self._wire.is_last
        if not self._keeps:
            lines.append(b"connection: close")
        head = b"\r\n".join(lines) + b"\r\n\r\n"
        if head.count(b"\n") != len(lines) + 1 or head.count(b"\r") != len(lines) + 1:
            self._begun = False
            raise ValueError("a header of the response holds a line break")
        self._head = head

    async def write(self, data: bytes, patience: float = math.inf) -> None:
        """Write body bytes, framed, and the head before them if it is still here. Without bytes it is the head alone.

        Raises:
          TimeoutError: the client did not take them within so many seconds; the connection is closed.
          OSError: the client is gone; so is the connection.
        """
        if frame := self._framed(data):
            await self._wire.transmit(frame, patience)

    def write_nowait(self, data: bytes) -> bytes:
        """The same as far as it needs no waiting.

        Returns:
          What is left, framed; `write_rest` comes next.

        Raises:
          OSError: the client is gone; the connection is closed.
        """
        frame = self._framed(data)
        sent = self._wire.transmit_nowait(frame)
        return b"" if sent == len(frame) else frame[sent:]

    async def write_rest(self, rest: bytes, patience: float = math.inf) -> None:
        """Write what `write_nowait` left. Raises: as `write` does."""
        await self._wire.transmit(rest, patience)

    async def finish(self, data: bytes = b"", patience: float = math.inf) -> None:
        """Write the last body bytes and end the response; from then on the connection may serve its next request.

        Whoever is cancelled here is so before or while it waits: a last write that need not wait cannot be stopped halfway.

        Raises: as `write` does.
        """
        await self.finish_rest(self.finish_nowait(data), patience)

    def finish_nowait(self, data: bytes = b"") -> bytes:
        """The same as far as it needs no waiting.

        Returns:
          What is left, framed; `finish_rest` comes next, of which there is nothing to do if that is nothing.

        Raises:
          OSError: the client is gone; the connection is closed.
        """
        if not self._begun:
            raise RuntimeError("an end before the head")
        if self._ended:
            return b""
        if self._chunked:
            frame = b"%b%x\r\n%b\r\n0\r\n\r\n" % (self._head, len(data), data) if data else self._head + b"0\r\n\r\n"
        else:
            frame = self._head + self._due(data)
        if self._owed:
            raise RuntimeError(f"the response is {self._owed} bytes shorter than its content-length")
        self._head = b""
        if frame and (sent := self._wire.transmit_nowait(frame)) < len(frame):
            return frame[sent:]
        self._over()
        return b""

    async def finish_rest(self, rest: bytes, patience: float = math.inf) -> None:
        """Write what `finish_nowait` left, and end the response. Raises: as `write` does."""
        if rest:
            await self._wire.transmit(rest, patience)
            self._over()

    def abort(self) -> None:
        """Close the connection, unless the response is complete."""
        if not self._ended:
            self._end()
            self._wire.cut()

    def _framed(self, data: bytes) -> bytes:
        """Body bytes as they go out, behind the head if that is still here."""
        if self._chunked:
            frame = b"%b%x\r\n%b\r\n" % (self._head, len(data), data) if data else self._head
        else:
            frame = self._head + self._due(data)
        self._head = b""
        return frame

    def _due(self, data: bytes) -> bytes:
        """`data` as far as the response has a body at all."""
        if self._owed is None:
            return b""
        if len(data) > self._owed:
            raise RuntimeError("the response is longer than its content-length")
        self._owed -= len(data)
        return data

    def _over(self) -> None:
        self._end()
        self._wire.exchanged(keep=self._keeps)

    def _end(self) -> None:
        self._ended = True
        self._on_left = None
        self._parts.clear()
        self._wake()
        self._have_room()

    def _have_room(self) -> None:
        if self.is_full:
            self.is_full = False
            self._wire.read_on()

    def _wake(self) -> None:
        if self._woken is not None:
            self._woken.set()


class _Today:
    """The date as it stands in a header, made once a second."""

    second = 0
    text = b""


def _date() -> bytes:
    now = int(time.time())
    if now != _Today.second:
        _Today.second, _Today.text = now, formatdate(now, usegmt=True).encode("ascii")
    return _Today.text

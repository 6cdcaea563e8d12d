"""The server's end of HTTP/2 connections that follow scripts; the library h2 speaks for it, but for what h2 would not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import h2.config
import h2.connection
import h2.events
import trio
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .scripted_server import Peer, Script, Stream

    Http2Script: TypeAlias = Callable[["Http2Peer"], Awaitable[None]]

Headers: TypeAlias = "list[tuple[bytes, bytes]]"


@dataclass
class Asked:
    """One request."""

    stream: int
    headers: Headers
    body: bytes = b""
    whole: bool = False


class Http2Peer:
    """A server's end. What the client sent is in `asked` and `pings`; `confirmed` are the pings of ours that it answered."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self.asked: list[Asked] = []
        self.confirmed: list[bytes] = []
        self.reads = True  # gives the client room for more of its body
        self._given = 0
        self._heard = trio.Event()

    async def begin(self) -> None:
        self.h2.initiate_connection()
        await self.flush()

    async def request(self) -> Asked | None:
        """The next request, its body included; None if the client left instead."""
        while len(self.asked) <= self._given or not self.asked[self._given].whole:
            if not await self.hear():
                return None
        self._given += 1
        return self.asked[self._given - 1]

    async def hear(self) -> bool:
        """One read; False if the client left."""
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            return False
        if not data:
            return False
        for event in self.h2.receive_data(bytes(data)):
            match event:
                case h2.events.RequestReceived():
                    self.asked.append(Asked(event.stream_id, list(event.headers)))
                case h2.events.DataReceived():
                    self._of(event.stream_id).body += event.data
                    if self.reads:
                        self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamEnded():
                    self._of(event.stream_id).whole = True
                case h2.events.PingAckReceived():
                    self.confirmed.append(event.ping_data)
        await self.flush()
        return True

    async def flush(self) -> None:
        if data := self.h2.data_to_send():
            await self.stream.send_all(data)

    async def answer(
        self, stream: int, body: bytes = b"", headers: Sequence[tuple[bytes, bytes]] = (), *, status: int = 200, end: bool = True
    ) -> None:
        """A response's head, and as much of its body as fits into one frame; all in one write."""
        self.h2.send_headers(stream, [(b":status", b"%d" % status), *headers], end_stream=end and not body)
        if body:
            self.h2.send_data(stream, body, end_stream=end)
        await self.flush()

    async def send(self, stream: int, body: bytes, *, end: bool = False) -> None:
        """A piece of a body, however long: waits for room."""
        while body:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room:
                self.h2.send_data(stream, body[:room], end_stream=end and len(body) <= room)
                body = body[room:]
                await self.flush()
            else:
                await self.hear()

    async def reset(self, stream: int, code: ErrorCodes) -> None:
        self.h2.reset_stream(stream, code)
        await self.flush()

    async def goaway(self, last: int, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """By hand, since h2 says nothing more afterwards."""
        await self.stream.send_all(GoAwayFrame(0, last_stream_id=last, error_code=code).serialize())

    async def close_side(self) -> None:
        """Close as a server that ends: a FIN behind what was said, which a close with something unread would not be."""
        assert isinstance(self.stream, trio.SSLStream)
        await self.stream.transport_stream.send_eof()
        await self.left()

    async def left(self) -> None:
        """Wait until the client has closed."""
        while await self.hear():
            pass

    def _of(self, stream: int) -> Asked:
        return next(asked for asked in self.asked if asked.stream == stream)


def over_http2(script: Http2Script) -> Script:
    async def on_connection(peer: Peer) -> None:
        speaker = Http2Peer(peer.stream)
        await speaker.begin()
        await script(speaker)

    return on_connection


def hello(*, times: int = 100) -> Script:
    """Answer so many requests with "hello", then wait for the client to leave."""

    async def script(peer: Http2Peer) -> None:
        for _ in range(times):
            if (asked := await peer.request()) is None:
                return
            await peer.answer(asked.stream, b"hello")
        await peer.left()

    return over_http2(script)

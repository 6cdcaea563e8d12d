"""The HTTP/1.1 side of one client connection: hypercorn's, with its leniency taken away.

A subclass instead of a changed hypercorn: `_handle_events`, the only place where hypercorn turns to HTTP/2 or a WebSocket, is replaced,
so that no input can lead there; other users of hypercorn in this process (there is none) would not notice. Written against hypercorn
0.18.0, which is pinned; what is overridden is named there with a leading underscore and may change.

Owns what is said on the wire. Refuses to know sockets and time (edge_connection.py) and what is allowed (edge_guard.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import h11
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Event, Response, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol

from .edge_guard import Refusal, RequestHead, check_head, cut_head, too_slow, unreadable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.config import Config
    from hypercorn.events import Event as ConnectionEvent
    from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup, WorkerContext

    from .settings import EdgeSettings


class EdgeProtocol(H11Protocol):
    """Reads requests, starts the application for each, writes its responses.

    Args:
      send: takes bytes to write, `Updated(idle=)` where a request begins or its response is complete, and `Closed` where the
        connection has to end. Must not block for anything but the bytes.
      refused: told of every request that was refused here.
    """

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        task_group: TaskGroup,
        state: ConnectionState,
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
        send: Callable[[ConnectionEvent], Awaitable[None]],
        limits: EdgeSettings,
        refused: Callable[[Refusal], None],
    ) -> None:
        super().__init__(app, config, context, task_group, state, False, client, server, send)
        assert isinstance(self.connection, h11.Connection)
        self._h11 = self.connection
        self._limits = limits
        self._refused = refused
        self._method = b""

    @property
    def unread(self) -> int:
        """Bytes that came and belong to no message yet: a head that is not whole, or requests sent ahead of their turn."""
        return len(self._h11.trailing_data[0])

    @property
    def is_waiting_for_us(self) -> bool:
        """The client's request is complete, its response is not."""
        return self.stream is not None and self._h11.their_state is not h11.SEND_BODY

    @property
    def is_client_sending(self) -> bool:
        """The client was not through with what it wanted to send."""
        return self._h11.their_state in (h11.SEND_BODY, h11.ERROR) or self.unread > 0

    def take(self, data: bytes) -> None:
        """Bytes that `resume()` will find."""
        self._h11.receive_data(data)

    async def resume(self) -> None:
        """Read on in what came before its turn."""
        await self._handle_events()

    async def refuse_slow(self) -> None:
        """The head did not come in time."""
        await self._refuse(too_slow(self._limits))

    async def _handle_events(self) -> None:
        # hypercorn's own waits here while h11 is paused, and with it the only task that would notice that the client is gone.
        while True:
            if self._h11.they_are_waiting_for_100_continue:
                await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=self.config.response_headers("h11")))
            if self._h11.their_state is h11.MUST_CLOSE and self.unread:
                return  # behind a last request: part of none (RFC 9112, 9.6), and no reason to break off the answer to that
            raw = b""
            if self._h11.their_state is h11.IDLE:
                self._method, raw = b"", cut_head(self._h11.trailing_data[0])
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                await self._refuse(unreadable(error.error_status_hint, self._limits))
                return
            match event:
                case h11.Request(method=method, target=target, http_version=version, headers=headers):
                    await self.send(Updated(idle=False))
                    self._method = method
                    if refusal := check_head(RequestHead(raw, method, target, version, list(headers)), self._limits):
                        await self._refuse(refusal)
                        return
                    await self._create_stream(_origin_form(event))
                case h11.Data(data=data) if self.stream is not None:
                    await self.stream.handle(Body(stream_id=STREAM_ID, data=data))
                case h11.EndOfMessage() if self.stream is not None:
                    await self.stream.handle(EndBody(stream_id=STREAM_ID))
                case _:  # paused until the response is complete, in need of data, or at the end
                    return

    def tear(self) -> None:
        """Something that was to be sent was not: nothing follows it."""
        self._h11.send_failed()

    async def stream_send(self, event: Event) -> None:
        if self._h11.our_state is h11.ERROR and not isinstance(event, StreamClosed):
            return
        if isinstance(event, Response) and event.status_code >= 200 and self._is_last_response():
            told = [(name, value) for name, value in event.headers if name != b"connection"]
            event = replace(event, headers=[*told, (b"connection", b"close")])
        await super().stream_send(event)

    def _is_last_response(self) -> bool:
        """Nobody reads the rest of a body that was not wanted, and a server that stops takes no further request: then say so."""
        return self._h11.their_state in (h11.SEND_BODY, h11.ERROR) or self.context.terminated.is_set()

    async def _refuse(self, refusal: Refusal) -> None:
        if self.stream is None:  # else its application has begun, which gives account of it
            self._refused(refusal)
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = refusal.body()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
                *self.config.response_headers("h11"),
            ]
            # In one go: an application that answers at the same time finds the response complete, and h11 refuses its own.
            answer = self._h11.send(h11.Response(status_code=refusal.status, headers=headers))
            answer += self._h11.send(h11.Data(data=body)) if self._method != b"HEAD" else b""
            answer += self._h11.send(h11.EndOfMessage())
            await self.send(RawData(answer))
        await self.send(Closed())


def _origin_form(request: h11.Request) -> h11.Request:
    """An absolute target (`GET http://host/path`, as sent to a forward proxy) as a path, its host instead of Host (RFC 9112, 3.2.2)."""
    if request.target.startswith(b"/") or not request.target.lower().startswith((b"http://", b"https://")):
        return request
    url = urlsplit(request.target)
    host = url.netloc.rpartition(b"@")[2]
    target = (url.path or b"/") + (b"?" + url.query if url.query else b"")
    headers = [(name, value) for name, value in request.headers if name != b"host"]
    return h11.Request(method=request.method, target=target, headers=[(b"host", host), *headers], http_version=request.http_version)

"""Our transport under httpx: HTTP/1.1 on httptools and trio's sockets, for upstreams without a forward proxy.

Three things it does that httpx's own does not. It listens while it sends, so that an early answer is heard. It tries again when an
idle connection turns out to be dead. And a body is read by plain calls, so that nothing suspended is left to the garbage collector.

Owns the exchange of one request and one response; http1.py owns what the bytes mean, connection_pool.py what stays open, dialer.py
how a connection comes to be. Failures are UpstreamErrors, not httpx's exceptions: they need no second translation.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Final, Self

import httpx
import trio

from .connection_pool import ConnectionPool, PoolLimits, PoolStatistics
from .dialer import Dialer
from .errors import UpstreamDisconnected, UpstreamProtocolError, UpstreamTimeout
from .http1 import ResponseParser, encode_head

if TYPE_CHECKING:
    import ssl

    from .connection import Connection

#: So much of a request, its head included, is sent before anybody listens. Even a server that reads nothing takes that much: Linux
#: gives a new connection 128 KiB to receive into, half of it for data. A task that listens meanwhile would cost 40 us (measured).
_UNHEARD: Final = 64 * 1024
#: The rest of the request goes out in pieces of this size.
_PIECE: Final = 64 * 1024
#: An answer to a request that is still being sent is read for so many seconds before the sending stops; see _send_and_listen().
_EARLY_ANSWER_SECONDS: Final = 1.0
_EARLY_ANSWER_BYTES: Final = 64 * 1024
_PORTS: Final = {"http": 80, "https": 443}


class Reader(httpx.AsyncByteStream):
    """A response's body: `response.extensions["reader"]`, and as `response.stream` what httpx's own methods read.

    Args:
      connection: the response's head was read from it.
      parser: what read it.
      pool: gets the connection back as soon as the body has come to its end.
      sent: the request went out whole; else nothing can follow it.

    Cancellation: `read()` loses nothing by it and can be called again.
    """

    __slots__ = ("_connection", "_parser", "_pool", "_sent", "complete")

    def __init__(self, connection: Connection, parser: ResponseParser, pool: ConnectionPool, *, sent: bool) -> None:
        self._connection = connection
        self._parser = parser
        self._pool = pool
        self._sent = sent
        self.complete = False  # its end was returned
        if parser.over:
            self._part()

    async def read(self) -> bytes:
        """What the next network read brought of the body, 64 KiB at most; b"" at its end, and from then on.

        Raises:
          UpstreamError: the connection broke, or the framing did. What came before that was returned.
        """
        parser = self._parser
        while not (data := parser.take()):
            if parser.complete:
                self.complete = True
                return b""
            if parser.failure is not None:
                raise parser.failure
            try:  # as _receive() does, which would be one more call for every read
                parser.feed(await self._connection.receive())
            except UpstreamDisconnected as failure:
                parser.failure = failure
            if parser.over:
                self._part()
        return data

    async def aclose(self) -> None:
        """Give the connection back if the body is at its end, else close it. Waits for nobody. Idempotent.

        What has already come is looked at first: whoever stops at [DONE] stops just before the end, which is there by then as a rule.
        """
        parser = self._parser
        if parser.over:
            return
        try:
            if (data := self._connection.receive_nowait()) is not None:
                parser.feed(data)
        except UpstreamDisconnected as failure:
            parser.failure = failure
        if not parser.over:
            parser.failure = UpstreamDisconnected("the response was closed before its end")
        self._part()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if data := await self.read():
            return data
        raise StopAsyncIteration

    def _part(self) -> None:
        """Part with the connection, before the last of the body is handed out: the next request need not wait for that."""
        self._parser.close()
        if self._parser.reusable and self._sent:
            self._pool.give_back(self._connection, trio.current_time())
        else:
            self._pool.discard(self._connection)


@dataclass(frozen=True, slots=True)
class _Origin:
    """One scheme, host and port."""

    dialer: Dialer
    pool: ConnectionPool


class Transport(httpx.AsyncBaseTransport):
    """HTTP/1.1 over TCP and TLS. One for as long as its connections are worth keeping.

    A request's extensions: `timeout["connect"]`, seconds for TCP and TLS together; `connected`, called without arguments as soon as a
    connection is there. Any other wait is bounded by the caller's scope. Bodies are taken into memory before they are sent.

    Args:
      tls: what to trust; its ALPN protocols are set here.
      limits: of each origin's pool.
    """

    def __init__(self, tls: ssl.SSLContext, limits: PoolLimits | None = None) -> None:
        tls.set_alpn_protocols(["http/1.1"])
        self._tls = tls
        self._limits = limits or PoolLimits()
        self._origins: dict[tuple[str, str, int], _Origin] = {}
        self._retired = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and wait for the response's head.

        Raises:
          UpstreamError: none came. On a used connection that says nothing about the upstream, so there it is tried once more, on a
            new one, unless a byte of the answer had come (FAULTS row 35).

        Cancellation: at any point; the connection is closed before it is raised.
        """
        origin = self._origin(request.url)
        body = await _body_of(request.stream)
        head = encode_head(request.method, request.url.raw_path, request.headers.raw, len(body))
        connection = origin.pool.take(trio.current_time())
        reused = connection is not None
        while True:
            if connection is None:
                connection = await self._open(origin, request)
            request.extensions.get("connected", _nobody)()
            parser = ResponseParser(request.method)
            try:
                sent = await _converse(connection, parser, head, body)
            except BaseException:
                parser.close()
                origin.pool.discard(connection)
                raise
            if parser.head_complete:
                reader = Reader(connection, parser, origin.pool, sent=sent)
                extensions = {"reader": reader, "http_version": b"HTTP/1.1"}
                return httpx.Response(parser.status, headers=parser.headers, stream=reader, extensions=extensions)
            assert parser.failure is not None  # what else ends a conversation
            parser.close()
            origin.pool.discard(connection)
            if not reused or parser.started or not isinstance(parser.failure, UpstreamDisconnected):
                raise parser.failure
            connection, reused = None, False

    async def aclose(self) -> None:
        """Close every connection, those in use as well."""
        for origin in self._origins.values():
            origin.pool.close()

    async def retire(self) -> None:
        """Go on for those who are still here, and keep no connection open beyond its present use."""
        self._retired = True
        for origin in self._origins.values():
            origin.pool.retire()

    def statistics(self) -> PoolStatistics:
        """Of all origins together."""
        pools = [origin.pool.statistics() for origin in self._origins.values()]
        return PoolStatistics(*(sum(column) for column in zip(*map(astuple, pools), strict=True)))

    def open_connections(self) -> int:
        return self.statistics().open

    def _origin(self, url: httpx.URL) -> _Origin:
        scheme, host = url.scheme, url.raw_host.decode("ascii")
        port = url.port or _PORTS.get(scheme, 0)
        origin = self._origins.get((scheme, host, port))
        if origin is None:
            if scheme not in _PORTS or not host:
                raise UpstreamProtocolError("the upstream's URL is no http:// or https:// URL with a host")
            dialer = Dialer(host, port, self._tls if scheme == "https" else None)
            origin = self._origins[scheme, host, port] = _Origin(dialer, ConnectionPool(self._limits))
            if self._retired:
                origin.pool.retire()
        return origin

    async def _open(self, origin: _Origin, request: httpx.Request) -> Connection:
        seconds = request.extensions.get("timeout", {}).get("connect")
        with trio.move_on_after(math.inf if seconds is None else seconds):
            connection = await origin.dialer.dial()
            origin.pool.add(connection)
            return connection
        raise UpstreamTimeout("timers.connect", seconds)


async def _converse(connection: Connection, parser: ResponseParser, head: bytes, body: bytes) -> bool:
    """Send a request and read until the response's head is complete, or `parser.failure` says why it never will be.

    Returns:
      The request went out whole.
    """
    heard_from = max(0, _UNHEARD - len(head))
    try:
        await connection.send(head + body[:heard_from])
    except UpstreamDisconnected:
        await _listen(connection, parser)  # it may have said why it closed
        return False
    if len(body) <= heard_from:
        await _listen(connection, parser)
        return True
    return await _send_and_listen(connection, parser, memoryview(body)[heard_from:])


async def _send_and_listen(connection: Connection, parser: ResponseParser, rest: memoryview) -> bool:
    """The same for the rest of a long body. An answer that is an error ends the sending (FAULTS row 36); any other waits for it."""
    sent = False

    async def send() -> None:
        nonlocal sent
        try:
            for start in range(0, len(rest), _PIECE):
                await connection.send(rest[start : start + _PIECE])
        except UpstreamDisconnected:
            return  # what is heard from the upstream says more
        sent = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await _listen(connection, parser)
        if parser.failure is not None or (parser.status >= 300 and not sent):
            # trio's TLS streams cannot be read any more once a send on them was cancelled, so the error's text is read before.
            with trio.move_on_after(_EARLY_ANSWER_SECONDS):
                await _read_on(connection, parser, _EARLY_ANSWER_BYTES)
            nursery.cancel_scope.cancel()
    return sent


async def _listen(connection: Connection, parser: ResponseParser) -> None:
    while not parser.head_complete and parser.failure is None:
        await _receive(connection, parser)


async def _read_on(connection: Connection, parser: ResponseParser, limit: int) -> None:
    while not parser.over and parser.held < limit:
        await _receive(connection, parser)


async def _receive(connection: Connection, parser: ResponseParser) -> None:
    """One read. A broken connection is one more thing that the response can come to; it is told in its turn."""
    try:
        data = await connection.receive()
    except UpstreamDisconnected as failure:
        parser.failure = failure
    else:
        parser.feed(data)


async def _body_of(stream: httpx.SyncByteStream | httpx.AsyncByteStream) -> bytes:
    if isinstance(stream, httpx.SyncByteStream):  # httpx's own are both; iterating this way takes no async generator
        return b"".join(stream)
    return b"".join([piece async for piece in stream])


def _nobody() -> None:
    """Is told that a connection is there, where nobody wants to know."""

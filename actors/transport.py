"""Our transport under httpx: HTTP/1.1 on httptools, HTTP/2 on h2, both on trio's sockets; for upstreams without a forward proxy.

Three things it does that httpx's own does not. It listens while it sends, so that an early answer is heard. It tries again when an
idle connection turns out to be dead. And a body is read by plain calls, so that nothing suspended is left to the garbage collector.

Owns the exchange of one request and one response; http1.py and http2.py own what the bytes mean, body_reader.py how a body is read,
connection_pool.py what stays open, dialer.py how a connection comes to be. Failures are UpstreamErrors, not httpx's exceptions: they need
no second translation.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import httpx
import trio

from .body_reader import Http2Reader, Reader
from .connection import TlsConnection
from .connection_pool import ConnectionPool, PoolLimits, PoolStatistics
from .dialer import Dialer
from .errors import UpstreamDisconnected, UpstreamProtocolError, UpstreamTimeout
from .http1 import ResponseParser, encode_head
from .http2 import Http2Session
from .http2_exchange import EARLY_ANSWER_BYTES, EARLY_ANSWER_SECONDS, converse, is_still_good

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from .connection import Connection
    from .http2 import Http2Response

Headers: TypeAlias = "list[tuple[bytes, bytes]]"

#: So much of a request, its head included, is sent before anybody listens. Even a server that reads nothing takes that much: Linux
#: gives a new connection 128 KiB to receive into, half of it for data. A task that listens meanwhile would cost 40 us (measured).
_UNHEARD: Final = 64 * 1024
#: The rest of the request goes out in pieces of this size.
_PIECE: Final = 64 * 1024
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class _Origin:
    """One scheme, host and port."""

    dialer: Dialer
    pool: ConnectionPool


class Answer(NamedTuple):
    """A response of which the head has come.

    Args:
      headers: names in lower case.
      version: "HTTP/1.1" or "HTTP/2".
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    reader: Reader | Http2Reader
    version: str


class Transport(httpx.AsyncBaseTransport):
    """HTTP/1.1 over TCP and TLS; HTTP/2 where it is wanted and the server agrees. One for as long as its connections are worth keeping.

    A request's extensions: `timeout["connect"]`, seconds for TCP and TLS together; `connected`, called without arguments as soon as a
    connection is there. Any other wait is bounded by the caller's scope. Bodies are taken into memory before they are sent.

    Args:
      tls: what to trust; its ALPN protocols are set here.
      limits: of each origin's pool.
      http2: ask for it in the handshake.
    """

    def __init__(self, tls: ssl.SSLContext, limits: PoolLimits | None = None, *, http2: bool = False) -> None:
        tls.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
        self._tls = tls
        self._limits = limits or PoolLimits()
        self._origins: dict[tuple[str, str, int], _Origin] = {}
        self._retired = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As httpx has it. `ask` is the same without its two objects, which take 10 us to make. Raises: as `ask` does."""
        body, extensions = await _body_of(request.stream), request.extensions
        connect, connected = extensions.get("timeout", {}).get("connect"), extensions.get("connected", _nobody)
        limit = math.inf if connect is None else connect
        answer = await self.ask(request.method, request.url, request.headers.raw, body, connect=limit, connected=connected)
        told = {"reader": answer.reader, "http_version": answer.version.encode("ascii")}
        return httpx.Response(answer.status, headers=answer.headers, stream=answer.reader, extensions=told)

    async def ask(
        self, method: str, url: httpx.URL, headers: Headers, body: bytes, *, connect: float, connected: Callable[[], None]
    ) -> Answer:
        """Send a request and wait for the response's head.

        Args:
          headers: `host` among them.
          connect: seconds for TCP and TLS together, math.inf for any.
          connected: called as soon as a connection is there.

        Raises:
          UpstreamError: none came. On a used connection that says nothing about the upstream, so there it is tried once more, on a
            new one, unless a byte of the answer had come (FAULTS row 35).

        Cancellation: at any point; the connection is closed before it is raised.
        """
        origin = self._origin(url)
        head = encode_head(method, url.raw_path, headers, len(body))
        connection = await self._idle(origin)
        reused = connection is not None
        while True:
            if connection is None:
                connection = await self._open(origin, connect)
            connected()
            session = connection.session
            parser: ResponseParser | Http2Response
            parser = ResponseParser(method) if session is None else session.ask(method, url.scheme, url.raw_path, headers, body)
            try:
                if isinstance(parser, ResponseParser):
                    sent = await _converse(connection, parser, head, body)
                else:
                    sent = await converse(connection, parser)
            except BaseException:
                parser.close()
                origin.pool.discard(connection)
                raise
            if parser.head_complete:
                if isinstance(parser, ResponseParser):
                    return Answer(parser.status, parser.headers, Reader(connection, parser, origin.pool, sent=sent), "HTTP/1.1")
                return Answer(parser.status, parser.headers, Http2Reader(connection, parser, origin.pool, sent=sent), "HTTP/2")
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

    async def sweep(self) -> None:
        """Close the connections that have been idle for too long, or that the server has closed; nobody need ask for that."""
        for origin in self._origins.values():
            origin.pool.sweep(trio.current_time())

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

    async def _idle(self, origin: _Origin) -> Connection | None:
        """A connection that is open already and fit for a request."""
        while (connection := origin.pool.take(trio.current_time())) is not None:
            if connection.session is None:
                return connection
            good = False
            try:
                good = await is_still_good(connection, connection.session)
            finally:
                if not good:
                    origin.pool.discard(connection)
            if good:
                return connection
        return None

    async def _open(self, origin: _Origin, seconds: float) -> Connection:
        with trio.move_on_after(seconds):
            connection = await origin.dialer.dial()
            if isinstance(connection, TlsConnection) and connection.protocol == "h2":
                connection.session = Http2Session()
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
            with trio.move_on_after(EARLY_ANSWER_SECONDS):
                await _read_on(connection, parser, EARLY_ANSWER_BYTES)
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

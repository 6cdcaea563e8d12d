"""The way to the upstreams: what goes up for each of them, and over which transport.

Owns the request as it leaves: its URL, its headers, the credential. Redirects are not followed, the environment's proxies and .netrc
are ignored (both could send a credential where it does not belong), and nothing is decompressed: we ask for identity.
"""

from __future__ import annotations

import functools
import logging
import math
import ssl
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import httpx
import trio

from .errors import UpstreamProtocolError
from .stock_transport import StockTransport
from .transport import Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from .routes import Candidate, Upstream

Headers: TypeAlias = "list[tuple[bytes, bytes]]"
AnyTransport: TypeAlias = Transport | StockTransport

#: Between two looks at the idle connections: with 256 of them a look takes half a millisecond. Guessed.
_SWEEP_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request as it goes up, but for what differs between upstreams: model, credential, configured headers.

    Args:
      method: HTTP method.
      path: below the base URL, with its leading slash and its query.
      headers: the client's, already without hop-by-hop and credential headers; names in lower case.
      body: the request body, byte for byte.
      authorization: the caller's own Authorization header, sent only to upstreams with `auth = "client"`.
    """

    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    authorization: bytes | None = None


class _Reader(Protocol):
    """A body as both transports read it."""

    @property
    def complete(self) -> bool: ...
    async def read(self) -> bytes: ...
    async def pour(self, take: Callable[[bytes], bool]) -> bool: ...
    def has_come(self) -> bool: ...
    async def aclose(self) -> None: ...


class UpstreamResponse:
    """An open response. Whoever got it closes it; closing before the body's end closes the connection.

    Args:
      headers: names in lower case.
      reader: of the body.
      version: of HTTP, as a status line has it.
    """

    __slots__ = ("_reader", "aclose", "has_come", "headers", "pour", "read", "status", "version")

    def __init__(self, status: int, headers: Headers, reader: _Reader, version: str = "HTTP/1.1") -> None:
        self.status = status
        self.version = version
        self.headers = headers
        self._reader = reader
        #: The next piece of the body, b"" at its clean end. Raises UpstreamError: the connection broke, or the framing did.
        #: The reader's own, since it is awaited for every network read of every stream.
        self.read = reader.read
        #: As body_reader.Reader has them.
        self.pour, self.has_come = reader.pour, reader.has_come
        #: Give the connection back if the body's end is there, else close it. Does not wait for the peer.
        self.aclose = reader.aclose

    @property
    def complete(self) -> bool:
        """The body was read to its end."""
        return self._reader.complete

    def header(self, name: str) -> str:
        """The value of one header, "" where absent."""
        wanted = name.lower().encode()
        return ", ".join(value.decode("latin-1") for name, value in self.headers if name == wanted)

    async def read_all(self, limit: int) -> bytes:
        """The body's next `limit` bytes, or less if it ends."""
        parts, size = [], 0
        while size < limit and (data := await self.read()):
            parts.append(data)
            size += len(data)
        return b"".join(parts)


class UpstreamClient:
    """The transports of all configured upstreams. Made by `open_upstream_client()`, and by its own `prepare()` for another configuration.

    Args:
      upstreams: by name.
      transports: of each of them.
      every: those transports and the ones of earlier configurations that streams still use; one list for all clients of a process.
    """

    def __init__(self, upstreams: dict[str, Upstream], transports: dict[str, AnyTransport], every: list[tuple[str, AnyTransport]]) -> None:
        self._upstreams = upstreams
        self._transports = transports
        self._every = every
        self._ours = {name: _our_headers(upstream) for name, upstream in upstreams.items()}
        self._warned_of: set[tuple[str, str]] = set()

    def prepare(self, upstreams: Iterable[Upstream]) -> UpstreamClient:
        """A client for other upstreams. It shares the connections to those that are at the same place and reached in the same way.

        Raises:
          OSError: a `ca_file` cannot be read.
        """
        wanted = {upstream.name: upstream for upstream in upstreams}
        transports = {
            name: self._transports[name] if name in self._upstreams and _same_way(self._upstreams[name], upstream) else _transport(upstream)
            for name, upstream in wanted.items()
        }
        self._every += [(name, transport) for name, transport in transports.items() if transport is not self._transports.get(name)]
        return UpstreamClient(wanted, transports, self._every)

    async def take_over(self) -> None:
        """This client is the one in use now: of the others' connections, close the idle ones, and each of the rest when its stream ends."""
        for name, transport in self._every:
            if transport is not self._transports.get(name):
                await transport.retire()
        self._every[:] = [(n, t) for n, t in self._every if t is self._transports.get(n) or t.open_connections()]

    async def keep_sweeping(self) -> None:
        """Close idle connections soon after they expire, until cancelled. One such task is enough for all clients of a process."""
        while True:
            await trio.sleep(_SWEEP_SECONDS)
            for _, transport in tuple(self._every):
                await transport.sweep()

    async def aclose(self) -> None:
        """Close every connection, those of earlier configurations and those in use as well."""
        for _, transport in self._every:
            await transport.aclose()

    async def send(
        self, candidate: Candidate, request: UpstreamRequest, body: bytes, attempt: int = 0, *, connected: Callable[[], None] = lambda: None
    ) -> UpstreamResponse:
        """Send a request and wait for the response head.

        Args:
          body: the request's body, its model renamed where the route says so.
          attempt: number of the try, told to the upstream for its own log; 0 leaves the header out.
          connected: called as soon as a connection is there; from then on the upstream is waited for.

        Raises:
          UpstreamError: no response head came. A status, whatever it is, is no error here.
        """
        upstream = candidate.upstream
        url, host = _target(upstream.base_url + request.path)
        headers = [(b"host", host), *request.headers, *self._ours[upstream.name]]
        if upstream.auth == "client" and request.authorization:
            headers.append((b"authorization", request.authorization))
        if attempt:
            headers.append((b"x-evenflow-attempt", b"%d" % attempt))
        for name, _ in headers:
            if name == b"user-agent":
                break
        else:
            headers.append((b"user-agent", b"evenflow"))  # some servers refuse those that have none
        if body or request.method == "POST":
            headers.append((b"content-length", b"%d" % len(body)))
        connect = candidate.timers.connect
        transport = self._transports[upstream.name]
        if isinstance(transport, Transport):
            status, answered, reader, version = await transport.ask(
                request.method, url, headers, body, connect=connect, connected=connected
            )
        else:
            extensions = {"timeout": {"connect": None if connect == math.inf else connect}, "connected": connected}
            outgoing = httpx.Request(request.method, url, headers=headers, stream=httpx.ByteStream(body), extensions=extensions)
            response = await transport.handle_async_request(outgoing)
            answered = [(name.lower(), value) for name, value in response.headers.raw]
            status, reader, version = (
                response.status_code,
                response.extensions["reader"],
                response.extensions["http_version"].decode("ascii"),
            )
        if upstream.http2 and version != "HTTP/2" and self._is_news("version", upstream.name):
            _log.warning("upstream '%s' was asked for HTTP/2 and speaks HTTP/1.1; it is used so, this is said once", upstream.name)
        return UpstreamResponse(status, answered, reader, version)

    def mislabelled(self, upstream: str, content_type: str, stream: bool) -> None:
        """An upstream's answer is none of what its content type says. It is served, and told once: the next ones are like it."""
        if self._is_news("content type", upstream):
            what = "a stream of events" if stream else "one whole answer in JSON"
            said = content_type[:80] or "nothing"
            _log.warning("upstream '%s' sent %s and called it %s; it is served as what it is, this is said once", upstream, what, said)

    def _is_news(self, what: str, upstream: str) -> bool:
        told = (what, upstream) in self._warned_of
        self._warned_of.add((what, upstream))
        return not told

    def open_connections(self) -> dict[str, int]:
        """Connections to each upstream, idle ones included."""
        counts = Counter[str]()
        for name, transport in self._every:
            counts[name] += transport.open_connections()
        return dict(counts)


@asynccontextmanager
async def open_upstream_client(upstreams: Iterable[Upstream]) -> AsyncIterator[UpstreamClient]:
    """Open the transports; on leaving, every connection is closed."""
    client = UpstreamClient({}, {}, []).prepare(upstreams)
    try:
        yield client
    finally:
        await client.aclose()


def _same_way(one: Upstream, other: Upstream) -> bool:
    """A CA file may have changed under its name: with one, the way is never the same."""
    same = (one.base_url, one.proxy, one.transport, one.http2) == (other.base_url, other.proxy, other.transport, other.http2)
    return same and not (one.ca_file or other.ca_file)


def _transport(upstream: Upstream) -> AnyTransport:
    tls = ssl.create_default_context(cafile=upstream.ca_file) if upstream.ca_file else _usual_trust(upstream.http2)
    if upstream.proxy is not None or upstream.transport == "httpx":
        return StockTransport(tls, upstream.proxy)
    return Transport(tls, http2=upstream.http2)


@functools.cache
def _usual_trust(http2: bool) -> ssl.SSLContext:
    """What every upstream without a `ca_file` trusts. One for all: to load the certificates takes 15 ms (measured).

    Args:
      http2: those who ask for it have one of their own, since what is asked for stands in it, too.
    """
    return httpx.create_ssl_context(trust_env=False)


@functools.lru_cache(maxsize=256)
def _target(url: str) -> tuple[httpx.URL, bytes]:
    """The URL, parsed, and the Host header that goes with it. Parsing it takes 30 us (measured), and it is nearly always the same."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise UpstreamProtocolError("the upstream's URL with this path is none") from exc
    return parsed, parsed.netloc


def _our_headers(upstream: Upstream) -> Headers:
    """What every request to an upstream has; made once. The caller's own credential is not among it."""
    headers = [(b"accept-encoding", b"identity")]
    if upstream.auth != "client" and upstream.key:
        headers.append((b"authorization", b"Bearer " + upstream.key.reveal().encode()))
    return headers + [(name.lower().encode(), value.encode()) for name, value in upstream.headers]

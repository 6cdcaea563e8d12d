"""The way to the upstreams: one httpx client each, and the seam where httpx's exceptions become ours.

With transport.py, once it exists, the only module that knows httpx. Redirects are not followed, the environment's proxies and
.netrc are ignored (both could send a credential where it does not belong), and nothing is decompressed: we ask for identity.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx
import trio

from .errors import (
    UpstreamConnectError,
    UpstreamDisconnected,
    UpstreamDnsError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamTlsError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping

    from .routes import Candidate, Upstream

#: No limit here: admission is decided before a stream starts, and a full pool would only be a second, hidden queue.
#: Idle connections are another matter: httpcore 1.0.9 counts them all for each of them on every request, which is quadratic and took half
#: of the processor's time at 500 streams. It compares that count with *all* connections, so above 32 open ones none is kept idle.
_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=30.0)


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


class _Body(httpx.AsyncByteStream):
    """A request body in one piece. httpx's own is an async generator, which a failed write would leave to the garbage collector."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self._data)


class _Once:
    """Iterates over one item, none if it is empty."""

    def __init__(self, data: bytes) -> None:
        self._left = [data] if data else []

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


class _Progress:
    """A trace of httpcore that sees how far a request came.

    Args:
      connected: called when a connection is there and the request goes out on it.
    """

    def __init__(self, connected: Callable[[], None]) -> None:
        self._connected = connected
        self._socket: trio.socket.SocketType | None = None
        self.fresh = False  # it opened a connection of its own; else it went out on an idle one

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event.startswith("connection.connect_"):
            self.fresh = True
            if event.endswith(".complete"):
                self._socket = info["return_value"].get_extra_info("socket")
        elif event == "http11.send_request_headers.started":
            self._connected()

    def close(self) -> None:
        """Close the connection it opened. httpcore 1.0.9 does not when it is cancelled inside the TLS handshake."""
        if self._socket is not None:
            self._socket.close()


class UpstreamResponse:
    """An open response. Whoever got it closes it; closing before the body's end closes the connection.

    Args:
      response: httpx's, opened with stream=True.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._body = response.aiter_raw().__aiter__()
        self.complete = False

    @property
    def status(self) -> int:
        return self._response.status_code

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """As they came; names in lower case."""
        return [(name.lower(), value) for name, value in self._response.headers.raw]

    def header(self, name: str) -> str:
        """The value of one header, "" where absent."""
        return str(self._response.headers.get(name, ""))

    async def read(self) -> bytes:
        """The next piece of the body, b"" at its clean end.

        Raises:
          UpstreamError: the connection broke, or the framing did.
        """
        with translated_errors():
            try:
                data = await self._body.__anext__()
            except StopAsyncIteration:
                self.complete = True
                return b""
        return data

    async def read_all(self, limit: int) -> bytes:
        """The body's next `limit` bytes, or less if it ends."""
        parts, size = [], 0
        while size < limit and (data := await self.read()):
            parts.append(data)
            size += len(data)
        return b"".join(parts)

    async def aclose(self) -> None:
        """Give the connection back to the pool if the body was read to its end, else close it. Does not wait for the peer."""
        # httpx and httpcore read through four nested async generators. One that is dropped while it is suspended is left to the
        # garbage collector, which trio reports; only an exception that comes from the innermost finishes them all. So a body that
        # was not read to its end is read once more under a cancelled scope, which makes httpcore close the connection. The shield
        # is for the caller that is itself cancelled: its Cancelled would be raised here in place of ours and skip the close.
        if not self.complete:
            with trio.CancelScope(shield=True) as closing, contextlib.suppress(httpx.HTTPError, httpx.StreamError, StopAsyncIteration):
                closing.cancel()
                while True:
                    await self._body.__anext__()
        with trio.CancelScope(shield=True), contextlib.suppress(httpx.HTTPError):
            await self._response.aclose()


class UpstreamClient:
    """The clients of all configured upstreams. Made by `open_upstream_client()`."""

    def __init__(self, clients: dict[str, httpx.AsyncClient]) -> None:
        self._clients = clients

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
        client = self._clients[upstream.name]
        headers = [*request.headers, (b"accept-encoding", b"identity"), *_credential(upstream, request)]
        headers += [(name.lower().encode(), value.encode()) for name, value in upstream.headers]
        if attempt:
            headers.append((b"x-evenflow-attempt", str(attempt).encode()))
        connect = candidate.timers.connect
        timeout = {"connect": None if connect == float("inf") else connect, "read": None, "write": None, "pool": None}
        progress = _Progress(connected)
        outgoing = client.build_request(
            request.method,
            upstream.base_url + request.path,
            headers=headers,
            content=body if body or request.method == "POST" else None,
            extensions={"timeout": timeout, "trace": progress},
        )
        outgoing.stream = _Body(body)
        try:
            return await _exchange(client, outgoing, connect, progress)
        except UpstreamDisconnected:
            if progress.fresh:
                raise
        # An idle connection that the server closed just as we used it says nothing about the server (FAULTS row 35).
        return await _exchange(client, outgoing, connect, progress)

    def open_connections(self) -> dict[str, int]:
        """Connections in each upstream's pool, idle ones included."""
        return {name: _pool_size(client) for name, client in self._clients.items()}


async def _exchange(client: httpx.AsyncClient, outgoing: httpx.Request, connect: float, progress: _Progress) -> UpstreamResponse:
    response: httpx.Response | None = None
    try:
        with translated_errors(connect):
            response = await client.send(outgoing, stream=True)
        return UpstreamResponse(response)
    finally:
        if response is None:
            progress.close()


@asynccontextmanager
async def open_upstream_client(upstreams: Iterable[Upstream]) -> AsyncIterator[UpstreamClient]:
    """Open the clients; on leaving, every connection is closed."""
    async with contextlib.AsyncExitStack() as stack:
        clients = {upstream.name: await stack.enter_async_context(_client(upstream)) for upstream in upstreams}
        yield UpstreamClient(clients)


def _client(upstream: Upstream) -> httpx.AsyncClient:
    verify = ssl.create_default_context(cafile=upstream.ca_file) if upstream.ca_file else _usual_trust()
    return httpx.AsyncClient(limits=_LIMITS, timeout=None, verify=verify, proxy=upstream.proxy, trust_env=False, follow_redirects=False)


@functools.cache
def _usual_trust() -> ssl.SSLContext:
    """What every upstream without a `ca_file` trusts. One for all: to load the certificates takes 15 ms (measured)."""
    return httpx.create_ssl_context(trust_env=False)


def _credential(upstream: Upstream, request: UpstreamRequest) -> list[tuple[bytes, bytes]]:
    if upstream.auth == "client":
        return [(b"authorization", request.authorization)] if request.authorization else []
    return [(b"authorization", b"Bearer " + upstream.key.reveal().encode())] if upstream.key else []


def _pool_size(client: httpx.AsyncClient) -> int:
    pool = getattr(client._transport, "_pool", None)  # httpx has no public count
    return len(pool.connections) if pool is not None else 0


@contextlib.contextmanager
def translated_errors(connect: float = 0.0) -> Iterator[None]:
    """Raise httpx's exceptions as ours, chained.

    Args:
      connect: seconds of the connect timeout, for the text.
    """
    try:
        yield
    except httpx.ConnectTimeout as exc:
        raise UpstreamTimeout("timers.connect", connect) from exc
    except (httpx.ConnectError, httpx.ProxyError) as exc:
        raise _connect_error(exc) from exc
    except httpx.RemoteProtocolError as exc:
        # httpx says "peer closed connection" for a body cut short and "Server disconnected" for no response at all: both are cuts.
        text = str(exc)
        cut = "closed connection" in text or "disconnected" in text.lower()
        raise (UpstreamDisconnected if cut else UpstreamProtocolError)(_sentence(text)) from exc
    except (httpx.ReadError, httpx.WriteError, httpx.CloseError) as exc:
        raise UpstreamDisconnected(_sentence(str(exc) or "the connection was reset")) from exc
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise UpstreamProtocolError(_sentence(str(exc))) from exc


def _connect_error(exc: BaseException) -> UpstreamError:
    """What lies under httpx's ConnectError: it wraps the operating system's and OpenSSL's own exceptions two levels deep."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return UpstreamDnsError(f"the host name does not resolve ({cause.strerror})")
        if isinstance(cause, ssl.SSLError):
            return UpstreamTlsError(f"TLS: {getattr(cause, 'verify_message', '') or cause.reason or cause}")
        cause = cause.__cause__ or cause.__context__
    return UpstreamConnectError(_sentence(str(exc) or "no connection"))


def _sentence(text: str) -> str:
    return " ".join(text.split())[:200]

"""httpx's own transport, for upstreams behind a forward proxy and for those configured so; and the seam where its exceptions become ours.

Owns what httpx and httpcore need to be told so that a cancelled request leaves nothing behind. It is not told to speak HTTP/2: httpcore
1.0.9 sends no RST_STREAM for a response that is closed early, so that the upstream goes on with it on a connection that others share, and
of a connection whose server says GOAWAY it breaks off the streams, which are to go on. See http2.py. To be rid of this module, give
transport.py forward proxies.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
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
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

#: No limit here: admission is decided before a stream starts, and a full pool would only be a second, hidden queue.
#: Idle connections are another matter: httpcore 1.0.9 counts them all for each of them on every request, which is quadratic and took half
#: of the processor's time at 500 streams. It compares that count with *all* connections, so above 32 open ones none is kept idle.
_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=30.0)


class StockReader:
    """A response's body, read through httpx. The same surface as transport.Reader.

    Args:
      response: opened with stream=True.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._body = response.aiter_raw().__aiter__()
        self.complete = False

    async def read(self) -> bytes:
        """The next piece of the body, b"" at its clean end.

        Raises:
          UpstreamError: the connection broke, or the framing did.
        """
        with _translated_errors():
            try:
                data = await self._body.__anext__()
            except StopAsyncIteration:
                self.complete = True
                return b""
        return data

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        """See body_reader.Reader; httpx has no such thing, so that each piece is read by itself."""
        del take
        return True

    def has_come(self) -> bool:
        """Never known here."""
        return False

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


class StockTransport:
    """An httpx client with its own transport. The part of transport.Transport's surface that upstream.py uses.

    Args:
      tls: what to trust.
      proxy: URL of a forward proxy.
    """

    def __init__(self, tls: ssl.SSLContext, proxy: str | None) -> None:
        self._client = httpx.AsyncClient(limits=_LIMITS, timeout=None, verify=tls, proxy=proxy, trust_env=False, follow_redirects=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and wait for the response's head; see there."""
        progress = _Progress(request.extensions["connected"])
        connect = request.extensions["timeout"]["connect"]
        request.extensions = {"timeout": {"connect": connect, "read": None, "write": None, "pool": None}, "trace": progress}
        request.stream = _Body(request)
        try:
            return await self._exchange(request, progress, connect)
        except UpstreamDisconnected:
            if progress.fresh:
                raise
        # An idle connection that the server closed just as we used it says nothing about the server (FAULTS row 35).
        return await self._exchange(request, progress, connect)

    async def _exchange(self, request: httpx.Request, progress: _Progress, connect: float | None) -> httpx.Response:
        response: httpx.Response | None = None
        try:
            with _translated_errors(connect or 0.0):
                response = await self._client.send(request, stream=True)
            response.extensions["reader"] = StockReader(response)
            return response
        finally:
            if response is None:
                progress.close()

    def open_connections(self) -> int:
        pool = getattr(self._client._transport, "_pool", None)  # httpx has no public count
        return len(pool.connections) if pool is not None else 0

    async def retire(self) -> None:
        """Go on for those who are still here, and keep no connection open beyond its present use."""
        pool = getattr(self._client._transport, "_pool", None)  # nor a way to close the idle ones alone
        if pool is not None:
            pool._max_keepalive_connections = 0
        await self.sweep()

    async def sweep(self) -> None:
        """Close the connections that have been idle for too long; httpcore does so when it is asked for one."""
        pool = getattr(self._client._transport, "_pool", None)
        if pool is not None:
            await pool._close_connections(pool._assign_requests_to_connections())

    async def aclose(self) -> None:
        await self._client.aclose()


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


class _Body(httpx.AsyncByteStream):
    """A request body in one piece. httpx's own is an async generator, which a failed write would leave to the garbage collector."""

    def __init__(self, request: httpx.Request) -> None:
        assert isinstance(request.stream, httpx.SyncByteStream)
        self._data = b"".join(request.stream)

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


@contextlib.contextmanager
def _translated_errors(connect: float = 0.0) -> Iterator[None]:
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

"""A response's body, as upstream.py reads it: by plain calls, so that nothing suspended is left to the garbage collector.

Owns when the connection is parted with. What the bytes mean is the parser's business, what becomes of the connection the pool's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

import httpx
import trio

from .errors import UpstreamDisconnected, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .connection import Connection
    from .connection_pool import ConnectionPool
    from .http2 import Http2Response


class Response(Protocol):
    """What http1.py and http2.py make of the bytes; see http1.ResponseParser."""

    complete: bool
    failure: UpstreamError | None

    @property
    def over(self) -> bool: ...
    @property
    def held(self) -> int: ...
    @property
    def reusable(self) -> bool: ...
    def feed(self, data: bytes) -> None: ...
    def take(self) -> bytes: ...
    def close(self) -> None: ...


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

    def __init__(self, connection: Connection, parser: Response, pool: ConnectionPool, *, sent: bool) -> None:
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

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        """Hand over pieces of the body as they come, and wake nobody for it, for as long as that is possible and `take` asks for more.

        Args:
          take: must not wait; what it raises is raised here.

        Returns:
          False: `take` wants no more. True: `read()` has what comes next, be it the end.

        Cancellation: as `read()`.
        """
        parser = self._parser
        over = parser.over or parser.held > 0
        if over:
            return True

        def feed(data: bytes) -> bool:
            parser.feed(data)
            if parser.complete or parser.failure is not None:  # `over`, which would be one more call for every read
                return False
            return take(piece) if (piece := parser.take()) else True

        try:
            if await self._connection.pour(feed):
                return True
        except UpstreamDisconnected as failure:
            parser.failure = failure
        over = parser.over
        if over:
            self._part()
        return over

    def has_come(self) -> bool:
        """There is something of it that nobody has read, be it the end."""
        return self._parser.held > 0 or self._parser.over or self._connection.has_come()

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


class Http2Reader(Reader):
    """The same over HTTP/2, where whoever reads has to confirm now and then that it did."""

    __slots__ = ("_response",)

    def __init__(self, connection: Connection, response: Http2Response, pool: ConnectionPool, *, sent: bool) -> None:
        self._response = response
        super().__init__(connection, response, pool, sent=sent)

    async def read(self) -> bytes:
        response = self._response
        while not (data := response.take()):
            if response.complete:
                self.complete = True
                return b""
            if response.failure is not None:
                raise response.failure
            try:
                if due := response.due():  # before it waits: the server may wait for it
                    await self._send(due)
                response.feed(await self._connection.receive())
            except UpstreamDisconnected as failure:
                response.fail(failure)
            if response.over:
                self._part()
        return data

    async def _send(self, data: bytes) -> None:
        sent = False
        try:
            await self._connection.send(data)
            sent = True
        finally:
            if not sent:  # nor will it ever be: a part of it may be out
                self._response.fail(UpstreamDisconnected("what was due to the upstream could not be sent"))

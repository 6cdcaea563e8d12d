"""A client connection on which much can happen at once: one task reads, and each request has a task of its own.

It is for everything that is not in plain form (edge_head.py): h11 and hypercorn's ASGI part behind edge_guard.py's rules, made when the
first such request comes; and for all requests where nothing else watches a socket (actors/pump.py has no epoll, or no descriptor is
left). What differs from hypercorn's TCPServer:

* One task reads as long as the connection lives, whatever is being answered. A client that sends bytes ahead and leaves is noticed.
* There is one deadline, a number on the scope around the reading: until a head is whole, and while idle. None runs during an answer.
* An application that reads no more blocks nobody: its inbox breaks when it ends, and ends when the client left.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from .edge_applications import Applications
from .edge_exchange import Exchange
from .edge_head import read_plain_head
from .edge_protocol import EdgeProtocol
from .edge_socket import AHEAD, READ, ClientSocket

if TYPE_CHECKING:
    import socket

    from .edge_head import PlainHead
    from .edge_socket import Serving


class ConcurrentConnection(ClientSocket):
    """One client connection from some point on; Connection (edge_connection.py) hands it over there.

    Args:
      sock: closed when `run` ends.
      client: address.
      came: what has been read already.
      deadline: of the head that begins there, or with the next bytes.
      used: a request was answered here, so that the connection may as well be idle.
    """

    def __init__(
        self, sock: socket.socket, client: tuple[str, int] | None, serving: Serving, came: bytes, deadline: float, *, used: bool
    ) -> None:
        super().__init__(sock, client, serving)
        self._server: tuple[str, int] | None = None
        self._nursery: trio.Nursery
        # cancelled: the connection ends; its deadline is inf while a request is being answered
        self._reading = trio.CancelScope(deadline=deadline)
        self._exchange: Exchange | None = None  # what is being answered in plain form
        self._room: trio.Event | None = None  # whoever reads waits until its application has taken enough of its body
        self._ahead = b""  # what came before its turn meanwhile
        self._came = came  # also: in the moment in which the reading was cancelled
        self._protocol: EdgeProtocol | None = None  # everything else
        self._turn: trio.Lock  # of whoever hands bytes to the protocol
        self._writing: trio.Lock
        self._idle = used  # nothing of the next request has come
        self._fresh = not used  # nothing was read yet
        self._waits = True

    def stop(self) -> None:
        """End the connection unless a request is being answered."""
        if self._reading.deadline < math.inf:
            self._reading.cancel()

    async def run(self) -> None:
        """Serve until either side ends the connection and no application runs any more."""
        try:
            async with trio.open_nursery() as self._nursery:
                while True:
                    with self._reading:
                        await self._read()
                    if not self._came or self._reading.deadline == math.inf or (self._protocol is not None and self._protocol.unread):
                        break
                    # A request was there, and only then its time was up, or the server stopped. It came in time.
                    self._reading = trio.CancelScope(deadline=trio.current_time() + self._serving.limits.header_timeout)
                self._unread = self._unread or bool(self._came)
                late = (self._reading.cancelled_caught or bool(self._came)) and trio.current_time() >= self._reading.deadline
                if self._exchange is not None:
                    self._exchange.leave()
                if self._protocol is not None:
                    if late and self._protocol.unread:
                        await self._protocol.refuse_slow()
                    await self._protocol.handle(Closed())
                    self._unread = self._unread or self._protocol.is_client_sending
                if self._unread and not self._peer_done:
                    await self._linger()
        finally:
            self.cut()
            self._exchange = self._protocol = None  # cycles, which only a collection would free
            del self._nursery

    # ---- reading ----------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while data := await self._receive():
            if self._reading.cancel_called:  # nothing can be awaited for it any more
                self._came = data
                return
            exchange = self._exchange
            if exchange is not None:
                self._ahead += exchange.feed(data)
                if len(self._ahead) > AHEAD:
                    self._give_up()
                    return
                if exchange.is_full:
                    self._room = trio.Event()
                    await self._room.wait()
            elif self._may_be_plain and (head := read_plain_head(data, self._serving.limits)) is not None:
                self._begin(head, data)
            else:
                await self._hand_on(data)
        self._peer_done = True
        if self._protocol is not None:
            await self._hand_on(b"")

    async def _receive(self) -> bytes:
        """The next bytes, b"" if the client is gone or counts as gone."""
        if self._protocol is not None and self._protocol.is_waiting_for_us and self._protocol.unread > AHEAD:
            self._give_up()
            return b""
        if data := self._came:
            self._came = b""
            return data
        try:
            # The first request has come with the connection as a rule; of the others as a rule nothing has. (A closed socket cannot be
            # waited for; to read from it is an OSError.)
            if not (self._fresh or self._closed):
                await trio.lowlevel.wait_readable(self._sock)
            while True:
                try:
                    data = self._sock.recv(READ)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(self._sock)
                else:
                    self._fresh = False
                    return data
        except (OSError, trio.ClosedResourceError):
            return b""

    # ---- requests in plain form ---------------------------------------------------------------------------------------------

    @property
    def _may_be_plain(self) -> bool:
        return self._serving.plain and (self._protocol is None or (self._idle and not self._protocol.unread))

    def _begin(self, head: PlainHead, data: bytes) -> None:
        """Answer the request at the beginning of `data`."""
        end = head.size + head.length
        if end < len(data):
            self._ahead = data[end:]
        self._idle = False
        self._reading.deadline = math.inf
        self._exchange = exchange = Exchange(self, head, data[head.size : end], self._client, self._server)
        self._nursery.start_soon(self._run_application, exchange)

    def read_on(self) -> None:
        """The application has taken what lay there of a body."""
        if self._room is not None:
            self._room.set()

    def exchanged(self, *, keep: bool) -> None:
        exchange, self._exchange = self._exchange, None
        ahead, self._ahead = self._ahead, b""
        if not keep or self.is_last:
            self._unread = bool(ahead) or (exchange is not None and exchange.missing > 0)
            self._end()
        elif not ahead:
            self._rest()
        elif head := read_plain_head(ahead, self._serving.limits):
            self._begin(head, ahead)
        else:
            self._rest()
            (self._protocol or self._open_protocol()).take(ahead)
            self._nursery.start_soon(self._resume)

    # ---- all others ---------------------------------------------------------------------------------------------------------

    async def _hand_on(self, data: bytes) -> None:
        """Bytes for h11; b"" is the client's end."""
        protocol = self._protocol or self._open_protocol()
        async with self._turn:
            if data and self._idle:
                self._expect_head()
            await protocol.handle(RawData(data))

    async def _resume(self) -> None:
        """What came before its turn has it now."""
        async with self._turn:
            if self._idle and self._protocol is not None:
                self._expect_head()
                await self._protocol.resume()

    def _open_protocol(self) -> EdgeProtocol:
        with contextlib.suppress(OSError):  # left already
            self._server = parse_socket_addr(self._sock.family, self._sock.getsockname())
        self._turn, self._writing = trio.Lock(), trio.Lock()
        serving = self._serving
        self._protocol = EdgeProtocol(
            serving.app,  # type: ignore[arg-type]  # hypercorn's AppWrapper takes two more; only our own Applications calls it
            serving.config,
            serving.context,
            Applications(self._nursery),
            ConnectionState({}),
            self._client,
            self._server,
            self._send,
            serving.limits,
            serving.refused,
        )
        return self._protocol

    async def _send(self, event: Event) -> None:
        match event:
            case RawData(data=data):
                try:
                    async with self._writing:
                        with contextlib.suppress(OSError):  # as ASGI has it: what is sent to a client that left is lost without a word
                            await self.transmit(data)
                except trio.Cancelled:
                    self.cut(torn=True)  # also before it began: h11 counts it as sent, and what follows would follow nothing
                    if self._protocol is not None:
                        self._protocol.tear()
                    raise
            case Updated(idle=False):
                self._idle = False
                self._reading.deadline = math.inf
            case Updated():
                self._rest()
                if self._protocol is not None and self._protocol.unread:
                    self._nursery.start_soon(self._resume)
            case Closed():
                self._end()

    # ---- between requests, and at the end -------------------------------------------------------------------------------------

    def _end(self) -> None:
        self._reading.deadline = math.inf  # what comes now is no request
        self._reading.cancel()

    def _rest(self) -> None:
        self._idle = True
        self._reading.deadline = trio.current_time() + self._serving.limits.keepalive_timeout

    def _expect_head(self) -> None:
        self._idle = False
        self._reading.deadline = trio.current_time() + self._serving.limits.header_timeout

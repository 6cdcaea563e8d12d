"""The socket side of one client connection: deadlines, noticing who is gone, and closing so that the last answer arrives.

A request in plain form (edge_head.py) is answered here, as an `Exchange` that its application runs on. Every other one goes to h11 and
hypercorn's ASGI part behind edge_guard.py's rules, made when the first such request comes. What differs from hypercorn's TCPServer:

* One task reads as long as the connection lives, whatever is being answered. A client that sends bytes ahead and leaves is noticed.
* There is one deadline, a number on the scope around the reading: until a head is whole, and while idle. None runs during an answer.
* A write can be cancelled. The connection is unusable then and is closed; nothing waits for a client that does not read.
* An application that reads no more blocks nobody: its inbox breaks when it ends, and ends when the client left.
* After a refusal the rest is read and dropped for a moment; closing with unread bytes would send a RST, which can overtake the answer.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from .edge_applications import Applications
from .edge_exchange import Exchange
from .edge_head import read_plain_head
from .edge_protocol import EdgeProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.config import Config
    from hypercorn.trio.worker_context import WorkerContext

    from .asgi import AsgiApp
    from .edge_guard import Refusal
    from .edge_head import PlainHead
    from .settings import EdgeSettings

_log: Final = logging.getLogger("evenflow.edge")

_READ: Final = 65_536
#: Bytes of further requests that are taken while one is being answered, a bound on memory. Clients of LLMs send none.
_AHEAD: Final = 1024 * 1024
#: Seconds for which a client that was refused may go on sending before its connection is closed; nginx's lingering_timeout is 5.
_LINGER: Final = 2.0
#: SO_LINGER (on, 0 s): a close drops what was not sent.
_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """What the connections of one listener have in common.

    Args:
      refused: told of every request that was refused before the application saw it.
      plain: requests in plain form are answered without h11. Without it none is: then ASGI is the only way, which the tests walk as well.
    """

    app: AsgiApp
    config: Config
    context: WorkerContext
    limits: EdgeSettings
    refused: Callable[[Refusal], None]
    plain: bool = True


class Connection:
    """One client connection.

    Args:
      sock: accepted, non-blocking; closed when `run` ends.
      peer: the client's address, as `accept` gave it.
    """

    def __init__(self, sock: socket.socket, peer: Any, serving: Serving) -> None:
        self._sock = sock
        self._serving = serving
        self._client = parse_socket_addr(sock.family, peer)
        self._server: tuple[str, int] | None = None
        self._nursery: trio.Nursery
        self._reading = trio.CancelScope()  # cancelled: the connection ends; its deadline is inf while a request is being answered
        self._exchange: Exchange | None = None  # what is being answered in plain form
        self._ahead = b""  # what came before its turn meanwhile
        self._came = b""  # in the moment in which the reading was cancelled
        self._protocol: EdgeProtocol | None = None  # everything else
        self._turn: trio.Lock  # of whoever hands bytes to the protocol
        self._writing: trio.Lock
        self._idle = False  # nothing of the next request has come
        self._fresh = True  # nothing was read yet
        self._closed = False
        self._peer_done = False
        self._unread = False  # bytes of the client's are dropped when it is closed

    @property
    def is_last(self) -> bool:
        """The server stops."""
        return self._serving.context.terminated.is_set()

    def stop(self) -> None:
        """End the connection unless a request is being answered."""
        if self._reading.deadline < math.inf:
            self._reading.cancel()

    async def run(self) -> None:
        """Serve until either side ends the connection and no application runs any more."""
        self._reading.deadline = trio.current_time() + self._serving.limits.header_timeout
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
                if len(self._ahead) > _AHEAD:
                    self._give_up()
                    return
                await exchange.room()
            elif self._may_be_plain and (head := read_plain_head(data, self._serving.limits)) is not None:
                self._begin(head, data)
            else:
                await self._hand_on(data)
        self._peer_done = True
        if self._protocol is not None:
            await self._hand_on(b"")

    async def _receive(self) -> bytes:
        """The next bytes, b"" if the client is gone or counts as gone."""
        if self._protocol is not None and self._protocol.is_waiting_for_us and self._protocol.unread > _AHEAD:
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
                    data = self._sock.recv(_READ)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(self._sock)
                else:
                    self._fresh = False
                    return data
        except (OSError, trio.ClosedResourceError):
            return b""

    def _give_up(self) -> None:
        self._peer_done = True
        # Whoever stops reading instead does not see the FIN behind what is unread, and a silent upstream would never be let go.
        _log.info("a connection was closed: its client sent more than %d bytes ahead of their turn", _AHEAD)

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

    async def _run_application(self, exchange: Exchange) -> None:
        try:
            await self._serving.app(exchange.scope, exchange.receive, exchange.send)
        except* Exception:  # a defect in one request is the end of that request alone
            _log.exception("a request failed")
        finally:
            if answer := exchange.close():
                with contextlib.suppress(OSError):  # nobody is there to be told
                    self._sock.send(answer)
                self.exchanged(keep=False)

    def exchanged(self, *, keep: bool) -> None:
        """The response is complete; without `keep` the connection ends."""
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

    async def transmit(self, data: bytes, patience: float = math.inf) -> None:
        """Send all of it; the connection is closed if that is cancelled or fails.

        Args:
          patience: seconds that it may wait; the clock is not asked unless it does.

        Raises:
          TimeoutError: it was not taken in time.
          OSError: nothing more can be sent.
        """
        sent = 0
        try:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                pass  # nothing of it, yet
            if sent < len(data):
                sent += await self._transmit_rest(memoryview(data)[sent:], patience)
        finally:
            if sent < len(data):
                # Cancelled or broken, perhaps in the middle of a message: nothing that we could still say would be understood. By a RST,
                # since otherwise the kernel goes on offering what it has, megabytes, to a client that does not read.
                self.cut(torn=True)

    def transmit_nowait(self, data: bytes) -> int:
        """Send as many bytes as the socket takes at once, and return how many.

        Raises:
          OSError: nothing more can be sent; the connection is closed.
        """
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.cut(torn=True)
            raise

    async def _transmit_rest(self, rest: memoryview, patience: float) -> int:
        length = len(rest)
        with trio.move_on_after(patience):
            try:
                while rest:
                    await trio.lowlevel.wait_writable(self._sock)
                    with contextlib.suppress(BlockingIOError):
                        rest = rest[self._sock.send(rest) :]
                return length
            except trio.ClosedResourceError as exc:
                raise ConnectionAbortedError from exc
        raise TimeoutError

    def cut(self, *, torn: bool = False) -> None:
        """Close the socket now; whoever waits for it is woken. `torn`: what was not sent is dropped."""
        if not self._closed:
            self._closed = True
            if torn:
                with contextlib.suppress(OSError):
                    self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

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

    async def _linger(self) -> None:
        """Say that no more will come, and let the client finish."""
        with trio.move_on_after(_LINGER), contextlib.suppress(OSError, trio.ClosedResourceError):  # gone, or a write was cancelled
            self._sock.shutdown(socket.SHUT_WR)
            await trio.lowlevel.checkpoint()
            while True:
                with contextlib.suppress(BlockingIOError):
                    if not self._sock.recv(_READ):
                        return
                await trio.lowlevel.wait_readable(self._sock)

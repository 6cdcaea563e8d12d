"""The socket of one client connection: writes that can be cancelled, and a close after which the last answer still arrives.

* A write can be cancelled. The connection is unusable then and is closed; nothing waits for a client that does not read.
* After a refusal the rest is read and dropped for a moment; closing with unread bytes would send a RST, which can overtake the answer.

Owns the socket. Refuses to know who reads it (edge_connection.py, edge_concurrent.py) and what is said on it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.config import Config
    from hypercorn.trio.worker_context import WorkerContext

    from .asgi import AsgiApp
    from .edge_connection import Connection
    from .edge_exchange import Exchange
    from .edge_guard import Refusal
    from .edge_patience import Patience
    from .settings import EdgeSettings

_log: Final = logging.getLogger("evenflow.edge")

#: Bytes that are read at once.
READ: Final = 65_536
#: Bytes of further requests that are taken while one is being answered, a bound on memory. Clients of LLMs send none.
AHEAD: Final = 1024 * 1024
#: Seconds for which a client that was refused may go on sending before its connection is closed; nginx's lingering_timeout is 5.
_LINGER: Final = 2.0
#: SO_LINGER (on, 0 s): a close drops what was not sent.
_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(slots=True, eq=False)
class Serving:
    """What the connections of one listener have in common.

    Args:
      start: runs a connection, and stops it when the listener ends.
      before, between: for the head of a first request, and of further ones.
      refused: told of every request that was refused before the application saw it.
      plain: requests in plain form are answered without h11. Without it none is: then ASGI is the only way, which the tests walk as well.
      stopping: no connection serves a further request.
    """

    app: AsgiApp
    config: Config
    context: WorkerContext
    limits: EdgeSettings
    start: Callable[[Connection], None]
    refused: Callable[[Refusal], None]
    before: Patience
    between: Patience
    plain: bool = True
    stopping: bool = False


class ClientSocket:
    """The socket of one client connection, under whoever reads it.

    Args:
      sock: accepted, non-blocking.
      client: address, for the applications.
    """

    def __init__(self, sock: socket.socket, client: tuple[str, int] | None, serving: Serving) -> None:
        self._sock = sock
        self._client = client
        self._serving = serving
        self._waits = False  # trio was asked to wait for the socket, and has to be told when it is closed
        self._closed = False
        self._peer_done = False
        self._unread = False  # bytes of the client's are dropped when it is closed

    @property
    def is_last(self) -> bool:
        """The server stops."""
        return self._serving.stopping

    def exchanged(self, *, keep: bool) -> None:
        """The response is complete; without `keep` the connection ends."""
        raise AssertionError("each way of reading has its own")

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
        self._waits = True
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
            if self._waits:
                trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    async def _run_application(self, exchange: Exchange) -> None:
        """Answer a request in plain form."""
        try:
            await self._serving.app(exchange.scope, exchange.receive, exchange.send)
        except* Exception:  # a defect in one request is the end of that request alone
            _log.exception("a request failed")
        finally:
            if answer := exchange.close():
                with contextlib.suppress(OSError):  # nobody is there to be told
                    self._sock.send(answer)
                self.exchanged(keep=False)

    def _give_up(self) -> None:
        self._peer_done = True
        # Whoever stops reading instead does not see the FIN behind what is unread, and a silent upstream would never be let go.
        _log.info("a connection was closed: its client sent more than %d bytes ahead of their turn", AHEAD)

    async def _linger(self) -> None:
        """Say that no more will come, and let the client finish."""
        self._waits = True
        with trio.move_on_after(_LINGER), contextlib.suppress(OSError, trio.ClosedResourceError):  # gone, or a write was cancelled
            self._sock.shutdown(socket.SHUT_WR)
            await trio.lowlevel.checkpoint()
            while True:
                with contextlib.suppress(BlockingIOError):
                    if not self._sock.recv(READ):
                        return
                await trio.lowlevel.wait_readable(self._sock)

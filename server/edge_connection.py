"""The socket side of client connections: accepting, deadlines, noticing who is gone, and closing so that the last answer arrives.

hypercorn's HTTP/1.1 and ASGI parts on a connection of our own (edge_protocol.py says why). What differs from hypercorn's TCPServer:

* One task reads as long as the connection lives, whatever h11 thinks of it. A client that sends bytes ahead and leaves is noticed.
* A deadline is a number on the scope around the read, not a task of its own: until a head is whole, and while idle.
* A write can be cancelled. The connection is unusable then and is closed; nothing waits for a client that does not read.
* An application that reads no more blocks nobody: its inbox breaks when it ends, and ends when the client left.
* After a refusal the rest is read and dropped for a moment; closing with unread bytes would send a RST, which can overtake the answer.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import struct
import sys
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from .acceptor import TOO_MANY, Acceptor, Doorkeeper
from .edge_protocol import EdgeProtocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from .asgi import AsgiApp
    from .edge_guard import Refusal
    from .settings import EdgeSettings

_log: Final = logging.getLogger("evenflow.edge")

#: Descriptors of one listening socket that are accepted on. trio accepts one connection per listener and pass of its loop; with
#: several a thousand clients that come at once do not wait a thousand passes.
MOST_ACCEPTORS: Final = 16
_READ: Final = 65_536
#: Bytes of further requests that are taken while one is being answered, a bound on memory. Clients of LLMs send none.
_AHEAD: Final = 1024 * 1024
#: Seconds for which a client that was refused may go on sending before its connection is closed; nginx's lingering_timeout is 5.
_LINGER: Final = 2.0
#: SO_LINGER (on, 0 s): a close drops what was not sent.
_RESET: Final = struct.pack("ii", 1, 0)


class Connection:
    """One client connection.

    Args:
      stream: the accepted socket; whoever calls `run` closes it afterwards.
      refused: told of every request that was refused before the application saw it.
    """

    def __init__(
        self,
        stream: trio.SocketStream,
        app: AsgiApp,
        config: Config,
        context: WorkerContext,
        limits: EdgeSettings,
        refused: Callable[[Refusal], None],
    ) -> None:
        self._stream = stream
        self._app = app
        self._config = config
        self._context = context
        self._limits = limits
        self._refused = refused
        self._protocol: EdgeProtocol
        self._reading = trio.CancelScope()  # cancelled: the connection ends
        self._waiting = trio.CancelScope()  # cancelled: bytes that came ahead have their turn now
        self._deadline = trio.current_time() + limits.header_timeout  # inf while a request is being answered
        self._idle = False  # nothing of the next request has come
        self._peer_done = False
        self._writing = trio.Lock()

    def stop(self) -> None:
        """End the connection unless a request is being answered."""
        if self._deadline < math.inf:
            self._reading.cancel()

    async def run(self) -> None:
        """Serve until either side ends the connection and no application runs any more."""
        sock = self._stream.socket
        try:
            client, server = parse_socket_addr(sock.family, sock.getpeername()), parse_socket_addr(sock.family, sock.getsockname())
        except OSError:
            return  # left before it was welcomed
        async with trio.open_nursery() as nursery:
            self._protocol = EdgeProtocol(
                self._app,  # type: ignore[arg-type]  # hypercorn's AppWrapper takes two more; only our own _Applications calls it
                self._config,
                self._context,
                _Applications(nursery),
                ConnectionState({}),
                client,
                server,
                self._send,
                self._limits,
                self._refused,
            )
            with self._reading:
                await self._read()
            await self._protocol.handle(Closed())
            if not self._peer_done and self._protocol.is_client_sending:
                await self._linger()

    async def _read(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._deadline) as self._waiting:
                data = await self._receive()
            if self._waiting.cancelled_caught:
                if trio.current_time() >= self._deadline:
                    if self._protocol.unread:
                        await self._protocol.refuse_slow()
                    return
                self._expect_head()
                await self._protocol.resume()
                continue
            if not data:
                self._peer_done = True
            elif self._idle:
                self._expect_head()
            await self._protocol.handle(RawData(data))
            if self._peer_done:
                return

    def _expect_head(self) -> None:
        self._idle = False
        self._deadline = trio.current_time() + self._limits.header_timeout

    async def _receive(self) -> bytes:
        """The next bytes, b"" if the client is gone or counts as gone."""
        if self._protocol.is_waiting_for_us and self._protocol.unread > _AHEAD:
            # Whoever stops reading instead does not see the FIN behind what is unread, and a silent upstream would never be let go.
            _log.info("a connection was closed: its client sent more than %d bytes ahead of their turn", _AHEAD)
            return b""
        try:
            return bytes(await self._stream.receive_some(_READ))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def _send(self, event: Event) -> None:
        match event:
            case RawData(data=data):
                await self._write(data)
            case Updated(idle=idle):
                self._idle = idle
                self._deadline = trio.current_time() + self._limits.keepalive_timeout if idle else math.inf
                self._waiting.deadline = self._deadline
                if idle and self._protocol.unread:
                    self._waiting.cancel()
            case Closed():
                self._reading.cancel()

    async def _write(self, data: bytes) -> None:
        written = False
        try:
            async with self._writing:
                await self._stream.send_all(data)
            written = True
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # as ASGI has it: what is sent to a client that left is lost without a word
        finally:
            if not written:
                # Cancelled or broken, perhaps in the middle of a message: nothing that we could still say would be understood. By a RST,
                # since otherwise the kernel goes on offering what it has, megabytes, to a client that does not read.
                with contextlib.suppress(OSError):
                    self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._stream.socket.close()
                self._reading.cancel()

    async def _linger(self) -> None:
        """Say that no more will come, and let the client finish."""
        with trio.move_on_after(_LINGER):
            try:
                self._stream.socket.shutdown(socket.SHUT_WR)
                while await self._stream.receive_some(_READ):
                    pass
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # gone, or closed by a write that was cancelled


class _Applications(TaskGroup):
    """Runs the application of each request, and hands it its messages."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__()
        self._running = nursery

    async def spawn_app(
        self, app: Any, config: Config, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        inbox_in, inbox_out = trio.open_memory_channel[Any](config.max_app_queue_size)
        self._running.start_soon(_run_application, app, scope, inbox_out, send)
        return partial(_put, inbox_in)


async def _put(inbox: trio.MemorySendChannel[Any], message: Any) -> None:
    """Hand over a message.

    `http.disconnect` does so without a checkpoint. It is the application's own last send that says it, and one that answers by
    cancelling itself (quart-trio does) must not stop that send halfway: the connection would be neither used again nor closed.
    """
    if message["type"] == "http.disconnect":
        inbox.close()
        return
    try:
        try:
            # Without a checkpoint: what came in one read is read to its end before the application may answer.
            inbox.send_nowait(message)
        except trio.WouldBlock:
            await inbox.send(message)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # nobody reads it any more


async def _run_application(app: AsgiApp, scope: Any, inbox: trio.MemoryReceiveChannel[Any], send: Callable[[Any], Awaitable[None]]) -> None:
    async def receive() -> Any:
        try:
            return await inbox.receive()
        except trio.EndOfChannel:
            return {"type": "http.disconnect"}

    with inbox:
        try:
            await app(scope, receive, send)
        except* Exception:  # a defect in one request is the end of that request alone
            _log.exception("a request failed")
    await send(None)  # hypercorn's sign for: nothing more will come


@asynccontextmanager
async def open_edge(
    app: AsgiApp,
    listener: socket.socket,
    limits: EdgeSettings,
    *,
    grace: float,
    patience: Callable[[], float] = lambda: 0.0,
    last_words: Callable[[], None] = lambda: None,
    acceptors: int = MOST_ACCEPTORS,
    most: float = math.inf,
    refused: Callable[[Refusal], None] = lambda _: None,
) -> AsyncIterator[None]:
    """Serve an application on a listening socket; on leaving, accept no more and close what is idle.

    Args:
      listener: is closed at the end.
      patience: asked on leaving: seconds that what runs may take to end.
      last_words: called when they have passed and something still runs; it has `grace` seconds more then.
      acceptors: descriptors that are accepted on.
      most: connections at once; further ones are turned away with a 503.
      refused: told of every request that was refused before the application saw it.
    """
    config, context = _config(limits), WorkerContext(None)
    connections: set[Connection] = set()
    all_ended = trio.Event()  # when set, the process was about to end already
    leaving = False

    async def serve(stream: trio.SocketStream) -> None:
        if len(connections) >= most:
            await doorkeeper.turn_away(stream, f"{len(connections)} connections are served, and open files are limited")
            return
        connection = Connection(stream, app, config, context, limits, refused)
        connections.add(connection)
        try:
            await connection.run()
        except* Exception:
            _log.exception("a connection failed")
        finally:
            connections.discard(connection)
            if leaving and not connections:
                all_ended.set()

    duplicates = [socket.socket(fileno=os.dup(listener.fileno())) for _ in range(acceptors - 1)]
    plain = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in (listener, *duplicates)]
    doorkeeper = Doorkeeper(listener, lambda: refused(TOO_MANY))
    listeners = [Acceptor(one, doorkeeper) for one in plain]
    async with trio.open_nursery() as running:
        with closing(doorkeeper):
            async with trio.open_nursery() as accepting:
                await accepting.start(partial(trio.serve_listeners, serve, listeners, handler_nursery=running))
                yield
                accepting.cancel_scope.cancel()
        await context.terminated.set()
        leaving = True
        for connection in connections:
            connection.stop()
        if connections:
            with trio.move_on_after(patience()):
                await all_ended.wait()
            if not all_ended.is_set():
                last_words()
        running.cancel_scope.deadline = trio.current_time() + grace


def _config(limits: EdgeSettings) -> Config:
    config = Config()
    config.h11_max_incomplete_size = limits.max_header_bytes
    config.keep_alive_max_requests = sys.maxsize  # nothing of a connection wears out
    config.include_server_header = False
    config.errorlog = _log
    config.accesslog = None
    return config

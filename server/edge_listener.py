"""The edge of one listening socket: who is let in, how many, and how it ends.

Owns the set of connections and the order of the end: nobody new, then what is idle, then what has had its time. What is said on a
connection is edge_connection.py's affair; who finds no place is answered by acceptor.py.
"""

from __future__ import annotations

import logging
import math
import sys
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any, Final

import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import parse_socket_addr

from .acceptor import TOO_MANY, Doorkeeper, accept, accept_waiting
from .edge_connection import Connection
from .edge_patience import open_patience
from .edge_socket import Serving

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable

    from .asgi import AsgiApp
    from .edge_guard import Refusal
    from .settings import EdgeSettings

    Accept = Callable[[socket.socket, Doorkeeper, Callable[[socket.socket, Any], None]], Awaitable[None]]

_log: Final = logging.getLogger("evenflow.edge")


@asynccontextmanager
async def open_edge(
    app: AsgiApp,
    listener: socket.socket,
    limits: EdgeSettings,
    *,
    grace: float,
    patience: Callable[[], float] = lambda: 0.0,
    last_words: Callable[[], None] = lambda: None,
    most: float = math.inf,
    refused: Callable[[Refusal], None] = lambda _: None,
    plain: bool = True,
    let_in: Accept = accept,
) -> AsyncIterator[None]:
    """Serve an application on a listening socket; on leaving, accept only who waits already, and close what is idle.

    Args:
      listener: is closed at the end.
      patience: asked on leaving: seconds that what runs may take to end.
      last_words: called when they have passed and something still runs; it has `grace` seconds more then.
      most: connections at once; further ones are turned away with a 503.
      refused: told of every request that was refused before the application saw it.
      plain: see `Serving`.
      let_in: accepts, for ever.
    """
    context = WorkerContext(None)
    connections: set[Connection] = set()
    all_ended = trio.Event()  # when set, the process was about to end already
    leaving = False
    family = listener.family

    def welcome(sock: socket.socket, peer: Any) -> None:
        if len(connections) >= most:
            doorkeeper.turn_away(sock, f"{len(connections)} connections are served, and open files are limited", running)
            return
        start(Connection(sock, parse_socket_addr(family, peer), serving))

    def start(connection: Connection) -> None:
        connections.add(connection)
        running.start_soon(serve, connection)

    async def serve(connection: Connection) -> None:
        try:
            await connection.run()
        except* Exception:
            _log.exception("a connection failed")
        finally:
            connections.discard(connection)
            if leaving and not connections:
                all_ended.set()

    doorkeeper = Doorkeeper(listener, lambda: refused(TOO_MANY))
    async with open_patience(limits.header_timeout, limits.keepalive_timeout) as (before, between), trio.open_nursery() as running:
        serving = Serving(app, _config(limits), context, limits, start, refused, before, between, plain)
        with closing(listener), closing(doorkeeper):
            async with trio.open_nursery() as accepting:
                accepting.start_soon(let_in, listener, doorkeeper, welcome)
                yield
                served = frozenset(connections)
                # Their handshake is done, so their clients take them for accepted; to close over them would be a reset.
                for sock, peer in accept_waiting(listener):
                    welcome(sock, peer)
                accepting.cancel_scope.cancel()
        serving.stopping = True
        await context.terminated.set()
        leaving = True
        for connection in connections & served:
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

"""Accepting when there is nothing to accept with: the process has no descriptor left, or as many connections as it can serve.

Whoever is turned away gets a 503 with Retry-After, which every OpenAI client takes for "try again", instead of a connection that never
answers (FAULTS row 56). One descriptor is kept in reserve for that: it is closed, what waits in the kernel's queue is accepted with the
place it leaves, answered and closed, and the reserve taken again.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import logging
import os
import socket
from typing import TYPE_CHECKING, Any, Final, NoReturn

import trio

from actors import error_json
from actors.pump import pump

from .edge_guard import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

_log: Final = logging.getLogger("evenflow.edge")

#: No descriptor for this process, none in the system, no memory for a socket.
_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: What is listened on was closed, or is no socket.
_NO_LISTENER: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP})
#: Accepted in one pass of the event loop.
_IN_ONE_PASS: Final = 16
#: Turned away in one go; after that the connections that are served have their turn.
_AT_ONCE: Final = 64
#: Seconds until the next try after a shortage; a connection that ends meanwhile makes room.
_PAUSE: Final = 0.1
#: Seconds between two lines of the log about it.
_QUIET: Final = 10.0
#: Seconds for which a client that is turned away may still send its request, and what is read of it at once.
_LISTENS: Final = 1.0
_READ: Final = 65_536
#: So many get that second at once; they hold descriptors, which are short. The others are answered on the spot.
_PARTING: Final = 8

#: What those who are turned away are told.
TOO_MANY: Final = Refusal(503, "too_many_connections", "evenflow has as many connections as it can serve; try again in a moment")
_BODY: Final = error_json(TOO_MANY.message, "server_error", TOO_MANY.code)
_ANSWER: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n" % len(_BODY) + _BODY
)


class Doorkeeper:
    """Turns away whoever finds no place on one listening socket.

    Args:
      listener: non-blocking.
      turned_away: called for each.
    """

    def __init__(self, listener: socket.socket, turned_away: Callable[[], None]) -> None:
        self._listener = listener
        self._turned_away = turned_away
        self._reserve: int | None = None
        self._told_at = -_QUIET
        self._untold = 0
        self._parting = 0  # turned away, and their connection is not closed yet
        self._take_reserve()

    def close(self) -> None:
        """Give the reserve back."""
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    def note(self, what: str) -> None:
        """Write to the log that somebody was turned away, at most every few seconds."""
        self._turned_away()
        now = trio.current_time()
        if now - self._told_at < _QUIET:
            self._untold += 1
            return
        _log.warning("clients are turned away with 503: %s (%d since the last such line)", what, self._untold + 1)
        self._told_at, self._untold = now, 0

    def turn_away_if_short(self, exc: OSError) -> None:
        """Turn away who waits, if accepting failed for want of something of ours."""
        if exc.errno in _SHORTAGES:
            self.turn_away_waiting(os.strerror(exc.errno))

    def turn_away_waiting(self, what: str) -> None:
        """Accept, answer and close what waits, with the reserve's descriptor."""
        if self._reserve is None:
            self._take_reserve()  # somebody else took the place the last time
        self.close()
        try:
            for _ in range(_AT_ONCE):
                try:
                    sock, _ = self._listener.accept()
                except OSError:  # nobody waits, or the place is taken already
                    return
                with sock:
                    self.note(what)
                    _answer(sock)
        finally:
            self._take_reserve()

    def turn_away(self, sock: socket.socket, what: str, nursery: trio.Nursery) -> None:
        """Answer a connection that was accepted and cannot be served, and close it.

        Args:
          nursery: for the task that lets its client finish first, if there are not too many of those: until a task has its turn its
            connection holds a descriptor, and a crowd of them takes those that streams need for their upstreams.
        """
        self.note(what)
        if self._parting < _PARTING:
            self._parting += 1
            nursery.start_soon(self._part, sock)
            return
        with sock:
            _answer(sock)

    async def _part(self, sock: socket.socket) -> None:
        try:
            async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
                with trio.move_on_after(_LISTENS):
                    await stream.receive_some(_READ)
                    await stream.send_all(_ANSWER)
                    await stream.send_eof()
                    while await stream.receive_some(_READ):
                        pass
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # left by itself
        finally:
            self._parting -= 1

    def _take_reserve(self) -> None:
        try:
            self._reserve = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            self._reserve = None


async def accept(listener: socket.socket, doorkeeper: Doorkeeper, welcome: Callable[[socket.socket, Any], None]) -> NoReturn:
    """Accept for ever, a few at a time, so that those who are in are not kept waiting by a crowd at the door.

    Args:
      listener: closed by whoever cancels this.
      welcome: gets each connection, non-blocking, and its client's address.

    Raises:
      OSError: the listener is none any more.
    """
    listener.setblocking(False)

    def take() -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(_IN_ONE_PASS):
                sock, peer = listener.accept()
                sock.setblocking(False)
                welcome(sock, peer)

    while True:
        try:
            await _each_time_somebody_waits(listener, take)
        except OSError as exc:
            if exc.errno in _NO_LISTENER:
                raise
            doorkeeper.turn_away_if_short(exc)
            # All else is the fault of one connection, which ended before it was accepted.
            await trio.sleep(_PAUSE)


async def _each_time_somebody_waits(listener: socket.socket, take: Callable[[], None]) -> NoReturn:
    """Have this called until it raises something; by the pump, if there is one: whoever is let in has its turn at once then."""
    try:
        found = pump()
    except OSError:  # no descriptor is left for it
        found = None
    if found is None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            take()
    task, context = trio.lowlevel.current_task(), contextvars.copy_context()
    fd, watching = listener.fileno(), found
    failure: Exception = AssertionError("nobody was let in, and nobody knows why")

    def readable() -> None:
        nonlocal failure
        try:
            context.run(take)  # the tasks that it starts get the context that they would have from us
        except Exception as exc:
            failure = exc
            watching.remove(fd)
            trio.lowlevel.reschedule(task)

    def abort(_: object) -> trio.lowlevel.Abort:
        watching.remove(fd)
        return trio.lowlevel.Abort.SUCCEEDED

    found.add(fd, readable)
    await trio.lowlevel.wait_task_rescheduled(abort)
    raise failure


def accept_waiting(listener: socket.socket) -> list[tuple[socket.socket, Any]]:
    """Those who wait now, without waiting for more."""
    taken: list[tuple[socket.socket, Any]] = []
    listener.setblocking(False)
    with contextlib.suppress(OSError):  # nobody waits any more, or there is nothing to accept with
        while True:
            sock, peer = listener.accept()
            sock.setblocking(False)
            taken.append((sock, peer))
    return taken


def _answer(sock: socket.socket) -> None:
    """Without waiting for anything. The request is read first, as far as it is there: closing over unread bytes would reset."""
    sock.setblocking(False)
    with contextlib.suppress(OSError):  # it has not come yet
        sock.recv(_READ)
    with contextlib.suppress(OSError):  # left by itself
        sock.send(_ANSWER)
        sock.shutdown(socket.SHUT_WR)

"""The door of the admin listener: a thread that lets connections in and answers `GET /healthz` itself, whatever the event loop does.

A loop with thousands of streams needs seconds for a few passes, and a probe that goes through it kills a process that only works hard.
So the thread accepts, looks at the first bytes of each connection without taking them, and answers a plain `GET /healthz`. Every other
connection is handed to the event loop as it came. What the thread knows is one number: how long ago the loop turned last. Beyond a limit
the loop is not busy but stuck, and the answer is 503.

So a 200 proves that the process runs and that its loop has turned within the limit. It does not prove that a request is answered soon:
for that ask `/healthz` of the main listener, which goes the way of every request.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import threading
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import trio

from actors import error_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from .acceptor import Doorkeeper

#: Seconds without a turn of the loop beyond which it counts as stuck. Two thousand streams on one slow processor need three for a pass.
STUCK: Final = 10.0
#: Seconds for which a connection may say nothing before it is handed on: the event loop has deadlines for those.
_SILENCE: Final = 1.0
#: Connections that are looked at in one moment; further ones are handed on unseen.
_MOST: Final = 64
#: Of the first bytes so many are looked at; a probe's request is a tenth of that.
_LOOK: Final = 4096
#: Seconds until the next try when there is nothing to accept with.
_PAUSE: Final = 0.1
#: Seconds that the thread gets to end; it needs none, but for the interpreter.
_LAST: Final = 1.0

_PROBE: Final = re.compile(rb"GET /healthz HTTP/1\.([01])\r\n((?:[-!#$%&'*+.^_`|~0-9A-Za-z]+: ?[ -~]*\r\n)*)\r\n")
#: A request with one of these is left to whoever knows what they mean.
_NOT_PLAIN: Final = re.compile(rb"^(?:content-length|transfer-encoding|expect|upgrade):", re.IGNORECASE | re.MULTILINE)
_HOST: Final = re.compile(rb"^host:", re.IGNORECASE | re.MULTILINE)
_CLOSE: Final = re.compile(rb"^connection: ?close\r$", re.IGNORECASE | re.MULTILINE)
_HEALTHY: Final = b'{\n  "status": "ok"\n}\n'


class _Waiting(NamedTuple):
    """A connection that has said nothing of note yet."""

    sock: socket.socket
    peer: Any
    until: float


class HealthDoor:
    """Lets connections in; `accept` stands where acceptor.py's does.

    Args:
      since_turn: seconds since the event loop turned last. Called by the thread.
    """

    def __init__(self, since_turn: Callable[[], float]) -> None:
        self._since_turn = since_turn

    async def accept(self, listener: socket.socket, doorkeeper: Doorkeeper, welcome: Callable[[socket.socket, Any], None]) -> NoReturn:
        """Let connections in until cancelled.

        Args:
          listener: closed by whoever cancels this.
          welcome: gets, in the event loop, each connection that is no probe's, non-blocking, and its client's address.
        """
        listener.setblocking(False)
        token = trio.lowlevel.current_trio_token()
        over = False

        def hand_on(sock: socket.socket, peer: Any) -> None:
            if over:
                sock.close()
            else:
                welcome(sock, peer)

        alarm, bell = socket.socketpair()
        with alarm:
            stand = _Stand(self._since_turn, listener, bell, token, hand_on, doorkeeper)
            thread = threading.Thread(target=stand.run, name="evenflow-health", daemon=True)
            thread.start()
            try:
                await trio.sleep_forever()
            finally:
                over = True
                alarm.close()
                thread.join(_LAST)


class _Stand:
    """The thread's side."""

    def __init__(
        self,
        since_turn: Callable[[], float],
        listener: socket.socket,
        bell: socket.socket,
        token: trio.lowlevel.TrioToken,
        hand_on: Callable[[socket.socket, Any], None],
        doorkeeper: Doorkeeper,
    ) -> None:
        self._since_turn = since_turn
        self._listener = listener
        self._bell = bell
        self._token = token
        self._hand_on = hand_on
        self._doorkeeper = doorkeeper
        self._waiting: dict[int, _Waiting] = {}
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Until the bell rings, which it does by being hung up."""
        selector = self._selector
        with selector, self._bell, contextlib.suppress(trio.RunFinishedError):
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._bell, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select(_SILENCE if self._waiting else None)}
                if self._bell.fileno() in ready:
                    break
                if self._listener.fileno() in ready:
                    ready.discard(self._listener.fileno())
                    self._let_in()
                for descriptor in ready:
                    self._look_at(descriptor)
                now = time.monotonic()
                for descriptor in [fd for fd, waiting in self._waiting.items() if waiting.until < now]:
                    self._pass_on(descriptor)
        for waiting in self._waiting.values():
            waiting.sock.close()

    def _let_in(self) -> None:
        try:
            sock, peer = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as exc:  # nothing to accept with, or one that left again
            self._token.run_sync_soon(self._doorkeeper.turn_away_if_short, exc)
            time.sleep(_PAUSE)
            return
        sock.setblocking(False)
        self._waiting[sock.fileno()] = _Waiting(sock, peer, time.monotonic() + _SILENCE)
        self._selector.register(sock, selectors.EVENT_READ)
        if len(self._waiting) > _MOST:
            self._pass_on(sock.fileno())

    def _look_at(self, descriptor: int) -> None:
        sock, peer, _ = self._waiting[descriptor]
        try:
            seen = sock.recv(_LOOK, socket.MSG_PEEK)
            probe = _PROBE.fullmatch(seen)
            if probe is None or _NOT_PLAIN.search(probe[2]) or (probe[1] == b"1" and not _HOST.search(probe[2])):
                self._pass_on(descriptor)
                return
            sock.recv(len(seen))
            last = probe[1] == b"0" or _CLOSE.search(probe[2]) is not None
            sock.send(_answer(self._since_turn(), last=last))
            if last:
                self._forget(descriptor).sock.close()
            else:
                self._waiting[descriptor] = _Waiting(sock, peer, time.monotonic() + _SILENCE)
        except OSError:  # left by itself
            self._forget(descriptor).sock.close()

    def _pass_on(self, descriptor: int) -> None:
        waiting = self._forget(descriptor)
        self._token.run_sync_soon(self._hand_on, waiting.sock, waiting.peer)

    def _forget(self, descriptor: int) -> _Waiting:
        waiting = self._waiting.pop(descriptor)
        self._selector.unregister(waiting.sock)
        return waiting


def _answer(since_turn: float, *, last: bool) -> bytes:
    status, body = b"200 OK", _HEALTHY
    if since_turn >= STUCK:
        told = f"the event loop has not turned for {since_turn:.0f} s"
        status, body = b"503 Service Unavailable", error_json(told, "server_error", "loop_stuck") + b"\n"
    return (
        b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\ncache-control: no-store\r\n"
        b"x-content-type-options: nosniff\r\ndate: %b\r\nconnection: %b\r\n\r\n%b"
        % (status, len(body), formatdate(usegmt=True).encode(), b"close" if last else b"keep-alive", body)
    )

"""The simulator's sockets: HTTP/1.1 connections whose requests are parsed by h11 and whose answers are played byte by byte.

Theory of operation
-------------------
One task per connection reads requests and plays their answers in turn. While an answer is played, a second task waits for the
socket to become readable, so that a peer which leaves is noticed at once, also when there is nothing to send; what it reads of a
pipelined next request is kept. A FIN counts as leaving, half-closed or not: that is how the servers in front of LLMs take it.

Plain non-blocking sockets rather than trio streams: a ready-made event then costs one system call, a thousand streams share a
process with the thing they test, and RST, FIN and silence are ours to give.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

import h11
import trio

from .endpoints import Reply, Request
from .observer import Ending, moment
from .rejections import error_body, rejection
from .wire import Hangup, Reset, Send, Silence, whole

if TYPE_CHECKING:
    from .observer import Observer, Seen
    from .wire import Answer

_BODY_LIMIT: Final = 128 * 1024 * 1024  # four times the proxy's default limit, so that it is never the simulator that says 413
_HEAD_LIMIT: Final = 256 * 1024
_PIPELINED_LIMIT: Final = 1024 * 1024
_READ: Final = 65_536
_CHECKPOINT_EVERY: Final = 16
"""Sends without a wait between them before other tasks get their turn: about a millisecond."""
_BACKLOG: Final = 4096


class Responder(Protocol):
    """Who decides what a request gets."""

    def respond(self, request: Request) -> tuple[Reply, bool]:
        """The reply, and whether the observer shall record it."""


class _PeerGone(Exception):
    """The peer closed or reset the connection, or what it sent is no HTTP that could be answered."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
      OSError: the address is in use or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    listener.setblocking(False)
    return listener


async def accept_connections(listener: socket.socket, responder: Responder, observer: Observer) -> None:
    """Serve every connection that comes, until cancelled."""
    number = 0
    async with trio.open_nursery() as nursery:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            except OSError as exc:
                if exc.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                await trio.sleep(0.1)  # out of descriptors: those who are served will give theirs back
                continue
            number += 1
            nursery.start_soon(_serve_connection, sock, number, responder, observer)


async def _serve_connection(sock: socket.socket, number: int, responder: Responder, observer: Observer) -> None:
    observer.connected(1)
    try:
        with sock:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await _Connection(sock, number, responder, observer).serve()
    except (_PeerGone, OSError):  # OSError: setting an option on a socket whose peer is gone, where the kernel minds
        return
    finally:
        observer.connected(-1)


class _Connection:
    """One connection: requests in, answers out, one after the other."""

    def __init__(self, sock: socket.socket, number: int, responder: Responder, observer: Observer) -> None:
        self._sock = sock
        self._number = number
        self._responder = responder
        self._observer = observer
        self._inbox = bytearray()  # read but not yet parsed

    async def serve(self) -> None:
        while True:
            request, at, close = await self._read_request()
            reply, recorded = self._responder.respond(request)
            answer = reply.answer
            if recorded:
                seen = self._observer.arrived(
                    self._number,
                    request.method,
                    request.path,
                    request.headers,
                    request.body,
                    at,
                    model=reply.model,
                    answer=reply.answered_by,
                    target=request.target,
                )
                try:
                    kept = await self._play_watched(answer, seen)
                finally:
                    self._observer.ended(seen, Ending.SHUTDOWN)  # has an effect only if nothing else ended it
            else:
                kept = await self._play(answer, None)
            if not kept or close or not await self._outlives_idleness(answer):
                return

    # ---- answers ----

    async def _play_watched(self, answer: Answer, seen: Seen) -> bool:
        """Play `answer` until its end or until the peer leaves. Returns whether the connection is still good."""
        kept = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_peer, seen, nursery.cancel_scope)
            try:
                kept = await self._play(answer, seen)
            except _PeerGone:
                self._observer.ended(seen, Ending.CLIENT_CLOSED)
            else:
                self._observer.ended(seen, Ending.COMPLETED if kept else Ending.ABORTED_BY_FAULT)
            nursery.cancel_scope.cancel()
        return kept and seen.ending is Ending.COMPLETED

    async def _watch_peer(self, seen: Seen, scope: trio.CancelScope) -> None:
        """End the answer the moment the peer leaves."""
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                data = self._sock.recv(_READ)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data or len(self._inbox) > _PIPELINED_LIMIT:
                self._observer.ended(seen, Ending.CLIENT_CLOSED)
                scope.cancel()
                return
            self._inbox += data

    async def _play(self, answer: Answer, seen: Seen | None) -> bool:
        """Put an answer's steps on the wire. Returns False if the answer itself broke the connection.

        Raises:
          _PeerGone: it cannot be written to any more.
        """
        unyielded = 0
        for step in answer.steps:
            match step:
                case Send(data, wait, events):
                    if wait > 0:
                        await trio.sleep(wait)
                        unyielded = 0
                    if data:
                        unyielded += 1
                        if unyielded >= _CHECKPOINT_EVERY:
                            await trio.lowlevel.checkpoint()
                            unyielded = 0
                        await self._send(data)
                        if seen is not None:
                            self._observer.wrote(seen, events)
                case Silence():
                    await trio.sleep_forever()
                case Reset():
                    self._reset()
                    return False
                case Hangup():
                    return False
        return True

    async def _send(self, data: bytes) -> None:
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            raise _PeerGone from exc
        if sent < len(data):
            rest = memoryview(data)[sent:]
            while rest:
                await trio.lowlevel.wait_writable(self._sock)
                try:
                    rest = rest[self._sock.send(rest) :]
                except BlockingIOError:
                    continue
                except OSError as exc:
                    raise _PeerGone from exc

    def _reset(self) -> None:
        # Lingering for zero seconds makes close() send a RST and throw away what was not sent.
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _outlives_idleness(self, answer: Answer) -> bool:
        """What an answer wants to happen to its connection afterwards. Returns whether another request may come."""
        if answer.drop_next:
            if not self._inbox:
                await trio.lowlevel.wait_readable(self._sock)
            self._reset()
            return False
        if answer.close_after is None or self._inbox:
            return True
        with trio.move_on_after(answer.close_after):
            await trio.lowlevel.wait_readable(self._sock)
            return True
        return False

    # ---- requests ----

    async def _read_request(self) -> tuple[Request, tuple[float, int], bool]:
        """The next request, when its head was here, and whether the connection ends with it.

        Raises:
          _PeerGone: there is none.
        """
        # A parser per request: h11 would count our answers too, and ours are not always HTTP.
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_LIMIT)
        if self._inbox:
            parser.receive_data(bytes(self._inbox))
            self._inbox.clear()
        head: h11.Request | None = None
        headers: dict[str, str] = {}
        at = (0.0, 0)
        body = bytearray()
        while True:
            try:
                event = parser.next_event()
            except h11.RemoteProtocolError as exc:
                message = f"no HTTP/1.1 the simulator could read: {exc}"
                await self._refuse(whole(exc.error_status_hint, error_body(message, "invalid_request_error", "bad_http"), close=True))
            match event:
                case h11.NEED_DATA:
                    if head is not None and parser.they_are_waiting_for_100_continue:
                        await self._send(parser.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                    parser.receive_data(await self._receive())
                case h11.Request():
                    at = moment()
                    head = event
                    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
                    if early := headers.get("x-simulator-early-status"):
                        await self._refuse(rejection(int(early) if early.isdecimal() and len(early) == 3 else 500))
                    if event.http_version != b"1.1":
                        message = "the simulator speaks HTTP/1.1 only"
                        await self._refuse(whole(505, error_body(message, "invalid_request_error", "bad_http"), close=True))
                case h11.Data():
                    body += event.data
                    if len(body) > _BODY_LIMIT:
                        await self._refuse(rejection(413))
                case h11.EndOfMessage():
                    break
                case _:  # ConnectionClosed; PAUSED cannot be before the message's end
                    raise _PeerGone
        assert head is not None
        self._inbox += parser.trailing_data[0]
        close = "close" in headers.get("connection", "").lower()
        return Request(head.method.decode(), head.target.decode("latin-1"), headers, bytes(body)), at, close

    async def _receive(self) -> bytes:
        """Bytes from the peer, b"" at its FIN."""
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                return self._sock.recv(_READ)
            except BlockingIOError:
                continue
            except OSError as exc:
                raise _PeerGone from exc

    async def _refuse(self, answer: Answer) -> NoReturn:
        """Answer before the request is over, and end the connection.

        What the peer is still sending is read and dropped for a second: closing with unread bytes would send a RST, which may
        overtake the answer.

        Raises:
          _PeerGone: always, when it is done.
        """
        await self._play(answer, None)
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            raise _PeerGone from exc
        with trio.move_on_after(1.0):
            while await self._receive():
                pass
        raise _PeerGone

"""Dialing: from the name of an upstream to a connection.

Owns the addresses of one origin (resolved, believed for a while, the one that worked first), the race between them, and the TLS
handshake. How long all that may take is the caller's scope.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from .connection import Connection, TlsConnection
from .errors import OutOfDescriptors, UpstreamConnectError, UpstreamDnsError, UpstreamTlsError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A resolved name is believed for so many seconds, so that a change of the DNS is followed soon (FAULTS row 77). Guessed.
ADDRESS_LIFETIME: Final = 10.0
#: Seconds until the next address is tried beside the one before (RFC 8305, 5).
ATTEMPT_DELAY: Final = 0.25

#: Family, and the address as `socket.connect` takes it.
Address: TypeAlias = "tuple[socket.AddressFamily, tuple[str | int | bytes, ...]]"


class _Question:
    """What those who wait for one answer of the resolver share."""

    __slots__ = ("failure", "settled")

    def __init__(self) -> None:
        self.settled = trio.Event()
        self.failure = ""


class Dialer:
    """Opens connections to one host and port.

    Args:
      host: a name in ASCII or an address without brackets.
      tls: makes it TLS; the context's ALPN is set by whoever made it.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._addresses: list[Address] = []
        self._believed_until = -float("inf")
        self._question: _Question | None = None  # that somebody has asked of the resolver

    async def dial(self) -> Connection:
        """Open a connection, TLS included.

        Raises:
          UpstreamConnectError: or one of its subclasses; of several addresses, what the last one said.

        Cancellation: at any point; nothing stays open.
        """
        sock = await self._connect(await self._resolve())
        if self._tls is None:
            return Connection(sock)
        try:
            return await self._secure(sock, self._tls)
        except BaseException:
            sock.close()
            raise

    async def _resolve(self) -> list[Address]:
        # A thousand streams that start at once ask once, and all go on when the answer is there. With a lock, which passes from one to the
        # next, the last one went on after a thousand passes of the event loop: too late for its connect timer.
        while trio.current_time() >= self._believed_until:
            if (question := self._question) is not None:
                await question.settled.wait()
                if question.failure:
                    raise UpstreamDnsError(question.failure)
                continue  # if whoever asked was cancelled, somebody else asks
            self._question = question = _Question()
            try:
                self._addresses = await self._ask()
                self._believed_until = trio.current_time() + ADDRESS_LIFETIME
            except UpstreamDnsError as error:
                question.failure = str(error)
                raise
            finally:
                self._question = None
                question.settled.set()
        return self._addresses

    async def _ask(self) -> list[Address]:
        try:
            answers = await trio.socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except socket.gaierror as exc:
            raise UpstreamDnsError(f"the host name does not resolve ({exc.strerror})") from exc
        except UnicodeError as exc:
            raise UpstreamDnsError("the host name does not resolve (it is none)") from exc
        addresses: list[Address] = list(dict.fromkeys((family, address) for family, _, _, _, address in answers))
        # The second one is of the other family, if there is one: broken IPv6 is the usual reason why the first does not answer.
        other = next((i for i, (family, _) in enumerate(addresses) if family != addresses[0][0]), 0)
        if other > 1:
            addresses.insert(1, addresses.pop(other))
        return addresses

    async def _connect(self, addresses: Sequence[Address]) -> socket.socket:
        connected = False
        try:
            sock, address = await race(addresses)
            connected = True
        except OSError as exc:
            reason = os.strerror(exc.errno) if exc.errno else str(exc)
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                raise OutOfDescriptors(f"evenflow has no file descriptor left for a connection ({reason})") from exc
            raise UpstreamConnectError(f"no connection to {self._host}:{self._port}: {reason}") from exc
        finally:
            if not connected:  # refused, or nobody answered in time: perhaps it has moved
                self._believed_until = -float("inf")
        if self._addresses and self._addresses[0] != address:
            self._addresses = [address, *(other for other in self._addresses if other != address)]
        return sock

    async def _secure(self, sock: socket.socket, context: ssl.SSLContext) -> TlsConnection:
        # https_compatible: no waiting for the peer's goodbye, and a peer that leaves without one is no error; HTTP's framing tells.
        plain = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        stream = trio.SSLStream(plain, context, server_hostname=self._host, https_compatible=True)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as exc:
            cause = exc.__cause__
            if isinstance(cause, ssl.SSLError):
                reason = getattr(cause, "verify_message", "") or cause.reason or str(cause)
            else:
                reason = "the connection broke in the handshake"
            raise UpstreamTlsError(f"TLS: {reason}") from exc
        return TlsConnection(sock, stream)


async def race(addresses: Sequence[Address]) -> tuple[socket.socket, Address]:
    """Connect to the first address that answers; they start one after the other (RFC 8305).

    Raises:
      OSError: none did; what the last one that failed said.
    """
    if len(addresses) == 1:
        return await connect(addresses[0]), addresses[0]
    winner: tuple[socket.socket, Address] | None = None
    failure = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))

    async def attempt(address: Address, failed: trio.Event) -> None:
        nonlocal winner, failure
        try:
            sock = await connect(address)
        except OSError as exc:
            failure = exc
            failed.set()
            return
        if winner is None:
            winner = (sock, address)
            nursery.cancel_scope.cancel()
        else:
            sock.close()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                with trio.move_on_after(ATTEMPT_DELAY):
                    await failed.wait()
    except BaseException:
        if winner is not None:
            winner[0].close()
        raise
    if winner is None:
        raise failure
    return winner


async def connect(address: Address) -> socket.socket:
    """A connected, non-blocking socket. By hand, for an address needs no resolver: a third of trio.open_tcp_stream (measured)."""
    family, target = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(target)
        if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            await trio.lowlevel.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock

"""One connection to an upstream: bytes in, bytes out, over TCP or TLS.

Owns the socket and what its exceptions mean; whoever holds a connection sees bytes and UpstreamErrors. It refuses to know HTTP.
Closing is synchronous and waits for nobody, so that a cancelled task can always do it.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

import trio

from .errors import UpstreamDisconnected
from .pump import pump

if TYPE_CHECKING:
    from collections.abc import Callable

    from .http2 import Http2Session
    from .pump import Pump

#: What one read takes at most.
READ_BYTES: Final = 64 * 1024


class Connection:
    """A TCP connection.

    Args:
      sock: connected and non-blocking; owned from now on.

    Cancellation: `receive()` loses nothing by it. `send()` may have sent a part; the connection is of no use then.
    """

    __slots__ = ("_filled", "_pump", "_sock", "_wake", "closed", "idle_until", "opened_at", "session")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._filled = False
        self._pump: Pump | None = None  # watches it, and goes on while nobody reads, until something comes then
        self._wake: Callable[[], None] | None = None  # ends the wait of the task that reads
        self.closed = False
        self.opened_at = trio.current_time()
        self.idle_until = 0.0  # kept by the pool
        self.session: Http2Session | None = None  # kept by who speaks HTTP/2 on it

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of it. No checkpoint if the kernel takes it at once; to receive is one.

        Raises:
          UpstreamDisconnected: the peer takes nothing more. It may have said why, which can still be received.
        """
        view = memoryview(data)
        try:
            while view:
                try:
                    view = view[self._sock.send(view) :]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._sock)
        except (OSError, trio.ClosedResourceError) as exc:
            raise self._broken(exc) from exc

    async def receive(self) -> bytes:
        """What has come, b"" when the peer has closed its side.

        Raises:
          UpstreamDisconnected: the connection broke.
        """
        # After a read that did not fill the buffer there is as a rule nothing yet: to wait first saves a vain system call.
        if self._filled:
            await trio.lowlevel.checkpoint_if_cancelled()
            if (data := self.receive_nowait()) is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()  # the others want to run; shielded, for what was read must not be lost
                return data
        while True:
            if (found := self._watched()) is not None:
                await self._wait(found, self._wake_up)
            else:
                try:
                    await trio.lowlevel.wait_readable(self._sock)
                except (OSError, trio.ClosedResourceError) as exc:
                    raise self._broken(exc) from exc
            if (data := self.receive_nowait()) is not None:
                return data

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        """Hand over what comes, one read at a time, for as long as `take` asks for more. b"" when the peer has closed its side.

        Args:
          take: called by the pump, outside any task, so that it must not wait; what it raises is raised here.

        Returns:
          False: `take` wants no more. True: this connection cannot do it; nothing was handed over, and `receive()` has to be used.

        Raises:
          UpstreamDisconnected: the connection broke, or was closed on this side.

        Cancellation: nothing is lost by it: what was read was handed over.
        """
        if (found := self._watched()) is None:
            return True
        failure: Exception | None = None

        def readable() -> None:
            nonlocal failure
            try:
                if (data := self.receive_nowait()) is None or take(data):
                    return
            except Exception as exc:  # whatever it is, it concerns this stream alone
                failure = exc
            if self._wake is not None:  # else what it took has cancelled the task, or closed the connection
                self._wake()

        await self._wait(found, readable)
        if failure is not None:
            raise failure
        return False

    def _watched(self) -> Pump | None:
        """The pump, which watches this connection from now on; None if there is none, or the system watches no more sockets."""
        if self.closed:
            raise self._broken(trio.ClosedResourceError())
        if self._pump is None:
            try:
                if (found := pump()) is not None:
                    found.add(self._sock.fileno(), self._stop_watching)
                    self._pump = found
            except OSError:  # no descriptor is left for its epoll, or no more are watched for this user; reading needs neither
                return None
        return self._pump

    def _stop_watching(self) -> None:
        """What the pump calls while nobody reads: something has come, and it would go on calling."""
        if self._pump is not None:
            self._pump.remove(self._sock.fileno())
            self._pump = None

    def _wake_up(self) -> None:
        if self._wake is not None:
            self._wake()

    async def _wait(self, found: Pump, readable: Callable[[], None]) -> None:
        """Have this called for what comes, until `_wake` is.

        Raises:
          UpstreamDisconnected: the connection was closed on this side.
        """
        fd, task = self._sock.fileno(), trio.lowlevel.current_task()

        def stop() -> None:
            self._wake = None
            if self._pump is not None:
                found.change(fd, self._stop_watching)

        def wake() -> None:
            stop()
            trio.lowlevel.reschedule(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            stop()
            return trio.lowlevel.Abort.SUCCEEDED

        found.change(fd, readable)
        self._wake = wake
        await trio.lowlevel.wait_task_rescheduled(abort)
        if self.closed:
            raise self._broken(trio.ClosedResourceError())

    def receive_nowait(self) -> bytes | None:
        """What has come, None if nothing has; raises as `receive()` does."""
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            self._filled = False
            return None
        except OSError as exc:
            raise self._broken(exc) from exc
        self._filled = len(data) == READ_BYTES
        return data

    def has_come(self) -> bool:
        """There is something to read, its end included."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def is_stale(self) -> bool:
        """While it is idle there is something to read: its end, or bytes that belong to no request. HTTP/2 has such bytes.

        The pump does not know: it last looked before the loop's present turn, and what has come since would pass for the next answer.
        """
        return self.session is None and self.has_come()

    def close(self) -> None:
        """Close it now; a task that waits for it gets UpstreamDisconnected. Idempotent."""
        if not self.closed:
            self.closed = True
            self._wake_up()
            self._stop_watching()
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    def _broken(self, exc: BaseException) -> UpstreamDisconnected:
        while not isinstance(exc, OSError) and exc.__cause__ is not None:
            exc = exc.__cause__  # trio wraps what it got
        if self.closed:
            return UpstreamDisconnected("the connection was closed on this side")
        reason = os.strerror(exc.errno) if isinstance(exc, OSError) and exc.errno else str(exc)
        return UpstreamDisconnected(f"the connection to the upstream broke: {reason or type(exc).__name__}")


class TlsConnection(Connection):
    """A TLS connection.

    Args:
      sock: what `stream` is on, for closing.
      stream: its handshake is done.
    """

    __slots__ = ("_stream",)

    def __init__(self, sock: socket.socket, stream: trio.SSLStream[trio.SocketStream]) -> None:
        super().__init__(sock)
        self._stream = stream

    async def send(self, data: bytes | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise self._broken(exc) from exc

    async def receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(READ_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise self._broken(exc) from exc

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        return True

    def receive_nowait(self) -> bytes | None:
        return None  # trio's TLS reads only where it may wait

    def has_come(self) -> bool:
        return bool(self._stream.pending()) or super().has_come()

    @property
    def protocol(self) -> str | None:
        """What was agreed on in the handshake (ALPN)."""
        agreed: str | None = self._stream.selected_alpn_protocol()
        return agreed

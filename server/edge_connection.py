"""One client connection: its requests in plain form (edge_head.py), one after the other in its own task.

No task reads. While a request is answered, and while the next is waited for, the pump (actors/pump.py) watches the socket and calls
`_readable`, which takes what came: more of the body, a request sent ahead of its turn, or the client's leaving, which ends the exchange
at once. So a request costs no nursery, no second task and no scope, and a client that was there once is watched without a system call
until it leaves. Only the wait for a head has a deadline (edge_patience.py); none runs during an answer.

What has no place here goes on elsewhere. A request in any other form is left to edge_concurrent.py with the rest of its connection, and
so is everything where there is no pump. An application that has something left to do behind its answer (the upstream may still owe the
end of its body) keeps the task; the next request has another, by a `Connection` to which the socket passes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from actors.pump import pump

from .edge_concurrent import ConcurrentConnection
from .edge_exchange import Exchange
from .edge_head import read_plain_head
from .edge_socket import AHEAD, READ, ClientSocket

if TYPE_CHECKING:
    import socket

    from actors.pump import Pump

    from .edge_head import PlainHead
    from .edge_socket import Serving

_log: Final = logging.getLogger("evenflow.edge")


class Connection(ClientSocket):
    """One client connection.

    Args:
      sock: accepted, non-blocking; closed when `run` ends, or passed on to another connection.
      client: address.
      ahead: where it was passed on, the bytes with which it comes.
    """

    def __init__(self, sock: socket.socket, client: tuple[str, int] | None, serving: Serving, ahead: bytes = b"") -> None:
        super().__init__(sock, client, serving)
        self._ahead = ahead  # of the next requests
        self._used = bool(ahead)  # a request was answered here
        self._exchange: Exchange | None = None  # what is being answered
        self._answered = False  # and its application is not through
        self._ends = False  # after what is being answered
        self._passed_on = False
        self._pump: Pump | None = None  # while it watches
        self._sleeper: trio.lowlevel.Task | None = None  # waits for bytes
        self._deadline = 0.0  # until when; 0 if it never waited
        self._rest: ConcurrentConnection | None = None  # has taken over

    def stop(self) -> None:
        """End the connection unless a request is being answered."""
        if self._rest is not None:
            self._rest.stop()
        else:
            self.wake()

    def wake(self) -> None:
        """Wait no longer for a request."""
        if self._sleeper is not None:
            sleeper, self._sleeper = self._sleeper, None
            trio.lowlevel.reschedule(sleeper)

    async def run(self) -> None:
        """Serve until either side ends the connection and no application runs any more."""
        try:
            if not self._ahead:
                self._readable()  # the first request has come with the connection as a rule
            while not self._ends:
                if not self._ahead:
                    if self._used and self.is_last:
                        break
                    if not self._watch():
                        await self._hand_over(b"")
                        return
                    await self._wait()
                    if not self._ahead:
                        break
                data, self._ahead = self._ahead, b""
                head = read_plain_head(data, self._serving.limits) if self._serving.plain else None
                if head is None or not self._watch():
                    await self._hand_over(data)
                    return
                await self._answer(head, data)
            if self._unread and not self._peer_done:
                self._unwatch()
                await self._linger()
        finally:
            if not self._passed_on:
                self.cut()
            self._exchange = None  # a cycle, which only a collection would free

    async def _wait(self) -> None:
        """Until bytes of the client's lie in `_ahead`, or it is gone, or its time or ours is over."""
        patience = self._serving.between if self._used else self._serving.before
        self._deadline = patience.begin(self)
        self._sleeper = trio.lowlevel.current_task()
        try:
            await trio.lowlevel.wait_task_rescheduled(self._no_sleep)
        finally:
            patience.end(self)
        if not (self._ahead or self._ends):
            self._readable()  # what came in the moment in which its time was up, or the server stopped, came in time

    def _no_sleep(self, _: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def _answer(self, head: PlainHead, data: bytes) -> None:
        """Answer the request at the beginning of `data`."""
        end = head.size + head.length
        if end < len(data):
            self._ahead = data[end:]
        self._used = True
        self._exchange = exchange = Exchange(self, head, data[head.size : end], self._client, None)
        await self._run_application(exchange)
        self._exchange = None
        self._answered = False

    async def _hand_over(self, data: bytes) -> None:
        """The connection goes on in the other way, with these bytes."""
        self._unwatch()
        self._passed_on = True
        deadline = trio.current_time() + self._serving.limits.header_timeout
        if self._deadline and not self._used:
            deadline = self._deadline
        self._rest = ConcurrentConnection(self._sock, self._client, self._serving, data, deadline, used=self._used)
        await self._rest.run()

    # ---- what comes from the client --------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        """Called by the pump, outside any task, where a defect would concern everybody."""
        try:
            self._take()
        except Exception:
            _log.exception("a connection failed")
            self._leave(self._exchange)
            self.wake()

    def _take(self) -> None:
        """Take what has come."""
        if self._ahead and self._exchange is None:
            return  # whoever takes it is on its way
        try:
            data = self._sock.recv(READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        exchange = self._exchange
        if not data:
            self._leave(exchange)
        elif exchange is None:
            self._ahead = data
            if self._answered:
                self._pass_on()
        else:
            self._ahead += exchange.feed(data)
            if exchange.is_full:
                self._unwatch()  # until it calls `read_on`
            elif len(self._ahead) > AHEAD:
                self._give_up()
                self._leave(exchange)
        self.wake()

    def _leave(self, exchange: Exchange | None) -> None:
        """The client is gone, or counts as gone."""
        self._peer_done = self._ends = True
        self._unwatch()
        if exchange is not None:
            exchange.leave()

    def _watch(self) -> bool:
        """Have `_readable` called; False if nothing can do that."""
        if self._pump is None:
            try:
                if (found := pump()) is None:
                    return False
                found.add(self._sock.fileno(), self._readable)
            except OSError:  # no descriptor for it, or no memory of the kernel's
                return False
            self._pump = found
        return True

    def _unwatch(self) -> None:
        if self._pump is not None:
            self._pump.remove(self._sock.fileno())
            self._pump = None

    # ---- what the exchange says ------------------------------------------------------------------------------------------------

    def read_on(self) -> None:
        """The application has taken what lay there of a body."""
        if not (self._closed or self._ends or self._watch()):
            self._leave(self._exchange)  # nobody would see it leave

    def exchanged(self, *, keep: bool) -> None:
        exchange, self._exchange = self._exchange, None
        self._answered = True
        if not keep or self.is_last:
            self._ends = True
            self._unread = bool(self._ahead) or (exchange is not None and exchange.missing > 0)
            self._unwatch()
        elif self._ahead and not self._ends:
            self._pass_on()

    def _pass_on(self) -> None:
        """The next request is here, and the application of the one before is not through."""
        self._unwatch()
        self._ends = self._passed_on = True
        self._serving.start(Connection(self._sock, self._client, self._serving, self._ahead))

    def cut(self, *, torn: bool = False) -> None:
        if not (self._closed or self._passed_on):
            self._ends = True
            self._unwatch()
            if self._exchange is not None:  # not at once: whoever writes has to say first why the write failed
                trio.lowlevel.current_trio_token().run_sync_soon(self._exchange.leave)
            super().cut(torn=torn)

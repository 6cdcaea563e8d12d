"""Orders: how the stream machine interrupts the reader.

An order may come early: [DONE] was seen, an error stood inside the stream, a deadline passed. It then has to end a wait that
may last for ever, so giving an order also ends the scope in which the reader waits. After [DONE] the upstream owes only the end
of its body; the reader gets DRAIN_SECONDS to reach it, because only a body read to its end leaves a connection that can be used
again, and httpcore closes the connection of a read that is cancelled. Every other early order ends the wait at once.
"""

from __future__ import annotations

from typing import Final

import trio

from .sansio.effects import Finish, Order

DRAIN_SECONDS: Final = 0.25


class Orders:
    """A channel of one order, and the scope that an order ends. The machine's task gives, the reader takes."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Order](1)
        self._scope: trio.CancelScope | None = None
        self._body_over = False

    @property
    def pending(self) -> bool:
        """An order lies there that the reader has not taken; or none will ever come."""
        statistics = self._receive.statistics()
        return statistics.current_buffer_used > 0 or statistics.open_send_channels == 0

    def give(self, order: Order) -> None:
        """Send an order, and end what the reader is waiting for. One that the reader has not taken yet is replaced: only the
        stream's total deadline can overtake an order so closely, and it calls everything off.
        """
        try:
            self._send.send_nowait(order)
        except trio.WouldBlock:
            self._receive.receive_nowait()
            self._send.send_nowait(order)
        if self._scope is not None:
            patience = DRAIN_SECONDS if isinstance(order, Finish) and order.fault is None and not self._body_over else 0.0
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + patience)

    def close(self) -> None:
        """There will be no more orders; the reader takes that for Finish."""
        self._send.close()
        if self._scope is not None:
            self._scope.cancel()

    def interrupting(self) -> trio.CancelScope:
        """A scope for the reader's waits; it ends when an order comes, or at once if one has come."""
        self._scope = trio.CancelScope()
        self._body_over = False
        if self.pending:
            self._scope.cancel()
        return self._scope

    async def wait(self) -> None:
        """Wait inside `interrupting()` until an order ends the block; at once, for the body is at its end."""
        self._body_over = True
        if not self.pending:
            await trio.sleep_forever()

    def take(self) -> Order:
        """The order that was given."""
        try:
            return self._receive.receive_nowait()
        except trio.EndOfChannel:
            return Finish(None)

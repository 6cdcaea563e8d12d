"""Orders: how the stream machine interrupts the reader.

An order may come early: [DONE] was seen, an error stood inside the stream, a deadline passed. It then has to end a wait that
may last for ever, so giving an order also ends the scope in which the reader waits. After [DONE] the upstream owes only the end
of its body; the reader gets DRAIN_SECONDS to reach it, because only a body read to its end leaves a connection that can be used
again. Every other early order ends the wait at once.
"""

from __future__ import annotations

from typing import Final

import trio

from .sansio.effects import Finish, Order

DRAIN_SECONDS: Final = 0.25


class Orders:
    """Room for one order, and the scope that an order ends. The machine's driver gives, the reader takes.

    Attributes:
      pending: an order lies there that the reader has not taken. Looked at for every read of every stream.
    """

    def __init__(self) -> None:
        self.pending = False
        self._order: Order | None = None
        self._scope: trio.CancelScope | None = None
        self._body_over = False

    def give(self, order: Order) -> None:
        """Leave an order, and end what the reader is waiting for. One that the reader has not taken yet is replaced: only the
        stream's total deadline can overtake an order so closely, and it calls everything off.
        """
        self._order, self.pending = order, True
        if self._scope is not None:
            patience = DRAIN_SECONDS if isinstance(order, Finish) and order.fault is None and not self._body_over else 0.0
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + patience)

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
        order, self._order, self.pending = self._order, None, False
        assert order is not None
        return order

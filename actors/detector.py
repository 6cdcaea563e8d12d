"""The stutter detector's task: drives the StreamMachine and its one deadline.

All it decides is when to wait; what a stream does next is the machine's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trio import MemoryReceiveChannel, MemorySendChannel

    from .orders import Orders
    from .sansio.effects import Effects
    from .sansio.stream_machine import Item, StreamMachine


class Nudge:
    """Ends the detector's wait before the machine's deadline: the machine was told something from outside. Called without arguments."""

    def __init__(self) -> None:
        self._scope: trio.CancelScope | None = None

    def __call__(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    def waiting(self, deadline: float) -> trio.CancelScope:
        """The scope of the next wait."""
        self._scope = trio.CancelScope(deadline=deadline)
        return self._scope


async def detect_stutter(
    machine: StreamMachine, orders: Orders, nudge: Nudge, inbox: MemoryReceiveChannel[Item], outbox: MemorySendChannel[Effects]
) -> None:
    """Feed the machine until its stream ended: items as they come, `wake()` at its deadline.

    Args:
      orders: to the reader; closed at the end, which stops the reader.
      nudge: whoever calls it has the machine woken at once.
      outbox: to the writer; closed as soon as the stream's end was sent.

    Closing: closes its channels. Cancellation: at any point.
    """
    with inbox, outbox:
        try:
            while not machine.ended:
                effects = await _next_effects(machine, nudge, inbox)
                if effects.order is not None:
                    orders.give(effects.order)
                if effects.frames or effects.end is not None:
                    await _send(effects, machine, outbox)
        finally:
            outbox.close()
            if not machine.ended:
                orders.close()
        # What the reader still says concerns nobody; but leaving now would break the channel under it.
        async for _ in inbox:
            pass


async def _next_effects(machine: StreamMachine, nudge: Nudge, inbox: MemoryReceiveChannel[Item]) -> Effects:
    try:
        return machine.receive(inbox.receive_nowait(), trio.current_time())
    except (trio.WouldBlock, trio.EndOfChannel):
        # A neighbour that was cancelled before us has closed its end; `receive` then finds that we are cancelled, too.
        pass
    with nudge.waiting(machine.deadline):
        item = await inbox.receive()
        return machine.receive(item, trio.current_time())
    return machine.wake(trio.current_time())


async def _send(effects: Effects, machine: StreamMachine, outbox: MemorySendChannel[Effects]) -> None:
    try:
        outbox.send_nowait(effects)
    except (trio.WouldBlock, trio.BrokenResourceError):  # as above
        began = trio.current_time()
        await outbox.send(effects)
        machine.client_blocked(trio.current_time() - began)

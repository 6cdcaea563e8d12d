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


async def detect_stutter(
    machine: StreamMachine, orders: Orders, inbox: MemoryReceiveChannel[Item], outbox: MemorySendChannel[Effects]
) -> None:
    """Feed the machine until its stream ended: items as they come, `wake()` at its deadline.

    Args:
      orders: to the reader; closed at the end, which stops the reader.
      outbox: to the writer; closed as soon as the stream's end was sent.

    Closing: closes its channels. Cancellation: at any point.
    """
    with inbox, outbox:
        try:
            while not machine.ended:
                effects = await _next_effects(machine, inbox)
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


async def _next_effects(machine: StreamMachine, inbox: MemoryReceiveChannel[Item]) -> Effects:
    try:
        return machine.receive(inbox.receive_nowait(), trio.current_time())
    except (trio.WouldBlock, trio.EndOfChannel):
        # A neighbour that was cancelled before us has closed its end; `receive` then finds that we are cancelled, too.
        pass
    with trio.CancelScope(deadline=machine.deadline):
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

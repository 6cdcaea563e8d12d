"""The stutter detector: drives the StreamMachine and its one deadline.

All it decides is when to wait; what a stream does next is the machine's business.

An item is looked at in the task of whoever sends it. Its own task only keeps the deadline, in one scope for as long as that holds: the
next keep-alive, the idle timer move with every event, and a scope per event would cost more than the event. So the scope's deadline
moves only forward in time, when something falls due earlier than it (an event is held); where the machine's has moved back in the
meantime, the task wakes for nothing, once. Most streams end before anything falls due: the task begins when something does, for which
an alarm is set (alarms.py), or when something is about to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from .alarms import Alarms
    from .orders import Orders
    from .sansio.effects import Effects
    from .sansio.stream_machine import Item, StreamMachine


class Pen(Protocol):
    """What the detector needs of the writer."""

    @property
    def has_room(self) -> bool: ...
    def put(self, effects: Effects) -> bool: ...
    async def room(self) -> None: ...


class Detector:
    """Feeds the machine until its stream ended: items as they come, `wake()` at its deadline. An Outbox.

    Args:
      orders: to the reader.
      pen: the writer.
      nursery: the stream's, for its task.
      alarms: the process's.
    """

    def __init__(self, machine: StreamMachine, orders: Orders, pen: Pen, *, nursery: trio.Nursery, alarms: Alarms) -> None:
        self._machine = machine
        self._orders = orders
        self._pen = pen
        self._nursery = nursery
        self._clock = trio.lowlevel.current_clock().current_time  # as trio.current_time, which takes two calls more to get there
        self._due = machine.deadline  # when somebody looks at it
        self._alarm = alarms.at(self._due, self._keep_watch)
        self._scope: trio.CancelScope | None = None  # of the task's wait; None before it begins
        self._waiting = 0  # tasks that wait for the client
        self._blocked_since = 0.0

    def put(self, item: Item) -> bool:
        machine = self._machine
        effects = machine.receive(item, self._clock())
        roomy = self._pen.put(effects) if effects.frames and effects.order is None else self._obey(effects)
        if machine.ended:
            self.close()
        elif (deadline := machine.deadline) < self._due:
            self._due = deadline
            if self._scope is not None:
                self._scope.deadline = deadline
            else:
                self._keep_watch()
        return roomy

    def nudge(self) -> None:
        """End the wait before the deadline: the machine was told something from outside."""
        if self._scope is not None:
            self._scope.cancel()
        elif self._alarm.is_set:
            self._keep_watch()

    def close(self) -> None:
        """The stream is over: nothing falls due any more. Idempotent."""
        self._alarm.off()
        if self._scope is not None:
            self._scope.cancel()

    def _keep_watch(self) -> None:
        """Begin the task, once."""
        self._alarm.off()
        if self._scope is None:
            self._scope = trio.CancelScope()
            self._nursery.start_soon(self._keep_deadline)

    async def _keep_deadline(self) -> None:
        """Its task, until the stream ended.

        Cancellation: at any point.
        """
        machine = self._machine
        while not machine.ended:
            self._due = machine.deadline
            with trio.CancelScope(deadline=self._due) as self._scope:
                await trio.sleep_forever()
            # After a while without the processor (a starved machine, a stopped process) the loop wakes this task and the reader in one
            # turn, in any order: what the upstream said in the meantime comes first, or it would be taken for silent.
            await trio.lowlevel.checkpoint()
            if self._waiting or not self._pen.has_room:
                await self.room()  # a client that takes nothing needs no keep-alive, and the upstream, unread, is not to blame
                continue
            self._obey(machine.wake(trio.current_time()))

    def _obey(self, effects: Effects) -> bool:
        """Do as the machine says. Returns: whether the writer has room for more."""
        if effects.order is not None:
            self._orders.give(effects.order)
        if effects.frames or effects.end is not None:
            return self._pen.put(effects)
        return self._pen.has_room

    async def room(self) -> None:
        """Wait for the client. Who sends and who wakes may both be here; the time is told once."""
        if not self._waiting:
            self._blocked_since = trio.current_time()
        self._waiting += 1
        try:
            await self._pen.room()
        finally:
            self._waiting -= 1
            now = trio.current_time()
            self._machine.client_blocked(now - self._blocked_since)
            self._blocked_since = now

"""Alarms: one task that keeps the deadlines which hardly ever come.

Every stream has one (its next keep-alive, its idle or total time), and most end before it. A task and a scope for each would cost a
short stream 30 us; an entry in a heap costs one or two. It refuses to know what is due: who set an alarm is rung once, at its time, by a
plain call.
"""

from __future__ import annotations

import heapq
import math
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


#: Alarms that were turned off may lie in the heap up to this number, or as many as there are others. trio prunes its own in the same way.
_LITTLE: Final = 1000


class Alarm:
    """One alarm. Made by `Alarms.at`."""

    __slots__ = ("_alarms", "_ring")

    def __init__(self, alarms: Alarms, ring: Callable[[], None]) -> None:
        self._alarms = alarms
        self._ring: Callable[[], None] | None = ring

    @property
    def is_set(self) -> bool:
        """It has neither rung nor been turned off."""
        return self._ring is not None

    def ring(self) -> None:
        """Call whoever set it, the first time."""
        ring, self._ring = self._ring, None
        if ring is not None:
            ring()

    def off(self) -> None:
        """Never ring, and let go of whoever set it. Idempotent."""
        if self._ring is not None:
            self._ring = None
            self._alarms.turned_off()


class Alarms:
    """Made by `open_alarms`."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Alarm]] = []  # those that were turned off go when they come to the top, or are too many
        self._off = 0  # about so many of them
        self._serial = count()
        self._sleep = trio.CancelScope()

    def at(self, when: float, ring: Callable[[], None]) -> Alarm:
        """Set an alarm.

        Args:
          when: seconds on trio's clock.
          ring: called in the alarms' own task. It must not raise.
        """
        alarm = Alarm(self, ring)
        if when < math.inf:
            heapq.heappush(self._heap, (when, next(self._serial), alarm))
            if when < self._sleep.deadline:
                self._sleep.deadline = when
        return alarm

    def __len__(self) -> int:
        """Entries that are kept, those that were turned off included."""
        return len(self._heap)

    def turned_off(self) -> None:
        """One of them will not ring. For alarms alone."""
        self._off += 1
        if self._off > _LITTLE and self._off * 2 > len(self._heap):
            self._heap[:] = [entry for entry in self._heap if entry[2].is_set]  # in place: the task holds it
            heapq.heapify(self._heap)
            self._off = 0

    async def keep(self) -> None:
        """The task: ring them all in time, until it is cancelled."""
        heap = self._heap
        while True:
            now = trio.current_time()
            while heap and (heap[0][0] <= now or not heap[0][2].is_set):
                heapq.heappop(heap)[2].ring()
            with trio.CancelScope(deadline=heap[0][0] if heap else math.inf) as self._sleep:
                await trio.sleep_forever()


@asynccontextmanager
async def open_alarms() -> AsyncIterator[Alarms]:
    """Keep alarms as long as the block lasts; those that are left at its end do not ring."""
    alarms = Alarms()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.keep)
        yield alarms
        nursery.cancel_scope.cancel()

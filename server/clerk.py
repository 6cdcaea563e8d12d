"""The clerk: writes down what has ended a moment later, many at a time.

Bookkeeping is a tenth of what a short request costs, and right after its last byte it stood in the way of the next request, with cold
caches. So an entry is only left here when its request ends; one task works off what lies there. Whoever reads the books asks it to catch
up first, so that nobody ever sees the difference. Refuses to know what an entry is and which books there are.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

import trio

from .log import before_flush

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_logger: Final = logging.getLogger("evenflow.clerk")

#: Seconds that an entry lies. The log's thread gathers lines for 20 ms anyway, and nobody sees either delay.
DELAY: Final = 0.025
#: Entries that are written before others have their turn: a quarter to half a millisecond, at 15 to 27 us each.
AT_ONCE: Final = 16
#: Entries that may lie, as many as the log takes lines; beyond, each that comes has the oldest written: the price it had without a clerk.
MOST: Final = 4096


class Entry(Protocol):
    """Something that has ended."""

    def write(self) -> None:
        """Write it down, with the time of its end; called once. Waits for nothing."""


class Clerk:
    """Made by `open_clerk`."""

    def __init__(self) -> None:
        self._lying: deque[Entry] = deque()
        self._due = math.inf
        self._sleep = trio.CancelScope()

    def leave(self, entry: Entry, now: float) -> None:
        """Have an entry written soon, behind those that were left before.

        Args:
          now: seconds on trio's clock.
        """
        lying = self._lying
        lying.append(entry)
        if len(lying) == 1:
            self._due = self._sleep.deadline = now + DELAY
        elif len(lying) > MOST:
            self._write(1)

    async def catch_up(self) -> None:
        """Return when everything that lies there now is written. Others have their turns in between, if it is much."""
        left = len(self._lying)
        while left > 0 and (written := self._write(AT_ONCE)):
            left -= written
            await trio.lowlevel.checkpoint()

    def finish(self) -> None:
        """Write everything without letting anybody else go on: for the end of the process. Also for another thread, if the loop hangs."""
        while self._write(AT_ONCE):
            pass

    async def work(self) -> NoReturn:
        """The task: write what was left, in time, until it is cancelled."""
        while True:
            with trio.CancelScope(deadline=self._due if self._lying else math.inf) as self._sleep:
                await trio.sleep_forever()
            await self.catch_up()

    def _write(self, most: int) -> int:
        """Write the oldest; returns how many there were to write."""
        for written in range(most):
            try:
                entry = self._lying.popleft()
            except IndexError:
                return written
            try:
                entry.write()
            except Exception:  # a defect in one of the books is no other request's business
                _logger.exception("a request could not be written down")
        return most


@asynccontextmanager
async def open_clerk() -> AsyncIterator[Clerk]:
    """Employ a clerk for the length of a block. At its end everything is written, however it comes; also if the process ends without it."""
    clerk = Clerk()
    with before_flush(clerk.finish):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clerk.work)
            try:
                yield clerk
            finally:
                clerk.finish()
                nursery.cancel_scope.cancel()

"""How long connections are waited for: one task for all that have equally long, instead of a scope for each wait.

A connection waits at least once, and nearly always in vain for its deadline. Whoever begins last has the last deadline, so that the
order of beginning is the order of deadlines, and a dict is all it takes. Refuses to know what is waited for.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import NoReturn


class Waiter(Protocol):
    """Whoever waits."""

    def wake(self) -> None:
        """The wait was too long. Must not raise."""


class Patience:
    """Waits of one length.

    Args:
      seconds: that each may take.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadlines: dict[Waiter, float] = {}
        self._asleep: trio.Event | None = None  # there is nobody to look after

    def begin(self, waiter: Waiter) -> float:
        """Somebody waits from now on. Returns until when."""
        self._deadlines[waiter] = deadline = trio.current_time() + self._seconds
        if self._asleep is not None:
            self._asleep.set()
        return deadline

    def end(self, waiter: Waiter) -> None:
        """He does no more."""
        self._deadlines.pop(waiter, None)

    async def run(self) -> NoReturn:
        """Its task, for ever."""
        while True:
            if not self._deadlines:
                self._asleep = trio.Event()
                await self._asleep.wait()
                self._asleep = None
            while self._deadlines:
                waiter, deadline = next(iter(self._deadlines.items()))
                if trio.current_time() < deadline:
                    await trio.sleep_until(deadline)  # he may be through long before; then it is the next one's turn to be looked at
                else:
                    del self._deadlines[waiter]
                    waiter.wake()


@asynccontextmanager
async def open_patience(*lengths: float) -> AsyncIterator[list[Patience]]:
    """Patience of each of these lengths, in seconds, for the length of a block."""
    async with trio.open_nursery() as nursery:
        made = [Patience(seconds) for seconds in lengths]
        for patience in made:
            nursery.start_soon(patience.run)
        yield made
        nursery.cancel_scope.cancel()

"""The pump: whoever waits for a socket's bytes is called as soon as there are some, and no task is woken for it.

What a stream does with a piece of an answer needs no waiting as a rule: parse, look, write. To wake the stream's task for it, and to
register the socket with trio's epoll for one more event, costs more than that. So the sockets of streams under way lie in an epoll of
our own; one task waits for it, and calls for each socket that can be read what was left here. A stream's own task sleeps meanwhile; it is
woken when something has to be waited for, when the body ends, and to be cancelled, like any other task.

Owns that epoll and its task, one for each run of trio. Refuses to know what is read. Only Linux has epoll; elsewhere there is no pump.
Measured on a byte relay at 1,000 streams of 10 events a second: 24 us per event instead of 29 with a task for each.
"""

from __future__ import annotations

import select
import sys
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

_PUMP: Final = trio.lowlevel.RunVar["Pump"]("evenflow.pump")


class Pump:
    """Watches sockets and calls. Found by `pump()`."""

    def __init__(self) -> None:
        assert sys.platform == "linux"
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}

    def add(self, fd: int, call: Callable[[], None]) -> None:
        """Call this whenever `fd` can be read, until it is removed.

        Args:
          call: must not wait, and must not raise.
        """
        self._epoll.register(fd, select.EPOLLIN)
        self._calls[fd] = call

    def remove(self, fd: int) -> None:
        """Call nobody for it any more; before it is closed."""
        del self._calls[fd]
        self._epoll.unregister(fd)

    async def run(self) -> None:
        """Its task, for as long as trio runs."""
        calls = self._calls
        with self._epoll:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                # All that are ready, in one turn: whoever says afterwards that somebody was silent is right.
                for fd, _ in self._epoll.poll(0, len(calls) or 1):
                    if (call := calls.get(fd)) is not None:  # else one of those before it has ended this one
                        call()


def pump() -> Pump | None:
    """This run's pump, begun if there is none yet; None where the system has no epoll."""
    if sys.platform != "linux":
        return None
    try:
        return _PUMP.get()
    except LookupError:
        made = Pump()
        _PUMP.set(made)
        trio.lowlevel.spawn_system_task(made.run)
        return made

"""The pump: whoever waits for a socket's bytes is called as soon as there are some, and no task is woken for it.

What a stream does with a piece of an answer needs no waiting as a rule: parse, look, write. To wake the stream's task for it, and to
register the socket with trio's epoll for one more event, costs more than that. So the sockets of streams under way lie in an epoll of
our own, in which trio's lies as well, and where trio waits for its events we wait for both: what was left here for a socket is called
before any task runs. A stream's own task sleeps meanwhile; it is woken when something has to be waited for, when the body ends, and to be
cancelled, like any other task.

Owns that epoll and trio's wait for I/O, once for each run of trio. Refuses to know what is read. Trio has no public place for it, so this
stands in for trio's own object there, behind a check that it is the one we know; where it is another one (not Linux, a later trio) there is
no pump, and everybody reads by himself.
Measured on a byte relay at 1,000 streams of 10 events a second: 29 us per event with a task for each stream, 24 with one task for all of
them, and in trio's wait, without a task, 5 to 10 less.
"""

from __future__ import annotations

import logging
import select
import sys
from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

_log: Final = logging.getLogger(__name__)

_PUMP: Final = trio.lowlevel.RunVar["Pump | None"]("evenflow.pump")
#: What one wait brings at most; what is left comes with the next, and nobody is passed over. Only a bound on memory.
_MOST: Final = 16_384


class Pump:
    """Watches sockets and calls. Found by `pump()`.

    Args:
      trios: trio's wait for I/O, in whose place this is from now on.
    """

    def __init__(self, trios: Any) -> None:
        assert sys.platform == "linux"
        self._trios = trios
        self._trios_fd = trios._epoll.fileno()
        self._epoll = select.epoll()
        self._epoll.register(self._trios_fd, select.EPOLLIN)
        self._calls: dict[int, Callable[[], None]] = {}
        self.wait_readable = trios.wait_readable
        self.wait_writable = trios.wait_writable
        self.notify_closing = trios.notify_closing
        self.force_wakeup = trios.force_wakeup
        self.statistics = trios.statistics

    def add(self, fd: int, call: Callable[[], None]) -> None:
        """Call this whenever `fd` can be read, until it is removed.

        Args:
          call: must not wait, and must not raise. No task runs it, so that there is no `current_task()`; tasks may be woken, started and
            cancelled.
        """
        self._epoll.register(fd, select.EPOLLIN)
        self._calls[fd] = call

    def change(self, fd: int, call: Callable[[], None]) -> None:
        """Call another from now on. It costs no system call, so that a socket can stay here while nobody waits for it."""
        self._calls[fd] = call

    def remove(self, fd: int) -> None:
        """Call nobody for it any more; before it is closed."""
        if self._calls.pop(fd, None) is not None:  # else its call has failed
            self._epoll.unregister(fd)

    # ---- what trio's loop asks for in every turn

    def get_events(self, timeout: float) -> list[tuple[int, int]]:
        """Wait for something to happen to a socket of either kind, for so many seconds."""
        return self._epoll.poll(timeout, min(len(self._calls) + 1, _MOST))

    def process_events(self, events: list[tuple[int, int]]) -> None:
        """Call and wake whom they concern; all in one turn and before trio looks at deadlines: whoever was silent then was silent."""
        calls = self._calls
        for fd, _ in events:
            if (call := calls.get(fd)) is not None:
                try:
                    call()
                except Exception:  # a bug, which would end trio's loop and every stream with it
                    _log.exception("what was called for a socket failed; it is not called again")
                    if fd in calls:
                        self.remove(fd)
            elif fd == self._trios_fd:
                self._trios.process_events(self._trios.get_events(0))
            # else one of those before it has ended it

    def close(self) -> None:
        """At the end of trio's run."""
        self._epoll.close()
        self._trios.close()


def pump() -> Pump | None:
    """This run's pump, begun if there is none yet; None where it cannot be."""
    try:
        return _PUMP.get()
    except LookupError:
        made = _begin()
        _PUMP.set(made)
        return made


def _begin() -> Pump | None:
    if sys.platform != "linux":
        return None
    try:
        from trio._core._io_epoll import EpollIOManager  # private, and only there on Linux
        from trio._core._run import GLOBAL_RUN_CONTEXT

        runner: Any = GLOBAL_RUN_CONTEXT.runner
        trios = runner.io_manager
        known = type(trios) is EpollIOManager and type(trios._epoll) is select.epoll
    except (ImportError, AttributeError):
        return None
    if not known:
        return None
    runner.io_manager = made = Pump(trios)
    return made

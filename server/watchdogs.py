"""Two threads that look at the event loop from outside: one tells when it is blocked, the other ends a process that will not end.

A task cannot do either, since no task runs while the loop is blocked. Neither thread touches anything of the loop's.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Final

import trio

from .log import flush_logging, log_blocked_loop, log_hard_exit

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two beats of the loop, and between two looks at them. Ten wake-ups a second cost nothing that could be measured.
_BEAT: Final = 0.1
#: A loop that is late by so many seconds is blocked (FAULTS row 67).
BLOCKED: Final = 0.5
#: Seconds between two warnings; a loop that is blocked again and again shall not fill the disk.
_QUIET: Final = 10.0
#: Seconds that the log gets for its last line.
_LAST_LINE: Final = 0.2


class LoopWatch:
    """Measures how late the event loop wakes a task, and says where it was when that was too late.

    Args:
      observe: told the seconds of each measurement.
    """

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe
        self._beat = time.monotonic()
        self._stop = threading.Event()
        self._told_at = -_QUIET
        self._untold = 0
        self._noticed = False  # the thread saw the block that is going on

    def since_turn(self) -> float:
        """Seconds since the event loop was seen to turn. For any thread: it reads one number."""
        return max(0.0, time.monotonic() - self._beat - _BEAT)

    async def run(self) -> None:
        """Measure until cancelled."""
        thread = threading.Thread(target=self._look, args=(threading.get_ident(),), name="evenflow-loop-watch", daemon=True)
        thread.start()
        try:
            while True:
                self._beat = began = time.monotonic()
                await trio.sleep(_BEAT)
                late = max(0.0, time.monotonic() - began - _BEAT)
                self._observe(late)
                if late > BLOCKED and not self._noticed:
                    self._tell(late, "")  # by something that let no thread run, either
                self._noticed = False
        finally:
            self._stop.set()

    def _look(self, loop_thread: int) -> None:
        while not self._stop.wait(_BEAT):
            late = time.monotonic() - self._beat - _BEAT
            if late > BLOCKED and not self._noticed:
                self._noticed = True
                frame = sys._current_frames().get(loop_thread)
                self._tell(late, "".join(traceback.format_stack(frame)) if frame is not None else "")

    def _tell(self, late: float, stack: str) -> None:
        now = time.monotonic()
        if now - self._told_at < _QUIET:
            self._untold += 1
            return
        self._told_at = now
        log_blocked_loop(late, stack, self._untold)
        self._untold = 0


class ExitWatchdog:
    """Ends the process, if it is still there when its time is up, without asking anybody."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def arm(self, seconds: float) -> None:
        """From now on the process has so many seconds. A later call replaces an earlier one."""
        self.disarm()
        self._timer = threading.Timer(seconds, _end, (seconds, threading.get_ident()))
        self._timer.daemon = True
        self._timer.start()

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _end(seconds: float, loop_thread: int) -> None:
    frame = sys._current_frames().get(loop_thread)
    log_hard_exit(seconds, "".join(traceback.format_stack(frame)) if frame is not None else "")
    # What is asked for the last lines may wait for a lock that the loop's thread holds and never gives back.
    writer = threading.Thread(target=flush_logging, args=(_LAST_LINE,), daemon=True)
    writer.start()
    writer.join(2 * _LAST_LINE)
    os._exit(1)

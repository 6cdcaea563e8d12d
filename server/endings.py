"""How a proxy is told to end: in order, then at once; and the watchdog over both.

Owns what the first order means and what a second one does. Who gives them, a signal or a supervisor, is main.py's and worker.py's
business; what ending in order consists of is proxy.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from .log import log_stopping
from .watchdogs import ExitWatchdog

if TYPE_CHECKING:
    from .proxy import Proxy
    from .settings import Settings

#: Seconds beyond `drain` after which the process is ended by force (FAULTS row 68 allows 2). The end in order takes 0.5 + 0.25 at the
#: most (proxy.py), and one more where nobody takes the last lines of the log.
_MARGIN: Final = 1.85


def longest_end(settings: Settings) -> float:
    """Seconds after which a process that was told to end is ended by force."""
    return settings.drain_notice + settings.drain + _MARGIN


class Ending:
    """The end of one proxy.

    Args:
      asked: set when it shall end.
      at_once: around all that runs; cancelled when there is no time left for order.
    """

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.at_once = trio.CancelScope()
        self._watchdog = ExitWatchdog()

    def stop(self, signal: str, proxy: Proxy) -> None:
        """End in order; of no effect if it ends already.

        Args:
          signal: who says so, for the log.
        """
        if self.asked.is_set():
            return
        settings = proxy.services.settings
        log_stopping(signal, settings.drain, streams=len(proxy.services.readiness.running))
        self._watchdog.arm(longest_end(settings))
        self.asked.set()

    def abort(self) -> None:
        """End at once."""
        self._watchdog.arm(_MARGIN)
        self.at_once.cancel()

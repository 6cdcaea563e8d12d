"""What systemd is told: ready, reloading, stopping, and that the event loop is alive (sd_notify(3), sd_watchdog_enabled(3)).

Owns the datagram socket that NOTIFY_SOCKET names and the rhythm of the watchdog. Started by anybody else, by hand or in a container,
nothing is sent and nothing is different. Refuses to know what a reload or a stop is.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Beats per watchdog time. systemd suggests two; with four, a beat that was withheld leaves time for the next.
_BEATS: Final = 4


class Notifier:
    """Sends what systemd wants to know.

    Args:
      address: of its datagram socket; empty where there is none.
      watchdog: seconds without a sign of life after which systemd restarts the service; `math.inf`: it does not.
    """

    def __init__(self, address: str = "", watchdog: float = math.inf) -> None:
        # A leading @ stands for the zero byte of Linux's abstract names, which leave no file behind.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog = watchdog if address else math.inf

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Notifier:
        """As the variables say that systemd sets. A watchdog that is meant for another process, our parent's for example, is not ours."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
            return cls()
        microseconds = environ.get("WATCHDOG_USEC", "")
        is_ours = environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        has_one = is_ours and microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0
        return cls(address, int(microseconds) / 1e6 if has_one else math.inf)

    def ready(self, status: str) -> None:
        """It serves, or serves again after a reload. `status` is what `systemctl status` shows."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        # Type=notify-reload (systemd 253) wants the time, by which it tells this reload from an earlier one.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """It has begun to end."""
        self._send("STOPPING=1", f"STATUS={status}")

    async def feed_watchdog(self) -> None:
        """Give a sign of life while the event loop is in time; until cancelled.

        A blocked loop gives none by itself. One that wakes this task late by more than a beat gives none either: it still runs, but
        nobody's stream does.
        """
        if math.isinf(self._watchdog):
            return
        beat = self._watchdog / _BEATS
        while True:
            due = trio.current_time() + beat
            await trio.sleep_until(due)
            if trio.current_time() - due <= beat:
                self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        # No service fails because systemd does not listen, and none waits for it.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(" ".join(line.split("\n")) for line in lines).encode(), self._address)

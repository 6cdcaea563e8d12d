"""How much of the memory that it may have the process holds: what new requests are turned away by before the kernel ends the process.

Knows where Linux tells it; elsewhere nothing is known, and nobody is turned away. Refuses to know what follows (actors/admission.py).
"""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .log import log_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds that a measurement counts: it costs 15 us (measured), a request some hundred.
_FRESH: Final = 0.1
#: Seconds between two warnings, and between two times that the allocator is asked to give back what it keeps.
_QUIET: Final = 10.0


class Memory:
    """The memory of this process.

    Args:
      limit: bytes that it may have, 0 if that is not known.
      resident: bytes that it holds.
      clock: seconds, monotonic.
    """

    def __init__(self, limit: int, resident: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._resident = resident
        self._clock = clock
        self._share = 0.0
        self._measured_at = -_FRESH
        self._told_at = -_QUIET

    def share(self) -> float:
        """What it holds of what it may have, 0 if that is not known."""
        now = self._clock()
        if self.limit and now - self._measured_at >= _FRESH:
            self._share, self._measured_at = self._resident() / self.limit, now
        return self._share

    def beyond(self, most: float) -> bool:
        """Whether it holds so large a share or more. If so, that is told, and the allocator asked for what it keeps for later."""
        if self.share() < most:
            return False
        if self._clock() - self._told_at >= _QUIET:
            self._told_at = self._clock()
            log_memory(self._share, most, self.limit)
            _give_back()
        return True


def memory_of_this_process(processes: int = 1) -> Memory:
    """The memory of the process that asks.

    Args:
      processes: so many share what there is, each the same.
    """
    return Memory(memory_limit() // processes, resident_bytes)


def resident_bytes() -> int:
    """Bytes that the process holds, 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read(64).split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes that this process may have: its container's or service's limit (cgroups of both versions), or what the machine has.

    Args:
      root: where `proc` and `sys` are.

    Returns:
      The lowest of these, 0 if the system tells none.
    """
    return min(_limits(root), default=0)


def _limits(root: Path) -> Iterator[int]:
    if (machine := _number(root / "proc/meminfo", "MemTotal:")) is not None:
        yield machine * 1024
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        groups, file = ("memory", "memory.limit_in_bytes") if controllers else ("", "memory.max")
        place = Path(path.lstrip("/"))
        # A limit counts for all groups below it. Inside of a container the own path may be that of the machine, and only the top is there.
        for group in (place, *place.parents):
            if limit := _number(root / "sys/fs/cgroup" / groups / group / file):
                yield limit


def _number(file: Path, name: str = "") -> int | None:
    """The first number in a file, behind `name`; None if there is none, as in "max"."""
    words = _text(file).partition(name)[2].split() if name else _text(file).split()
    return int(words[0]) if words and words[0].isdigit() else None


def _text(file: Path) -> str:
    try:
        return file.read_text("ascii")
    except (OSError, ValueError):
        return ""


def _give_back() -> None:
    """glibc keeps what was freed; without this a process that was large once would be for good. Takes milliseconds."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return  # another C library: there is nothing to ask

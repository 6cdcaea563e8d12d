"""What a process and all its children cost: CPU time, memory; and on which processors they may run. Linux only: it reads /proc."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC: Final = Path("/proc")
_TICK: Final = 1e9 / os.sysconf("SC_CLK_TCK")


@contextmanager
def pinned(cores: set[int] | None) -> Iterator[None]:
    """What is started in this block runs on these processors only, with all its children. None: anywhere."""
    before = os.sched_getaffinity(0)
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def two_sides() -> tuple[set[int] | None, set[int] | None]:
    """The processors of what is measured, and those of what measures; None where there is only one for both."""
    cores = sorted(os.sched_getaffinity(0))
    return ({cores[0]}, {cores[1]}) if len(cores) > 1 else (None, None)


def tree(root: int) -> list[int]:
    """The process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                # The command's name may hold blanks and brackets; what follows its last bracket does not.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has just ended
            parents.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += parents.get(pid, [])
    return found


def cpu_ns(root: int) -> int:
    """CPU time of the tree so far, user and system, in nanoseconds. Threads that have ended are not in it."""
    return sum(_cpu_of(pid) for pid in tree(root))


def _cpu_of(pid: int) -> int:
    folder = _PROC / str(pid) / "task"
    total = 0
    try:
        for task in folder.iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except FileNotFoundError:
                # A kernel without schedstat counts in ticks of 10 ms.
                fields = (task / "stat").read_text().rpartition(")")[2].split()
                total += int((int(fields[11]) + int(fields[12])) * _TICK)
    except (OSError, ProcessLookupError):
        pass  # it has ended meanwhile
    return total


def memory_kb(root: int) -> int:
    """Resident memory of the tree; pages that its processes share count once (PSS)."""
    return sum(_memory_of(pid) for pid in tree(root))


def _memory_of(pid: int) -> int:
    for name, field in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            for line in (_PROC / str(pid) / name).read_text().splitlines():
                if line.startswith(field):
                    return int(line.split()[1])
        except OSError:
            continue
    return 0


def pause_tree(root: int, *, go_on: bool = False) -> None:
    """Stop the tree where it is, or let it go on: what is not measured now must not use the processor."""
    for pid in tree(root):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT if go_on else signal.SIGSTOP)


def end_tree(root: int, patience: float = 5.0) -> None:
    """Ask the tree to end, and make it end after `patience` seconds."""
    pids = tree(root)
    pause_tree(root, go_on=True)  # what is stopped does not hear
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in reversed(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        until = time.monotonic() + patience
        while time.monotonic() < until:
            pids = [pid for pid in pids if _runs(pid)]
            if not pids:
                return
            time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

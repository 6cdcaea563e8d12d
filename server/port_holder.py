"""Who listens on a port that we cannot have, as far as the system tells: /proc of Linux, and there one's own processes, or all for root."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC: Final = Path("/proc")
_LISTENING: Final = "0A"  # TCP_LISTEN of the kernel's tcp_states.h


def holder_of(port: int) -> str:
    """The process that listens on a TCP port, as `NAME (pid 123)`; empty where nobody is found or may be looked at.

    Only the name of its program: what else stands on its command line may be secret.
    """
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    if not sockets:
        return ""
    for process in _PROC.iterdir():
        if not process.name.isdigit():
            continue
        # A process may end while it is looked at, or belong to somebody else.
        with contextlib.suppress(OSError):
            if any(os.readlink(descriptor) in sockets for descriptor in (process / "fd").iterdir()):
                name = (process / "comm").read_text("utf-8", "replace").strip()
                return f"{''.join(c for c in name if c.isprintable())} (pid {process.name})"
    return ""


def _inodes(port: int) -> Iterator[str]:
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / table).read_text("ascii").splitlines()[1:]:
                columns = line.split()  # sl, local address, remote address, state, ..., inode as the tenth
                if columns[3] == _LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
                    yield columns[9]

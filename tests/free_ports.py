"""Ports of 127.0.0.1 on which nobody listens, and nobody will by chance.

A port that the system gave and took back is among those that it gives to the next connection of whatever process; on a busy machine
that happens between two lines of a test. So these are from below the range of every system we know, and no two of a run are the same.
"""

from __future__ import annotations

import itertools
import os
import socket
from typing import Final

#: Linux gives ports from 32,768, others from 49,152.
_FIRST: Final = 10_000
_COUNT: Final = 20_000
#: Test runs side by side begin at different places.
_turn: Final = itertools.count(os.getpid() * 97)


def free_port() -> int:
    """A port to listen on, or to find nobody at."""
    while True:
        port = _FIRST + next(_turn) % _COUNT
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue  # somebody's
            return port

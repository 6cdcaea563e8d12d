"""The connections to one origin: which are open, which of them are idle, and which of those may be used again.

Every operation costs the same however many connections there are, but for the sweep, which no request waits for and which looks at all
that are idle. Idle ones are taken last in, first out: the warmest is the one
that the server has most likely not closed, and the others get the chance to expire. It refuses to know what is said on them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connection import Connection


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What may stay idle.

    Args:
      idle: connections per origin. Guessed: a descriptor and some KB each, and a burst of this size finds them again.
      idle_seconds: a connection is not used again after so long without use. nginx closes after 75, Node after 5 (found out
        before the connection is used), load balancers forget silently after 60 and more, which is what the limit is for.
      age: seconds; an older connection is not used again, so that a busy one follows a change of the DNS, too. Guessed.
    """

    idle: int = 256
    idle_seconds: float = 30.0
    age: float = 300.0


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """Connections of a pool: `open` and `idle` (a part of them) are now, `opened` and `reused` since the start."""

    open: int = 0
    idle: int = 0
    opened: int = 0
    reused: int = 0


class ConnectionPool:
    """Keeps connections of one origin. Whoever takes one gives it back or discards it."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._open: set[Connection] = set()
        self._idle: deque[Connection] = deque()
        self._closed = False
        self._opened = 0
        self._reused = 0

    def take(self, now: float) -> Connection | None:
        """An idle connection that is still good, None if there is none."""
        self._expire(now)
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_until > now and not connection.is_stale():
                self._reused += 1
                return connection
            self.discard(connection)
        return None

    def add(self, connection: Connection) -> None:
        """Count in a new connection, which its opener uses."""
        self._open.add(connection)
        self._opened += 1

    def give_back(self, connection: Connection, now: float) -> None:
        """Nothing is under way on it: keep it for another request, if it may be kept."""
        if self._closed or connection.closed:
            self.discard(connection)
            return
        connection.idle_until = min(now + self._limits.idle_seconds, connection.opened_at + self._limits.age)
        self._idle.append(connection)
        self._expire(now)
        if len(self._idle) > self._limits.idle:
            self.discard(self._idle.popleft())

    def discard(self, connection: Connection) -> None:
        """Close a connection that is in use. Idempotent."""
        self._open.discard(connection)
        connection.close()

    def close(self) -> None:
        """Close them all and keep none from now on; those in use break under their users."""
        self._closed = True
        while self._open:
            self._open.pop().close()
        self._idle.clear()

    def retire(self) -> None:
        """Close the idle ones and keep none from now on; those in use are closed as soon as they are given back."""
        self._closed = True
        while self._idle:
            self.discard(self._idle.pop())

    def sweep(self, now: float) -> None:
        """Close what is idle and cannot be used again, so that it is gone although nobody asks."""
        good: deque[Connection] = deque()
        for connection in self._idle:
            if connection.idle_until > now and not connection.is_stale():
                good.append(connection)
            else:
                self.discard(connection)
        self._idle = good

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(len(self._open), len(self._idle), self._opened, self._reused)

    def _expire(self, now: float) -> None:
        """Close what has been idle for too long; the longest idle stand first. One that is too old is met at its turn."""
        while self._idle and self._idle[0].idle_until <= now:
            self.discard(self._idle.popleft())

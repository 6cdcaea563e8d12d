"""What the simulator saw: every request, when it came, how far its answer got, how and when it ended.

Tests and benchmarks judge a proxy by this record, so its times are taken where a thing happens, before anything else is done,
twice: on trio's clock (what a test under trio measures) and as `time.monotonic_ns` (what another process on the machine can
compare). Knows no HTTP and no fault. The values of credential headers never get in, but for their last four characters.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_KEPT: Final = 10_000
"""Records kept: ten times a load test's streams, and with their bodies at most 80 MiB in a simulator that runs for days."""
_BODY_KEPT: Final = 8_192
_CREDENTIALS: Final = frozenset({"authorization", "proxy-authorization", "x-api-key", "api-key", "cookie"})


class Ending(StrEnum):
    """How an answer ended."""

    COMPLETED = "completed"
    CLIENT_CLOSED = "client_closed"  # the peer closed, half-closed or reset before the answer was over
    ABORTED_BY_FAULT = "aborted_by_fault"  # the simulator broke the connection, as asked
    SHUTDOWN = "shutdown"  # the simulator itself was stopped


@dataclass(slots=True, eq=False)
class Seen:
    """One request and the fate of its answer. Times: seconds of trio's clock, and `_ns` of `time.monotonic_ns`.

    Args:
      id: counts requests from 1.
      connection: counts connections from 1; equal numbers mean a re-used connection.
      model: as the request names it, "" where it names none.
      answer: the fault model that answered, with its arguments; differs from `model` under a scenario.
      headers: lower-case names; credentials only as "...last4".
      body: the first 8 KiB of the body; `body_bytes` is its full length.
      attempt: the value of x-evenflow-attempt, "" without one.
      target: path and query as the request line has them; `path` is decoded.
      events: events written to the socket so far.
    """

    id: int
    connection: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    body_bytes: int
    arrived: float
    arrived_ns: int
    model: str = ""
    answer: str = ""
    attempt: str = ""
    target: str = ""
    events: int = 0
    began: float | None = None
    began_ns: int | None = None
    ended: float | None = None
    ended_ns: int | None = None
    ending: Ending | None = None


@dataclass(slots=True)
class Observer:
    """The record of one simulator.

    Args:
      seen: the requests, oldest first, at most the last 10,000.
      connections: connections open now.
    """

    seen: deque[Seen] = field(default_factory=lambda: deque(maxlen=_KEPT))
    requests: int = 0
    completed: int = 0
    closes: int = 0
    aborted: int = 0
    connections: int = 0
    _live: set[Seen] = field(default_factory=set)
    _serial: int = 0
    _changed: trio.Event | None = None

    @property
    def active(self) -> int:
        """Requests whose answer is not over."""
        return len(self._live)

    def of(self, model: str) -> list[Seen]:
        """What was seen of one model, oldest first."""
        return [seen for seen in self.seen if seen.model == model]

    async def wait_for(self, predicate: Callable[[Observer], bool]) -> None:
        """Return as soon as `predicate(self)` holds; it is asked again whenever something was recorded."""
        while not predicate(self):
            if self._changed is None:
                self._changed = trio.Event()
            await self._changed.wait()

    def reset(self) -> None:
        """Forget everything but what still runs."""
        self.seen.clear()
        self.seen.extend(sorted(self._live, key=lambda seen: seen.id))
        self.requests, self.completed, self.closes, self.aborted = len(self._live), 0, 0, 0
        self._notify()

    def arrived(
        self,
        connection: int,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        at: tuple[float, int],
        *,
        model: str = "",
        answer: str = "",
        target: str = "",
    ) -> Seen:
        """A request is here whole.

        Args:
          headers: lower-case names.
          at: when its head was read, as `moment()` told.
        """
        self.requests += 1
        self._serial += 1
        told = dict(headers)
        for name in _CREDENTIALS & told.keys():
            told[name] = f"...{told[name][-4:]}"
        seen = Seen(
            self._serial, connection, method, path, told, body[:_BODY_KEPT], len(body), *at, model=model, answer=answer, target=target
        )
        seen.attempt = told.get("x-evenflow-attempt", "")
        self.seen.append(seen)
        self._live.add(seen)
        self._notify()
        return seen

    def wrote(self, seen: Seen, events: int) -> None:
        """Bytes of the answer went out, and with them `events` whole events."""
        if seen.began is None:
            seen.began, seen.began_ns = moment()
        seen.events += events
        self._notify()

    def ended(self, seen: Seen, ending: Ending) -> None:
        """The answer is over; only the first to say so counts."""
        if seen.ending is not None:
            return
        seen.ended, seen.ended_ns = moment()
        seen.ending = ending
        self._live.discard(seen)
        self.completed += ending is Ending.COMPLETED
        self.closes += ending is Ending.CLIENT_CLOSED
        self.aborted += ending is Ending.ABORTED_BY_FAULT
        self._notify()

    def connected(self, change: int) -> None:
        """A connection was opened (1) or closed (-1)."""
        self.connections += change
        self._notify()

    def report(self, last: int = 1_000) -> dict[str, object]:
        """The record as JSON-ready values, with the newest `last` requests."""
        requests = list(self.seen)[-last:]
        return {
            "active": self.active,
            "requests": self.requests,
            "completed": self.completed,
            "closes": self.closes,
            "aborted": self.aborted,
            "connections": self.connections,
            "seen": [{name: getattr(seen, name) for name in Seen.__slots__ if name != "body"} for seen in requests],
        }

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


def moment() -> tuple[float, int]:
    """Now, on both clocks."""
    return trio.current_time(), time.monotonic_ns()

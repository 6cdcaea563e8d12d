"""Clients that leave: how long it takes until the upstream is rid of them, for each phase in which they can leave.

Times are differences of two processes' clocks on one machine. Where the upstream sees the close, it is the simulator's
CLOCK_MONOTONIC against ours. While the proxy is connecting or waits in a back-off there is no connection to be seen; there the
proxy's canonical log line, written when everything of the request has ended, is dated against our wall clock, so that figure
includes how long the proxy took to notice.
"""

from __future__ import annotations

import json
import socket
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import trio

from .raw_client import post

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import httpx

_REACH_LIMIT: Final = 30.0  # seconds until all clients of a phase are in it
_SEEN_LIMIT: Final = 5.0  # seconds after the last close; the promise is 0.1
_GAP: Final = 0.01  # seconds between two closes: 100 leave within a second, yet each is measured alone
_POLL: Final = 0.05

#: The promise of item 7, in milliseconds.
MEDIAN_LIMIT: Final = 10.0
MOST_LIMIT: Final = 100.0


@dataclass(frozen=True, slots=True)
class Phase:
    """Where clients leave.

    Args:
      model: of their requests.
      events: of the answer that the simulator has written by then.
      observer: who tells when the upstream was released.
    """

    name: str
    model: str
    stream: bool = True
    events: int = 0
    observer: Literal["simulator", "proxy's log"] = "simulator"


#: The model that is routed to an address that never answers, and the one whose upstream asks for a long pause.
NOWHERE: Final = "nowhere"
BUSY: Final = "http-503:retry_after=20"

PHASES: Final = (
    Phase("waiting for the head", "silence"),
    Phase("connecting", NOWHERE, observer="proxy's log"),
    Phase("before the first token", "role-then-silence", events=1),
    Phase("mid-stream, flowing", "count:count=5000,pace=200", events=3),
    Phase("mid-stream, silent", "stall:after=3,pace=1", events=3),
    Phase("in a back-off", BUSY, observer="proxy's log"),
    Phase("non-stream", "silence", stream=False),
)


@dataclass(frozen=True, slots=True)
class Closes:
    """What came of one phase. `median` and `most` are milliseconds from the client's close, None if none was seen."""

    phase: str
    observer: str
    closed: int
    seen: int
    median: float | None
    most: float | None

    @property
    def good(self) -> bool:
        """All seen, and in time."""
        if self.median is None or self.most is None:
            return False
        return self.seen == self.closed and self.median < MEDIAN_LIMIT and self.most <= MOST_LIMIT


class Leavers:
    """Makes clients leave.

    Args:
      http: for the questions to the simulator and to the proxy's admin listener.
      proxy, admin, simulator: each HOST:PORT.
      log: the proxy's, one JSON object a line.
    """

    def __init__(self, http: httpx.AsyncClient, *, proxy: str, admin: str, simulator: str, log: Path) -> None:
        self._http = http
        self._proxy = proxy
        self._admin = admin
        self._simulator = simulator
        self._log = log

    async def leave(self, phase: Phase, number: int) -> Closes:
        """Bring so many clients into a phase, let them leave one after the other, and collect who saw it when."""
        await self._http.post(f"http://{self._simulator}/_simulator/reset")
        prefix = f"load-{phase.name.replace(' ', '-').replace(',', '')}-"
        body = {"model": phase.model, "stream": phase.stream, "messages": [{"role": "user", "content": "count"}]}
        closed: dict[str, tuple[int, float]] = {}
        with ExitStack() as sockets:
            clients = []
            for i in range(number):
                clients.append(sockets.enter_context(_connected(self._proxy)))
                clients[-1].send(post(self._proxy, body, f"{prefix}{i}"))
                await trio.lowlevel.checkpoint()
            await self._wait(lambda: self._reached(phase, prefix, number), _REACH_LIMIT)
            for i, client in enumerate(clients):
                _drain(client)
                closed[f"{prefix}{i}"] = (time.monotonic_ns(), time.time())
                client.close()
                await trio.sleep(_GAP)
        latencies: list[float] = []

        async def all_seen() -> bool:
            latencies[:] = await self._latencies(phase, closed)
            return len(latencies) == number

        await self._wait(all_seen, _SEEN_LIMIT)
        median = statistics.median(latencies) if latencies else None
        return Closes(phase.name, phase.observer, number, len(latencies), median, max(latencies, default=None))

    async def settle(self) -> None:
        """Wait until nothing runs any more, so that what comes next is measured alone."""

        async def quiet() -> bool:
            return await self.left_over() == 0

        await self._wait(quiet, _REACH_LIMIT)

    async def left_over(self) -> int:
        """Streams that the proxy, and requests that the simulator still works at."""
        status, report = await self._status(), await self._report()
        return int(status["streams_active"]) + int(report["active"])

    async def _reached(self, phase: Phase, prefix: str, number: int) -> bool:
        if phase.model == NOWHERE:
            return int((await self._status())["streams_active"]) == number
        rows = [row for row in (await self._report())["seen"] if row["headers"].get("x-request-id", "").startswith(prefix)]
        if phase.model == BUSY:
            return [row["ending"] for row in rows].count("completed") == number
        return [row["events"] >= phase.events for row in rows].count(True) == number

    async def _latencies(self, phase: Phase, closed: dict[str, tuple[int, float]]) -> list[float]:
        """Milliseconds from each close that was seen."""
        if phase.observer == "simulator":
            rows = [(row["headers"].get("x-request-id"), row) for row in (await self._report())["seen"]]
            return [(row["ended_ns"] - closed[name][0]) / 1e6 for name, row in rows if name in closed and row["ending"] == "client_closed"]
        lines = [(line.get("id"), line) for line in self._log_lines() if line.get("outcome") == "cancelled"]
        return [(datetime.fromisoformat(line["timestamp"]).timestamp() - closed[name][1]) * 1000 for name, line in lines if name in closed]

    def _log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text("utf-8").splitlines(keepends=True) if line[0] == "{" and line[-1] == "\n"]

    async def _status(self) -> dict[str, Any]:
        answer: dict[str, Any] = (await self._http.get(f"http://{self._admin}/status")).json()
        return answer

    async def _report(self) -> dict[str, Any]:
        answer: dict[str, Any] = (await self._http.get(f"http://{self._simulator}/_simulator/report")).json()
        return answer

    async def _wait(self, reached: Callable[[], Awaitable[bool]], limit: float) -> None:
        """Ask until it is so; whoever judges the figures afterwards sees if it never was."""
        with trio.move_on_after(limit):
            while True:
                if await reached():
                    return
                await trio.sleep(_POLL)


def _connected(address: str) -> socket.socket:
    """A plain socket: closing it is one system call, with nothing between it and the stamp. Loopback does not make a connect wait."""
    host, port = address.split(":")
    sock = socket.create_connection((host, int(port)), timeout=5.0)
    sock.setblocking(False)
    return sock


def _drain(client: socket.socket) -> None:
    """Read what is there: a client that reads leaves with a FIN; unread bytes would turn it into a RST."""
    try:
        while client.recv(65_536):
            pass
    except BlockingIOError:
        return

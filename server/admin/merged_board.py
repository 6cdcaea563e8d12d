"""What one viewer is shown of several workers: their snapshots, as one.

Seconds of the plots are added up when every worker that answers has told them; one that was late, for it was blocked, fills in what it
missed, and that second is told once more. Whoever is gone takes its streams and circuits along, not what it had told. Everything in
here has an end, also for a viewer that reads slowly. Refuses to know how workers are asked.
"""

from __future__ import annotations

import math
from collections import Counter
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .board import KEPT, LISTED, MOST
from .snapshot import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .fan_out import WorkerStatistics
    from .snapshot import Point, Snapshot

#: Seconds without a word until a worker counts as one that does not answer.
LATE: Final = 3.0


class MergedBoard:
    """The memory of one viewer."""

    def __init__(self) -> None:
        self._told: dict[int, tuple[int | None, Snapshot, float]] = {}  # by worker: process, what it said last, when
        self._newest: dict[int, int] = {}  # by worker: the last second it told of
        self._points: dict[int, dict[int, Point]] = {}  # by second and worker
        self._last = 0  # the newest second of all
        self._untold: set[int] = set()
        self._entries: dict[str, list[dict[str, Any]]] = {name: [] for name in MOST}

    def take(self, worker: int, pid: int | None, snapshot: Snapshot, now: float) -> None:
        """A worker has told what came since its last snapshot.

        Args:
          pid: whose it is; a worker that was started again begins anew.
        """
        if worker in self._told and self._told[worker][0] != pid:
            self._newest.pop(worker, None)
        self._told[worker] = pid, snapshot, now
        for point in snapshot.series:
            self._place(worker, point)
        for tick in [tick for tick in self._points if tick <= self._last - KEPT]:
            del self._points[tick]
            self._untold.discard(tick)
        for name, entries in self._entries.items():
            if came := getattr(snapshot, name):
                entries += ({**entry, "worker": worker} for entry in came)
                entries.sort(key=itemgetter("at"))
                del entries[: -MOST[name]]

    def news(self, known: Mapping[int, WorkerStatistics], now: float) -> dict[str, Any]:
        """What was not told yet, and how everything is now; ready for JSON.

        Args:
          known: every worker as the supervisor sees it.
        """
        there = {
            number: told[1]
            for number, told in sorted(self._told.items())
            if known[number].serving and known[number].pid == told[0] and now - told[2] < LATE
        }
        entries, self._entries = self._entries, {name: [] for name in MOST}
        streams = sorted((row for each in _with_worker(there, "streams") for row in each), key=itemgetter("age"), reverse=True)
        first = next(iter(there.values()), None)
        return {
            **entries,
            "series": self._seconds(there),
            "totals": _sum(snapshot.totals for snapshot in there.values()),
            "streams_active": sum(snapshot.streams_active for snapshot in there.values()),
            "states": dict(sorted(_sum(snapshot.states for snapshot in there.values()).items())),
            "streams": streams[:LISTED],
            "version": first.version if first else "",
            "uptime": max((snapshot.uptime for snapshot in there.values()), default=0.0),
            "base_url": first.base_url if first else "",
            "ready": any(snapshot.ready for snapshot in there.values()),
            "engine": first.engine if first else "",
            "fallback": "; ".join(f"worker {number}: {one.fallback}" for number, one in there.items() if one.fallback),
            "waiting": sum(snapshot.waiting for snapshot in there.values()),
            "circuits": [row for each in _with_worker(there, "circuits") for row in each],
            "workers": [self._row(number, one, there.get(number)) for number, one in sorted(known.items())],
        }

    def _place(self, worker: int, point: Point) -> None:
        """A point stands for every second since the look before it; what was counted once, stands in its own."""
        self._last = max(self._last, point.tick)
        for tick in range(max(point.tick - point.span, self._last - KEPT) + 1, point.tick + 1):
            own = tick == point.tick
            self._points.setdefault(tick, {})[worker] = point if own else msgspec.structs.replace(point, tick=tick, first_token={}, held={})
            self._untold.add(tick)
        self._newest[worker] = max(point.tick, self._newest.get(worker, point.tick))

    def _seconds(self, there: Iterable[int]) -> list[dict[str, Any]]:
        """The seconds that all who answer have told, and that changed."""
        complete = min((self._newest[worker] for worker in there if worker in self._newest), default=math.inf)
        ready = sorted(tick for tick in self._untold if tick <= complete)
        self._untold.difference_update(ready)
        return [shown(self._points[tick].values()) for tick in ready]

    def _row(self, number: int, known: WorkerStatistics, snapshot: Snapshot | None) -> dict[str, Any]:
        if not known.serving:
            state = "starting"
        elif snapshot is None:
            state = "no answer"
        else:
            state = "serving" if snapshot.ready else "draining"
        newest = self._points.get(self._newest.get(number, 0), {}).get(number)
        return {
            "worker": number,
            "pid": known.pid,
            "restarts": known.restarts,
            "state": state,
            "streams": snapshot.streams_active if snapshot else 0,
            "events": round(newest.events, 1) if snapshot and newest else 0.0,
        }


def _with_worker(there: Mapping[int, Snapshot], name: str) -> Iterable[list[dict[str, Any]]]:
    return ([{**row, "worker": number} for row in getattr(snapshot, name)] for number, snapshot in there.items())


def _sum(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total

"""What one process tells whoever watches it, and how a second of several processes becomes a second of the plots.

Times are kept as how often each was seen, to two significant digits. Such counts can be added up, which quantiles cannot: so a quantile
is computed here, of everything that is shown as one, and nowhere before.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from actors import CircuitStatistics


class Point(msgspec.Struct, frozen=True):
    """One look of a process at its streams.

    Args:
      tick: the second of the machine's clock, the same for all its processes.
      span: seconds since the look before.
      streams: that run.
      events: a second.
      bytes: a second.
      first_token: how often each time (s) was seen until a stream's first token.
      held: the same of the longest hold of each stream that ended.
    """

    serial: int
    at: float
    tick: int
    span: int
    streams: int
    events: float
    bytes: float
    first_token: dict[float, int]
    held: dict[float, int]


class Snapshot(msgspec.Struct, frozen=True):
    """What came after a serial number, and how everything is now. See Board for the rows."""

    serial: int
    series: list[Point]
    happened: list[dict[str, Any]]
    ended: list[dict[str, Any]]
    transitions: list[dict[str, Any]]
    totals: dict[str, int]
    streams_active: int
    states: dict[str, int]
    streams: list[dict[str, Any]]
    version: str
    uptime: float
    base_url: str
    ready: bool
    engine: str
    fallback: str
    waiting: int
    circuits: list[dict[str, Any]]

    def encoded(self) -> bytes:
        """As JSON."""
        return msgspec.json.encode(self, enc_hook=str)

    def alone(self) -> dict[str, Any]:
        """For a page of this process alone."""
        return {**msgspec.structs.asdict(self), "series": [shown([point]) for point in self.series]}


def circuit_rows(circuits: Mapping[str, CircuitStatistics], now: float) -> list[dict[str, Any]]:
    """The circuits as a page lists them."""
    return [
        {
            "name": name,
            "state": circuit.state,
            "calls": circuit.calls,
            "failed": circuit.failures,
            "permits_out": circuit.permits_out,
            "refused": circuit.refused,
            "seconds_left": round(circuit.seconds_left(now), 1),
        }
        for name, circuit in circuits.items()
    ]


def see(times: dict[float, int], seconds: float) -> None:
    """Count one more time."""
    kept = float(f"{max(seconds, 0.0):.1e}")
    times[kept] = times.get(kept, 0) + 1


def shown(points: Iterable[Point]) -> dict[str, Any]:
    """One second of the plots.

    Args:
      points: of the same tick, at least one; each process has at most one.
    """
    points = list(points)
    first_token, first_token_p99 = _quantiles([point.first_token for point in points])
    held, held_p99 = _quantiles([point.held for point in points])
    return {
        "serial": max(point.serial for point in points),
        "at": max(point.at for point in points),
        "tick": points[0].tick,
        "streams": sum(point.streams for point in points),
        "events": round(math.fsum(point.events for point in points), 1),
        "bytes": round(math.fsum(point.bytes for point in points)),
        "first_token": first_token,
        "first_token_p99": first_token_p99,
        "held": held,
        "held_p99": held_p99,
    }


def _quantiles(several: list[dict[float, int]]) -> tuple[float | None, float | None]:
    """The median and the 99th percentile of all: the smallest times that so many were not above. None of none."""
    times = several[0]
    if len(several) > 1:
        times = Counter(times)
        for others in several[1:]:
            times.update(others)
    if not times:
        return None, None
    ordered = sorted(times)
    below = list(accumulate(map(times.__getitem__, ordered)))
    return ordered[bisect_left(below, 0.5 * below[-1])], ordered[bisect_left(below, 0.99 * below[-1])]

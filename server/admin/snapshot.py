"""What one process tells whoever watches it, and how a second of several processes becomes a second of the plots.

Times are kept as how often each was seen, to two significant digits. Such counts can be added up, which quantiles cannot: so a quantile
is computed here, of everything that is shown as one, and nowhere before.
"""

from __future__ import annotations

import math
from collections import Counter
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
    first, held = _together(point.first_token for point in points), _together(point.held for point in points)
    return {
        "serial": max(point.serial for point in points),
        "at": max(point.at for point in points),
        "tick": points[0].tick,
        "streams": sum(point.streams for point in points),
        "events": round(math.fsum(point.events for point in points), 1),
        "bytes": round(math.fsum(point.bytes for point in points)),
        "first_token": _quantile(first, 0.5),
        "first_token_p99": _quantile(first, 0.99),
        "held": _quantile(held, 0.5),
        "held_p99": _quantile(held, 0.99),
    }


def _together(several: Iterable[Mapping[float, int]]) -> Counter[float]:
    total: Counter[float] = Counter()
    for times in several:
        total.update(times)
    return total


def _quantile(times: Counter[float], share: float) -> float | None:
    """The smallest time that so many were not above; None of none."""
    rank = math.ceil(share * times.total())
    for seconds in sorted(times):
        rank -= times[seconds]
        if rank <= 0:
            return seconds
    return None

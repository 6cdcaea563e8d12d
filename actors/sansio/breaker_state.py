"""States of one circuit breaker (being built)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a circuit opens and how it closes. Durations in seconds. Origin: DESIGN section 8.

    Args:
      mode: "on", "disabled" (admits everything, counts nothing), "metrics_only" (counts and reports, never refuses).
      window, buckets: the sliding time window in which calls are counted.
      minimum_calls: below it the failure rate opens nothing.
      failure_rate: share of failures in the window (0 to 1] that opens.
      consecutive_failures: so many in a row open, whatever the rate; 0 is off.
      slow_rate: share of slow calls that opens; 0 is off.
      open_base, open_max, jitter: open time doubles per consecutive opening from base to max, spread by +-jitter (share).
      probes: calls admitted at once while half-open.
      successes: good probes in a row that close it.
      alone_open_max: ceiling of the open time where the route has no other upstream, so that a single upstream is soon tried again.
    """

    mode: str = "on"
    window: float = 60.0
    buckets: int = 10
    minimum_calls: int = 5
    failure_rate: float = 0.5
    consecutive_failures: int = 5
    slow_rate: float = 0.0
    open_base: float = 5.0
    open_max: float = 60.0
    jitter: float = 0.2
    probes: int = 1
    successes: int = 2
    alone_open_max: float = 2.0

"""The vocabulary of the circuit breaker: its policy, its states, and what it hands out.

Plain values. What follows from what is decided in circuit.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .retry_budget import RetryBudgetStatistics

Mode: TypeAlias = Literal["on", "forced_open", "disabled", "metrics_only"]
StateName: TypeAlias = Literal["closed", "open", "half_open", "paused", "forced_open", "disabled", "metrics_only"]

MODES: Final[tuple[Mode, ...]] = get_args(Mode)


def circuit_name(upstream: str, model: str) -> str:
    """Name of the circuit of one model at an upstream. No upstream's own name has a bracket in it."""
    return f"{upstream}[{model}]"


def upstream_of(circuit: str) -> str:
    """The upstream that a circuit judges, all of it or one of its models."""
    return circuit.partition("[")[0]


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a circuit opens and how it closes. Durations in seconds. Origin: DESIGN section 8; where it is silent, a guess.

    Args:
      mode: "on", "disabled" (admits everything, counts nothing), "metrics_only" (counts and reports, never refuses), "forced_open".
      window, buckets: the sliding time window in which calls are counted.
      minimum_calls: below it no rate opens anything.
      failure_rate: share of failures in the window (above 0, to 1) that opens.
      consecutive_failures: so many in a row open, whatever the rate; 0 is off.
      slow_rate: share of slow calls that opens; 0 is off.
      slow_first_token: seconds without a first token after which a stream counts as slow; 0 is off.
      slow_tokens_per_second: a stream below it counts as slow; 0 is off.
      open_base, open_max, jitter: open time doubles per consecutive opening from base to max, then spread by +-jitter (share).
      probes: calls admitted at once while half-open.
      successes: good probes that close it.
      half_open_max: a probe that says nothing for so long opens the circuit again; 0 waits as long as the attempt's own timers do.
      alone_open_max: ceiling of the open time where the route has no other upstream, so that a single upstream is soon tried again;
        0 is no ceiling.
      pause: of a 429 that does not say for how long.
      retry_after_max: longest Retry-After that is believed: a typing error up there must not shut an upstream out for a day.
      credential_pause, credential_pause_max: pause after a refused credential, doubling per further refusal from the first to the second.

    Raises:
      ValueError: a number is out of its range.
    """

    mode: Mode = "on"
    window: float = 60.0
    buckets: int = 10
    minimum_calls: int = 5
    failure_rate: float = 0.5
    consecutive_failures: int = 5
    slow_rate: float = 0.0
    slow_first_token: float = 0.0
    slow_tokens_per_second: float = 0.0
    open_base: float = 5.0
    open_max: float = 60.0
    jitter: float = 0.2
    probes: int = 1
    successes: int = 2
    half_open_max: float = 0.0
    alone_open_max: float = 2.0
    pause: float = 1.0
    retry_after_max: float = 600.0
    credential_pause: float = 30.0
    credential_pause_max: float = 600.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, not {self.mode!r}")
        for name in ("window", "open_base", "open_max", "pause", "retry_after_max", "credential_pause", "credential_pause_max"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name} must be above 0 seconds, not {value}")
        for name in ("half_open_max", "alone_open_max", "slow_first_token"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name} must be 0 (off) or more seconds, not {value}")
        if not 0 <= self.slow_tokens_per_second < math.inf:
            raise ValueError(f"slow_tokens_per_second must be 0 (off) or more, not {self.slow_tokens_per_second}")
        for name in ("buckets", "minimum_calls", "probes", "successes"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}")
        if self.consecutive_failures < 0:
            raise ValueError(f"consecutive_failures must be 0 (off) or more, not {self.consecutive_failures}")
        if not 0 < self.failure_rate <= 1:
            raise ValueError(f"failure_rate must be above 0 and at most 1, not {self.failure_rate}")
        if not 0 <= self.slow_rate <= 1:
            raise ValueError(f"slow_rate must be from 0 (off) to 1, not {self.slow_rate}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter must be from 0 to below 1, not {self.jitter}")
        for base, ceiling in (("open_base", "open_max"), ("credential_pause", "credential_pause_max")):
            if getattr(self, base) > getattr(self, ceiling):
                raise ValueError(f"{base} must be at most {ceiling}, not {getattr(self, base)} > {getattr(self, ceiling)}")


@dataclass(frozen=True, slots=True, eq=False)
class Grant:
    """One admission. Its identity is what the circuit knows it by; only the circuit that made it understands it."""

    upstream: str
    generation: int
    admitted: float
    probe: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nobody may go there now.

    Args:
      state: the state that refused.
      retry_after: seconds until it is worth asking again; exact while open or paused, a guess otherwise.
      reason: a phrase for the log and the client.
    """

    upstream: str
    state: StateName
    retry_after: float
    reason: str


@dataclass(frozen=True, slots=True)
class Closed:
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Open:
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class HalfOpen:
    """`probes` are those that are out and not judged yet, `good` counts those that were judged good."""

    probes: frozenset[Grant] = frozenset()
    good: int = 0


State: TypeAlias = Closed | Open | HalfOpen


@dataclass(frozen=True, slots=True)
class Pause:
    until: float
    reason: str


@dataclass(frozen=True, slots=True)
class Transition:
    """What observers are told; `before` and `after` differ."""

    upstream: str
    before: StateName
    after: StateName
    reason: str


@dataclass(frozen=True, slots=True)
class CircuitStatistics:
    """One circuit at one moment. Times are of the clock that `now` came from; counts are those of the window.

    Args:
      state: what decides at the moment.
      circuit: the same without the modes, so that `metrics_only` shows what it would have done.
      until: when the open time or the pause ends, None if neither runs.
      reason: why it is not closed, "" if it is.
      openings, credential_pauses, refused: totals since the start; under `metrics_only` refused counts whom it would have refused.
      consecutive_openings: how often the open time was doubled, plus one.
      permits_out: granted and not yet given back, of whatever generation.
    """

    upstream: str
    state: StateName
    circuit: StateName
    until: float | None
    reason: str
    calls: int
    failures: int
    slow: int
    consecutive_failures: int
    generation: int
    openings: int
    consecutive_openings: int
    credential_pauses: int
    refused: int
    permits_out: int

    def seconds_left(self, now: float) -> float:
        """Seconds until the open time or the pause ends, 0 if neither runs."""
        return max(0.0, self.until - now) if self.until is not None else 0.0


@dataclass(frozen=True, slots=True)
class BreakerStatistics:
    """All circuits, the retry budget and the actor that owns them, at one moment.

    Args:
      upstreams: each circuit as of its last message or deadline.
      mailbox_depth: messages that wait.
      restarts: how often the body failed and was started again.
      failed_open: callers who were let through because there was no answer.
      lost_reports: reports that found the mailbox full or closed.
    """

    upstreams: Mapping[str, CircuitStatistics]
    retry_budget: RetryBudgetStatistics
    mailbox_depth: int
    restarts: int
    failed_open: int
    lost_reports: int

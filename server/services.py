"""What every request of one process shares, opened once by proxy.py and passed down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors import Admission, Alarms, CircuitBreaker, RelayProcessor, RouteTable, StreamProcessor, UpstreamClient

    from .admin.board import Board
    from .buffers import Buffers
    from .clerk import Clerk
    from .client_keys import KeyRing
    from .flights import FlightRecorder
    from .metrics import Metrics
    from .rollout import Rollout
    from .settings import Settings
    from .tracing import Tracing

    Processor: TypeAlias = StreamProcessor | RelayProcessor


@dataclass(slots=True)
class Readiness:
    """How far the process is on its way to its end; both flags turn once.

    Args:
      ready: new requests are welcome.
      over: the time of those that run is over, too.
      running: requests that have a processor.
    """

    ready: bool = True
    over: bool = False
    running: set[Processor] = field(default_factory=set)

    def begin(self, processor: Processor) -> None:
        """A request begins; `running.discard` is for its end. One that comes too late is ended before it asks anybody."""
        self.running.add(processor)
        if self.over:
            processor.shut_down()

    def shut_down(self) -> None:
        """End what runs; each tells its client."""
        self.over = True
        for processor in tuple(self.running):
            processor.shut_down()


@dataclass(frozen=True, slots=True)
class Services:
    """The shared parts of one process under one configuration; a request keeps those it began with.

    Args:
      settings: the effective ones.
      routes: where requests may go.
      client: the way to the upstreams.
      breaker: their health.
      alarms: for what seldom falls due; the same under every configuration.
      clerk: writes down what has ended; the same under every configuration.
      keys: the main listener's client keys.
      buffers: what watches the text, made per attempt.
      metrics: counted into.
      base_url: where clients reach the main listener, for hints.
      random: uniform in [0, 1).
      admission: who is served and who waits; the same under every configuration.
      rollout: which engine serves a stream; the same under every configuration.
      board: what the dashboard shows; the same under every configuration.
      recorder: of flights, None if none are kept.
      tracing: opens a span for each stream, None if none is wanted.
      readiness: the same under every configuration.
    """

    settings: Settings
    routes: RouteTable
    client: UpstreamClient
    breaker: CircuitBreaker
    alarms: Alarms
    clerk: Clerk
    keys: KeyRing
    buffers: Buffers
    metrics: Metrics
    base_url: str
    random: Callable[[], float]
    admission: Admission
    rollout: Rollout
    board: Board
    recorder: FlightRecorder | None = None
    tracing: Tracing | None = None
    readiness: Readiness = field(default_factory=Readiness)

    @property
    def ready(self) -> bool:
        """New requests are welcome: the process is not about to end, and has memory for them."""
        return self.readiness.ready and not self.admission.short_of_memory

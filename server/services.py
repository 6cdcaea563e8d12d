"""What every request of one process shares, opened once by main.py and passed down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors import CircuitBreaker, RouteTable, UpstreamClient

    from .client_keys import KeyRing
    from .metrics import Metrics
    from .settings import Settings


@dataclass(slots=True)
class Readiness:
    """Whether new requests are welcome; turns False once, when the process is asked to stop."""

    ready: bool = True


@dataclass(frozen=True, slots=True)
class Services:
    """The shared parts of one process.

    Args:
      settings: the effective ones.
      routes: where requests may go.
      client: the way to the upstreams.
      breaker: their health.
      keys: the main listener's client keys.
      metrics: counted into.
      base_url: where clients reach the main listener, for hints.
      random: uniform in [0, 1).
    """

    settings: Settings
    routes: RouteTable
    client: UpstreamClient
    breaker: CircuitBreaker
    keys: KeyRing
    metrics: Metrics
    base_url: str
    random: Callable[[], float]
    readiness: Readiness = field(default_factory=Readiness)

"""Where requests may go: upstreams, the routes that name them, and the timers that bound the wait.

Pure values, built once from the settings. A *candidate* is one upstream as one route uses it: with the model to ask for and
the timers that apply there.
"""

from __future__ import annotations

import fnmatch
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from .sansio.breaker_state import BreakerPolicy, circuit_name
from .sansio.error_recovery import RecoveryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .sansio.resume_plan import Continuation, ResumeMode

Delivery: TypeAlias = Literal["stream", "whole"]


class Secret:
    """A credential that does not show itself: repr and str give its last four characters at most."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return f"****{self._value[-4:]}" if len(self._value) >= 12 else "****"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True)
class Timers:
    """Every wait that is bounded, in seconds; `math.inf` is off (0 in the settings). Origin of each number: DESIGN section 8.

    Args:
      connect: until the connection to the upstream stands, TLS included.
      first_token: from the request until the first meaningful frame.
      idle: between two tokens (reasoning and tool deltas count).
      total: of the whole request.
      keepalive_after: silence before a bare head and the first `: keep-alive` comment go out.
      keepalive_interval: between two keep-alive comments.
      client_stall: a client that takes no byte for so long is given up.
    """

    connect: float = 5.0
    first_token: float = 300.0
    idle: float = 120.0
    total: float = 1800.0
    keepalive_after: float = 15.0
    keepalive_interval: float = 15.0
    client_stall: float = 30.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """One base URL with one credential; two keys are two upstreams.

    Args:
      name: what logs, metrics and error texts call it.
      base_url: with scheme and path, without a slash at its end, for example `http://127.0.0.1:11434/v1`.
      key: the credential, None if the upstream wants none.
      auth: "configured" sends `key`; "client" forwards the caller's own Authorization header.
      headers: added to every request.
      ca_file: PEM bundle to trust instead of the system's.
      proxy: URL of a forward proxy.
      transport: "own" is transport.py; "httpx" is httpx's, which is also what serves upstreams behind a proxy.
      http2: ask for HTTP/2; what is agreed on in the TLS handshake counts.
      continuation: how it is told to continue an answer that was begun, "none" if it cannot.
      breaker: when its circuit opens.
      slots: requests it takes at once, 0 for as many as come.
      own_circuits: models that are judged apart from the others.
    """

    name: str
    base_url: str
    key: Secret | None = None
    auth: Literal["configured", "client"] = "configured"
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # both may hold a credential
    ca_file: str | None = None
    proxy: str | None = field(default=None, repr=False)
    transport: Literal["own", "httpx"] = "own"
    http2: bool = False
    continuation: Continuation = "none"
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    slots: int = 0
    own_circuits: frozenset[str] = frozenset()

    def circuit(self, model: str) -> str:
        """Name of the circuit that judges requests for `model`: the upstream's own, or one of the model there."""
        return circuit_name(self.name, model) if model in self.own_circuits else self.name


@dataclass(frozen=True, slots=True)
class Candidate:
    """One upstream as one route uses it. `model` None asks for the model the client named."""

    upstream: Upstream
    model: str | None = None
    timers: Timers = field(default_factory=Timers)


@dataclass(frozen=True, slots=True)
class Route:
    """A model name, a glob or `*`, and the candidates to ask in order.

    Args:
      timers: of the stream as a whole: `total`, `keepalive_*`, `client_stall`. The others are each candidate's own.
      hedge_after: seconds of silence after which a second upstream is asked beside the first; `math.inf` is never.
      resume: whether an answer is taken up again of which output was sent.
      delivery: "whole" keeps an answer until it is complete.
    """

    pattern: str
    candidates: tuple[Candidate, ...]
    timers: Timers = field(default_factory=Timers)
    recovery: RecoveryPolicy = field(default_factory=RecoveryPolicy)
    hedge_after: float = math.inf
    resume: ResumeMode = "off"
    delivery: Delivery = "stream"

    @property
    def continuable(self) -> bool:
        """Some upstream of it can go on from the beginning of an answer."""
        return any(candidate.upstream.continuation != "none" for candidate in self.candidates)


class RouteTable:
    """Finds the route of a model: an exact name before a glob (the longest first) before `*`."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = tuple(routes)
        self._exact = {r.pattern: r for r in self._routes if not is_glob(r.pattern)}
        globs = [r for r in self._routes if is_glob(r.pattern)]
        self._globs = sorted(globs, key=lambda r: (r.pattern == "*", -len(r.pattern)))

    @property
    def routes(self) -> tuple[Route, ...]:
        return self._routes

    def find(self, model: str) -> Route | None:
        """The route of `model`, or None if nothing serves it."""
        if (route := self._exact.get(model)) is not None:
            return route
        for route in self._globs:
            if route.pattern == "*" or fnmatch.fnmatchcase(model, route.pattern):
                return route
        return None


def is_glob(pattern: str) -> bool:
    """Whether a route's model stands for several: a glob, or `*`."""
    return any(character in pattern for character in "*?[")


def seconds_or_off(value: float) -> float:
    """Settings write 0 for "off"; inside it is infinity, so that no comparison needs a special case."""
    return value if value > 0 else math.inf

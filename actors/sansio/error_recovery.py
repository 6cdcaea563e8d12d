"""What follows a failed attempt: the same upstream again, the next one, or the end.

Theory of operation
-------------------
`ErrorRecoveryManager` belongs to one request. It is asked after each failed attempt, and answers with one of

    Retry(delay)      the same upstream again, after `delay` seconds
    FailOver(delay)   the next upstream of the route
    Fail()            the client gets this fault

It counts what it has spent; the *latest* error decides (a published bug of other gateways: the first one did, so that
back-off was 12 times too fast, LiteLLM 20722). The retry budget that all streams share is asked by the caller, since it
lives in the circuit breaker's actor. No waiting here, no clock; randomness is a callable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from .faults import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Strategy(StrEnum):
    """What `recovery.<fault>` may say. Not each is legal for each fault; see STRATEGIES."""

    RETRY = "retry"
    FAILOVER = "failover"
    FAIL = "fail"
    REPLAY = "replay"
    SKIP = "skip"


#: Legal strategies per `recovery.<name>` setting; the first is the default and says what DESIGN section 5 asks for.
STRATEGIES: Final[Mapping[str, tuple[Strategy, ...]]] = MappingProxyType(
    {
        "connect": (Strategy.RETRY, Strategy.FAILOVER, Strategy.FAIL),
        "tls": (Strategy.FAILOVER, Strategy.FAIL),
        # Not retried on the same upstream: it has just used up minutes, and a silent route shall be asked once.
        "first_token_timeout": (Strategy.FAILOVER, Strategy.RETRY, Strategy.FAIL),
        # A stream that broke after an upstream had answered; after reasoning alone it is replayed the same way.
        "cut": (Strategy.RETRY, Strategy.FAILOVER, Strategy.FAIL),
        "server_error": (Strategy.RETRY, Strategy.FAILOVER, Strategy.FAIL),
        "rate_limited": (Strategy.RETRY, Strategy.FAILOVER, Strategy.FAIL),
        "auth": (Strategy.FAILOVER, Strategy.FAIL),
        "context_length": (Strategy.FAILOVER, Strategy.FAIL),
        # What happens when only reasoning was sent before the cut.
        "reasoning_cut": (Strategy.REPLAY, Strategy.FAIL),
        # A torn chunk that may carry text: losing it silently is opt-in.
        "bad_chunk": (Strategy.FAIL, Strategy.SKIP),
    }
)


@dataclass(frozen=True, slots=True)
class RecoveryPolicy:
    """What may be spent on one request. Every duration in seconds; origin: DESIGN sections 5 and 8.

    Args:
      retries: further tries on the same upstream.
      backoff_base, backoff_cap: bounds of the exponential back-off; full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter").
      retry_after_max: longest Retry-After that is waited for while the route has another upstream.
      retry_after_max_alone: the same where it has none.
      strategies: `recovery.<name>` settings that differ from their default.
    """

    retries: int = 2
    backoff_base: float = 0.5
    backoff_cap: float = 8.0
    retry_after_max: float = 5.0
    retry_after_max_alone: float = 30.0
    strategies: Mapping[str, Strategy] = field(default_factory=dict)

    def strategy(self, name: str) -> Strategy:
        return self.strategies.get(name, STRATEGIES[name][0])


@dataclass(frozen=True, slots=True)
class Retry:
    delay: float


@dataclass(frozen=True, slots=True)
class FailOver:
    delay: float


@dataclass(frozen=True, slots=True)
class Fail:
    pass


Decision: TypeAlias = Retry | FailOver | Fail


class ErrorRecoveryManager:
    """Decides, for one request, what follows a failed attempt.

    Args:
      policy: what may be spent.
      models: the model each candidate of the route will be asked for, in order; a context-length rejection moves on only to another model.
      client_is_retrying: the client says that this request is itself a retry: at most one further try, since nested retries multiply.
      random: uniform in [0, 1).
    """

    def __init__(self, policy: RecoveryPolicy, models: tuple[str, ...], *, client_is_retrying: bool, random: Callable[[], float]) -> None:
        self._policy = policy
        self._models = models
        self._allowance = 1 if client_is_retrying else math.inf
        self._random = random
        self._tries_here = 0
        self._candidate = 0

    @property
    def policy(self) -> RecoveryPolicy:
        return self._policy

    @property
    def candidate(self) -> int:
        """Index of the route's candidate whose turn it is."""
        return self._candidate

    def decide(self, fault: Fault) -> Decision:
        """Answer one failed attempt, and count what the answer spends."""
        decision = self._decide(fault)
        if not isinstance(decision, Fail) and not fault.nobody_asked:
            self._allowance -= 1
        match decision:
            case Retry():
                self._tries_here += 1
            case FailOver():
                self._candidate = self._next_candidate(fault)
                self._tries_here = 0
        return decision

    def settle_on(self, candidate: int) -> None:
        """A later candidate, asked beside the one whose turn it is, answered first: what follows, follows from there."""
        self._candidate = candidate
        self._tries_here = 0

    def _decide(self, fault: Fault) -> Decision:
        setting = fault.recovery
        elsewhere = self._next_candidate(fault) < len(self._models)
        if fault.nobody_asked:
            # Nothing was spent: the next upstream, whatever the settings say.
            return FailOver(0.0) if elsewhere else Fail()
        strategy = self._policy.strategy(setting) if setting is not None else Strategy.FAIL
        if strategy is Strategy.FAIL or self._allowance < 1:
            return Fail()
        if strategy is Strategy.RETRY and self._tries_here < self._policy.retries:
            longest = self._policy.retry_after_max if elsewhere else self._policy.retry_after_max_alone
            delay = self._backoff()
            if fault.retry_after is None:
                return Retry(delay)
            if fault.retry_after <= longest:
                # The jitter goes on top, so that all who were told the same second do not come back together.
                return Retry(fault.retry_after + delay * 0.1)
        return FailOver(0.0) if elsewhere else Fail()

    def _next_candidate(self, fault: Fault) -> int:
        following = range(self._candidate + 1, len(self._models))
        if fault.kind is FaultKind.CONTEXT_LENGTH:
            following_models = (i for i in following if self._models[i] != self._models[self._candidate])
            return next(following_models, len(self._models))
        return following.start if following else len(self._models)

    def _backoff(self) -> float:
        ceiling = min(self._policy.backoff_cap, self._policy.backoff_base * 2.0**self._tries_here)
        return ceiling * self._random()

"""How many attempts may be retries, over all streams together.

It owns the count and the decision; it does not know why somebody wants to retry, nor when (error_recovery.py). Without a budget
an outage is multiplied: with two retries per request a struggling upstream gets three times its load at the worst moment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from .sliding_window import SlidingWindow

_ATTEMPT: Final = 0
_RETRY: Final = 1


@dataclass(frozen=True, slots=True)
class RetryBudgetPolicy:
    """Origin of the numbers: a share of 20 % with a floor per second is what Finagle's and linkerd's retry budgets use.

    Args:
      share: part of the attempts in the window that may be retries, 0 to 1.
      floor: retries per window that are allowed whatever the share says, so that a machine with one user still gets them.
      window: seconds.
      buckets: into how many the window is cut.

    Raises:
      ValueError: a number is out of its range.
    """

    share: float = 0.2
    floor: int = 10
    window: float = 10.0
    buckets: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must be from 0 to 1, not {self.share}")
        if self.floor < 0:
            raise ValueError(f"floor must be 0 or more, not {self.floor}")
        if not 0 < self.window < math.inf:
            raise ValueError(f"window must be above 0 seconds, not {self.window}")
        if self.buckets < 1:
            raise ValueError(f"buckets must be 1 or more, not {self.buckets}")


@dataclass(frozen=True, slots=True)
class RetryBudgetStatistics:
    """What the budget looked like when it was last asked: counts in its window, and refusals since the start."""

    attempts: int
    retries: int
    refused: int


class RetryBudget:
    """Grants retries up to a share of all attempts.

    A retry that is made counts as an attempt as well (`attempt_made` is called for each attempt), so that the share is a share of
    what the upstreams see.
    """

    def __init__(self, policy: RetryBudgetPolicy) -> None:
        self._policy = policy
        self._window = SlidingWindow(policy.window, policy.buckets, 2)
        self._refused = 0

    def reconfigure(self, policy: RetryBudgetPolicy) -> None:
        """Go on under another policy; what was counted stays if the window keeps its shape."""
        before, self._policy = self._policy, policy
        if (before.window, before.buckets) != (policy.window, policy.buckets):
            self._window = SlidingWindow(policy.window, policy.buckets, 2)

    def attempt_made(self, now: float) -> None:
        self._window.record(_ATTEMPT, now)

    def spend(self, now: float) -> bool:
        """True if one more retry may be made now; it is counted at once."""
        self._window.advance(now)
        attempts, retries = self._window.totals
        if retries < max(self._policy.floor, self._policy.share * attempts):
            self._window.record(_RETRY, now)
            return True
        self._refused += 1
        return False

    def statistics(self) -> RetryBudgetStatistics:
        attempts, retries = self._window.totals
        return RetryBudgetStatistics(attempts, retries, self._refused)

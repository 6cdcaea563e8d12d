"""The hedge: a second upstream is asked beside one that stays silent, and the first to say something is kept.

Owns the race of two tries: when the second begins, who has won, and that the loser is closed at once. It refuses to know whom the
second asks, and whether it may (attempts.py); two tries are two requests that somebody pays for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import trio

from .sansio.faults import Fault, Verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .circuit_breaker import Permit
    from .open_attempt import OpenAttempt

    Try: TypeAlias = Callable[["Runner"], Awaitable[OpenAttempt | Fault]]
    Hedge: TypeAlias = Callable[["Runner", "Runner"], Awaitable[OpenAttempt | Fault | None]]


@dataclass(slots=True, eq=False)
class Runner:
    """One of the two tries, as far as the race has to know it."""

    permit: Permit | None = None
    asked: trio.Event = field(default_factory=trio.Event)
    _since: float = 0.0

    def begin(self, permit: Permit) -> None:
        """Its upstream is asked from now on."""
        self.permit = permit
        self._since = trio.current_time()
        self.asked.set()

    def lose(self, patience: float) -> None:
        """Another has won. Silence beyond what is waited for before a hedge is slow; a shorter one says nothing (DESIGN section 6)."""
        if self.permit is not None and trio.current_time() - self._since >= patience:
            self.permit.ended(Verdict.SLOW)


class Race:
    """One race. After `run`: `winner`, or the `faults` of those that were asked, the latest last.

    Args:
      after: seconds of silence after which the hedge begins.
    """

    def __init__(self, after: float) -> None:
        self.winner: OpenAttempt | None = None
        self.hedge_won = False
        self.faults: list[Fault] = []
        self.hedge_failed_last = False
        self._after = after
        self._first = Runner()
        self._hedge = Runner()

    @property
    def hedged(self) -> bool:
        """The second upstream was asked."""
        return self._hedge.asked.is_set()

    async def run(self, first: Try, hedge: Hedge) -> None:
        """Run both tries until one has won or both have failed.

        Args:
          first: asks the upstream whose turn it is.
          hedge: asks another, or returns None at once if that may not be; given its own runner and the first's.

        Cancellation: at any point; whatever was opened is closed.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_first, first, nursery)
                nursery.start_soon(self._run_hedge, hedge, nursery)
        except BaseException:
            if self.winner is not None:
                await self.winner.aclose()
            raise

    async def _run_first(self, first: Try, nursery: trio.Nursery) -> None:
        answer = await first(self._first)
        if not isinstance(answer, Fault):
            await self._arrive(answer, self._hedge, nursery)
            return
        self.faults.append(answer)
        self.hedge_failed_last = False
        if not self.hedged:
            nursery.cancel_scope.cancel()  # it did not stay silent: what follows is no matter of a race

    async def _run_hedge(self, hedge: Hedge, nursery: trio.Nursery) -> None:
        await self._first.asked.wait()
        await trio.sleep(self._after)
        answer = await hedge(self._hedge, self._first)
        if isinstance(answer, Fault):
            self.faults.append(answer)
            self.hedge_failed_last = True
        elif answer is not None:
            await self._arrive(answer, self._first, nursery)

    async def _arrive(self, opened: OpenAttempt, other: Runner, nursery: trio.Nursery) -> None:
        if self.winner is not None:  # both in the same moment
            await opened.aclose()
            return
        self.winner = opened
        self.hedge_won = other is self._first
        other.lose(self._after)
        nursery.cancel_scope.cancel()

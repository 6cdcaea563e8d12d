"""The circuit breaker's actor: one task that owns the health of every upstream, and the retry budget.

It owns when messages are answered, and what happens when they cannot be. What the answers are is decided in sansio/circuit.py and
sansio/retry_budget.py; what an attempt's end means is decided in sansio/faults.py.

Theory of operation
-------------------
Whoever holds the handle (`CircuitBreaker`) asks and tells by messages; only the body touches a circuit, so there is no lock.

A question carries a reply channel *without buffer*. The caller sends the question without waiting, then listens, and closes only
the receive end; the body closes the send end. If the caller has left by then (cancelled, or tired of waiting), the send fails, the
body knows, and takes the permit back. With a buffer the permit would lie there, and with a lost probe the circuit stays half-open.

A body that rests, its mailbox empty, is handed what streams ask and tell by a plain call: its messages still come one at a time and
in order, and a question needs neither a channel nor a turn of two tasks (120 us of a first token, measured). What fails then is the
body's failure all the same: it is handed the exception, and the caller hears what any caller hears at whose question it failed.

The supervisor owns the mailbox. A body that fails leaves it as it is: the message it failed at is answered by a closed reply
channel, all circuits begin again closed, and the next body goes on with the next message. Three failures within a minute are
nothing that a further restart mends, and end the process.

Whatever happens here, no request waits longer than a second for it: the breaker *fails open*.
"""

from __future__ import annotations

import logging
import math
import random as random_module
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self, TypeAlias, TypeVar, assert_never

import trio

from .errors import BreakerFailed, BreakerGone
from .sansio.breaker_state import MODES, BreakerPolicy, BreakerStatistics, CircuitStatistics, Grant, Mode, Refusal, upstream_of
from .sansio.circuit import Circuit
from .sansio.faults import Verdict
from .sansio.retry_budget import RetryBudget, RetryBudgetPolicy, RetryBudgetStatistics

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

    Observer: TypeAlias = Callable[[str, str, str, str], None]

T = TypeVar("T")
Reply: TypeAlias = "trio.MemorySendChannel[T]"

#: Seconds that a caller waits for an answer. The body never waits for anything but its mailbox, so this is for a body that fails.
ANSWER_WITHIN: Final = 1.0
#: Messages, of which the body handles 40,000 to 80,000 a second (measured): so many wait only if it is gone. Questions are turned
#: away at half of it, so that the reports of those who were let in still find room.
MAILBOX_SIZE: Final = 20_000
#: The body may fail so often within so many seconds before that ends the process (FAULTS row 58).
_CRASHES: Final = 3
_CRASH_WINDOW: Final = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Acquire:
    upstream: str
    alone: bool
    attempting: bool
    reply: Reply[Grant | Refusal]


@dataclass(frozen=True, slots=True)
class _Started:
    grant: Grant
    slow: bool


@dataclass(frozen=True, slots=True)
class _Ended:
    grant: Grant
    verdict: Verdict
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class _AttemptMade:
    pass


@dataclass(frozen=True, slots=True)
class _Failed:
    """What it was handed while it rested could not be handled."""

    error: Exception


@dataclass(frozen=True, slots=True)
class _SpendRetry:
    reply: Reply[bool]


@dataclass(frozen=True, slots=True)
class _Force:
    upstream: str
    mode: Mode | None  # None is a reset
    reply: Reply[None]


@dataclass(frozen=True, slots=True)
class _Reconfigure:
    policies: Mapping[str, BreakerPolicy]
    anew: frozenset[str]
    budget: RetryBudgetPolicy
    reply: Reply[None]


_Question: TypeAlias = _Acquire | _SpendRetry | _Force | _Reconfigure
_Message: TypeAlias = _Question | _Started | _Ended | _AttemptMade | _Failed


class CircuitBreaker:
    """What everybody but the body holds of the circuit breaker. Made by `open_circuit_breaker`."""

    def __init__(self, mailbox: trio.MemorySendChannel[_Message], board: _Board) -> None:
        self._mailbox = mailbox
        self._board = board
        self._failed_open = self._lost_reports = 0

    async def acquire(self, upstream: str, *, alone: bool = False, attempting: bool = False) -> Permit | Refusal:
        """Ask to go to an upstream.

        Args:
          alone: no other upstream of the route is available, so an open circuit is tried again earlier.
          attempting: whoever gets the permit makes an attempt with it, which is counted in the same breath; see `attempt_made`.

        Returns:
          A permit, which the caller enters as a context manager at once, or a refusal. Without an answer within a second a permit
          that counts nothing.

        Raises:
          KeyError: there is no such upstream.

        Cancellation: a permit that was granted to a caller who is cancelled goes back by itself.
        """
        if upstream not in self._board.known:
            raise KeyError(upstream)  # here, at whoever got the name wrong
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            answer = await self._admit(upstream, alone, attempting)
        except BreakerGone:
            self._failed_open += 1
            if attempting:
                self.attempt_made()
            return Permit(upstream, None, None)
        return answer if isinstance(answer, Refusal) else Permit(upstream, answer, self)

    async def spend_retry(self) -> bool:
        """True if the budget that all streams share has room for one more retry, which is then spent. Without an answer: no."""
        send, receive = trio.open_memory_channel[bool](0)
        try:
            return await self._ask(_SpendRetry(send), receive)
        except BreakerGone:
            return False

    def attempt_made(self) -> None:
        """Count one attempt, the base of the retry budget."""
        if not self._send(_AttemptMade()):
            self._lost_reports += 1

    async def reset(self, upstream: str) -> None:
        """Close the circuit and forget what it knew; back to its configured mode. An upstream's name means those of its models too.

        Raises:
          KeyError: there is no such upstream.
          BreakerGone: no answer.
        """
        await self._force(upstream, None)

    async def force(self, upstream: str, mode: Mode) -> None:
        """Set the mode: "forced_open", "disabled", "metrics_only" or "on". An upstream's name means those of its models too.

        Raises:
          KeyError, ValueError: there is no such upstream, or no such mode.
          BreakerGone: no answer.
        """
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
        await self._force(upstream, mode)

    async def reconfigure(
        self, policies: Mapping[str, BreakerPolicy], *, anew: Iterable[str] = (), budget: RetryBudgetPolicy | None = None
    ) -> None:
        """Go on with other upstreams and policies. Circuits of those that stay keep their state; streams that still use one that is
        gone go on as they did, but it is not shown any more.

        Args:
          anew: of those that stay, the ones that begin again closed: what they knew was of another server or credential.

        Raises:
          BreakerGone: no answer.
        """
        send, receive = trio.open_memory_channel[None](0)
        await self._ask(_Reconfigure(dict(policies), frozenset(anew), budget or RetryBudgetPolicy(), send), receive)

    def statistics(self) -> BreakerStatistics:
        """A snapshot of what the body published: every circuit as its last message left it."""
        self._board.look()
        return BreakerStatistics(
            upstreams=MappingProxyType(dict(self._board.circuits)),
            retry_budget=self._board.retry_budget,
            mailbox_depth=self._mailbox.statistics().current_buffer_used,
            restarts=self._board.restarts,
            failed_open=self._failed_open,
            lost_reports=self._lost_reports,
        )

    async def _force(self, upstream: str, mode: Mode | None) -> None:
        self._board.circuits[upstream]
        send, receive = trio.open_memory_channel[None](0)
        await self._ask(_Force(upstream, mode, send), receive)

    async def _admit(self, upstream: str, alone: bool, attempting: bool) -> Grant | Refusal:
        if (body := self._board.resting) is not None:
            answer: Grant | Refusal | None = None
            try:
                answer = body.admit(upstream, alone, attempting)
                body.rest_on(upstream)
            except Exception as error:
                self._send(_Failed(error))
                if answer is None:
                    raise BreakerGone("the circuit breaker failed at this question") from error
            return answer
        send, receive = trio.open_memory_channel[Grant | Refusal](0)
        return await self._ask(_Acquire(upstream, alone, attempting, send), receive)

    async def _ask(self, question: _Question, answers: trio.MemoryReceiveChannel[T]) -> T:
        """Send a question and wait for its answer.

        Raises:
          BreakerGone: the mailbox is closed or too full, the body failed at this question, or it says nothing for a second.
        """
        with answers:
            # Not `await send`: the body could then answer before anybody listens, and take that for "has left".
            if self._mailbox.statistics().current_buffer_used < MAILBOX_SIZE // 2 and self._send(question):
                with trio.move_on_after(ANSWER_WITHIN):
                    try:
                        return await answers.receive()
                    except trio.EndOfChannel as error:
                        raise BreakerGone("the circuit breaker failed at this question") from error
                raise BreakerGone(f"the circuit breaker did not answer within {ANSWER_WITHIN:g} s")
        await trio.lowlevel.checkpoint()
        raise BreakerGone("the circuit breaker takes no question")

    def _tell(self, report: _Started | _Ended) -> None:
        """Send a report. It never blocks and never raises: a stream shall not fail because nobody counts it."""
        if (body := self._board.resting) is not None:
            try:
                body.hear(report)
            except Exception as error:
                self._send(_Failed(error))
        elif not self._send(report):
            self._lost_reports += 1

    def _send(self, message: _Message) -> bool:
        """False if the mailbox is full, or closed because the process is ending."""
        self._board.resting = None  # it has something to do now; what comes next has to stand behind it
        try:
            self._mailbox.send_nowait(message)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True


class Permit:
    """Leave to make one attempt; a context manager. Leaving it without a verdict gives it back, and counts nothing."""

    __slots__ = ("_breaker", "_grant", "_slow", "_started", "upstream")

    def __init__(self, upstream: str, grant: Grant | None, breaker: CircuitBreaker | None) -> None:
        self.upstream = upstream
        self._grant = grant
        self._breaker = breaker
        self._started = self._slow = False

    @property
    def probe(self) -> bool:
        """The circuit is half-open and judges the upstream by this attempt: it is not to be hedged."""
        return self._grant is not None and self._grant.probe

    @property
    def failed_open(self) -> bool:
        """Nobody answered; this permit counts nothing."""
        return self._breaker is None

    def started(self, *, slow: bool = False) -> None:
        """Report the first meaningful frame. The first such report stands, and none after `ended`.

        Args:
          slow: it came later than the configured floor; the attempt's success then counts as slow.
        """
        if self._breaker is not None and self._grant is not None and not self._started:
            self._started, self._slow = True, slow
            self._breaker._tell(_Started(self._grant, slow))

    def ended(self, verdict: Verdict, retry_after: float | None = None) -> None:
        """Report how the attempt ended. The first such report stands.

        Args:
          retry_after: seconds the upstream asked to wait, None if it did not say.
        """
        if self._breaker is not None and self._grant is not None:
            said = Verdict.SLOW if self._slow and verdict is Verdict.SUCCESS else verdict
            self._breaker._tell(_Ended(self._grant, said, retry_after))
            self._grant = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ended(Verdict.EXCLUDED)


@dataclass(slots=True)
class _Board:
    """What the body publishes: written by it alone, read by the handle. Each value on it is immutable.

    A circuit's figures are added up when somebody looks: three messages an attempt change them, and who looks is a scraper.
    """

    circuits: dict[str, CircuitStatistics]
    retry_budget: RetryBudgetStatistics
    known: set[str]  # those that were removed as well
    restarts: int = 0
    resting: _Body | None = None  # the body, while it waits and nothing lies in its mailbox
    changed: dict[str, Circuit] = field(default_factory=dict)  # since somebody looked

    def look(self) -> None:
        """Bring the figures up to date."""
        while self.changed:
            name, circuit = self.changed.popitem()
            self.circuits[name] = circuit.statistics()


class _Body:
    def __init__(
        self, policies: Mapping[str, BreakerPolicy], random: Callable[[], float], budget: RetryBudgetPolicy, on_transition: Observer | None
    ) -> None:
        self._random = random
        self._circuits = {name: Circuit(name, policy, random) for name, policy in policies.items()}
        self._current = frozenset(policies)
        self._budget = RetryBudget(budget)
        self._on_transition = on_transition
        self._waiting = trio.CancelScope()
        shown = {name: circuit.statistics() for name, circuit in self._circuits.items()}
        self.board = _Board(shown, self._budget.statistics(), set(policies))

    async def supervise(self, inbox: trio.MemoryReceiveChannel[_Message]) -> None:
        """Run the body until the mailbox closes, and again when it fails."""
        crashes = deque[float](maxlen=_CRASHES)
        with inbox:
            while True:
                try:
                    await self._run(inbox)
                except Exception as error:
                    now = trio.current_time()
                    crashes.append(now)
                    if len(crashes) == _CRASHES and now - crashes[0] <= _CRASH_WINDOW:
                        logger.critical(
                            "the circuit breaker failed %d times within %.0f s and gives up", _CRASHES, _CRASH_WINDOW, exc_info=True
                        )
                        raise BreakerFailed(f"the circuit breaker failed {_CRASHES} times within {_CRASH_WINDOW:.0f} s") from error
                    logger.exception("the circuit breaker failed; every circuit begins again closed")
                    self.board.restarts += 1
                    for circuit in self._circuits.values():
                        circuit.restart(now)
                else:
                    return

    async def _run(self, inbox: trio.MemoryReceiveChannel[_Message]) -> None:
        for name in self._circuits:
            self._publish(name)
        while True:
            # One scope for as long as its deadline stands, not one per message: that would cost more than most messages.
            with trio.CancelScope(deadline=self._deadline()) as self._waiting:
                while True:
                    self.board.resting = self
                    try:
                        message = await inbox.receive()
                    except trio.EndOfChannel:
                        return
                    finally:
                        self.board.resting = None
                    self._handle_all(message, inbox)
                    if (deadline := self._deadline()) < self._waiting.deadline:
                        self._waiting.deadline = deadline
            now = trio.current_time()
            for name, circuit in self._circuits.items():
                circuit.advance(now)
                self._publish(name)

    def _deadline(self) -> float:
        """When a circuit changes of itself."""
        return min((circuit.deadline for circuit in self._circuits.values()), default=math.inf)

    def _keep_time(self, upstream: str) -> None:
        """Wake when this circuit is due; the others are as they were. A deadline that moves back is met too early, for nothing, once."""
        if (deadline := self._circuits[upstream].deadline) < self._waiting.deadline:
            self._waiting.deadline = deadline

    def admit(self, upstream: str, alone: bool, attempting: bool) -> Grant | Refusal:
        """Answer a question at once, while it rests."""
        now = trio.current_time()
        answer = self._circuits[upstream].acquire(now, alone=alone)
        if attempting and isinstance(answer, Grant):
            self._count_attempt(now)
        return answer

    def rest_on(self, upstream: str) -> None:
        """Publish what an answer changed; whoever has the answer keeps it, whatever becomes of this."""
        self._publish(upstream)
        self._keep_time(upstream)

    def hear(self, report: _Started | _Ended) -> None:
        """Take a report at once, while it rests."""
        self._handle(report, trio.current_time())
        self._keep_time(report.grant.upstream)

    def _handle_all(self, message: _Message, inbox: trio.MemoryReceiveChannel[_Message]) -> None:
        """A message and what lies behind it. `receive` gives one message per round of trio's scheduler, and a round is as long as all
        that runs in it: whoever is behind others in the mailbox would wait that many rounds.
        """
        now = trio.current_time()
        while True:
            self._handle(message, now)
            try:
                message = inbox.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return

    def _handle(self, message: _Message, now: float) -> None:
        match message:
            case _Acquire(upstream, alone, attempting, reply):
                circuit = self._circuits[upstream]
                with reply:
                    answer = circuit.acquire(now, alone=alone)
                    if isinstance(answer, Grant):
                        if not _answer(reply, answer):
                            circuit.ended(answer, Verdict.EXCLUDED, now)
                        elif attempting:
                            self._count_attempt(now)
                    else:
                        _answer(reply, answer)
                    self._publish(upstream)
            case _Started(grant, slow):
                self._circuits[grant.upstream].started(grant, now, slow=slow)
                self._publish(grant.upstream)
            case _Ended(grant, verdict, retry_after):
                circuit = self._circuits[grant.upstream]
                before = circuit.credential_pauses
                circuit.ended(grant, verdict, now, retry_after)
                self._publish(grant.upstream)
                if circuit.credential_pauses > before:
                    after = circuit.statistics()
                    logger.error("upstream '%s' is paused for %.0f s: %s", grant.upstream, after.seconds_left(now), after.reason)
            case _AttemptMade():
                self._count_attempt(now)
            case _Failed(error):
                raise error
            case _SpendRetry(reply):
                with reply:
                    # A caller who has left has spent it all the same: that errs on the side of fewer retries, for one window.
                    _answer(reply, self._budget.spend(now))
                    self.board.retry_budget = self._budget.statistics()
            case _Force(upstream, mode, reply):
                with reply:
                    for name in [name for name in self._circuits if upstream in (name, upstream_of(name))]:
                        if mode is None:
                            self._circuits[name].reset(now)
                        else:
                            self._circuits[name].force(mode, now)
                        self._publish(name)
                    _answer(reply, None)
            case _Reconfigure(reply=reply):
                with reply:
                    self._reconfigure(message, now)
                    _answer(reply, None)
            case _:
                assert_never(message)

    def _count_attempt(self, now: float) -> None:
        self._budget.attempt_made(now)
        self.board.retry_budget = self._budget.statistics()

    def _reconfigure(self, wanted: _Reconfigure, now: float) -> None:
        for name, policy in wanted.policies.items():
            if name not in self._circuits:
                self._circuits[name] = Circuit(name, policy, self._random)
                continue
            self._circuits[name].reconfigure(policy, now)
            if upstream_of(name) in wanted.anew or name not in self._current:
                self._circuits[name].reset(now)
        # Those that are gone stay in `_circuits`: streams that began before may still ask for them and report to them.
        self._current = frozenset(wanted.policies)
        self._budget.reconfigure(wanted.budget)
        self.board.known |= self._current
        self.board.retry_budget = self._budget.statistics()
        self.board.changed.clear()
        self.board.circuits = {name: self._circuits[name].statistics() for name in wanted.policies}
        for name in wanted.policies:
            self._publish(name)

    def _publish(self, upstream: str) -> None:
        circuit = self._circuits[upstream]
        if upstream in self._current:
            self.board.changed[upstream] = circuit
        for transition in circuit.take_transitions():
            if self._on_transition is not None:
                self._on_transition(upstream, transition.before, transition.after, transition.reason)


def _answer(reply: Reply[T], answer: T) -> bool:
    """True if the caller is still there and has the answer now."""
    try:
        reply.send_nowait(answer)
    except (trio.BrokenResourceError, trio.WouldBlock):
        return False
    return True


@asynccontextmanager
async def open_circuit_breaker(
    policies: Mapping[str, BreakerPolicy],
    *,
    random: Callable[[], float] = random_module.random,
    budget: RetryBudgetPolicy | None = None,
    on_transition: Observer | None = None,
) -> AsyncGenerator[CircuitBreaker, None]:
    """Run the circuit breaker as long as the block lasts.

    Args:
      policies: one per circuit, by its name: an upstream's, or `circuit_name` of a model there.
      random: uniform in [0, 1).
      budget: of the retries that all streams share.
      on_transition: called by the body as (upstream, before, after, reason). It must not raise: that counts as the body's failure.

    Closing: at the end of the block the mailbox closes; the body handles what is in it, and ends.

    Error handling: the body's third failure within a minute leaves this block as BreakerFailed, in an exception group.
    """
    send, receive = trio.open_memory_channel[_Message](MAILBOX_SIZE)
    body = _Body(policies, random, budget or RetryBudgetPolicy(), on_transition)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(body.supervise, receive)
        with send:
            yield CircuitBreaker(send, body.board)

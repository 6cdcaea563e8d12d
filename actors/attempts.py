"""Attempts: whoever needs an open upstream asks here, one try at a time.

Owns the order of tries of one request: the turn among all requests, the upstream's slot, the permit of the circuit breaker, the
connection, the back-off, the next upstream of the route, the hedge. It refuses to know what becomes of the bytes after the first
look; what was sent to the client, and whether another try is still allowed, is told to it by `advance(after=...)`.

Each call of `advance()` is one try, the wait before it included:

    OpenAttempt         an upstream answered; the bytes read so far travel with it; whoever got it closes it
    AttemptFailed       it failed, and another try will follow at the next call
    AttemptsExhausted   it failed, and that was the last
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from .admission import Admission, Rejection
from .errors import UpstreamError, UpstreamTimeout
from .first_look import FirstLook
from .hedge import Race, Runner
from .open_attempt import OpenAttempt
from .sansio.breaker_state import Refusal
from .sansio.chunks import AttemptFailed, AttemptsExhausted
from .sansio.classifier import classify_exception
from .sansio.error_recovery import ErrorRecoveryManager, Fail
from .sansio.faults import Fault, FaultKind
from .sansio.request_body import replace_model
from .sansio.resume_plan import ResumeStrategy

if TYPE_CHECKING:
    from collections.abc import Callable

    from .admission import Slot, Visit
    from .circuit_breaker import CircuitBreaker, Permit
    from .outcome import Tally
    from .routes import Candidate, Route
    from .sansio.resume_plan import ResumePlan
    from .upstream import UpstreamClient, UpstreamRequest, UpstreamResponse

#: How an upstream rejects a request that it would take without the beginning of its answer.
_REJECTING: Final = frozenset({400, 422})
#: States of a circuit in which nobody is let through.
_REFUSING: Final = frozenset({"open", "paused", "forced_open"})
#: And those in which nobody is asked who need not be: the place of a probe is for whoever has no other.
_NOT_FOR_HEDGES: Final = _REFUSING | {"half_open"}


class Attempts:
    """The tries of one request.

    Args:
      request: what goes up.
      model: the model the client named, "" if none.
      route: candidates in order.
      first_look: how much of an answer decides that it is one.
      client, breaker: the process's.
      tally: the request's.
      client_is_retrying: the client said so; then at most one further try.
      random: uniform in [0, 1).
      visit: the request's place among all of them; without one nothing is limited.
    """

    def __init__(
        self,
        request: UpstreamRequest,
        model: str,
        route: Route,
        first_look: FirstLook,
        *,
        client: UpstreamClient,
        breaker: CircuitBreaker,
        tally: Tally,
        client_is_retrying: bool,
        random: Callable[[], float],
        visit: Visit | None = None,
    ) -> None:
        self._request = request
        self._model = model
        self._route = route
        self._first_look = first_look
        self._client = client
        self._breaker = breaker
        self._tally = tally
        models = tuple(candidate.model or model for candidate in route.candidates)
        self._recovery = ErrorRecoveryManager(route.recovery, models, client_is_retrying=client_is_retrying, random=random)
        self._visit = visit or Admission().visit()
        self._delay = 0.0
        self._plan: ResumePlan | None = None
        self._refusing_prefix: set[str] = set()
        self._told: Fault | None = None  # the latest fault that an upstream, not our breaker, gave
        self._refused: list[Fault] = []  # what our breaker said instead
        self.upstream = ""  # name of the upstream that is being asked or was asked last
        self.connected = False

    @property
    def _candidate(self) -> Candidate:
        return self._route.candidates[min(self._recovery.candidate, len(self._route.candidates) - 1)]

    async def advance(self, after: Fault | None = None, plan: ResumePlan | None = None) -> OpenAttempt | AttemptFailed | AttemptsExhausted:
        """Make one try.

        Args:
          after: the fault that ended an attempt which had been open; decides first whether another try follows at all.
          plan: with `after`: output was sent, so that only who can take it up may be asked.
        """
        if after is not None:
            self._told, self._plan = after, plan
            if (exhausted := await self._settle(after)) is not None:
                return exhausted
        if (asked := self._body_for(self._candidate)) is None:
            return await self._pass_over(self._candidate)
        body, strategy = asked
        if self._delay > 0:
            delay, self._delay = self._delay, 0.0
            await trio.sleep(delay)
        if (busy := await self._visit.admitted()) is not None:
            return AttemptsExhausted(self._busy(busy))
        candidate = self._candidate
        if self._may_hedge(candidate):
            opened = await self._race(candidate, body)
        else:
            opened = await self._ask(candidate, body, strategy, Runner())
        if isinstance(opened, OpenAttempt):
            return opened
        if strategy == ResumeStrategy.PREFIX and opened.kind is FaultKind.BAD_REQUEST and opened.http_status in _REJECTING:
            return await self._drop_prefix(opened)
        return await self._failed(opened, tried=not opened.nobody_asked)

    async def _ask(self, candidate: Candidate, body: bytes, resumes: str, runner: Runner) -> OpenAttempt | Fault:
        """One upstream, from its slot to its answer."""
        with ExitStack() as stack:
            slot = await self._slot(candidate)
            if isinstance(slot, Fault):
                return slot
            stack.enter_context(slot)
            answer = await self._breaker.acquire(self._circuit(candidate), alone=self._is_alone(candidate), attempting=True)
            if isinstance(answer, Refusal):
                return self._unavailable(candidate, answer.state, answer.reason, answer.retry_after)
            stack.enter_context(answer)  # given back uncounted if the try is cancelled
            return await self._with_permit(stack, candidate, body, resumes, slot, answer, runner)

    async def _slot(self, candidate: Candidate) -> Slot | Fault:
        name = candidate.upstream.name
        if (slot := self._visit.free_slot(name)) is not None:
            return slot
        circuit = self._breaker.statistics().upstreams.get(self._circuit(candidate))
        if circuit is not None and circuit.state in _REFUSING:  # whoever waits for a slot there would be refused once he has it
            return self._unavailable(candidate, circuit.state, circuit.reason, circuit.seconds_left(trio.current_time()))
        waited = await self._visit.slot(name)
        return self._busy(waited, name) if isinstance(waited, Rejection) else waited

    async def _with_permit(
        self, stack: ExitStack, candidate: Candidate, body: bytes, resumes: str, slot: Slot, permit: Permit, runner: Runner
    ) -> OpenAttempt | Fault:
        """Ask an upstream. What `stack` holds passes on to the attempt once it is open."""
        began = trio.current_time()
        runner.begin(permit)
        opened = await self._try(candidate, permit, body, resumes, slot)
        if isinstance(opened, OpenAttempt):
            floor = candidate.upstream.breaker.slow_first_token
            permit.started(slow=bool(floor) and self._first_look.streamed and trio.current_time() - began >= floor)
            stack.pop_all()
        else:
            permit.ended(opened.verdict, opened.retry_after)
        return opened

    # ---- the hedge ----------------------------------------------------------------------------------------------------

    def _may_hedge(self, candidate: Candidate) -> bool:
        """A second upstream may be asked if this one stays silent. Not for endpoints of which we do not know what asking twice does."""
        if self._route.hedge_after == math.inf or self._plan is not None or self._first_look is FirstLook.HEAD:
            return False
        later = self._route.candidates[self._recovery.candidate + 1 :]
        return any(other.upstream.name != candidate.upstream.name for other in later)

    async def _race(self, candidate: Candidate, body: bytes) -> OpenAttempt | Fault:
        race = Race(self._route.hedge_after)
        hedges = self._tally.hedges
        hedged_to = self._recovery.candidate

        async def first(runner: Runner) -> OpenAttempt | Fault:
            return await self._ask(candidate, body, "", runner)

        async def hedge(runner: Runner, beside: Runner) -> OpenAttempt | Fault | None:
            nonlocal hedged_to
            hedged_to = self._hedge_target(candidate)
            answer = await self._ask_beside(hedged_to, runner, beside)
            if answer is None:
                hedges["refused"] += 1
            return answer

        try:
            await race.run(first, hedge)
        except BaseException:
            if race.hedged:
                hedges["cancelled"] += 1
            raise
        winner = race.winner
        if race.hedged:
            hedges["failed" if winner is None or race.hedge_failed_last else "won" if race.hedge_won else "lost"] += 1
        if race.hedge_won or (winner is None and race.hedge_failed_last):
            self._recovery.settle_on(hedged_to)
        for fault in race.faults if winner is not None else race.faults[:-1]:
            self._note(fault, tried=not fault.nobody_asked)
        if winner is None:
            return race.faults[-1]
        self.upstream, self.connected = winner.upstream, True
        return winner

    def _hedge_target(self, candidate: Candidate) -> int:
        """Index of the next candidate on another upstream whose circuit is closed; that of `candidate` itself if there is none."""
        unwelcome = self._in_state(_NOT_FOR_HEDGES)
        for index in range(self._recovery.candidate + 1, len(self._route.candidates)):
            other = self._route.candidates[index]
            if other.upstream.name != candidate.upstream.name and self._circuit(other) not in unwelcome:
                return index
        return self._recovery.candidate

    async def _ask_beside(self, index: int, runner: Runner, beside: Runner) -> OpenAttempt | Fault | None:
        """Ask the hedge; None if it may not be asked: no probe on either side, no waiting for a slot, within the retry budget."""
        if index == self._recovery.candidate or beside.permit is None or beside.permit.probe:
            return None
        candidate = self._route.candidates[index]
        if (asked := self._body_for(candidate)) is None or (slot := self._visit.free_slot(candidate.upstream.name)) is None:
            return None
        with ExitStack() as stack:
            stack.enter_context(slot)
            answer = await self._breaker.acquire(self._circuit(candidate))
            if isinstance(answer, Refusal):
                return None
            stack.enter_context(answer)
            if answer.probe or not await self._breaker.spend_retry():
                return None
            self._tally.retries += 1
            self._breaker.attempt_made()
            return await self._with_permit(stack, candidate, *asked, slot, answer, runner)

    # ---- what follows -------------------------------------------------------------------------------------------------

    def _body_for(self, candidate: Candidate) -> tuple[bytes, str] | None:
        """What to ask of a candidate, and how it takes up what was sent; None if it cannot."""
        body = self._request.body
        if candidate.model is not None and candidate.model != self._model:
            body = replace_model(body, candidate.model)
        if self._plan is None:
            return body, ""
        upstream = candidate.upstream
        request = self._plan.request(body, upstream.continuation, refused=upstream.name in self._refusing_prefix)
        return (request.body, request.strategy.value) if request is not None else None

    async def _pass_over(self, candidate: Candidate) -> AttemptFailed | AttemptsExhausted:
        name = candidate.upstream.name
        fault = Fault(FaultKind.UNAVAILABLE, f"upstream '{name}' cannot take up an answer", upstream=name)
        return await self._settle(fault) or AttemptFailed(self._tally.attempts, fault)

    async def _drop_prefix(self, fault: Fault) -> AttemptFailed | AttemptsExhausted:
        """An upstream does not take the beginning of its answer. That is no fault of the client's request; it is asked no more so."""
        self._refusing_prefix.add(fault.upstream)
        self._tally.resumes[ResumeStrategy.PREFIX.value, "rejected"] += 1
        if not await self._breaker.spend_retry():
            return AttemptsExhausted(fault)
        self._tally.retries += 1
        return AttemptFailed(self._tally.attempts, fault)

    async def _failed(self, fault: Fault, *, tried: bool) -> AttemptFailed | AttemptsExhausted:
        self._note(fault, tried=tried)
        exhausted = await self._settle(fault)
        return AttemptFailed(self._tally.attempts, fault) if exhausted is None else exhausted

    def _note(self, fault: Fault, *, tried: bool) -> None:
        if tried:
            self._told = fault
        else:
            self._refused.append(fault)
        self._tally.faults[fault.upstream, fault.kind.value] += 1
        self._tally.tell(trio.current_time(), "fault", f"{fault.upstream}: {fault.kind.value}")

    async def _settle(self, fault: Fault) -> AttemptsExhausted | None:
        """Decide what follows a fault: None is another try, for which everything is prepared."""
        asked = fault
        if fault.kind is FaultKind.RATE_LIMITED and fault.retry_after is None:
            # The circuit breaker pauses the upstream for so long; a try before would only meet our own refusal.
            asked = replace(fault, retry_after=self._candidate.upstream.breaker.pause)
        decision = self._recovery.decide(asked)
        # A refusal of our own breaker costs nobody anything, so moving on from it spends no budget.
        free = fault.nobody_asked
        if isinstance(decision, Fail) or not (free or await self._breaker.spend_retry()):
            return AttemptsExhausted(self._last_word() if free else fault)
        self._delay = decision.delay
        if not free:
            self._tally.retries += 1
            self._tally.tell(trio.current_time(), "retry", f"in {decision.delay:.1f} s" if decision.delay else "at once")
        return None

    def _last_word(self) -> Fault:
        """What the client is told when our breaker refused the last upstream: what one really said, else who refused until when."""
        if self._told is not None:
            return self._told
        soonest = min(self._refused, key=lambda fault: fault.retry_after or 0.0)
        return replace(soonest, message="; ".join(fault.message for fault in self._refused))

    async def _try(self, candidate: Candidate, permit: Permit, body: bytes, resumes: str, slot: Slot) -> OpenAttempt | Fault:
        self._tally.attempts += 1
        self.connected = False
        self.upstream = name = candidate.upstream.name
        timers = candidate.timers
        streamed = self._first_look.streamed
        response: UpstreamResponse | None = None
        opened = False
        try:
            with trio.move_on_after(timers.first_token if streamed else math.inf) as patience:
                response = await self._client.send(candidate, self._request, body, self._tally.attempts, connected=self._mark_connected)
                looked = await self._first_look.take(response, candidate.upstream, self._tally, self._client.mislabelled)
                if isinstance(looked, Fault):
                    return looked
                opened = True
                floor = candidate.upstream.breaker.slow_tokens_per_second if streamed else 0.0
                number = self._tally.attempts  # a hedge counts too, whoever of the two answers
                return OpenAttempt(number, candidate, response, looked, permit, self._tally, resumes, slot=slot, slow_below=floor)
            assert patience.cancelled_caught
            return classify_exception(UpstreamTimeout("timers.first_token", timers.first_token), name)
        except UpstreamError as error:
            return classify_exception(error, name)
        finally:
            if response is not None and not opened:
                await response.aclose()

    def _mark_connected(self) -> None:
        self.connected = True

    def _circuit(self, candidate: Candidate) -> str:
        return candidate.upstream.circuit(candidate.model or self._model)

    def _is_alone(self, candidate: Candidate) -> bool:
        """No other upstream of the route would take the request now."""
        others = [other for other in self._route.candidates if other.upstream.name != candidate.upstream.name]
        if not others:
            return True
        refusing = self._in_state(_REFUSING)
        return all(self._circuit(other) in refusing for other in others)

    def _in_state(self, states: frozenset[str]) -> set[str]:
        """The circuits in one of these states. One that another configuration has done away with is in none."""
        return {name for name, circuit in self._breaker.statistics().upstreams.items() if circuit.state in states}

    def _unavailable(self, candidate: Candidate, state: str, reason: str, retry_after: float) -> Fault:
        name, wait = candidate.upstream.name, max(0.0, retry_after)
        of_model = f" for the model {candidate.model or self._model}" if self._circuit(candidate) != name else ""
        text = f"upstream '{name}' is {state}{of_model}: {reason}; next try in {wait:.1f} s"
        return Fault(FaultKind.UNAVAILABLE, text, upstream=name, retry_after=wait)

    def _busy(self, rejection: Rejection, upstream: str = "") -> Fault:
        return Fault(FaultKind.BUSY, rejection.message, upstream=upstream, retry_after=rejection.retry_after, setting=rejection.setting)

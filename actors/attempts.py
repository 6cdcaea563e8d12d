"""Attempts: whoever needs an open upstream asks here, one try at a time.

Owns the order of tries of one request: the permit of the circuit breaker, the connection, the first look at the answer, the
back-off, the next upstream of the route. It refuses to know what becomes of the bytes after the first look; what was sent to
the client, and whether another try is still allowed, is told to it by `advance(after=...)`.

Each call of `advance()` is one try, the wait before it included:

    OpenAttempt         an upstream answered; the bytes read so far travel with it; whoever got it closes it
    AttemptFailed       it failed, and another try will follow at the next call
    AttemptsExhausted   it failed, and that was the last
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Final, Self

import trio

from .errors import UpstreamError, UpstreamTimeout
from .sansio.breaker_state import Refusal
from .sansio.chunks import AttemptFailed, AttemptsExhausted
from .sansio.error_recovery import ErrorRecoveryManager, Fail
from .sansio.faults import Fault, FaultKind, Verdict, classify_exception, classify_response, classify_whole
from .sansio.headers import to_client
from .sansio.request_body import replace_model
from .sansio.stream_head import HeadSniffer, StreamHead
from .sansio.whole_answer import to_stream

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from .circuit_breaker import CircuitBreaker, Permit
    from .outcome import Tally
    from .routes import Candidate, Route
    from .upstream import UpstreamClient, UpstreamRequest, UpstreamResponse

#: Of an error body we read so much; more says nothing more.
_ERROR_BODY: Final = 64 * 1024
#: An error body that takes longer is not waited for: the retry is worth more than its text. Guessed.
_ERROR_BODY_SECONDS: Final = 5.0
#: A whole answer is kept up to this size, so that a cut can still be retried; beyond it the answer is passed on as it comes.
_WHOLE_ANSWER: Final = 8 * 1024 * 1024
#: States of a circuit in which nobody is let through.
_REFUSING: Final = frozenset({"open", "paused", "forced_open"})


class FirstLook(Enum):
    """How much of an answer is read before an attempt counts as open."""

    MEANINGFUL_FRAME = "meaningful frame"  # the pipeline: up to the first frame that says something
    FIRST_BYTE = "first byte"  # the relay engine on streams
    HEAD = "head"  # relayed endpoints: the HTTP status decides alone
    WHOLE = "whole"  # a chat completion that is not streamed: a cut body can still be retried


class OpenAttempt:
    """An upstream that answered. Use it as an async context manager; leaving it unreported gives the permit back uncounted.

    Args:
      number: counts the request's attempts from 1.
      candidate: where it went.
      response: its open response.
      first: the bytes the first look consumed.
      permit: the circuit breaker's, still held.
      tally: the request's.
    """

    def __init__(self, number: int, candidate: Candidate, response: UpstreamResponse, first: bytes, permit: Permit, tally: Tally) -> None:
        self.number = number
        self.candidate = candidate
        self.response = response
        self._first = first
        self._permit = permit
        self._tally = tally

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        with self._permit:
            await self.response.aclose()

    @property
    def upstream(self) -> str:
        return self.candidate.upstream.name

    @property
    def client_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The upstream's headers as they may go to the client of a stream."""
        return tuple(to_client(self.response.headers, same_body=False))

    async def read(self) -> bytes:
        """The next piece of the body, b"" at its clean end.

        Raises:
          UpstreamError: the connection broke.
        """
        if self._first:
            data, self._first = self._first, b""
            return data
        data = await self.response.read()
        self._tally.bytes_in += len(data)
        return data

    def fault(self, error: UpstreamError) -> Fault:
        return classify_exception(error, self.upstream)

    def report(self, fault: Fault | None) -> None:
        """Tell the circuit breaker how it ended; None is success."""
        if fault is None:
            self._permit.ended(Verdict.SUCCESS)
        else:
            self._permit.ended(fault.verdict, fault.retry_after)
            self._tally.faults[fault.upstream, fault.kind.value] += 1


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
        self._delay = 0.0
        self._told: Fault | None = None  # the latest fault that an upstream, not our breaker, gave
        self._refused: list[Fault] = []  # what our breaker said instead
        self.upstream = ""  # name of the upstream that is being asked or was asked last
        self.connected = False

    @property
    def _candidate(self) -> Candidate:
        return self._route.candidates[min(self._recovery.candidate, len(self._route.candidates) - 1)]

    async def advance(self, after: Fault | None = None) -> OpenAttempt | AttemptFailed | AttemptsExhausted:
        """Make one try.

        Args:
          after: the fault that ended an attempt which had been open; decides first whether another try follows at all.
        """
        if after is not None:
            self._told = after
            if (exhausted := await self._settle(after)) is not None:
                return exhausted
        if self._delay > 0:
            delay, self._delay = self._delay, 0.0
            await trio.sleep(delay)
        candidate = self._candidate
        answer = await self._breaker.acquire(candidate.upstream.name, alone=self._is_alone(candidate))
        if isinstance(answer, Refusal):
            return await self._failed(self._unavailable(answer), tried=False)
        with ExitStack() as stack:
            permit = stack.enter_context(answer)  # given back uncounted if the try is cancelled
            opened = await self._try(candidate, permit)
            if isinstance(opened, OpenAttempt):
                permit.started()
                stack.pop_all()
                return opened
            permit.ended(opened.verdict, opened.retry_after)
        return await self._failed(opened, tried=True)

    async def _failed(self, fault: Fault, *, tried: bool) -> AttemptFailed | AttemptsExhausted:
        if tried:
            self._told = fault
        else:
            self._refused.append(fault)
        self._tally.faults[fault.upstream, fault.kind.value] += 1
        exhausted = await self._settle(fault)
        return AttemptFailed(self._tally.attempts, fault) if exhausted is None else exhausted

    async def _settle(self, fault: Fault) -> AttemptsExhausted | None:
        """Decide what follows a fault: None is another try, for which everything is prepared."""
        asked = fault
        if fault.kind is FaultKind.RATE_LIMITED and fault.retry_after is None:
            # The circuit breaker pauses the upstream for so long; a try before would only meet our own refusal.
            asked = replace(fault, retry_after=self._candidate.upstream.breaker.pause)
        decision = self._recovery.decide(asked)
        # A refusal of our own breaker costs nobody anything, so moving on from it spends no budget.
        free = fault.kind is FaultKind.UNAVAILABLE
        if isinstance(decision, Fail) or not (free or await self._breaker.spend_retry()):
            return AttemptsExhausted(self._last_word() if free else fault)
        self._delay = decision.delay
        if not free:
            self._tally.retries += 1
        return None

    def _last_word(self) -> Fault:
        """What the client is told when our breaker refused the last upstream: what one really said, else who refused until when."""
        if self._told is not None:
            return self._told
        soonest = min(self._refused, key=lambda fault: fault.retry_after or 0.0)
        return replace(soonest, message="; ".join(fault.message for fault in self._refused))

    async def _try(self, candidate: Candidate, permit: Permit) -> OpenAttempt | Fault:
        self._tally.attempts += 1
        self._breaker.attempt_made()
        self.connected = False
        self.upstream = name = candidate.upstream.name
        timers = candidate.timers
        body = self._request.body
        if candidate.model is not None and candidate.model != self._model:
            body = replace_model(body, candidate.model)
        limited = self._first_look in (FirstLook.MEANINGFUL_FRAME, FirstLook.FIRST_BYTE)
        response: UpstreamResponse | None = None
        opened = False
        try:
            with trio.move_on_after(timers.first_token if limited else float("inf")) as patience:
                response = await self._client.send(candidate, self._request, body, self._tally.attempts, connected=self._mark_connected)
                looked = await self._look(response, candidate)
                if isinstance(looked, Fault):
                    return looked
                opened = True
                return OpenAttempt(self._tally.attempts, candidate, response, looked, permit, self._tally)
            assert patience.cancelled_caught
            return classify_exception(UpstreamTimeout("timers.first_token", timers.first_token), name)
        except UpstreamError as error:
            return classify_exception(error, name)
        finally:
            if response is not None and not opened:
                await response.aclose()

    def _mark_connected(self) -> None:
        self.connected = True

    async def _look(self, response: UpstreamResponse, candidate: Candidate) -> bytes | Fault:
        """The first look at an answer: the bytes it took, or why it is none."""
        name = candidate.upstream.name
        if response.status >= 300:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
            body = b""  # the status says enough
            try:
                with trio.move_on_after(_ERROR_BODY_SECONDS):
                    body = await response.read_all(_ERROR_BODY)
            except UpstreamError:
                pass
            own_key = candidate.upstream.auth == "client"
            return classify_response(response.status, headers, body, name, now_wall=time.time(), client_credential=own_key)
        if (coding := response.header("content-encoding")) not in ("", "identity"):
            text = f"upstream '{name}' answered with content-encoding '{coding[:40]}' though identity was asked for"
            return Fault(FaultKind.BAD_RESPONSE, text, upstream=name)
        match self._first_look:
            case FirstLook.HEAD:
                return b""
            case FirstLook.FIRST_BYTE:
                return await self._counted(response)
            case FirstLook.WHOLE:
                body = await response.read_all(_WHOLE_ANSWER)
                self._tally.bytes_in += len(body)
                return classify_whole(body, name) or body
            case FirstLook.MEANINGFUL_FRAME:
                return await self._sniff(response, name)

    async def _sniff(self, response: UpstreamResponse, name: str) -> bytes | Fault:
        sniffer = HeadSniffer(response.header("content-type"), name)
        parts: list[bytes] = []
        head: StreamHead | Fault | None = None
        while head is None:
            data = await self._counted(response)
            parts.append(data)
            head = sniffer.feed(data) if data else sniffer.close()
        if isinstance(head, Fault):
            return head
        if head.sse:
            return b"".join(parts)
        parts.append(rest := await response.read_all(_WHOLE_ANSWER))
        self._tally.bytes_in += len(rest)
        return to_stream(b"".join(parts), name)

    async def _counted(self, response: UpstreamResponse) -> bytes:
        data = await response.read()
        self._tally.bytes_in += len(data)
        return data

    def _is_alone(self, candidate: Candidate) -> bool:
        """No other upstream of the route would take the request now."""
        statistics = self._breaker.statistics()
        others = {c.upstream.name for c in self._route.candidates} - {candidate.upstream.name}
        return all(statistics.upstreams[name].state in _REFUSING for name in others)

    def _unavailable(self, refusal: Refusal) -> Fault:
        wait = max(0.0, refusal.retry_after)
        text = f"upstream '{refusal.upstream}' is {refusal.state}: {refusal.reason}; next try in {wait:.1f} s"
        return Fault(FaultKind.UNAVAILABLE, text, upstream=refusal.upstream, retry_after=wait)

"""Attempts: one try at a time, with the real circuit breaker and upstreams whose answers are scripted."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors import Attempts, CircuitBreaker, Fault, FaultKind, FirstLook, Route, Tally, UpstreamError, UpstreamRequest, open_circuit_breaker
from actors.errors import UpstreamConnectError, UpstreamDisconnected, UpstreamTimeout
from actors.open_attempt import OpenAttempt
from actors.sansio.breaker_state import BreakerPolicy
from actors.sansio.chunks import AttemptFailed, AttemptsExhausted
from actors.sansio.error_recovery import RecoveryPolicy
from actors.sansio.retry_budget import RetryBudgetPolicy

from ..fakes import DONE, FakeClient, FakeResponse, Gate, Silence, Wait, candidate, content, role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from actors.sansio.breaker_state import CircuitStatistics

REFUSED = UpstreamConnectError("refused")
GENEROUS = RetryBudgetPolicy(floor=100)
BODY = b'{"model":"m","stream":true}'
Answer = FakeResponse | UpstreamError | Silence


def good() -> FakeResponse:
    return FakeResponse(role() + content("Hello"), DONE)


def answer(status: int, body: dict[str, Any] | bytes = b"", **headers: str) -> FakeResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return FakeResponse(data, status=status, headers=named or [(b"content-type", b"application/json")])


class Tries:
    """Attempts over scripted upstreams, and what became of them."""

    def __init__(self, breaker: CircuitBreaker, route: Route, look: FirstLook, answers: dict[str, list[Answer]], *, retrying: bool) -> None:
        self.breaker = breaker
        self.client = FakeClient(**answers)
        self.tally = Tally()
        self.attempts = Attempts(
            UpstreamRequest("POST", "/chat/completions", (), BODY),
            "m",
            route,
            look,
            client=self.client.as_client,
            breaker=breaker,
            tally=self.tally,
            client_is_retrying=retrying,
            random=lambda: 0.5,
        )

    async def until_open(self) -> OpenAttempt | AttemptsExhausted:
        while isinstance(step := await self.attempts.advance(), AttemptFailed):
            pass
        return step

    async def fault(self) -> Fault:
        step = await self.until_open()
        assert isinstance(step, AttemptsExhausted)
        await self.settled()
        return step.fault

    async def opened(self) -> OpenAttempt:
        step = await self.until_open()
        assert isinstance(step, OpenAttempt)
        return step

    async def settled(self) -> None:
        """Everything was given back."""
        await wait_all_tasks_blocked()
        assert all(response.closed for response in self.client.responses)
        assert [self.circuit(name).permits_out for name in self.breaker.statistics().upstreams] == [0] * len(
            self.breaker.statistics().upstreams
        )

    def circuit(self, name: str = "a") -> CircuitStatistics:
        return self.breaker.statistics().upstreams[name]


@asynccontextmanager
async def tries(
    look: FirstLook = FirstLook.MEANINGFUL_FRAME,
    *,
    budget: RetryBudgetPolicy = GENEROUS,
    policy: BreakerPolicy | None = None,
    recovery: RecoveryPolicy | None = None,
    models: dict[str, str] | None = None,
    retrying: bool = False,
    timers: dict[str, float] | None = None,
    **answers: list[Answer],
) -> AsyncIterator[Tries]:
    breaker_policy = policy or BreakerPolicy(jitter=0.0)
    candidates = tuple(candidate(name, model=(models or {}).get(name), **(timers or {})) for name in answers)
    route = Route("*", candidates, recovery=recovery or RecoveryPolicy())
    async with open_circuit_breaker(dict.fromkeys(answers, breaker_policy), random=lambda: 0.5, budget=budget) as breaker:
        yield Tries(breaker, route, look, answers, retrying=retrying)


async def read_all(attempt: OpenAttempt) -> bytes:
    body = b""
    while data := await attempt.read():
        body += data
    return body


# ---- it works -----------------------------------------------------------------------------------------------------------


async def test_an_open_attempt_carries_the_bytes_of_the_first_look() -> None:
    async with tries(a=[FakeResponse(role(), content("Hello"), DONE)]) as t:
        async with await t.opened() as attempt:
            assert (attempt.number, attempt.upstream, t.attempts.upstream, t.attempts.connected) == (1, "a", "a", True)
            assert await attempt.read() == role() + content("Hello")
            assert await read_all(attempt) == DONE
            attempt.report(None)
        await t.settled()
        assert t.circuit().calls == 1
        assert t.tally.bytes_in == len(role() + content("Hello") + DONE)
        assert (t.tally.attempts, t.tally.retries) == (1, 0)


async def test_leaving_it_unreported_counts_nothing() -> None:
    async with tries(a=[good()]) as t:
        async with await t.opened():
            pass
        await t.settled()
        assert t.circuit().calls == 0


async def test_the_request_goes_up_byte_for_byte_unless_the_route_renames_the_model() -> None:
    async with tries(a=[REFUSED], b=[good()], models={"b": "other"}, recovery=RecoveryPolicy(retries=0)) as t:
        async with await t.opened():
            assert [asked.body for asked in t.client.asked] == [BODY, b'{"model":"other","stream":true}']


# ---- retry and failover -------------------------------------------------------------------------------------------------


async def test_it_backs_off_with_jitter_and_then_asks_the_next_upstream_at_once(autojump_clock: MockClock) -> None:
    async with tries(a=[REFUSED], b=[REFUSED, good()]) as t:
        async with await t.opened() as attempt:
            assert (attempt.number, attempt.upstream) == (5, "b")
        assert t.client.upstreams == ["a", "a", "a", "b", "b"]
        times = [asked.at - t.client.asked[0].at for asked in t.client.asked]
        assert times == pytest.approx([0.0, 0.25, 0.75, 0.75, 1.0])  # half of 0.5 and of 1.0; then anew
        assert (t.tally.attempts, t.tally.retries) == (5, 4)
        assert t.tally.faults["a", "connect"] == 3
        await t.settled()


async def test_when_all_is_spent_the_last_fault_is_told(autojump_clock: MockClock) -> None:
    async with tries(a=[REFUSED], b=[answer(503, {"error": {"message": "busy"}})]) as t:
        fault = await t.fault()
        assert (fault.kind, fault.upstream, fault.http_status) == (FaultKind.SERVER_ERROR, "b", 503)
        assert t.client.upstreams == ["a"] * 3 + ["b"] * 3


@pytest.mark.parametrize(("retry_after", "waited"), [("3", 3.0), ("0", 0.0)])
async def test_retry_after_is_waited_for(retry_after: str, waited: float, autojump_clock: MockClock) -> None:
    async with tries(a=[answer(429, retry_after=retry_after), good()], b=[good()]) as t:
        async with await t.opened() as attempt:
            assert attempt.upstream == "a"
        assert t.client.asked[1].at - t.client.asked[0].at == pytest.approx(waited, abs=0.1)
        await t.settled()
        assert t.circuit().failures == 0  # a 429 is none


async def test_a_retry_after_that_is_too_long_goes_to_the_next_upstream_or_to_the_client(autojump_clock: MockClock) -> None:
    async with tries(a=[answer(429, retry_after="20")], b=[good()]) as t:
        async with await t.opened() as attempt:
            assert attempt.upstream == "b"
    async with tries(a=[answer(429, retry_after="31")]) as t:
        fault = await t.fault()
        assert (fault.http_status, fault.retry_after) == (429, 31.0)
        assert len(t.client.asked) == 1


async def test_a_429_that_does_not_say_for_how_long_is_retried_after_our_own_pause(autojump_clock: MockClock) -> None:
    async with tries(a=[answer(429), good()]) as t:
        async with await t.opened() as attempt:
            assert attempt.number == 2
        assert 1.0 <= t.client.asked[1].at - t.client.asked[0].at < 1.2
    async with tries(a=[answer(429)]) as t:
        assert (await t.fault()).retry_after is None  # the upstream said nothing, so the client is told nothing


async def test_a_request_that_is_wrong_is_wrong_everywhere() -> None:
    body = b'{"error": {"message": "no such field"}}'
    async with tries(a=[answer(400, body)], b=[good()]) as t:
        fault = await t.fault()
        assert (fault.http_status, fault.to_json()) == (400, body)
        assert t.client.upstreams == ["a"]
        assert t.circuit().calls == 0


async def test_a_fault_after_the_first_look_decides_the_next_try(autojump_clock: MockClock) -> None:
    cut = Fault(FaultKind.TRUNCATED, "cut", upstream="a")
    async with tries(a=[good()], b=[good()], recovery=RecoveryPolicy(retries=0)) as t:
        async with await t.opened() as attempt:
            attempt.report(cut)
        step = await t.attempts.advance(cut)
        assert isinstance(step, OpenAttempt)
        async with step:
            assert step.upstream == "b"
            step.report(cut)
        assert await t.attempts.advance(cut) == AttemptsExhausted(cut)
        assert t.tally.faults == {("a", "truncated"): 2}


async def test_a_client_that_is_itself_retrying_gets_one_further_try(autojump_clock: MockClock) -> None:
    async with tries(a=[REFUSED], b=[REFUSED], retrying=True) as t:
        await t.fault()
        assert t.client.upstreams == ["a", "a"]


async def test_the_retry_budget_ends_it(autojump_clock: MockClock) -> None:
    async with tries(a=[REFUSED], b=[good()], budget=RetryBudgetPolicy(share=0.0, floor=1)) as t:
        fault = await t.fault()
        assert fault.kind is FaultKind.CONNECT
        assert t.client.upstreams == ["a", "a"]
        assert t.attempts.upstream == "a"  # b was never asked
        assert t.breaker.statistics().retry_budget.refused == 1


# ---- our own breaker ----------------------------------------------------------------------------------------------------


async def test_a_refusal_moves_on_without_a_try() -> None:
    async with tries(a=[good()], b=[good()], budget=RetryBudgetPolicy(share=0.0, floor=0)) as t:
        await t.breaker.force("a", "forced_open")
        async with await t.opened() as attempt:
            assert (attempt.number, attempt.upstream) == (1, "b")
        assert (t.tally.attempts, t.tally.retries) == (1, 0)
        assert t.tally.faults["a", "unavailable"] == 1


async def test_when_all_refuse_the_client_is_told_who_and_until_when() -> None:
    async with tries(a=[good()], b=[good()], c=[good()]) as t:
        for name in ("a", "b", "c"):
            await t.breaker.force(name, "forced_open")
        fault = await t.fault()
        assert (fault.kind, fault.http_status, fault.code) == (FaultKind.UNAVAILABLE, 503, "upstream_unavailable")
        assert all(f"upstream '{name}' is forced_open" in fault.message for name in ("a", "b", "c"))
        assert fault.retry_after == 60.0
        assert t.attempts.upstream == ""  # none was reached
        assert t.client.asked == []


async def test_the_soonest_of_the_refusals_is_the_retry_after(autojump_clock: MockClock) -> None:
    async with tries(a=[answer(429, retry_after="40")], b=[answer(429, retry_after="35")], recovery=RecoveryPolicy(retries=0)) as t:
        await t.fault()
        await trio.sleep(10.0)
        again = Tries(t.breaker, t.attempts._route, FirstLook.MEANINGFUL_FRAME, {"a": [good()], "b": [good()]}, retrying=False)
        fault = await again.fault()
        assert fault.retry_after == pytest.approx(25.0)
        assert "next try in 30.0 s" in fault.message
        assert "next try in 25.0 s" in fault.message


@pytest.mark.parametrize("opened_first", [False, True])
async def test_a_refusal_does_not_mask_what_an_upstream_really_said(opened_first: bool, autojump_clock: MockClock) -> None:
    async with tries(a=[good() if opened_first else REFUSED], b=[good()], recovery=RecoveryPolicy(retries=0)) as t:
        await t.breaker.force("b", "forced_open")
        if not opened_first:
            fault = await t.fault()
            assert (fault.kind, fault.upstream) == (FaultKind.CONNECT, "a")
            return
        cut = Fault(FaultKind.TRUNCATED, "cut", upstream="a")
        async with await t.opened() as attempt:
            attempt.report(cut)
        assert isinstance(await t.attempts.advance(cut), AttemptsExhausted | AttemptFailed)
        step = await t.attempts.advance()
        assert step == AttemptsExhausted(cut)


async def test_an_open_circuit_is_tried_again_sooner_where_there_is_no_other(autojump_clock: MockClock) -> None:
    policy = BreakerPolicy(jitter=0.0, consecutive_failures=1, open_base=30.0)
    async with tries(a=[REFUSED, good()], policy=policy, recovery=RecoveryPolicy(retries=0)) as t:
        await t.fault()
        assert t.circuit().state == "open"
        await trio.sleep(2.0)
        again = Tries(t.breaker, t.attempts._route, FirstLook.MEANINGFUL_FRAME, {"a": [good()]}, retrying=False)
        async with await again.opened() as attempt:
            attempt.report(None)


# ---- the first look -----------------------------------------------------------------------------------------------------

LOOKS = {
    "an error inside a 200": (FakeResponse(b'data: {"error":{"message":"busy","code":503}}\n\n'), FaultKind.IN_BAND_ERROR, 503),
    "an error as JSON": (answer(200, b'{"error":{"message":"no","code":429}}'), FaultKind.RATE_LIMITED, 429),
    "a page": (answer(200, b"<html>hello</html>", content_type="text/html"), FaultKind.BAD_RESPONSE, 502),
    "nothing": (FakeResponse(), FaultKind.TRUNCATED, 502),
    "a cut before it said anything": (FakeResponse(role(), UpstreamDisconnected("reset")), FaultKind.DISCONNECTED, 502),
    "a redirect": (answer(302, location="http://x.invalid"), FaultKind.REDIRECT, 502),
    "compressed": (answer(200, b"\x1f\x8b", content_encoding="gzip"), FaultKind.BAD_RESPONSE, 502),
}


@pytest.mark.parametrize("name", LOOKS)
async def test_what_is_no_answer_is_a_fault(name: str) -> None:
    response, kind, status = LOOKS[name]
    async with tries(a=[response], recovery=RecoveryPolicy(retries=0)) as t:
        fault = await t.fault()
        assert (fault.kind, fault.http_status) == (kind, status)
        assert fault.upstream == "a"


async def test_a_whole_answer_where_a_stream_was_asked_for_is_restated() -> None:
    completion = b'{"choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}]}'
    async with tries(a=[answer(200, completion)]) as t:
        async with await t.opened() as attempt:
            assert (await read_all(attempt)).endswith(DONE)
        assert t.tally.bytes_in == len(completion)


@pytest.mark.parametrize("look", [FirstLook.MEANINGFUL_FRAME, FirstLook.FIRST_BYTE])
@pytest.mark.parametrize("silent", [Silence(), FakeResponse(Silence()), answer(503)], ids=["no head", "no body", "no error body"])
async def test_no_first_token_in_time(look: FirstLook, silent: Answer, autojump_clock: MockClock) -> None:
    if isinstance(silent, FakeResponse):
        silent = FakeResponse(Silence(), status=silent.status)
    async with tries(look, a=[silent], timers={"first_token": 60.0}, recovery=RecoveryPolicy(retries=0)) as t:
        began = trio.current_time()
        fault = await t.fault()
        if fault.kind is FaultKind.SERVER_ERROR:  # the status says enough: its text is waited for, but not for long
            assert trio.current_time() - began == pytest.approx(5.0)
            assert fault.http_status == 503
            return
        assert (fault.kind, fault.setting) == (FaultKind.FIRST_TOKEN_TIMEOUT, "timers.first_token")
        assert trio.current_time() - began == pytest.approx(60.0)
        assert t.circuit().failures == 1


async def test_an_answer_that_is_not_streamed_may_take_its_time(autojump_clock: MockClock) -> None:
    completion = b'{"choices":[]}'
    for look, body in ((FirstLook.WHOLE, completion), (FirstLook.HEAD, b"")):
        async with tries(look, a=[FakeResponse(Wait(1000.0), completion)], timers={"first_token": 60.0}) as t:
            async with await t.opened() as attempt:
                assert attempt._first == body
                assert await read_all(attempt) == completion


async def test_a_cut_in_a_whole_answer_is_retried(autojump_clock: MockClock) -> None:
    async with tries(FirstLook.WHOLE, a=[FakeResponse(b'{"ch', UpstreamDisconnected("reset")), FakeResponse(b'{"choices":[]}')]) as t:
        async with await t.opened() as attempt:
            assert (attempt.number, await read_all(attempt)) == (2, b'{"choices":[]}')
        await t.settled()


async def test_a_connect_timeout_names_its_setting(autojump_clock: MockClock) -> None:
    async with tries(a=[UpstreamTimeout("timers.connect", 5.0)], recovery=RecoveryPolicy(retries=0)) as t:
        fault = await t.fault()
        assert (fault.kind, fault.setting, t.attempts.connected) == (FaultKind.CONNECT_TIMEOUT, "timers.connect", False)


# ---- it is cancelled ----------------------------------------------------------------------------------------------------

MOMENTS: dict[str, tuple[list[Answer], float]] = {
    "connecting": ([Silence()], 0.0),
    "in the first look": ([FakeResponse(role(), Silence())], 0.0),
    "in an error body": ([FakeResponse(Silence(), status=500)], 0.0),
    "in a back-off": ([REFUSED], 0.1),
}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_it_is_cancelled_and_everything_goes_back(moment: str, autojump_clock: MockClock) -> None:
    answers, after = MOMENTS[moment]
    async with tries(a=[*answers], policy=BreakerPolicy(jitter=0.0, consecutive_failures=0)) as t:
        with trio.move_on_after(after + 0.01) as scope:
            await t.until_open()
        assert scope.cancelled_caught
        await t.settled()
        assert t.circuit().calls == (1 if moment == "in a back-off" else 0)  # what was cancelled counts nothing


async def test_a_probe_that_is_cancelled_is_free_for_the_next(autojump_clock: MockClock) -> None:
    policy = BreakerPolicy(jitter=0.0, consecutive_failures=1, open_base=1.0)
    async with tries(a=[REFUSED, Silence(), good()], policy=policy, recovery=RecoveryPolicy(retries=0)) as t:
        await t.fault()
        await trio.sleep(1.5)
        with trio.move_on_after(0.1):
            await t.until_open()
        assert t.circuit().state == "half_open"
        again = Tries(t.breaker, t.attempts._route, FirstLook.MEANINGFUL_FRAME, {"a": [good()]}, retrying=False)
        async with await again.opened() as attempt:
            attempt.report(None)


async def test_an_open_attempt_is_closed_also_by_a_cancelled_reader() -> None:
    gate = Gate()
    async with tries(a=[FakeResponse(content("Hello"), gate)]) as t:
        with trio.CancelScope() as scope:
            async with await t.opened() as attempt:
                await attempt.read()
                scope.cancel()
                await attempt.read()
        await t.settled()
        assert t.circuit().calls == 0


async def test_a_bug_in_the_client_gives_the_permit_back_too() -> None:
    async with tries(a=[FakeResponse(RuntimeError("a bug"))]) as t:
        with pytest.raises(RuntimeError, match="a bug"):
            await t.until_open()
        await t.settled()
        assert t.circuit().calls == 0

"""A second upstream beside a silent one: when it is asked, who wins, and what becomes of the loser."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors import Admission, AdmissionPolicy, Fault, FaultKind, FirstLook
from actors.circuit_breaker import Permit
from actors.errors import UpstreamDisconnected
from actors.open_attempt import OpenAttempt
from actors.sansio.breaker_state import BreakerPolicy
from actors.sansio.error_recovery import RecoveryPolicy
from actors.sansio.faults import Verdict
from actors.sansio.retry_budget import RetryBudgetPolicy

from ..fakes import DONE, FakeResponse, Gate, Silence, Wait, content, role
from .test_attempts import REFUSED, Tries, answer, read_all, tries

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

HELLO = role() + content("Hello")
AFTER = 8.0


def good(seconds: float = 0.0) -> FakeResponse:
    return FakeResponse(Wait(seconds), HELLO, DONE)


def hedging(t: Tries, after: float = AFTER) -> Tries:
    t.attempts._route = replace(t.attempts._route, hedge_after=after)
    return t


def silent_first(*, b: Any = None, **more: Any) -> AbstractAsyncContextManager[Tries]:
    more.setdefault("timers", {"first_token": 30.0})
    return tries(a=[FakeResponse(role(), Silence())], b=[b or good()], **more)


async def elapsed(t: Tries, began: float) -> list[tuple[str, float]]:
    await wait_all_tasks_blocked()
    return [(asked.upstream, round(asked.at - began, 3)) for asked in t.client.asked]


# ---- who is asked, and who wins -----------------------------------------------------------------------------------------


async def test_a_silent_upstream_gets_a_second_beside_it_and_the_first_frame_wins(autojump_clock: MockClock) -> None:
    async with silent_first() as t:
        began = trio.current_time()
        async with await hedging(t).opened() as attempt:
            assert (attempt.upstream, attempt.number, t.attempts.upstream, t.attempts.connected) == ("b", 2, "b", True)
            assert await elapsed(t, began) == [("a", 0.0), ("b", AFTER)]
            assert t.client.responses[0].closed  # at once, not at the end of the winner
            assert t.circuit("a").permits_out == 0
            assert await read_all(attempt) == HELLO + DONE
            attempt.report(None)
        await t.settled()
        assert t.tally.hedges == {"won": 1}
        assert (t.tally.attempts, t.tally.retries) == (2, 1)
        assert (t.circuit("a").slow, t.circuit("a").failures) == (1, 0)  # silent beyond hedge_after only
        assert (t.circuit("b").calls, t.circuit("b").failures) == (1, 0)


async def test_the_first_may_still_win_and_the_hedge_that_was_not_silent_for_long_counts_nothing(autojump_clock: MockClock) -> None:
    async with tries(a=[good(10.0)], b=[FakeResponse(Silence())]) as t:
        async with await hedging(t).opened() as attempt:
            assert (attempt.upstream, t.attempts.upstream, t.attempts.connected) == ("a", "a", True)
            attempt.report(None)
        await t.settled()
        assert t.tally.hedges == {"lost": 1}
        assert (t.circuit("b").calls, t.circuit("b").slow) == (0, 0)
        assert t.circuit("a").calls == 1


async def test_a_hedge_that_was_silent_for_as_long_itself_is_slow(autojump_clock: MockClock) -> None:
    async with tries(a=[good(20.0)], b=[FakeResponse(Silence())]) as t:
        async with await hedging(t).opened() as attempt:
            attempt.report(None)
        await t.settled()
        assert t.circuit("b").slow == 1


async def test_who_answers_in_time_is_asked_alone(autojump_clock: MockClock) -> None:
    async with tries(a=[good(7.9)], b=[good()]) as t:
        async with await hedging(t).opened():
            assert t.client.upstreams == ["a"]
        assert not t.tally.hedges


async def test_who_fails_in_time_is_followed_by_the_usual(autojump_clock: MockClock) -> None:
    async with tries(a=[REFUSED, good()], b=[good()]) as t:
        async with await hedging(t).opened() as attempt:
            assert attempt.upstream == "a"
        assert t.client.upstreams == ["a", "a"]
        assert not t.tally.hedges


async def test_both_in_the_same_moment_are_one_winner_and_nothing_is_left(autojump_clock: MockClock) -> None:
    gates = Gate(), Gate()
    async with tries(a=[FakeResponse(gates[0], HELLO, DONE)], b=[FakeResponse(gates[1], HELLO, DONE)]) as t:
        async with trio.open_nursery() as nursery:

            async def race() -> None:
                async with await hedging(t).opened():
                    assert [response.closed for response in t.client.responses].count(False) == 1

            nursery.start_soon(race)
            await trio.sleep(9.0)
            assert t.client.upstreams == ["a", "b"]
            for gate in gates:
                gate.opened.set()
        await t.settled()


@pytest.mark.parametrize("look", [FirstLook.FIRST_BYTE, FirstLook.WHOLE])
async def test_the_other_engine_and_whole_answers_are_hedged_too(look: FirstLook, autojump_clock: MockClock) -> None:
    body = b'{"choices":[]}'
    async with tries(look, a=[FakeResponse(Silence())], b=[FakeResponse(body)]) as t:
        async with await hedging(t).opened() as attempt:
            assert (attempt.upstream, await read_all(attempt)) == ("b", body)


async def test_endpoints_that_may_not_be_asked_twice_are_not(autojump_clock: MockClock) -> None:
    async with tries(FirstLook.HEAD, a=[Silence()], b=[good()]) as t:
        with trio.move_on_after(100.0):
            await hedging(t).until_open()
        assert t.client.upstreams == ["a"]


# ---- faults -------------------------------------------------------------------------------------------------------------


async def test_a_silent_route_is_asked_once_each(autojump_clock: MockClock) -> None:
    async with silent_first(b=FakeResponse(Silence())) as t:
        began = trio.current_time()
        fault = await hedging(t).fault()
        assert (fault.kind, fault.upstream) == (FaultKind.FIRST_TOKEN_TIMEOUT, "b")  # the latest decides
        assert await elapsed(t, began) == [("a", 0.0), ("b", AFTER)]
        assert trio.current_time() - began == pytest.approx(38.0)
        assert (t.circuit("a").failures, t.circuit("b").failures) == (1, 1)  # silent beyond first_token
        assert t.tally.faults == {("a", "first_token_timeout"): 1, ("b", "first_token_timeout"): 1}
        assert t.tally.hedges == {"failed": 1}


async def test_a_hedge_that_fails_leaves_the_first_its_time(autojump_clock: MockClock) -> None:
    async with tries(a=[good(20.0)], b=[REFUSED]) as t:
        async with await hedging(t).opened() as attempt:
            assert attempt.upstream == "a"
        assert t.client.upstreams == ["a", "b"]
        assert t.tally.hedges == {"failed": 1}
        assert t.tally.faults == {("b", "connect"): 1}


async def test_after_both_have_failed_the_route_goes_on_behind_the_one_that_failed_last(autojump_clock: MockClock) -> None:
    slow_503 = FakeResponse(Wait(1.0), Silence(), status=503)
    async with tries(a=[FakeResponse(Wait(9.0), UpstreamDisconnected("reset"))], b=[slow_503, good()], c=[good()]) as t:
        async with await hedging(t).opened() as attempt:
            assert attempt.upstream == "b"  # its own retry
        assert t.client.upstreams[:3] == ["a", "b", "b"]
        assert t.tally.faults["a", "disconnected"] == 1
        await t.settled()


async def test_a_hedge_that_won_is_retried_and_left_where_it_stands_in_the_route(autojump_clock: MockClock) -> None:
    cut = Fault(FaultKind.TRUNCATED, "cut", upstream="b")
    async with tries(a=[FakeResponse(Silence())], b=[good()], c=[good()], recovery=RecoveryPolicy(retries=0)) as t:
        async with await hedging(t).opened() as attempt:
            attempt.report(cut)
        step = await t.attempts.advance(cut)
        assert isinstance(step, OpenAttempt)
        assert t.client.upstreams == ["a", "b", "c"]
        await step.aclose()
        await t.settled()


# ---- when it may not be -------------------------------------------------------------------------------------------------


async def first_alone(t: Tries, reason: str = "refused") -> None:
    fault = await hedging(t).fault()
    assert fault.kind is FaultKind.FIRST_TOKEN_TIMEOUT
    assert t.client.upstreams[0] == "a"
    assert t.tally.hedges == ({reason: 1} if reason else {})


async def test_the_budget_of_retries_bounds_hedges(autojump_clock: MockClock) -> None:
    async with silent_first(budget=RetryBudgetPolicy(share=0.0, floor=0)) as t:
        await first_alone(t)
        assert t.client.upstreams == ["a"]


@pytest.mark.parametrize("mode", ["forced_open"])
async def test_an_upstream_that_is_shut_out_is_no_hedge(mode: Any, autojump_clock: MockClock) -> None:
    async with silent_first() as t:
        await t.breaker.force("b", mode)
        await first_alone(t)
        assert t.client.upstreams == ["a"]


async def test_the_next_one_that_is_well_is_asked_instead(autojump_clock: MockClock) -> None:
    async with tries(a=[FakeResponse(Silence())], b=[good()], c=[good()]) as t:
        await t.breaker.force("b", "forced_open")
        async with await hedging(t).opened() as attempt:
            assert attempt.upstream == "c"


async def test_a_probe_is_not_hedged(autojump_clock: MockClock) -> None:
    policy = BreakerPolicy(jitter=0.0, consecutive_failures=1, open_base=1.0)
    failing = RecoveryPolicy(retries=0)
    async with tries(a=[REFUSED, FakeResponse(Silence())], b=[good()], policy=policy, recovery=failing, timers={"first_token": 30.0}) as t:
        async with await t.opened():
            pass
        await trio.sleep(1.5)
        assert t.circuit("a").state == "half_open"
        answers: Any = {"a": [FakeResponse(Silence())], "b": [good()]}
        again = hedging(Tries(t.breaker, t.attempts._route, FirstLook.MEANINGFUL_FRAME, answers, retrying=False))
        began = trio.current_time()
        async with await again.opened():
            assert await elapsed(again, began) == [("a", 0.0), ("b", 30.0)]  # only once the probe has failed
        assert again.tally.hedges == {"refused": 1}


@pytest.mark.parametrize("just_now", [False, True])
async def test_a_hedge_is_no_probe(just_now: bool, autojump_clock: MockClock) -> None:
    policy = BreakerPolicy(jitter=0.0, consecutive_failures=1, open_base=1.0, half_open_max=0.0)
    async with tries(b=[REFUSED], policy=policy, a=[FakeResponse(Silence())], timers={"first_token": 30.0}) as t:
        grant = await t.breaker.acquire("b")
        assert isinstance(grant, Permit)
        grant.ended(Verdict.FAILURE)
        await trio.sleep(1.5)
        assert t.circuit("b").state == "half_open"
        t.attempts._route = replace(t.attempts._route, candidates=tuple(reversed(t.attempts._route.candidates)))
        if just_now:  # it became half-open after it was chosen
            t.attempts._hedge_target = lambda candidate: 1  # type: ignore[method-assign]
        with trio.move_on_after(20.0):
            await hedging(t).until_open()
        assert t.client.upstreams == ["a"]
        assert t.tally.hedges == {"refused": 1}
        await t.settled()


async def test_a_hedge_waits_for_no_slot(autojump_clock: MockClock) -> None:
    limits = Admission(AdmissionPolicy(), {"b": 1})
    async with silent_first() as t:
        with limits.visit() as holder, limits.visit() as visit:
            slot = holder.free_slot("b")
            assert slot is not None
            t.attempts._visit = visit
            with slot, trio.move_on_after(20.0):
                await hedging(t).until_open()
            assert t.client.upstreams == ["a"]
            assert limits.statistics().slots_in_use == {"b": 0}


async def test_one_upstream_under_two_models_is_no_other_upstream(autojump_clock: MockClock) -> None:
    async with tries(a=[FakeResponse(Silence())]) as t:
        first = t.attempts._route.candidates[0]
        route = replace(t.attempts._route, candidates=(first, replace(first, model="other")), hedge_after=AFTER)
        again = Tries(t.breaker, route, FirstLook.MEANINGFUL_FRAME, {"a": [FakeResponse(Silence())]}, retrying=False)
        with trio.move_on_after(20.0):
            await again.until_open()
        assert again.client.upstreams == ["a"]


async def test_it_is_off_unless_it_is_set(autojump_clock: MockClock) -> None:
    async with silent_first() as t:
        assert t.attempts._route.hedge_after == math.inf
        async with await t.opened() as attempt:
            assert (attempt.upstream, t.tally.hedges) == ("b", {})
        assert trio.current_time() >= 30.0


# ---- it is cancelled ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.5, 8.5])
async def test_row_43_both_are_closed_when_the_client_leaves(after: float, autojump_clock: MockClock) -> None:
    async with silent_first(b=FakeResponse(role(), Silence())) as t:
        with trio.move_on_after(after) as scope:
            await hedging(t).until_open()
        assert scope.cancelled_caught
        await t.settled()
        assert (t.circuit("a").calls, t.circuit("b").calls) == (0, 0)
        assert t.tally.hedges == ({"cancelled": 1} if after > AFTER else {})


async def test_a_winner_that_its_client_left_in_the_same_moment_is_closed() -> None:
    async with tries(a=[FakeResponse(HELLO)], b=[good()]) as t:
        with trio.CancelScope() as scope:
            send = t.client.send

            async def send_and_leave(*args: Any, **named: Any) -> Any:
                response = await send(*args, **named)
                read = response.read

                async def last_read() -> bytes:
                    data = await read()
                    scope.cancel()  # from here to the end of the race there is no checkpoint but the nursery's own
                    return data

                response.read = last_read
                return response

            t.client.send = send_and_leave  # type: ignore[method-assign]
            await hedging(t).until_open()
        assert scope.cancelled_caught
        await t.settled()


async def test_a_bug_in_one_of_them_takes_the_other_with_it(autojump_clock: MockClock) -> None:
    async with silent_first(b=FakeResponse(RuntimeError("a bug"))) as t:
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a bug")):
            await hedging(t).until_open()
        await t.settled()


async def test_an_answer_that_is_an_error_does_not_win(autojump_clock: MockClock) -> None:
    async with tries(a=[good(12.0)], b=[answer(500)]) as t:
        async with await hedging(t).opened() as attempt:
            assert attempt.upstream == "a"

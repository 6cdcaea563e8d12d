"""The breaker's actor: questions, reports, and everything that can happen to them on the way.

Numbered tests are those behaviours of the list in test_circuit.py that are the actor's.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from actors import circuit_breaker
from actors.circuit_breaker import ANSWER_WITHIN, MAILBOX_SIZE, CircuitBreaker, Permit, open_circuit_breaker
from actors.errors import BreakerFailed, BreakerGone
from actors.sansio.breaker_state import BreakerPolicy, CircuitStatistics, Refusal
from actors.sansio.faults import Verdict
from actors.sansio.retry_budget import RetryBudgetPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

POLICY = BreakerPolicy(jitter=0.0)


@asynccontextmanager
async def breaker_of(policy: BreakerPolicy = POLICY, **options: Any) -> AsyncGenerator[CircuitBreaker, None]:
    async with open_circuit_breaker({"a": policy, "b": policy}, **options) as breaker:
        yield breaker


async def permit_of(breaker: CircuitBreaker, upstream: str = "a", *, alone: bool = False) -> Permit:
    answer = await breaker.acquire(upstream, alone=alone)
    assert isinstance(answer, Permit), answer
    return answer


async def refusal_of(breaker: CircuitBreaker, upstream: str = "a") -> Refusal:
    answer = await breaker.acquire(upstream)
    assert isinstance(answer, Refusal), answer
    return answer


async def attempts(breaker: CircuitBreaker, *verdicts: Verdict, retry_after: float | None = None) -> None:
    for verdict in verdicts:
        with await permit_of(breaker) as permit:
            permit.ended(verdict, retry_after)
    await trio.testing.wait_all_tasks_blocked()


def circuit(breaker: CircuitBreaker, upstream: str = "a") -> CircuitStatistics:
    return breaker.statistics().upstreams[upstream]


# ---- it works ---------------------------------------------------------------------------------------------------------


async def test_a_circuit_opens_half_opens_and_closes_and_each_step_is_told(autojump_clock: trio.testing.MockClock) -> None:
    told: list[tuple[str, str, str, str]] = []
    async with breaker_of(on_transition=lambda *transition: told.append(transition)) as breaker:
        await attempts(breaker, *[Verdict.FAILURE] * 5)
        assert (await refusal_of(breaker)).retry_after == 5.0
        await permit_of(breaker, "b")  # the other upstream's circuit is its own
        await trio.sleep(5.0)
        first = await permit_of(breaker)
        assert first.probe
        assert (await refusal_of(breaker)).state == "half_open"
        first.started()
        second = await permit_of(breaker)
        second.started()
        await trio.testing.wait_all_tasks_blocked()
        assert circuit(breaker).state == "closed"
    assert told == [
        ("a", "closed", "open", "5 failures in a row"),
        ("a", "open", "half_open", "the open time is over"),
        ("a", "half_open", "closed", "2 good probes"),
    ]


async def test_06_without_any_call_the_states_are_published_on_time(autojump_clock: trio.testing.MockClock) -> None:
    async with breaker_of() as breaker:
        await attempts(breaker, *[Verdict.FAILURE] * 5)
        assert circuit(breaker).state == "open"
        await trio.sleep(5.001)
        assert circuit(breaker).state == "half_open"
        await attempts(breaker, Verdict.PAUSE, retry_after=3.0)
        assert circuit(breaker).state == "paused"
        assert circuit(breaker).seconds_left(trio.current_time()) == pytest.approx(3.0)
        await trio.sleep(3.001)
        assert circuit(breaker).state == "half_open"


async def test_06_counts_that_are_shown_get_old_and_then_the_body_rests(autojump_clock: trio.testing.MockClock) -> None:
    async with breaker_of() as breaker:
        await attempts(breaker, *[Verdict.FAILURE] * 3)
        await trio.sleep(66)
        assert circuit(breaker).calls == 0
        before = trio.current_time()
        # Nothing is due any more: the clock jumps to our own deadline, in one step.
        await trio.sleep(80_000)
        assert trio.current_time() == before + 80_000


async def test_06_a_timer_that_was_reset_does_nothing(autojump_clock: trio.testing.MockClock) -> None:
    told: list[str] = []
    async with breaker_of(on_transition=lambda *transition: told.append(transition[2])) as breaker:
        await attempts(breaker, *[Verdict.FAILURE] * 5)
        await breaker.reset("a")
        await trio.sleep(100)
    assert told == ["open", "closed"]


async def test_alone_reaches_the_circuit(autojump_clock: trio.testing.MockClock) -> None:
    async with breaker_of() as breaker:
        await attempts(breaker, *[Verdict.FAILURE] * 5)
        await trio.sleep(2.0)
        assert (await refusal_of(breaker)).state == "open"
        assert (await permit_of(breaker, alone=True)).probe


async def test_a_permit_left_without_a_verdict_counts_nothing() -> None:
    async with breaker_of() as breaker:
        with await permit_of(breaker) as permit:
            permit.started()
            await trio.testing.wait_all_tasks_blocked()
            assert circuit(breaker).permits_out == 1
        await trio.testing.wait_all_tasks_blocked()
        assert (circuit(breaker).permits_out, circuit(breaker).calls) == (0, 0)


async def test_the_first_verdict_stands() -> None:
    async with breaker_of() as breaker:
        with await permit_of(breaker) as permit:
            permit.ended(Verdict.SUCCESS)
            permit.ended(Verdict.FAILURE)
            permit.started()
        assert breaker.statistics().mailbox_depth == 0  # the body was handed the first, and nothing came behind it
        await trio.testing.wait_all_tasks_blocked()
        assert (circuit(breaker).calls, circuit(breaker).failures) == (1, 0)


async def test_a_slow_start_makes_a_good_end_slow_and_a_bad_one_stays_bad() -> None:
    async with breaker_of() as breaker:
        for verdict in (Verdict.SUCCESS, Verdict.FAILURE):
            with await permit_of(breaker) as permit:
                permit.started(slow=True)
                permit.started()  # the first frame is the first one
                permit.ended(verdict)
        await trio.testing.wait_all_tasks_blocked()
        assert (circuit(breaker).calls, circuit(breaker).slow, circuit(breaker).failures) == (2, 1, 1)


async def test_13_an_error_or_a_cancel_inside_passes_on_and_gives_the_permit_back() -> None:
    """What breaks on our own side is not the upstream's failure."""
    async with breaker_of() as breaker:
        with pytest.raises(ZeroDivisionError):
            with await permit_of(breaker):
                raise ZeroDivisionError
        with trio.CancelScope() as scope:
            with await permit_of(breaker):
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert (circuit(breaker).permits_out, circuit(breaker).calls) == (0, 0)


async def test_the_operator_forces_and_resets() -> None:
    async with breaker_of() as breaker:
        await breaker.force("a", "forced_open")
        assert circuit(breaker).state == "forced_open"
        assert (await refusal_of(breaker)).state == "forced_open"
        await breaker.force("a", "disabled")
        await attempts(breaker, *[Verdict.FAILURE] * 9)
        assert (circuit(breaker).state, circuit(breaker).calls) == ("disabled", 0)
        await breaker.reset("a")
        assert circuit(breaker).state == "closed"


async def test_a_wrong_name_or_mode_is_the_callers_error() -> None:
    async with breaker_of() as breaker:
        for call in (breaker.acquire("c"), breaker.reset("c"), breaker.force("c", "on")):
            with pytest.raises(KeyError):
                await call
        with pytest.raises(ValueError, match="off"):
            await breaker.force("a", "off")  # type: ignore[arg-type]
        assert breaker.statistics().restarts == 0


async def test_the_retry_budget_is_shared() -> None:
    async with breaker_of(budget=RetryBudgetPolicy(floor=1, share=0.5)) as breaker:
        assert [await breaker.spend_retry(), await breaker.spend_retry()] == [True, False]
        for _ in range(4):
            breaker.attempt_made()
        assert [await breaker.spend_retry(), await breaker.spend_retry()] == [True, False]
        budget = breaker.statistics().retry_budget
        assert (budget.attempts, budget.retries, budget.refused) == (4, 2, 2)


async def test_a_refused_credential_is_told_loudly_once_per_pause(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async with breaker_of() as breaker:
        permits = [await permit_of(breaker) for _ in range(3)]
        for permit in permits:
            permit.ended(Verdict.DEAD_CREDENTIAL)
        await trio.testing.wait_all_tasks_blocked()
        assert (await refusal_of(breaker)).state == "paused"
        await trio.sleep(30.0)
        await attempts(breaker, Verdict.DEAD_CREDENTIAL)
    said = [(record.levelno, record.getMessage()) for record in caplog.records]
    text = "the upstream refused the configured credential, or its quota is used up"
    assert said == [(logging.ERROR, f"upstream 'a' is paused for {seconds} s: {text}") for seconds in (30, 60)]


# ---- its mailbox closes -----------------------------------------------------------------------------------------------


async def test_the_body_ends_with_the_block_and_handles_what_was_sent_before() -> None:
    told: list[str] = []
    async with breaker_of(BreakerPolicy(consecutive_failures=1), on_transition=lambda *transition: told.append(transition[2])) as breaker:
        permit = await permit_of(breaker)
        other = await permit_of(breaker)
        permit.ended(Verdict.FAILURE)
    assert told == ["open"]
    other.started()
    other.ended(Verdict.FAILURE)  # nobody listens: not an error
    assert breaker.statistics().mailbox_depth == 0


async def test_after_the_end_requests_fail_open_at_once_and_orders_say_so(autojump_clock: trio.testing.MockClock) -> None:
    async with breaker_of() as breaker:
        pass
    started = trio.current_time()
    with trio.testing.assert_checkpoints():
        permit = await permit_of(breaker)
    assert permit.failed_open
    assert trio.current_time() == started
    assert not await breaker.spend_retry()
    with pytest.raises(BreakerGone):
        await breaker.reset("a")
    with permit:
        permit.started()
        permit.ended(Verdict.FAILURE)
    assert breaker.statistics().failed_open == 1


# ---- its callers leave ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half_open", [False, True], ids=["closed", "half-open"])
async def test_no_permit_is_lost_when_2400_callers_are_cancelled_at_the_worst_moments(
    half_open: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Each caller is cancelled after a few steps of the scheduler: before its question, beside it, beside the answer, after it."""
    policy = BreakerPolicy(jitter=0.0, probes=40, successes=10_000)
    random = Random(2400)
    outcomes = {"permit": 0, "refusal": 0, "cancelled": 0}
    async with breaker_of(policy) as breaker:
        if half_open:
            await attempts(breaker, *[Verdict.FAILURE] * 5)
            await trio.sleep(5.0)

        async def call(scope: trio.CancelScope, steps: int) -> None:
            with scope:
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                if random.randrange(2):
                    breaker.attempt_made()  # the body has something to do: the question is a message, and not a call
                answer = await breaker.acquire("a")
                outcomes["permit" if isinstance(answer, Permit) else "refusal"] += 1
                if isinstance(answer, Permit):
                    with answer:
                        await trio.lowlevel.checkpoint()
            outcomes["cancelled"] += scope.cancelled_caught

        async def cancel(scope: trio.CancelScope, steps: int) -> None:
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            scope.cancel()

        for _ in range(60):
            async with trio.open_nursery() as nursery:
                for _ in range(40):
                    scope = trio.CancelScope()
                    nursery.start_soon(call, scope, random.randrange(3))
                    nursery.start_soon(cancel, scope, random.randrange(6))
        await trio.testing.wait_all_tasks_blocked()
        assert (circuit(breaker).permits_out, circuit(breaker).calls) == (0, 0)
        assert breaker.statistics().failed_open == 0
        assert min(outcomes["permit"], outcomes["cancelled"]) > 300, "the race was not one"
        if half_open:
            probes = [await permit_of(breaker) for _ in range(40)]  # every place is free again
            assert all(probe.probe for probe in probes)


async def test_24_a_probe_whose_caller_leaves_before_the_answer_frees_its_place(autojump_clock: trio.testing.MockClock) -> None:
    async with breaker_of() as breaker:
        await attempts(breaker, *[Verdict.FAILURE] * 5)
        await trio.sleep(5.0)

        async def ask() -> None:
            breaker.attempt_made()  # the body has something to do
            await breaker.acquire("a")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.lowlevel.checkpoint()  # its question is in the mailbox, the answer on its way
            nursery.cancel_scope.cancel()
        assert (await permit_of(breaker)).probe


async def test_a_caller_who_is_cancelled_already_gets_no_permit() -> None:
    async with breaker_of() as breaker:
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await breaker.acquire("a")
        assert scope.cancelled_caught
        assert (circuit(breaker).permits_out, breaker.statistics().failed_open) == (0, 0)


async def test_a_body_that_rests_is_asked_and_told_without_a_turn_of_its_task() -> None:
    async with breaker_of(BreakerPolicy(consecutive_failures=1)) as breaker:
        await trio.testing.wait_all_tasks_blocked()
        permit = await permit_of(breaker)
        assert circuit(breaker).permits_out == 1
        permit.started()
        permit.ended(Verdict.FAILURE)
        assert circuit(breaker).state == "open"
        assert isinstance(await breaker.acquire("a"), Refusal)


async def test_what_is_told_behind_a_message_is_heard_behind_it() -> None:
    async with breaker_of(BreakerPolicy(consecutive_failures=1)) as breaker:
        permit = await permit_of(breaker)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(breaker.force, "a", "metrics_only")
            await trio.lowlevel.checkpoint()  # the order lies in the mailbox
            permit.ended(Verdict.FAILURE)
        await trio.testing.wait_all_tasks_blocked()
        assert (circuit(breaker).state, circuit(breaker).calls) == ("metrics_only", 0)  # the permit was one of before


# ---- it fails ---------------------------------------------------------------------------------------------------------


class Boom:
    """An observer that fails at the transitions of the given numbers, counted from 1."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers
        self.told: list[tuple[str, str, str, str]] = []

    def __call__(self, *transition: str) -> None:
        upstream, before, after, reason = transition
        self.told.append((upstream, before, after, reason))
        if len(self.told) in self.numbers:
            raise ZeroDivisionError(f"at transition {len(self.told)}")


async def test_row_58_a_failed_body_starts_again_closed_and_keeps_its_mailbox(caplog: pytest.LogCaptureFixture) -> None:
    async with breaker_of(BreakerPolicy(consecutive_failures=1), on_transition=Boom(1)) as breaker:
        old = await permit_of(breaker)
        await breaker.force("b", "metrics_only")
        generation = circuit(breaker).generation
        with await permit_of(breaker) as permit:
            permit.ended(Verdict.FAILURE)  # opens, and the observer fails
        # Asked behind the report, so the failed body leaves the question in the mailbox and the next one answers it.
        assert not (await permit_of(breaker)).failed_open
        assert breaker.statistics().restarts == 1
        assert circuit(breaker).state == "closed"
        assert circuit(breaker).generation > generation
        assert circuit(breaker, "b").state == "metrics_only"  # what the operator wanted stays
        old.ended(Verdict.FAILURE)
        await trio.testing.wait_all_tasks_blocked()
        assert circuit(breaker).state == "closed"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_the_caller_at_whose_question_the_body_fails_is_let_through_at_once(autojump_clock: trio.testing.MockClock) -> None:
    boom = Boom(2)
    async with breaker_of(BreakerPolicy(consecutive_failures=1, jitter=0.0, alone_open_max=1.0), on_transition=boom) as breaker:
        await attempts(breaker, Verdict.FAILURE)
        await trio.sleep(1.0)
        before = trio.current_time()
        permit = await permit_of(breaker, alone=True)  # the question itself half-opens
        assert trio.current_time() == before
        permit.ended(Verdict.FAILURE)
        await trio.testing.wait_all_tasks_blocked()
        assert breaker.statistics().restarts == 1
        assert (circuit(breaker).state, circuit(breaker).permits_out) == ("closed", 0)


async def test_a_body_that_fails_while_it_is_asked_lets_the_caller_through_and_starts_again(mock_clock: trio.testing.MockClock) -> None:
    jitters = [0.5]  # the second time that one is wanted there is none
    policy = BreakerPolicy(consecutive_failures=1, open_base=5.0, half_open_max=30.0)
    async with breaker_of(policy, random=jitters.pop) as breaker:
        await attempts(breaker, Verdict.FAILURE)
        mock_clock.jump(10.0)
        await trio.testing.wait_all_tasks_blocked()
        assert (await permit_of(breaker)).probe
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(40.0)
        assert (await permit_of(breaker)).failed_open  # the probe is overdue: it would open again
        await trio.testing.wait_all_tasks_blocked()
        assert (breaker.statistics().restarts, breaker.statistics().failed_open) == (1, 1)
        assert not (await permit_of(breaker)).failed_open


async def test_an_order_at_which_the_body_fails_is_answered() -> None:
    async with breaker_of(on_transition=Boom(1)) as breaker:
        with pytest.raises(BreakerGone, match="failed at this question"):
            await breaker.force("a", "forced_open")
        assert breaker.statistics().restarts == 1


@pytest.mark.parametrize(("wait", "ends"), [(29.0, True), (31.0, False)])
async def test_row_58_three_failures_within_a_minute_end_it(
    wait: float, ends: bool, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    survived = False

    async def run() -> None:
        nonlocal survived
        # Each failure is at an opening; a restart is a transition as well (open to closed), which does not fail.
        async with breaker_of(BreakerPolicy(consecutive_failures=1), on_transition=Boom(1, 3, 5)) as breaker:
            for _ in range(3):
                await attempts(breaker, Verdict.FAILURE)
                await trio.sleep(wait)
            assert breaker.statistics().restarts == 3
            survived = True

    if ends:
        with pytest.RaisesGroup(pytest.RaisesExc(BreakerFailed, match="3 times within 60 s")) as raised:
            await run()
        assert isinstance(raised.value.exceptions[0].__cause__, ZeroDivisionError)
        assert caplog.records[-1].levelno == logging.CRITICAL
    else:
        await run()
    assert survived is not ends


async def test_a_body_that_says_nothing_is_waited_for_one_second(autojump_clock: trio.testing.MockClock) -> None:
    """The handle alone, on a mailbox that nobody reads."""
    async with breaker_of() as living:
        board = living._board
    send, receive = trio.open_memory_channel[Any](MAILBOX_SIZE)
    with send, receive:
        breaker = CircuitBreaker(send, board)
        before = trio.current_time()
        permit = await permit_of(breaker)
        assert trio.current_time() - before == pytest.approx(ANSWER_WITHIN)
        assert permit.failed_open
        assert not permit.probe
        with permit:
            permit.started()
            permit.ended(Verdict.FAILURE)
        assert breaker.statistics().mailbox_depth == 1  # the question; a permit of nobody reports to nobody
        assert not await breaker.spend_retry()
        with pytest.raises(BreakerGone, match="did not answer within 1 s"):
            await breaker.force("a", "on")
        assert breaker.statistics().failed_open == 1


async def test_a_full_mailbox_is_counted_and_turns_questions_away_before_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "MAILBOX_SIZE", 10)
    async with breaker_of() as breaker:
        with await permit_of(breaker) as permit:
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(1 + 5):  # the body takes the first one straight from our hand
                breaker.attempt_made()
            assert (await permit_of(breaker)).failed_open
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(1 + 10 + 3):
                breaker.attempt_made()
            assert breaker.statistics().lost_reports == 3
            permit.ended(Verdict.FAILURE)
            assert breaker.statistics().lost_reports == 4
    assert breaker.statistics().failed_open == 1


async def test_statistics_are_a_snapshot() -> None:
    async with breaker_of() as breaker:
        before = breaker.statistics()
        await attempts(breaker, Verdict.FAILURE)
        assert before.upstreams["a"].failures == 0
        assert circuit(breaker).failures == 1
        with pytest.raises(TypeError):
            before.upstreams["a"] = circuit(breaker)  # type: ignore[index]

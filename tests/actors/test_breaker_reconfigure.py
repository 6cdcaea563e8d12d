"""Another configuration for a circuit breaker that runs: who stays keeps its state, who is gone serves those who still use it."""

from __future__ import annotations

import pytest
import trio.testing

from actors.errors import BreakerGone
from actors.sansio.breaker_state import BreakerPolicy
from actors.sansio.faults import Verdict
from actors.sansio.retry_budget import RetryBudgetPolicy

from .test_circuit_breaker import attempts, breaker_of, circuit, permit_of, refusal_of

ONE_FAILS = BreakerPolicy(jitter=0.0, consecutive_failures=1)


async def test_row_69_who_stays_keeps_its_state_under_the_new_policy(autojump_clock: trio.testing.MockClock) -> None:
    async with breaker_of(ONE_FAILS) as breaker:
        await attempts(breaker, Verdict.FAILURE)
        await breaker.reconfigure({"a": BreakerPolicy(jitter=0.0, consecutive_failures=3), "c": ONE_FAILS})
        assert set(breaker.statistics().upstreams) == {"a", "c"}
        assert (await refusal_of(breaker)).state == "open"
        await trio.sleep(5.0)
        for _ in range(2):
            with await permit_of(breaker) as probe:
                probe.ended(Verdict.SUCCESS)
            await trio.testing.wait_all_tasks_blocked()
        await attempts(breaker, Verdict.FAILURE, Verdict.FAILURE)
        assert circuit(breaker).state == "closed"  # one failure does not open it any more
        await attempts(breaker, Verdict.FAILURE)
        assert circuit(breaker).state == "open"


async def test_row_69_what_begins_anew_is_closed() -> None:
    async with breaker_of(ONE_FAILS) as breaker:
        await attempts(breaker, Verdict.FAILURE)
        await breaker.reconfigure({"a": ONE_FAILS, "b": ONE_FAILS}, anew=["a"])
        assert circuit(breaker).state == "closed"


async def test_row_69_who_is_gone_still_answers_its_streams_and_is_not_shown() -> None:
    async with breaker_of(ONE_FAILS) as breaker:
        old = await permit_of(breaker)
        await breaker.reconfigure({"b": ONE_FAILS})
        old.ended(Verdict.FAILURE)
        await trio.testing.wait_all_tasks_blocked()
        assert (await refusal_of(breaker)).state == "open"  # its own circuit goes on
        assert set(breaker.statistics().upstreams) == {"b"}
        with pytest.raises(KeyError):
            await breaker.reset("a")
        assert breaker.statistics().restarts == 0


async def test_row_69_who_comes_back_begins_closed() -> None:
    async with breaker_of(ONE_FAILS) as breaker:
        await attempts(breaker, Verdict.FAILURE)
        await breaker.reconfigure({"b": ONE_FAILS})
        await breaker.reconfigure({"a": ONE_FAILS, "b": ONE_FAILS})
        assert circuit(breaker).state == "closed"


async def test_row_69_a_mode_stays_unless_the_settings_change_it() -> None:
    async with breaker_of(ONE_FAILS) as breaker:
        await breaker.force("a", "forced_open")
        await breaker.reconfigure({"a": BreakerPolicy(consecutive_failures=9), "b": ONE_FAILS})
        assert circuit(breaker).state == "forced_open"
        await breaker.reconfigure({"a": BreakerPolicy(mode="metrics_only"), "b": ONE_FAILS})
        assert circuit(breaker).state == "metrics_only"


async def test_row_69_another_window_begins_empty() -> None:
    async with breaker_of(BreakerPolicy(jitter=0.0)) as breaker:
        await attempts(breaker, Verdict.FAILURE, Verdict.FAILURE)
        await breaker.reconfigure({"a": BreakerPolicy(jitter=0.0, failure_rate=0.9)})
        assert circuit(breaker).failures == 2
        await breaker.reconfigure({"a": BreakerPolicy(jitter=0.0, window=30.0)})
        assert circuit(breaker).failures == 0


async def test_row_69_the_retry_budget_follows() -> None:
    async with breaker_of(budget=RetryBudgetPolicy(floor=0, share=0.0)) as breaker:
        assert not await breaker.spend_retry()
        await breaker.reconfigure({"a": ONE_FAILS}, budget=RetryBudgetPolicy(floor=1, share=0.0))
        assert await breaker.spend_retry()
        assert not await breaker.spend_retry()
        assert breaker.statistics().retry_budget.refused == 2


async def test_a_breaker_that_is_gone_says_so() -> None:
    async with breaker_of() as breaker:
        pass
    with pytest.raises(BreakerGone):
        await breaker.reconfigure({})

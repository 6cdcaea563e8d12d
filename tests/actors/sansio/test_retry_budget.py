from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.sansio.retry_budget import RetryBudget, RetryBudgetPolicy


def test_a_laptop_gets_its_retries() -> None:
    """One user, one request that fails: both of its retries are granted, far beyond 20 %."""
    budget = RetryBudget(RetryBudgetPolicy())
    budget.attempt_made(0.0)
    assert [budget.spend(0.5), budget.spend(1.5)] == [True, True]


def test_the_floor_ends() -> None:
    budget = RetryBudget(RetryBudgetPolicy(floor=10))
    assert [budget.spend(0.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert budget.statistics().refused == 2


def test_an_outage_is_not_multiplied() -> None:
    """Every attempt fails and asks for a retry, each of which is an attempt itself: 20 % of what the upstream sees, not two thirds."""
    budget = RetryBudget(RetryBudgetPolicy())
    attempts = retries = 0
    for number in range(2000):
        now = number / 200  # 10 s: everything is in the window
        budget.attempt_made(now)
        attempts += 1
        while budget.spend(now):
            budget.attempt_made(now)
            attempts += 1
            retries += 1
    assert retries / attempts == pytest.approx(0.2, abs=0.005)


def test_the_window_slides() -> None:
    budget = RetryBudget(RetryBudgetPolicy(floor=2, window=10.0, buckets=10))
    assert [budget.spend(0.0), budget.spend(5.0), budget.spend(9.0)] == [True, True, False]
    assert [budget.spend(10.0), budget.spend(10.0)] == [True, False]  # the one of second 0 has left, the one of second 5 has not
    assert budget.spend(15.0)


def test_a_budget_of_nothing_grants_nothing() -> None:
    budget = RetryBudget(RetryBudgetPolicy(share=0.0, floor=0))
    for _ in range(100):
        budget.attempt_made(0.0)
    assert not budget.spend(0.0)


@given(
    share=st.floats(0, 1),
    floor=st.integers(0, 20),
    steps=st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=100),
)
def test_never_more_than_the_larger_of_floor_and_share(share: float, floor: int, steps: list[tuple[float, bool]]) -> None:
    budget = RetryBudget(RetryBudgetPolicy(share=share, floor=floor))
    now = 0.0
    for wait, is_attempt in steps:
        now += wait
        if is_attempt:
            budget.attempt_made(now)
            continue
        granted = budget.spend(now)
        statistics = budget.statistics()
        before = statistics.retries - granted
        assert granted == (before < max(floor, share * statistics.attempts))


@pytest.mark.parametrize(
    "wrong",
    [{"share": -0.1}, {"share": 1.1}, {"share": float("nan")}, {"floor": -1}, {"window": 0.0}, {"window": float("inf")}, {"buckets": 0}],
    ids=str,
)
def test_refuses_what_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetryBudgetPolicy(**wrong)

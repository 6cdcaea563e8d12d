from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.sansio.sliding_window import SlidingWindow


def test_counts_per_kind() -> None:
    window = SlidingWindow(60.0, 10, 3)
    window.record(0, 1.0)
    window.record(2, 1.0)
    window.record(2, 7.0)
    assert window.totals == (1, 0, 2)


def test_buckets_expire_one_by_one() -> None:
    window = SlidingWindow(60.0, 10, 1)
    for bucket in range(10):
        window.record(0, bucket * 6.0)
    left = []
    for bucket in range(10, 21):
        window.advance(bucket * 6.0)
        left.append(window.totals[0])
    assert left == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]


def test_a_long_idle_time_clears_and_the_index_stays_right() -> None:
    window = SlidingWindow(60.0, 10, 1)
    for second in range(60):
        window.record(0, float(second))
    window.record(0, 1e12)  # bucket by bucket this would take a day
    assert window.totals == (1,)
    window.advance(1e12 + 61)
    assert window.totals == (0,)


def test_a_clock_that_steps_back_loses_nothing() -> None:
    window = SlidingWindow(10.0, 5, 1)
    window.record(0, 100.0)
    window.record(0, 50.0)
    assert window.totals == (2,)
    window.advance(101.0)
    assert window.totals == (2,)


def test_one_bucket_forgets_everything_at_once() -> None:
    window = SlidingWindow(5.0, 1, 1)
    window.record(0, 0.0)
    window.record(0, 4.9)
    assert window.totals == (2,)
    window.advance(5.0)
    assert window.totals == (0,)


def test_clear_keeps_the_place_in_time() -> None:
    window = SlidingWindow(10.0, 5, 2)
    window.record(1, 100.0)
    window.clear()
    assert window.totals == (0, 0)
    window.record(1, 101.0)
    window.advance(109.0)
    assert window.totals == (0, 1)


@pytest.mark.parametrize("width", [1.0, 0.3, 7.0])
@given(
    buckets=st.integers(1, 12),
    steps=st.lists(st.tuples(st.floats(0, 30, allow_nan=False), st.integers(0, 2), st.booleans()), max_size=60),
)
def test_equals_a_list_of_entries(width: float, buckets: int, steps: list[tuple[float, int, bool]]) -> None:
    """The naive model keeps every entry with the number of its bucket, and counts those that are young enough."""
    window = SlidingWindow(width * buckets, buckets, 3)
    width = window.width
    entries: list[tuple[int, int]] = []
    now = 0.0
    for wait, kind, recorded in steps:
        now += wait
        if recorded:
            window.record(kind, now)
            entries.append((int(now // width), kind))
        else:
            window.advance(now)
        young = [kind for number, kind in entries if number > int(now // width) - buckets]
        assert window.totals == tuple(young.count(kind) for kind in range(3))

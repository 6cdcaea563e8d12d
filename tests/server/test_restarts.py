"""When a worker is started again: at once, then later and later, then no more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.restarts import MOST, WINDOW, Restarts


def test_the_first_restart_is_at_once_and_the_next_ones_wait_longer_and_longer() -> None:
    restarts = Restarts()
    assert [restarts.ended(now) for now in (0.0, 1.0, 2.0, 3.0, 4.0)] == [0.0, 0.5, 1.0, 2.0, None]


def test_an_end_that_is_long_past_does_not_count() -> None:
    restarts = Restarts()
    assert [restarts.ended(i * WINDOW) for i in range(10)] == [0.0] * 10


@given(st.lists(st.floats(0.0, 30.0), max_size=30))
def test_it_is_given_up_exactly_when_so_many_ends_lie_within_the_window(pauses: list[float]) -> None:
    restarts, ends, now = Restarts(), [], 0.0
    for pause in pauses:
        now += pause
        ends.append(now)
        recent = [end for end in ends if now - end < WINDOW]
        delay = restarts.ended(now)
        assert (delay is None) == (len(recent) >= MOST)
        if delay is not None:
            assert (delay == 0.0) == (len(recent) == 1)

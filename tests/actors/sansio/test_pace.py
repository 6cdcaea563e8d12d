from __future__ import annotations

from actors.sansio.pace import Pace

EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'


def test_below_the_floor_is_slow_and_above_it_is_not() -> None:
    for seconds, slow in ((1.99, False), (2.01, True)):
        pace = Pace(floor=10.0)
        for _ in range(20):
            pace.saw(EVENT, seconds / 20)
        assert pace.slow is slow


def test_a_few_events_say_nothing() -> None:
    pace = Pace(floor=10.0)
    pace.saw(EVENT * 19, 1000.0)
    assert not pace.slow
    pace.saw(EVENT, 0.0)
    assert pace.slow


def test_time_in_which_nothing_was_waited_for_does_not_count() -> None:
    pace = Pace(floor=10.0)
    for _ in range(100):
        pace.saw(EVENT, 0.0)
    assert not pace.slow

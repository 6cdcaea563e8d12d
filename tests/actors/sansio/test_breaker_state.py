from __future__ import annotations

from typing import Any

import pytest

from actors.sansio.breaker_state import BreakerPolicy

NAN, INFINITE = float("nan"), float("inf")


def test_the_defaults_are_those_of_the_design() -> None:
    policy = BreakerPolicy()
    assert (policy.window, policy.buckets, policy.minimum_calls, policy.failure_rate, policy.consecutive_failures) == (60.0, 10, 5, 0.5, 5)
    assert (policy.open_base, policy.open_max, policy.jitter, policy.probes, policy.successes) == (5.0, 60.0, 0.2, 1, 2)
    assert policy.alone_open_max == 2.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "off"},
        {"window": 0.0},
        {"window": -1.0},
        {"window": INFINITE},
        {"buckets": 0},
        {"minimum_calls": 0},
        {"failure_rate": 0.0},
        {"failure_rate": 1.01},
        {"failure_rate": NAN},
        {"consecutive_failures": -1},
        {"slow_rate": -0.1},
        {"slow_rate": 50.0},
        {"open_base": 0.0},
        {"open_base": 61.0},
        {"open_max": INFINITE},
        {"jitter": -0.1},
        {"jitter": 1.0},
        {"probes": 0},
        {"successes": 0},
        {"half_open_max": -1.0},
        {"alone_open_max": -1.0},
        {"alone_open_max": NAN},
        {"pause": 0.0},
        {"retry_after_max": 0.0},
        {"credential_pause": 0.0},
        {"credential_pause": 601.0},
        {"credential_pause_max": NAN},
    ],
    ids=str,
)
def test_18_refuses_what_makes_no_sense(wrong: dict[str, Any]) -> None:
    """In one line that begins with the setting's name."""
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} [^\n]+$"):
        BreakerPolicy(**wrong)


@pytest.mark.parametrize(
    "edge", [{"failure_rate": 1.0}, {"slow_rate": 1.0}, {"jitter": 0.0}, {"open_base": 60.0}, {"alone_open_max": 0.0}], ids=str
)
def test_18_takes_the_edges(edge: dict[str, Any]) -> None:
    BreakerPolicy(**edge)

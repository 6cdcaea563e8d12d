"""A second of several processes is what one process would have shown."""

from __future__ import annotations

import math
from statistics import quantiles

from hypothesis import given
from hypothesis import strategies as some

from server.admin.snapshot import Point, see, shown

TIMES = some.lists(some.floats(1e-6, 1e3), max_size=40)


def point(first: list[float], held: list[float], *, streams: int = 1, events: float = 10.0, tick: int = 7) -> Point:
    first_token: dict[float, int] = {}
    longest: dict[float, int] = {}
    for seconds in first:
        see(first_token, seconds)
    for seconds in held:
        see(longest, seconds)
    return Point(1, 5000.0, tick, 1, streams, events, 100.0, first_token, longest)


@given(some.lists(some.tuples(TIMES, TIMES, some.integers(0, 99), some.floats(0, 1e6)), min_size=1, max_size=5))
def test_what_is_shown_does_not_depend_on_how_the_streams_were_dealt_out(
    workers: list[tuple[list[float], list[float], int, float]],
) -> None:
    together = shown(point(first, held, streams=streams, events=events) for first, held, streams, events in workers)
    alone = point(
        [seconds for worker in workers for seconds in worker[0]],
        [seconds for worker in workers for seconds in worker[1]],
        streams=sum(worker[2] for worker in workers),
        events=math.fsum(worker[3] for worker in workers),
    )
    assert together == shown([alone]) | {"bytes": 100 * len(workers)}


@given(some.lists(some.floats(1e-6, 1e3), min_size=1, max_size=60))
def test_a_quantile_is_that_of_the_times_to_two_digits(times: list[float]) -> None:
    ordered = sorted(times)
    told = shown([point(times, [])])
    for name, share in (("first_token", 0.5), ("first_token_p99", 0.99)):
        exact = ordered[math.ceil(share * len(ordered)) - 1]
        assert math.isclose(told[name], exact, rel_tol=0.0501)


def test_quantiles_are_not_averaged() -> None:
    """One worker with a thousand quick streams, one with ten slow ones: half of all are quick."""
    quick, slow = point([0.1] * 1000, []), point([9.0] * 10, [])
    told = shown([quick, slow])
    assert (told["first_token"], told["first_token_p99"], told["held"]) == (0.1, 0.1, None)
    assert quantiles([0.1] * 1000 + [9.0] * 10, n=2) == [0.1]

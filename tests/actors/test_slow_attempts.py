"""Attempts below the configured floors count as slow, and as nothing worse."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from actors import Fault, FaultKind, FirstLook
from actors.sansio.breaker_state import BreakerPolicy

from ..fakes import DONE, FakeResponse, Step, Wait, content, role
from .test_attempts import Tries, read_all, tries

if TYPE_CHECKING:
    from trio.testing import MockClock

FLOORS = BreakerPolicy(jitter=0.0, slow_first_token=2.0, slow_tokens_per_second=10.0, slow_rate=1.0, minimum_calls=2)


def streamed(first: float, between: float, events: int = 30) -> FakeResponse:
    steps: list[Step] = [Wait(first), role() + content("x")]
    for _ in range(events):
        steps += [Wait(between), content("y")]
    return FakeResponse(*steps, DONE)


async def run(t: Tries, fault: Fault | None = None, floors: BreakerPolicy = FLOORS) -> None:
    route = t.attempts._route
    upstreams = tuple(replace(c, upstream=replace(c.upstream, breaker=floors)) for c in route.candidates)
    t.attempts._route = replace(route, candidates=upstreams)
    async with await t.opened() as attempt:
        await read_all(attempt)
        attempt.report(fault)
    await t.settled()


@pytest.mark.parametrize(
    ("first", "between", "slow"), [(0.0, 0.01, False), (1.9, 0.09, False), (2.1, 0.01, True), (0.0, 0.2, True), (5.0, 5.0, True)]
)
async def test_a_late_first_token_or_a_low_rate_is_slow(first: float, between: float, slow: bool, autojump_clock: MockClock) -> None:
    async with tries(a=[streamed(first, between)], policy=FLOORS) as t:
        await run(t)
        circuit = t.circuit()
        assert (circuit.calls, circuit.slow, circuit.failures, circuit.state) == (1, int(slow), 0, "closed")


async def test_without_floors_nothing_is_slow(autojump_clock: MockClock) -> None:
    async with tries(a=[streamed(100.0, 50.0)], policy=BreakerPolicy(slow_rate=1.0)) as t:
        await run(t, floors=BreakerPolicy(slow_rate=1.0))
        assert t.circuit().slow == 0


async def test_a_failure_stays_one(autojump_clock: MockClock) -> None:
    async with tries(a=[streamed(5.0, 5.0)], policy=FLOORS) as t:
        await run(t, Fault(FaultKind.TRUNCATED, "cut", upstream="a"))
        assert (t.circuit().slow, t.circuit().failures) == (0, 1)


@pytest.mark.parametrize("look", [FirstLook.WHOLE, FirstLook.HEAD])
async def test_what_is_not_streamed_has_no_first_token(look: FirstLook, autojump_clock: MockClock) -> None:
    async with tries(look, a=[FakeResponse(Wait(100.0), b'{"choices":[]}')], policy=FLOORS) as t:
        await run(t)
        assert t.circuit().slow == 0


async def test_slow_calls_open_the_circuit_without_a_failure(autojump_clock: MockClock) -> None:
    async with tries(a=[streamed(0.0, 0.2)], policy=FLOORS) as t:
        await run(t)
        await run(t)
        assert (t.circuit().state, t.circuit().reason) == ("open", "2 of 2 calls were slow")

"""FAULTS rows 59, 60 and 64: an upstream that flaps, a thousand callers at a half-open circuit, a mailbox that is full."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import trio
from trio.testing import wait_all_tasks_blocked

from actors import circuit_breaker
from actors.circuit_breaker import CircuitBreaker, Permit, open_circuit_breaker
from actors.sansio.breaker_state import BreakerPolicy, Refusal
from actors.sansio.faults import Verdict

from ..fakes import DONE, FakeResponse, content, role
from .test_attempts import read_all, tries

if TYPE_CHECKING:
    import pytest
    from trio.testing import MockClock


async def test_row_59_an_upstream_that_flaps_is_tried_at_growing_intervals_and_every_change_is_told(autojump_clock: MockClock) -> None:
    """Ten minutes, up for a second, down for a second, ten requests a second."""
    policy = BreakerPolicy(consecutive_failures=3)
    changes: list[tuple[float, str, str]] = []
    asked = 0
    async with open_circuit_breaker(
        {"a": policy},
        random=random.Random(59).random,
        on_transition=lambda _, before, after, reason: changes.append((trio.current_time(), before, after)),
    ) as breaker:
        began = trio.current_time()
        while (now := trio.current_time() - began) < 600.0:
            answer = await breaker.acquire("a")
            if isinstance(answer, Permit):
                asked += 1
                with answer:
                    if int(now) % 2:
                        answer.started()
                        answer.ended(Verdict.SUCCESS)
                    else:
                        answer.ended(Verdict.FAILURE)
            await trio.sleep(0.1)
        await wait_all_tasks_blocked()
        refused = breaker.statistics().upstreams["a"].refused
    steps = Counter((before, after) for _, before, after in changes)
    assert steps["closed", "open"] + steps["half_open", "open"] == steps["open", "half_open"] + (changes[-1][2] == "open")
    openings = [at for at, _, after in changes if after == "open"]
    assert len(openings) < 20  # 300 times it was down
    intervals = [later - earlier for earlier, later in pairwise(openings)]
    assert max(intervals[:3]) < 25.0
    assert all(interval >= 48.0 for interval in intervals[5:])  # the ceiling of 60 s, less 20 % jitter
    assert len({round(interval, 2) for interval in intervals[5:]}) > 1  # jitter
    assert asked < 200 < refused


async def test_row_60_of_a_thousand_at_a_half_open_circuit_exactly_the_probes_are_let_through(autojump_clock: MockClock) -> None:
    policy = BreakerPolicy(jitter=0.0, consecutive_failures=1, open_base=1.0, probes=3, successes=3)
    async with open_circuit_breaker({"a": policy}, random=random.Random(60).random) as breaker:
        with await _permit(breaker) as permit:
            permit.ended(Verdict.FAILURE)
        await trio.sleep(1.5)
        probes: list[Permit] = []
        refused: list[Refusal] = []
        judged = trio.Event()

        async def one() -> None:
            answer = await breaker.acquire("a")
            if isinstance(answer, Refusal):
                refused.append(answer)
                return
            with answer:
                probes.append(answer)
                await judged.wait()
                answer.started()

        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(one)
            await wait_all_tasks_blocked()
            assert (len(probes), len(refused)) == (3, 997)
            assert all(probe.probe for probe in probes)
            judged.set()
        waits = [refusal.retry_after for refusal in refused]
        assert 1.0 <= min(waits) < 1.1
        assert 2.9 < max(waits) <= 3.0
        assert len(set(waits)) > 900
        await wait_all_tasks_blocked()
        assert breaker.statistics().upstreams["a"].state == "closed"


async def test_row_64_a_full_mailbox_is_counted_and_holds_up_no_stream(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "MAILBOX_SIZE", 10)
    body = role() + content("Hello")
    async with tries(a=[FakeResponse(body, DONE)]) as t:
        send, receive = trio.open_memory_channel[Any](10)
        with send, receive:
            deaf = CircuitBreaker(send, t.breaker._board)  # the same handle, with a body that takes nothing any more
            for _ in range(10):
                deaf.attempt_made()
            t.attempts._breaker = deaf
            began = trio.current_time()
            async with await t.opened() as attempt:
                assert await read_all(attempt) == body + DONE
                attempt.report(None)
            assert trio.current_time() == began
            statistics = deaf.statistics()
            assert (statistics.failed_open, statistics.lost_reports, statistics.mailbox_depth) == (1, 1, 10)


async def _permit(breaker: CircuitBreaker) -> Permit:
    answer = await breaker.acquire("a")
    assert isinstance(answer, Permit)
    return answer

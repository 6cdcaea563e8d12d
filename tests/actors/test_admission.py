"""Waiting for a turn: who is cancelled gives everything back, who waits too long is told so, and permits wait for nobody."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors import Admission, AdmissionPolicy, FaultKind, FirstLook
from actors.admission import Rejection, Slot
from actors.sansio.breaker_state import BreakerPolicy
from actors.sansio.chunks import AttemptFailed, AttemptsExhausted
from actors.sansio.error_recovery import RecoveryPolicy

from ..fakes import DONE, FakeResponse, Gate, Silence, content, role
from .test_attempts import REFUSED, Tries, tries

if TYPE_CHECKING:
    from actors import Visit

K = FaultKind


def admission(*, slots: dict[str, int] | None = None, **limits: float) -> Admission:
    return Admission(AdmissionPolicy(**limits), slots or {}, random=lambda: 0.5)  # type: ignore[arg-type]  # ints and floats by name


def good() -> FakeResponse:
    return FakeResponse(role() + content("Hello"), DONE)


async def take_slot(visit: Visit, upstream: str = "a") -> Slot:
    slot = await visit.slot(upstream)
    assert isinstance(slot, Slot)
    return slot


# ---- the limits ---------------------------------------------------------------------------------------------------------


async def test_a_place_is_held_until_the_visit_ends_and_then_goes_to_the_next() -> None:
    limits = admission(max_streams=1)
    with limits.visit() as first:
        assert first.knock() is None
        assert await first.admitted() is None
        with limits.visit() as second:
            assert second.knock() is None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(second.admitted)
                await wait_all_tasks_blocked()
                assert (limits.statistics().streams, limits.statistics().waiting) == (1, 1)
                first.__exit__()
            assert (limits.statistics().streams, limits.statistics().waiting) == (1, 0)
    assert limits.statistics().streams == 0


def test_a_full_line_is_told_at_once_with_a_retry_after() -> None:
    limits = admission(max_streams=1, max_waiting=0)
    with limits.visit() as first, limits.visit() as second:
        first.knock()
        busy = second.knock()
        assert busy is not None
        assert (busy.reason, busy.retry_after, busy.setting) == ("full", 6.0, "admission.max_waiting")
        assert limits.statistics().rejected == {"full": 1}


async def test_patience_ends_and_counts_over_all_waits_of_a_request(autojump_clock: MockClock) -> None:
    limits = admission(slots={"a": 1, "b": 1}, max_wait=10.0)
    with limits.visit() as holder, limits.visit() as waiting, await take_slot(holder), await take_slot(holder, "b"):
        began = trio.current_time()
        with trio.move_on_after(4.0):
            await waiting.slot("a")
        busy = await waiting.slot("a")
        assert isinstance(busy, Rejection)
        assert busy.reason == "waited"
        assert trio.current_time() - began == pytest.approx(14.0)
        again = await waiting.slot("b")
        assert isinstance(again, Rejection)
        assert trio.current_time() - began == pytest.approx(14.0)  # nothing is left of it
    assert (limits.statistics().waiting, limits.statistics().slots_in_use) == (0, {"a": 0, "b": 0})


async def test_no_slot_is_lost_when_waiters_are_cancelled_at_the_moment_of_their_turn() -> None:
    limits = admission(slots={"a": 1})

    async def use(visit: Visit) -> None:
        with await take_slot(visit):
            await trio.sleep_forever()

    for _ in range(50):
        with limits.visit() as holder, limits.visit() as other, ExitStack() as held:
            held.enter_context(await take_slot(holder))
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(use, other)
                    await wait_all_tasks_blocked()
                    held.close()  # the turn comes ...
                    scope.cancel()  # ... and the client leaves before it could be taken
        assert limits.statistics().slots_in_use == {"a": 0}
        assert limits.statistics().waiting == 0


async def test_who_makes_room_is_told_so() -> None:
    limits = admission(slots={"a": 1}, max_waiting=2)
    found: list[Slot | Rejection] = []

    async def wait(key: str) -> None:
        with limits.visit() as visit:
            visit.knock(key)
            found.append(await visit.slot("a"))

    with limits.visit() as holder, trio.CancelScope() as scope:
        with await take_slot(holder):
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(wait, "greedy")
                    await wait_all_tasks_blocked()
                nursery.start_soon(wait, "modest")
                await wait_all_tasks_blocked()
                scope.cancel()
    assert [one.reason for one in found if isinstance(one, Rejection)] == ["displaced"]


def test_row_65_bodies_are_bounded_together_and_freed_at_the_end_of_each_request() -> None:
    limits = admission(max_body_bytes=100)
    with limits.visit() as first, limits.visit() as second:
        assert first.hold_bytes(60) is None
        assert first.hold_bytes(20) is None
        busy = second.hold_bytes(21)
        assert busy is not None
        assert (busy.reason, busy.setting) == ("memory", "admission.max_body_bytes")
        assert second.hold_bytes(20) is None
        assert limits.statistics().body_bytes == 100
    assert limits.statistics().body_bytes == 0
    unlimited = admission(max_body_bytes=0)
    with unlimited.visit() as visit:
        assert visit.hold_bytes(10**15) is None


async def test_other_limits_count_for_those_who_wait() -> None:
    limits = admission(max_streams=1, slots={"a": 1})
    with limits.visit() as first, limits.visit() as second:
        first.knock()
        second.knock()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.admitted)
            await wait_all_tasks_blocked()
            limits.reconfigure(AdmissionPolicy(max_streams=2), {"b": 1})
        assert limits.statistics().streams == 2
        assert limits.statistics().slots_in_use == {"b": 0}
        assert limits.policy.max_streams == 2


# ---- through Attempts ---------------------------------------------------------------------------------------------------


def with_visit(t: Tries, visit: Visit) -> Tries:
    t.attempts._visit = visit
    return t


async def test_a_slot_is_held_exactly_as_long_as_the_connection() -> None:
    limits = admission(slots={"a": 1})
    async with tries(a=[FakeResponse(role() + content("Hello"), Gate())]) as t:
        with limits.visit() as visit:
            async with await with_visit(t, visit).opened():
                assert limits.statistics().slots_in_use == {"a": 1}
            assert limits.statistics().slots_in_use == {"a": 0}
        await t.settled()


@pytest.mark.parametrize("ending", ["fault", "cancelled"])
async def test_a_slot_comes_back_from_a_try_that_fails(ending: str, autojump_clock: MockClock) -> None:
    limits = admission(slots={"a": 1})
    answers = [REFUSED] if ending == "fault" else [Silence()]
    async with tries(a=[*answers], recovery=RecoveryPolicy(retries=0)) as t:
        with limits.visit() as visit, trio.move_on_after(1.0):
            await with_visit(t, visit).until_open()
        assert limits.statistics().slots_in_use == {"a": 0}
        await t.settled()


async def test_an_upstream_without_a_free_slot_is_waited_for_and_then_left_for_the_next(autojump_clock: MockClock) -> None:
    limits = admission(slots={"a": 1}, max_wait=10.0)
    async with tries(a=[good()], b=[good()]) as t:
        with limits.visit() as holder, limits.visit() as visit, await take_slot(holder):
            began = trio.current_time()
            async with await with_visit(t, visit).opened() as attempt:
                assert attempt.upstream == "b"
            assert trio.current_time() - began == pytest.approx(10.0)
            assert t.client.upstreams == ["b"]
            assert (t.tally.retries, t.tally.faults["a", "busy"]) == (0, 1)


async def test_when_no_slot_becomes_free_the_client_is_told_which_setting(autojump_clock: MockClock) -> None:
    limits = admission(slots={"a": 1}, max_wait=10.0)
    async with tries(a=[good()]) as t:
        with limits.visit() as holder, limits.visit() as visit, await take_slot(holder):
            fault = await with_visit(t, visit).fault()
    assert (fault.kind, fault.http_status, fault.code, fault.setting) == (K.BUSY, 503, "server_busy", "upstreams.a.slots")
    assert fault.retry_after == 6.0


async def test_without_a_place_among_the_streams_nobody_is_asked(autojump_clock: MockClock) -> None:
    limits = admission(max_streams=1, max_wait=3.0)
    async with tries(a=[good()], b=[good()]) as t:
        with limits.visit() as holder, limits.visit() as visit:
            holder.knock()
            step = await with_visit(t, visit).attempts.advance()
    assert isinstance(step, AttemptsExhausted)
    assert (step.fault.kind, step.fault.setting, t.client.asked) == (K.BUSY, "admission.max_streams", [])


async def test_row_61_a_probe_never_waits_in_a_line(autojump_clock: MockClock) -> None:
    policy = BreakerPolicy(jitter=0.0, consecutive_failures=1, open_base=1.0)
    limits = admission(slots={"a": 1}, max_wait=10.0)
    async with tries(a=[REFUSED, good()], policy=policy, recovery=RecoveryPolicy(retries=0)) as t:
        await t.fault()
        await trio.sleep(1.5)
        assert t.circuit().state == "half_open"
        again = Tries(t.breaker, t.attempts._route, FirstLook.MEANINGFUL_FRAME, {"a": [good()]}, retrying=False)
        with limits.visit() as holder, limits.visit() as visit, ExitStack() as held:
            held.enter_context(await take_slot(holder))
            async with trio.open_nursery() as nursery:

                async def wait() -> None:
                    async with await with_visit(again, visit).opened():
                        pass

                nursery.start_soon(wait)
                await wait_all_tasks_blocked()
                assert limits.statistics().waiting == 1
                assert t.circuit().permits_out == 0  # the probe's place is free for whoever has a slot
                held.close()
            assert len(again.client.asked) == 1


async def test_nobody_waits_for_a_slot_behind_an_open_circuit() -> None:
    limits = admission(slots={"a": 1})
    async with tries(a=[good()]) as t:
        await t.breaker.force("a", "forced_open")
        with limits.visit() as holder, limits.visit() as visit, await take_slot(holder):
            fault = await with_visit(t, visit).fault()
    assert (fault.kind, limits.statistics().rejected) == (K.UNAVAILABLE, {})


async def test_a_wait_after_a_fault_is_a_step_like_any_other(autojump_clock: MockClock) -> None:
    limits = admission(slots={"a": 1}, max_wait=5.0)
    async with tries(a=[REFUSED, good()]) as t:
        with limits.visit() as visit:
            step = await with_visit(t, visit).attempts.advance()
            assert isinstance(step, AttemptFailed)
            with limits.visit() as holder, await take_slot(holder):
                step = await t.attempts.advance()
                assert isinstance(step, AttemptsExhausted)
                assert step.fault.kind is K.CONNECT  # what an upstream really said goes before what we say

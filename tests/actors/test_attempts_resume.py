"""Attempts to take up an answer: who is asked, in which way, and what that spends. Real circuit breaker, scripted upstreams."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from actors import (
    Attempts,
    Candidate,
    Fault,
    FaultKind,
    FirstLook,
    Route,
    Tally,
    Upstream,
    UpstreamError,
    UpstreamRequest,
    open_circuit_breaker,
)
from actors.open_attempt import OpenAttempt
from actors.sansio.breaker_state import BreakerPolicy
from actors.sansio.chunks import AttemptFailed, AttemptsExhausted, Field
from actors.sansio.error_recovery import RecoveryPolicy, Strategy
from actors.sansio.resume_plan import ResumePlan, ResumeStrategy
from actors.sansio.retry_budget import RetryBudgetPolicy

from ..fakes import DONE, FakeClient, FakeResponse, Silence, content, role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from actors.sansio.resume_plan import Continuation

PREFIX, ALIGN = ResumeStrategy.PREFIX, ResumeStrategy.ALIGN
TEXT = "The river bends twice before it reaches the mill, and each bend keeps a little of the morning."
BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"Tell me."}]}'
CUT = Fault(FaultKind.DISCONNECTED, "upstream 'a': reset", upstream="a")


def plan(*strategies: ResumeStrategy) -> ResumePlan:
    return ResumePlan({Field.CONTENT: TEXT}, frozenset(strategies))


def good() -> FakeResponse:
    return FakeResponse(role() + content(TEXT), DONE)


def refusing(status: int) -> FakeResponse:
    body = json.dumps({"error": {"message": "last message must be user", "type": "invalid_request_error"}}).encode()
    return FakeResponse(body, status=status, headers=[(b"content-type", b"application/json")])


class Tries:
    def __init__(self, attempts: Attempts, client: FakeClient, tally: Tally) -> None:
        self.attempts = attempts
        self.client = client
        self.tally = tally

    async def begin(self) -> None:
        """The first attempt, which was cut after output."""
        opened = await self.attempts.advance()
        assert isinstance(opened, OpenAttempt)
        async with opened:
            assert opened.resumes == ""
            opened.report(CUT)

    async def resume(self, asked: ResumePlan) -> str | Fault:
        """How the next open attempt resumes, or why there is none."""
        step = await self.attempts.advance(CUT, asked)
        while isinstance(step, AttemptFailed):
            step = await self.attempts.advance()
        if isinstance(step, AttemptsExhausted):
            return step.fault
        async with step:
            step.report(None)
        return step.resumes

    @property
    def asked(self) -> list[tuple[str, Any]]:
        """Whom, and whether with the beginning of the answer."""
        return [(one.upstream, json.loads(one.body)["messages"][-1]["role"] == "assistant") for one in self.client.asked]


@asynccontextmanager
async def tries(
    *upstreams: tuple[str, Continuation, list[FakeResponse]], retries: int = 2, floor: int = 100, **strategies: Strategy
) -> AsyncIterator[Tries]:
    candidates = tuple(Candidate(Upstream(name, f"http://{name}.invalid/v1", continuation=how)) for name, how, _ in upstreams)
    route = Route("*", candidates, recovery=RecoveryPolicy(retries=retries, strategies=strategies))
    scripts: dict[str, list[FakeResponse | UpstreamError | Silence]] = {name: [*answers] for name, _, answers in upstreams}
    client = FakeClient(**scripts)
    tally = Tally()
    budget = RetryBudgetPolicy(share=0.0, floor=floor)
    async with open_circuit_breaker(
        {c.upstream.name: BreakerPolicy(jitter=0.0) for c in candidates}, random=lambda: 0.5, budget=budget
    ) as breaker:
        attempts = Attempts(
            UpstreamRequest("POST", "/chat/completions", (), BODY),
            "m",
            route,
            FirstLook.MEANINGFUL_FRAME,
            client=client.as_client,
            breaker=breaker,
            tally=tally,
            client_is_retrying=False,
            random=lambda: 0.5,
        )
        yield Tries(attempts, client, tally)


@pytest.mark.parametrize(
    ("continuation", "strategies", "expected"),
    [
        ("prefix", (PREFIX,), "prefix"),
        ("prefix", (PREFIX, ALIGN), "prefix"),
        ("none", (PREFIX, ALIGN), "align"),
        ("prefix", (ALIGN,), "align"),
    ],
)
async def test_the_same_upstream_is_asked_as_it_can_answer(
    continuation: Continuation, strategies: tuple[ResumeStrategy, ...], expected: str, autojump_clock: MockClock
) -> None:
    async with tries(("a", continuation, [good()])) as t:
        await t.begin()
        assert await t.resume(plan(*strategies)) == expected
        assert t.asked == [("a", False), ("a", expected == "prefix")]
        assert (t.tally.attempts, t.tally.retries) == (2, 1)


async def test_who_cannot_continue_is_passed_over_without_a_wait_or_a_request(autojump_clock: MockClock) -> None:
    async with tries(("a", "none", [good()]), ("b", "none", [good()]), ("c", "partial", [good()])) as t:
        await t.begin()
        assert await t.resume(plan(PREFIX)) == "prefix"
        assert t.asked == [("a", False), ("c", True)]
        assert t.client.asked[-1].at == t.client.asked[0].at
        assert t.tally.faults == {("a", "disconnected"): 1}


async def test_where_nobody_can_continue_the_fault_that_was_told_comes_back(autojump_clock: MockClock) -> None:
    async with tries(("a", "none", [good()]), ("b", "none", [good()])) as t:
        await t.begin()
        assert await t.resume(plan(PREFIX)) == CUT
        assert t.asked == [("a", False)]


@pytest.mark.parametrize("status", [400, 422])
async def test_a_rejected_prefix_is_tried_without_it_where_that_is_allowed(status: int, autojump_clock: MockClock) -> None:
    async with tries(("a", "none", [good()]), ("b", "prefix", [refusing(status), good()]), retries=0) as t:
        await t.begin()
        assert await t.resume(plan(PREFIX, ALIGN)) == "align"
        assert t.asked == [("a", False), ("b", True), ("b", False)]
        assert t.tally.resumes == {("prefix", "rejected"): 1}
        assert t.tally.retries == 2


async def test_a_rejected_prefix_moves_on_where_asking_again_is_not_allowed(autojump_clock: MockClock) -> None:
    async with tries(("a", "prefix", [good(), refusing(400)]), ("b", "prefix", [good()])) as t:
        await t.begin()
        assert await t.resume(plan(PREFIX)) == "prefix"
        assert t.asked == [("a", False), ("a", True), ("b", True)]


async def test_a_404_is_no_rejection_of_a_prefix(autojump_clock: MockClock) -> None:
    async with tries(("a", "prefix", [good(), refusing(404)])) as t:
        await t.begin()
        fault = await t.resume(plan(PREFIX, ALIGN))
        assert isinstance(fault, Fault)
        assert fault.status == 404
        assert len(t.asked) == 2


async def test_the_retry_budget_holds_for_a_rejected_prefix_too(autojump_clock: MockClock) -> None:
    async with tries(("a", "none", [good()]), ("b", "prefix", [refusing(400), good()]), retries=0, floor=1) as t:
        await t.begin()
        fault = await t.resume(plan(PREFIX, ALIGN))
        assert isinstance(fault, Fault)
        assert fault.status == 400
        assert t.asked == [("a", False), ("b", True)]


async def test_the_settings_for_a_cut_hold_after_output_too(autojump_clock: MockClock) -> None:
    async with tries(("a", "prefix", [good()]), cut=Strategy.FAIL) as t:
        await t.begin()
        assert await t.resume(plan(PREFIX, ALIGN)) == CUT
    async with tries(("a", "prefix", [good()]), ("b", "prefix", [good()]), cut=Strategy.FAILOVER) as t:
        await t.begin()
        assert await t.resume(plan(PREFIX, ALIGN)) == "prefix"
        assert t.asked == [("a", False), ("b", True)]

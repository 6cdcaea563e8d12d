"""Metrics to which everything has happened that can happen, so that every family and every label of theirs is shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import trio

from actors import AdmissionStatistics
from actors.outcome import End, Outcome, Party, Phase, Tally
from actors.sansio.breaker_state import BreakerPolicy, BreakerStatistics
from actors.sansio.circuit import Circuit
from actors.sansio.faults import Fault, FaultKind
from actors.sansio.retry_budget import RetryBudgetStatistics
from server.admin.fan_out import FanOut
from server.metrics import Metrics
from server.rollout import RolloutStatistics
from server.worker_channel import Answer

from .admin.crew import Crew

if TYPE_CHECKING:
    from actors.sansio.breaker_state import StateName


def make_metrics() -> Metrics:
    return Metrics(["local", "cloud"], dropped_lines=lambda: 3)


def make_statistics(*states: StateName) -> BreakerStatistics:
    """Circuits u0, u1, ... in these states."""
    blank = Circuit("", BreakerPolicy(), random=lambda: 0.0).statistics()
    circuits = {f"u{i}": replace(blank, upstream=f"u{i}", state=state, refused=i) for i, state in enumerate(states)}
    return BreakerStatistics(circuits, RetryBudgetStatistics(100, 20, 7), mailbox_depth=4, restarts=1, failed_open=2, lost_reports=3)


def make_rollout() -> RolloutStatistics:
    return RolloutStatistics(10.0, fallen_back=False, own_faults={"actors": 1, "relay": 0}, shadowed={"alike": 3})


def make_admission() -> AdmissionStatistics:
    return AdmissionStatistics(waiting=3, streams=7, slots_in_use={"local": 2}, body_bytes=1000, rejected={"full": 5})


def everything_happened() -> Outcome:
    tally = Tally(
        started=100.0,
        head_sent=100.2,
        first_token=100.3,
        ended=104.0,
        attempts=3,
        retries=2,
        bytes_in=5000,
        bytes_out=4000,
        events=40,
        holds=4,
        longest_hold=0.03,
        skipped=1,
        done_added=True,
        repairs=Counter({"A1": 2}),
        refused=Counter({"C1": 3}),
        loops=Counter({"observe": 1}),
        resumes=Counter({("align", "joined"): 1}),
        hedges=Counter({"won": 1}),
        flushes=Counter({"age": 1, "confidence": 3}),
        transitions=Counter({("StateInitial", "FirstOutput", "StateNormalFlow"): 1}),
        faults=Counter({("local", "connect"): 2, ("cloud", "truncated"): 1}),
    )
    fault = Fault(FaultKind.TRUNCATED, "cut", upstream="cloud")
    return Outcome(End.ERROR, Party.UPSTREAM, Phase.DATA, 200, fault, "cloud", tally, cancel_latency=0.002)


def run_one(metrics: Metrics, outcome: Outcome, *, endpoint: str = "/v1/chat/completions", stream: bool = True) -> None:
    metrics.request_started(stream=stream)
    metrics.request_over(stream=stream)
    metrics.request_ended(outcome, endpoint=endpoint, engine="actors", stream=stream)


def of_one_process() -> str:
    """What one process shows, in Prometheus' text format."""
    metrics = make_metrics()
    run_one(metrics, everything_happened())
    metrics.breaker_transition("local", "closed", "open", "")
    metrics.watch(
        breaker=lambda: make_statistics("closed"),
        admission=make_admission,
        rollout=make_rollout,
        open_connections=lambda: 5,
        memory=lambda: 0.1,
        tasks=lambda: 30,
    )
    return metrics.render()[0].decode()


async def of_all_workers() -> str:
    """What the admin listener of two workers shows: every family there is."""
    text = of_one_process().encode()
    sent: list[Any] = []

    answers = {number: Answer(number, 200, ((b"content-type", b"text/plain"),), text) for number in (1, 2)}

    async def receive() -> Any:
        await trio.lowlevel.checkpoint()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    scope = {"method": "GET", "path": "/metrics", "query_string": b"", "headers": []}
    await FanOut(Crew(answers))(scope, receive, send)
    body = sent[1]["body"]
    assert isinstance(body, bytes)
    return body.decode()

"""Whatever is asked and told, in whatever order: what must hold for a circuit."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.sansio.breaker_state import MODES, BreakerPolicy, Grant, Mode, Refusal
from actors.sansio.circuit import Circuit
from actors.sansio.faults import Verdict

POLICIES = st.builds(
    BreakerPolicy,
    window=st.sampled_from([1.0, 0.3, 60.0]),
    buckets=st.integers(1, 5),
    minimum_calls=st.integers(1, 4),
    failure_rate=st.sampled_from([0.3, 0.5, 1.0]),
    consecutive_failures=st.integers(0, 3),
    slow_rate=st.sampled_from([0.0, 0.5]),
    jitter=st.sampled_from([0.0, 0.2, 0.9]),
    probes=st.integers(1, 3),
    successes=st.integers(1, 3),
    half_open_max=st.sampled_from([0.0, 0.7, 10.0]),
    alone_open_max=st.sampled_from([0.0, 2.0]),
    mode=st.sampled_from(["on", "on", "metrics_only"]),
)


class Circuits(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.out: list[Grant] = []
        self.started: set[Grant] = set()
        self.shown = "closed"
        self.generation = 0

    @initialize(policy=POLICIES)
    def begin(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.mode: Mode = policy.mode
        draws = iter([0.1, 0.9, 0.5] * 10_000)
        self.circuit = Circuit("up", policy, lambda: next(draws))

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.3, 1.0, 2.0, 5.0, 60.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.circuit.advance(self.now)

    @rule()
    def wait_until_due(self) -> None:
        """The deadline is a moment at which `advance` makes progress, so that who waits for it does not turn in circles."""
        self.circuit.advance(self.now)
        if (due := self.circuit.deadline) < math.inf:
            assert due > self.now
            self.now = due
            self.circuit.advance(self.now)
            assert self.circuit.deadline > self.now

    @rule(alone=st.booleans())
    def acquire(self, alone: bool) -> None:
        answer = self.circuit.acquire(self.now, alone=alone)
        if isinstance(answer, Grant):
            assert self.mode != "forced_open"
            assert self.circuit.statistics().state not in ("open", "paused")
            self.out.append(answer)
            return
        assert self.mode in ("on", "forced_open")
        assert answer.state == self.circuit.statistics().state
        assert 0 < answer.retry_after < math.inf
        if answer.state in ("open", "paused"):
            # Who comes back when told to is not told the same again (a microsecond for the rounding of a difference).
            later = copy.deepcopy(self.circuit).acquire(self.now + answer.retry_after + 1e-6, alone=alone)
            assert not (isinstance(later, Refusal) and later.state in ("open", "paused"))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), slow=st.booleans())
    def start(self, data: st.DataObject, slow: bool) -> None:
        grant = data.draw(st.sampled_from(self.out))
        self.circuit.advance(self.now)
        before = self.circuit.statistics()
        self.circuit.started(grant, self.now, slow=slow)
        self.started.add(grant)
        if grant.generation != before.generation:
            assert self.circuit.statistics() == before

    @precondition(lambda self: self.out)
    @rule(data=st.data(), verdict=st.sampled_from(Verdict), retry_after=st.sampled_from([None, None, 0.0, 3.0, 1e9]))
    def end(self, data: st.DataObject, verdict: Verdict, retry_after: float | None) -> None:
        grant = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.circuit.advance(self.now)
        before = self.circuit.statistics()
        self.circuit.ended(grant, verdict, self.now, retry_after)
        after = self.circuit.statistics()
        if grant.generation != before.generation:
            assert after == replace(before, permits_out=before.permits_out - 1)
        elif after.generation == before.generation and before.circuit == "closed":
            assert after.calls - before.calls == (verdict in (Verdict.SUCCESS, Verdict.FAILURE, Verdict.SLOW))
        self.circuit.ended(grant, Verdict.FAILURE, self.now)
        assert self.circuit.statistics() == after  # the first end stands

    @rule(mode=st.sampled_from(MODES))
    def force(self, mode: Mode) -> None:
        self.circuit.force(mode, self.now)
        self.mode = mode

    @rule(how=st.sampled_from(["reset", "restart"]))
    def start_over(self, how: Literal["reset", "restart"]) -> None:
        if how == "reset":
            self.circuit.reset(self.now)
            self.mode = self.policy.mode
        else:
            self.circuit.restart(self.now)

    @invariant()
    def permits_are_conserved(self) -> None:
        if hasattr(self, "circuit"):
            assert self.circuit.statistics().permits_out == len(self.out)

    @invariant()
    def no_more_probes_than_allowed(self) -> None:
        if hasattr(self, "circuit"):
            generation = self.circuit.statistics().generation
            unjudged = [g for g in self.out if g.probe and g.generation == generation and g not in self.started]
            assert len(unjudged) <= self.policy.probes

    @invariant()
    def generations_only_grow(self) -> None:
        if hasattr(self, "circuit"):
            assert self.circuit.statistics().generation >= self.generation
            self.generation = self.circuit.statistics().generation

    @invariant()
    def transitions_are_a_chain(self) -> None:
        if hasattr(self, "circuit"):
            for transition in self.circuit.take_transitions():
                assert transition.before == self.shown
                assert transition.after != transition.before
                self.shown = transition.after
            statistics = self.circuit.statistics()
            assert self.shown == (statistics.circuit if statistics.state == "metrics_only" else statistics.state)


Circuits.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestCircuits = Circuits.TestCase

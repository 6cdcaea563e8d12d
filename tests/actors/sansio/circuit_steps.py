"""Steps that the tests of the circuit are written in."""

from __future__ import annotations

from actors.sansio.breaker_state import BreakerPolicy, Grant, Refusal
from actors.sansio.circuit import Circuit
from actors.sansio.faults import Verdict

SUCCESS, FAILURE, SLOW, EXCLUDED, PAUSE, DEAD = (
    Verdict.SUCCESS,
    Verdict.FAILURE,
    Verdict.SLOW,
    Verdict.EXCLUDED,
    Verdict.PAUSE,
    Verdict.DEAD_CREDENTIAL,
)
#: No jitter, so that times are exact; the rate is out of the way unless a test is about it.
ROW = BreakerPolicy(jitter=0.0, minimum_calls=1000)
RATE = BreakerPolicy(jitter=0.0, consecutive_failures=0)


def make(policy: BreakerPolicy = ROW) -> Circuit:
    return Circuit("up", policy, lambda: 0.5)


def grant(circuit: Circuit, now: float, *, alone: bool = False) -> Grant:
    answer = circuit.acquire(now, alone=alone)
    assert isinstance(answer, Grant), answer
    return answer


def refuse(circuit: Circuit, now: float, *, alone: bool = False) -> Refusal:
    answer = circuit.acquire(now, alone=alone)
    assert isinstance(answer, Refusal), answer
    return answer


def calls(circuit: Circuit, now: float, *verdicts: Verdict, retry_after: float | None = None) -> str:
    """Attempts one after the other; the state after them."""
    for verdict in verdicts:
        circuit.ended(grant(circuit, now), verdict, now, retry_after)
    return circuit.statistics().state


def opened(policy: BreakerPolicy = ROW, at: float = 0.0) -> Circuit:
    circuit = make(policy)
    assert calls(circuit, at, *[FAILURE] * 5) == "open"
    return circuit


def half_opened(policy: BreakerPolicy = ROW) -> Circuit:
    """Half-open from second 5 on."""
    circuit = opened(policy)
    circuit.advance(5.0)
    assert circuit.statistics().state == "half_open"
    return circuit


EVERY_STATE = ("closed", "open", "half_open", "paused", "forced_open", "disabled", "metrics_only")


def in_state(state: str) -> Circuit:
    match state:
        case "open":
            circuit = opened()
        case "half_open":
            circuit = half_opened()
        case "paused":
            circuit = make()
            calls(circuit, 0.0, PAUSE, retry_after=60.0)
        case "forced_open" | "disabled" | "metrics_only":
            circuit = make()
            circuit.force(state, 0.0)
        case _:
            circuit = make()
    assert circuit.statistics().state == state
    circuit.take_transitions()
    return circuit

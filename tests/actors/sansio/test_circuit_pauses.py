"""Beyond the list: a single upstream, pauses, refused credentials, restarts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .circuit_steps import (
    DEAD,
    FAILURE,
    PAUSE,
    ROW,
    SUCCESS,
    calls,
    grant,
    half_opened,
    in_state,
    make,
    opened,
    refuse,
)

if TYPE_CHECKING:
    from actors.sansio.breaker_state import CircuitStatistics
    from actors.sansio.circuit import Circuit


def test_alone_an_open_circuit_is_tried_again_soon() -> None:
    circuit = opened()
    assert refuse(circuit, 1.5, alone=True).retry_after == 0.5
    assert refuse(circuit, 1.5).retry_after == 3.5
    assert grant(circuit, 2.0, alone=True).probe
    assert refuse(circuit, 2.0, alone=True).state == "half_open"
    assert refuse(opened(replace(ROW, alone_open_max=0.0)), 4.9, alone=True).state == "open"  # 0 is no ceiling


def test_a_429_pauses_without_counting_and_the_later_moment_wins() -> None:
    circuit = make()
    calls(circuit, 0.0, FAILURE)
    first, second, third = (grant(circuit, 0.0) for _ in range(3))
    circuit.ended(first, PAUSE, 0.0, 20.0)
    circuit.ended(second, PAUSE, 1.0, 5.0)
    assert circuit.statistics().until == 20.0
    circuit.ended(third, PAUSE, 2.0, 30.0)
    refusal = refuse(circuit, 12.0, alone=True)
    assert (refusal.state, refusal.retry_after) == ("paused", 20.0)
    statistics = circuit.statistics()
    assert (statistics.failures, statistics.consecutive_failures, statistics.until) == (1, 1, 32.0)
    assert not grant(circuit, 32.0).probe
    assert [(t.before, t.after) for t in circuit.take_transitions()] == [("closed", "paused"), ("paused", "closed")]


def test_a_429_without_a_time_pauses_for_a_second() -> None:
    circuit = make()
    calls(circuit, 0.0, PAUSE)
    assert refuse(circuit, 0.25).retry_after == 0.75
    assert calls(make(), 0.0, PAUSE, retry_after=0.0) == "closed"


def test_streams_that_run_go_on_counting_through_a_pause() -> None:
    circuit = make()
    running = grant(circuit, 0.0)
    calls(circuit, 0.0, PAUSE, retry_after=50.0)
    circuit.ended(running, SUCCESS, 10.0)
    assert circuit.statistics().calls == 1


def credential_pauses(circuit: Circuit, times: int) -> list[float]:
    now, lengths = 0.0, []
    for _ in range(times):
        calls(circuit, now, DEAD)
        lengths.append(circuit.statistics().seconds_left(now))
        now += lengths[-1]
    return lengths


def test_a_refused_credential_pauses_for_growing_times() -> None:
    circuit = make()
    assert credential_pauses(circuit, 7) == [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0]
    assert circuit.statistics().credential_pauses == 7
    assert "credential" in refuse(circuit, 1600.0).reason


def test_many_streams_that_meet_the_same_refusal_are_one_pause() -> None:
    circuit = make()
    attempts = [grant(circuit, 0.0) for _ in range(20)]
    for number, attempt in enumerate(attempts):
        circuit.ended(attempt, DEAD, number * 10.0)  # the last ones after the pause was over
    statistics = circuit.statistics()
    assert (statistics.credential_pauses, statistics.state) == (1, "closed")


def test_a_credential_that_works_again_starts_from_the_shortest_pause() -> None:
    circuit = make()
    old = grant(circuit, 0.0)
    credential_pauses(circuit, 3)
    circuit.started(old, 300.0)  # admitted before: says nothing about the credential now
    fresh = grant(circuit, 300.0)
    calls(circuit, 300.0, DEAD)
    assert circuit.statistics().seconds_left(300.0) == 240.0
    circuit.started(fresh, 300.0)  # nor does who was admitted in the very moment
    calls(circuit, 540.0, DEAD)
    assert circuit.statistics().seconds_left(540.0) == 480.0
    circuit.started(grant(circuit, 1020.0), 1020.0)
    calls(circuit, 1021.0, DEAD)
    assert circuit.statistics().seconds_left(1021.0) == 30.0
    calls(circuit, 1100.0, SUCCESS)  # an end without a first frame, of an answer that is no stream, says the same
    calls(circuit, 1101.0, DEAD)
    assert circuit.statistics().seconds_left(1101.0) == 30.0


def test_the_operator_who_mended_a_credential_resets_its_pauses() -> None:
    circuit = make()
    credential_pauses(circuit, 3)
    circuit.reset(100.0)
    calls(circuit, 100.0, DEAD)
    assert circuit.statistics().seconds_left(100.0) == 30.0


def test_an_open_circuit_hides_its_pause_and_the_wait_is_the_longer_of_the_two() -> None:
    circuit = half_opened()
    first = grant(circuit, 5.0)
    circuit.started(first, 5.0)
    second = grant(circuit, 5.0)
    circuit.ended(second, PAUSE, 5.0, 100.0)
    assert circuit.statistics().state == "paused"
    circuit.ended(first, FAILURE, 6.0)
    refusal = refuse(circuit, 6.0)
    assert (refusal.state, refusal.retry_after) == ("open", 99.0)
    assert refuse(circuit, 20.0).state == "paused"
    assert grant(circuit, 105.0).probe


def test_a_restart_begins_closed_in_the_same_mode_and_old_permits_count_nothing() -> None:
    circuit = opened()
    circuit.restart(1.0)
    assert [t.reason for t in circuit.take_transitions()][-1] == "the circuit breaker was restarted"
    old = grant(circuit, 1.0)
    circuit.restart(2.0)
    circuit.ended(old, FAILURE, 3.0)
    assert (circuit.statistics().failures, circuit.statistics().permits_out) == (0, 0)
    forced = in_state("forced_open")
    forced.restart(1.0)
    assert forced.statistics().state == "forced_open"


def test_statistics_are_a_value() -> None:
    circuit = make()
    before: CircuitStatistics = circuit.statistics()
    calls(circuit, 0.0, FAILURE)
    assert before.failures == 0
    assert before == make().statistics()

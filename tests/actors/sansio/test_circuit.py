"""The behaviours that breakers elsewhere are tested for, numbered as in our list of them.

Not here: 20 (two instances that share buckets) and 21 (the last upstream is never ejected) belong to shared state and to a load
balancer, which we have not; what 21 is for, one upstream must not starve its user, is `alone` (test_circuit_pauses.py). 6's timer
and 13 are the actor's (test_circuit_breaker.py); 18 is the policy's (test_breaker_state.py); 15 is also in test_sliding_window.py.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest

from actors.sansio.circuit import Circuit

from .circuit_steps import (
    DEAD,
    EVERY_STATE,
    EXCLUDED,
    FAILURE,
    PAUSE,
    RATE,
    ROW,
    SLOW,
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
    from actors.sansio.breaker_state import Grant, Mode
    from actors.sansio.faults import Verdict


def test_01_the_fifth_failure_in_a_row_opens_and_a_success_resets_the_row_only() -> None:
    circuit = make()
    assert calls(circuit, 0, *[FAILURE] * 4) == "closed"
    calls(circuit, 0, SUCCESS)
    assert (circuit.statistics().consecutive_failures, circuit.statistics().failures) == (0, 4)
    assert calls(circuit, 0, *[FAILURE] * 4) == "closed"
    assert calls(circuit, 0, FAILURE) == "open"
    assert circuit.statistics().reason == "5 failures in a row"


def test_01_a_first_frame_resets_the_row_before_the_stream_has_ended() -> None:
    circuit = make()
    calls(circuit, 0, *[FAILURE] * 4)
    stream = grant(circuit, 0)
    circuit.started(stream, 1)
    assert circuit.statistics().consecutive_failures == 0
    assert calls(circuit, 1, *[FAILURE] * 4) == "closed"


def test_02_below_the_minimum_of_calls_no_rate_opens() -> None:
    circuit = make(RATE)
    assert calls(circuit, 0, *[FAILURE] * 4) == "closed"


def test_03_the_rate_opens_exactly_at_the_minimum_and_exactly_at_the_threshold() -> None:
    assert calls(make(RATE), 0, *[FAILURE] * 5) == "open"
    policy = replace(RATE, minimum_calls=4)
    circuit = make(policy)
    assert calls(circuit, 0, SUCCESS, SUCCESS, FAILURE) == "closed"
    assert calls(circuit, 0, FAILURE) == "open"
    assert circuit.statistics().reason == "2 of 4 calls failed"
    assert calls(make(policy), 0, SUCCESS, SUCCESS, SUCCESS, FAILURE) == "closed"


@pytest.mark.parametrize(("rate", "failures", "all_calls"), [(0.07, 7, 100), (0.29, 29, 100), (0.57, 57, 100), (0.3, 3, 10)])
def test_03_a_threshold_that_binary_cannot_write_is_still_exact(rate: float, failures: int, all_calls: int) -> None:
    circuit = make(replace(RATE, failure_rate=rate, minimum_calls=all_calls))
    assert calls(circuit, 0, *[SUCCESS] * (all_calls - failures), *[FAILURE] * failures) == "open"


def test_03_a_success_never_opens() -> None:
    """Even if it is the call that completes the minimum."""
    assert calls(make(RATE), 0, *[FAILURE] * 4, SUCCESS) == "closed"


def test_04_slow_calls_open_without_a_failure() -> None:
    policy = replace(RATE, slow_rate=0.6)
    circuit = make(policy)
    assert calls(circuit, 0, SUCCESS, SUCCESS, SLOW, SLOW) == "closed"
    assert calls(circuit, 0, SLOW) == "open"
    assert circuit.statistics().reason == "3 of 5 calls were slow"
    assert calls(make(RATE), 0, *[SLOW] * 50) == "closed"  # off


def test_05_open_refuses_until_its_time_is_over_and_each_change_clears_the_counts() -> None:
    circuit = opened()
    assert circuit.statistics().calls == 0
    assert refuse(circuit, 4.999).state == "open"
    assert grant(circuit, 5.0).probe


def test_06_the_transition_is_lazy_and_the_deadline_says_when_it_is_due() -> None:
    circuit = opened(at=10.0)
    assert circuit.deadline == 15.0
    assert circuit.statistics().state == "open"
    circuit.advance(circuit.deadline)
    assert circuit.statistics().state == "half_open"
    circuit.reset(16.0)
    assert circuit.deadline == float("inf")


def test_07_half_open_admits_exactly_so_many_at_once() -> None:
    circuit = half_opened(replace(ROW, probes=3))
    probes = [grant(circuit, 5.0) for _ in range(3)]
    assert all(probe.probe for probe in probes)
    refusal = refuse(circuit, 5.0)
    assert (refusal.state, refusal.reason) == ("half_open", "a probe is out")
    assert refusal.retry_after > 0


def test_07_the_first_frame_of_a_probe_frees_its_place() -> None:
    circuit = half_opened()
    stream = grant(circuit, 5.0)
    assert refuse(circuit, 5.5).state == "half_open"
    circuit.started(stream, 6.0)
    assert grant(circuit, 6.0).probe


def test_08_good_probes_close_and_a_bad_one_opens_again() -> None:
    circuit = half_opened()
    assert calls(circuit, 5.0, SUCCESS) == "half_open"
    assert calls(circuit, 5.0, SUCCESS) == "closed"
    assert calls(half_opened(), 5.0, SUCCESS, FAILURE) == "open"


def test_08_first_frames_are_enough_to_close_and_count_once() -> None:
    circuit = half_opened()
    first = grant(circuit, 5.0)
    circuit.started(first, 5.0)
    circuit.started(first, 5.0)
    circuit.ended(first, SUCCESS, 5.5)
    assert circuit.statistics().state == "half_open"  # one probe, however often it reports
    circuit.started(grant(circuit, 6.0), 6.0)
    assert circuit.statistics().state == "closed"


def test_08_a_probe_that_breaks_after_its_first_frame_opens_again() -> None:
    circuit = half_opened()
    stream = grant(circuit, 5.0)
    circuit.started(stream, 5.0)
    circuit.ended(stream, FAILURE, 6.0)
    assert circuit.statistics().state == "open"


def test_08_a_slow_probe_opens_again_if_slowness_is_judged() -> None:
    assert calls(half_opened(replace(ROW, slow_rate=0.5)), 5.0, SLOW) == "open"
    assert calls(half_opened(), 5.0, SLOW, SLOW) == "closed"
    circuit = half_opened(replace(ROW, slow_rate=0.5))
    circuit.started(grant(circuit, 5.0), 5.0, slow=True)
    assert circuit.statistics().state == "open"


def test_09_a_probe_that_says_nothing_for_too_long_opens_again() -> None:
    circuit = half_opened(replace(ROW, half_open_max=30.0))
    circuit.advance(1000.0)
    assert circuit.deadline == float("inf")  # nobody has asked: there is nothing to wait for
    assert circuit.statistics().state == "half_open"
    probe = grant(circuit, 1007.0)
    assert circuit.deadline == 1037.0
    assert refuse(circuit, 1036.9).state == "half_open"
    assert refuse(circuit, 1037.0).state == "open"
    circuit.ended(probe, SUCCESS, 1038.0)
    assert circuit.statistics().state == "open"


def test_09_the_oldest_probe_that_is_silent_decides() -> None:
    circuit = half_opened(replace(ROW, half_open_max=30.0, probes=3, successes=9))
    first, _second, third = grant(circuit, 10.0), grant(circuit, 12.0), grant(circuit, 13.0)
    circuit.started(first, 20.0)
    circuit.ended(third, EXCLUDED, 20.0)
    grant(circuit, 25.0)
    assert circuit.deadline == 42.0
    circuit.advance(42.0)
    assert circuit.statistics().state == "open"


@pytest.mark.parametrize("verdict", [EXCLUDED, PAUSE, DEAD])
def test_10_what_is_not_judged_gives_its_place_back_and_changes_no_count(verdict: Verdict) -> None:
    circuit = make(replace(ROW, retry_after_max=1.0))
    calls(circuit, 0.0, FAILURE, SUCCESS, FAILURE)
    before = circuit.statistics()
    circuit.ended(grant(circuit, 0.0), verdict, 0.0, 0.0)
    after = circuit.statistics()
    assert (after.calls, after.failures, after.consecutive_failures, after.permits_out) == (before.calls, before.failures, 1, 0)


@pytest.mark.parametrize("verdict", [EXCLUDED, PAUSE, DEAD])
def test_10_a_half_open_circuit_does_not_get_stuck_on_what_is_not_judged(verdict: Verdict) -> None:
    circuit = half_opened()
    now = 5.0
    for _ in range(5):
        circuit.ended(grant(circuit, now), verdict, now)
        now += 1000.0  # beyond every pause
    assert grant(circuit, now).probe


def test_11_an_http_200_may_be_a_failure() -> None:
    """The verdict decides, not the way it ended: a stream that began well and was cut counts as one failure."""
    circuit = make(RATE)
    for _ in range(5):
        stream = grant(circuit, 0.0)
        circuit.started(stream, 0.0)
        circuit.ended(stream, FAILURE, 1.0)
    assert circuit.statistics().state == "open"


def test_12_the_first_end_stands() -> None:
    circuit = make()
    attempt = grant(circuit, 0.0)
    circuit.ended(attempt, EXCLUDED, 0.0)
    circuit.ended(attempt, FAILURE, 0.0)
    circuit.started(attempt, 0.0)
    assert circuit.statistics().failures == 0


def test_14_a_report_of_an_older_generation_has_no_effect() -> None:
    circuit = make()
    late = [grant(circuit, 0.0) for _ in range(4)]
    calls(circuit, 0.0, *[FAILURE] * 5)
    before = circuit.statistics()
    for old, verdict in zip(late, (FAILURE, SUCCESS, PAUSE, DEAD), strict=True):
        circuit.started(old, 1.0)
        circuit.ended(old, verdict, 1.0, 100.0)
    assert circuit.statistics() == replace(before, permits_out=0)


def test_14_an_older_first_frame_does_not_end_a_row_of_failures() -> None:
    circuit = make()
    late = grant(circuit, 0.0)
    calls(circuit, 0.0, *[FAILURE] * 5)
    assert calls(circuit, 5.0, SUCCESS, SUCCESS, *[FAILURE] * 3) == "closed"
    circuit.started(late, 5.0)
    assert circuit.statistics().consecutive_failures == 3


def test_15_old_failures_leave_the_window() -> None:
    circuit = make(RATE)
    calls(circuit, 0.0, *[FAILURE] * 4)
    assert circuit.deadline == 6.0  # the counts that are shown get old without a call
    assert calls(circuit, 60.0, FAILURE) == "closed"
    assert circuit.statistics().failures == 1


@pytest.mark.parametrize("state", EVERY_STATE)
def test_16_reset_works_from_every_state(state: str) -> None:
    circuit = in_state(state)
    circuit.reset(5.0)
    statistics = circuit.statistics()
    assert (statistics.state, statistics.calls, statistics.until, statistics.reason) == ("closed", 0, None, "")
    shown = [] if state in ("closed", "metrics_only") else [(state, "closed", "reset by the operator")]
    assert [(t.before, t.after, t.reason) for t in circuit.take_transitions()] == shown
    assert not grant(circuit, 5.0).probe


@pytest.mark.parametrize("state", EVERY_STATE)
@pytest.mark.parametrize("mode", ["forced_open", "disabled", "metrics_only"])
def test_16_modes_work_from_every_state_and_a_repetition_tells_nothing(state: str, mode: Mode) -> None:
    circuit = in_state(state)
    circuit.force(mode, 5.0)
    assert circuit.statistics().state == mode
    generation = circuit.statistics().generation
    circuit.take_transitions()
    circuit.force(mode, 6.0)
    assert circuit.take_transitions() == []
    assert circuit.statistics().generation == generation
    circuit.force("on", 7.0)
    assert circuit.statistics().state == "closed"


def test_16_forced_open_refuses_and_disabled_admits_and_counts_nothing() -> None:
    assert refuse(in_state("forced_open"), 1e6, alone=True).state == "forced_open"
    circuit = in_state("disabled")
    assert calls(circuit, 0.0, *[FAILURE] * 20, PAUSE, DEAD) == "disabled"
    assert (circuit.statistics().calls, circuit.statistics().permits_out) == (0, 0)


def test_16_metrics_only_never_refuses_and_tells_each_threshold_once() -> None:
    circuit = make(replace(ROW, mode="metrics_only"))
    assert calls(circuit, 0.0, *[FAILURE] * 20) == "metrics_only"
    assert [(t.before, t.after, t.reason) for t in circuit.take_transitions()] == [
        ("closed", "open", "metrics_only: 5 failures in a row"),
    ]
    statistics = circuit.statistics()
    assert (statistics.circuit, statistics.refused, statistics.permits_out) == ("open", 15, 0)
    probe, other = grant(circuit, 5.0), grant(circuit, 5.0)
    assert (probe.probe, other.probe) == (True, False)  # whom it would refuse is no probe
    circuit.ended(probe, EXCLUDED, 5.0)
    calls(circuit, 5.0, SUCCESS, SUCCESS)
    assert [(t.before, t.after) for t in circuit.take_transitions()] == [("open", "half_open"), ("half_open", "closed")]


def test_16_a_mode_from_the_settings_is_where_reset_goes_back_to() -> None:
    circuit = make(replace(ROW, mode="disabled"))
    circuit.force("forced_open", 0.0)
    circuit.reset(1.0)
    assert circuit.statistics().state == "disabled"


def test_17_a_hundred_thousand_overlapping_calls_are_counted_exactly() -> None:
    circuit = make(replace(RATE, minimum_calls=1_000_000))
    random = Random(17)
    out: list[Grant] = []
    failures = 0
    for _ in range(100_000):
        out.append(grant(circuit, 0.0))
        if len(out) > 200:
            place = random.randrange(len(out))
            out[place], out[-1] = out[-1], out[place]
            failed = random.random() < 0.3
            failures += failed
            circuit.ended(out.pop(), FAILURE if failed else SUCCESS, 0.0)
    statistics = circuit.statistics()
    assert (statistics.calls, statistics.failures, statistics.permits_out) == (99_800, failures, 200)


def open_time(circuit: Circuit, now: float) -> float:
    """Fail as a probe; how long it is open then."""
    calls(circuit, now, FAILURE)
    return circuit.statistics().seconds_left(now)


def test_19_open_time_doubles_up_to_its_ceiling() -> None:
    circuit = opened()
    times, now = [circuit.statistics().seconds_left(0.0)], 0.0
    for _ in range(5):
        now += times[-1]
        times.append(open_time(circuit, now))
    assert times == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


@pytest.mark.parametrize(("quiet", "expected"), [(59.0, 10.0), (60.0, 5.0)])
def test_19_only_a_full_quiet_window_brings_it_back_to_the_base(quiet: float, expected: float) -> None:
    circuit = half_opened()
    assert calls(circuit, 5.0, SUCCESS, SUCCESS) == "closed"
    calls(circuit, 5.0 + quiet, *[FAILURE] * 5)
    assert circuit.statistics().seconds_left(5.0 + quiet) == expected


def test_19_a_thousand_openings_do_not_overflow() -> None:
    circuit = opened()
    now = 0.0
    for _ in range(1100):
        now += 60.0
        assert open_time(circuit, now) <= 60.0


@pytest.mark.parametrize(("drawn", "seconds"), [(0.0, 4.0), (0.5, 5.0), (0.999999, 6.0)])
def test_19_jitter_spreads_the_open_time(drawn: float, seconds: float) -> None:
    circuit = Circuit("up", replace(ROW, jitter=0.2), lambda: drawn)
    calls(circuit, 0.0, *[FAILURE] * 5)
    assert circuit.statistics().seconds_left(0.0) == pytest.approx(seconds, abs=1e-4)


def test_19_open_time_is_at_least_what_the_upstream_asked_for() -> None:
    """Also if it was not the failure that opened that said so."""
    circuit = make()
    calls(circuit, 0.0, FAILURE, retry_after=30.0)
    calls(circuit, 1.0, *[FAILURE] * 4)
    assert circuit.statistics().seconds_left(1.0) == 29.0
    probe = grant(circuit, 3.0, alone=True)  # tried earlier all the same, and failed: what was asked still holds
    circuit.ended(probe, FAILURE, 4.0)
    assert circuit.statistics().seconds_left(4.0) == 26.0
    circuit.reset(5.0)
    calls(circuit, 5.0, *[FAILURE] * 5)
    assert circuit.statistics().seconds_left(5.0) == 5.0
    circuit = half_opened()
    calls(circuit, 5.0, FAILURE, retry_after=1e9)
    assert circuit.statistics().seconds_left(5.0) == 600.0  # not everything is believed


def test_22_a_refusal_says_how_much_time_is_left() -> None:
    circuit = opened()
    assert refuse(circuit, 1.5).retry_after == 3.5
    assert circuit.statistics().refused == 1
    assert circuit.statistics().calls == 0  # our own refusals never count


def test_23_a_ten_minute_stream_ends_after_the_circuit_has_changed() -> None:
    circuit = make()
    streams = [grant(circuit, 0.0) for _ in range(2)]
    calls(circuit, 500.0, *[FAILURE] * 5)
    circuit.advance(600.0)
    before = circuit.statistics()
    assert before.state == "half_open"
    circuit.ended(streams[0], FAILURE, 600.0)
    circuit.ended(streams[1], SUCCESS, 600.0)
    assert circuit.statistics() == replace(before, permits_out=0)


def test_24_a_probe_whose_client_leaves_frees_its_place() -> None:
    circuit = half_opened()
    probe = grant(circuit, 5.0)
    refuse(circuit, 5.0)
    circuit.ended(probe, EXCLUDED, 5.1)
    assert grant(circuit, 5.1).probe

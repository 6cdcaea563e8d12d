"""Which engine serves a stream, and what makes the relay serve them all."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from actors import End, Fault, FaultKind, Outcome, Party, Phase, ShadowVerdict, Tally
from server.rollout import Rollout, own_fault
from server.settings import StreamingSettings


def ended(end: End = End.DONE, fault: Fault | None = None, **tally: object) -> Outcome:
    record = Tally(started=1.0, ended=2.0, **tally)  # type: ignore[arg-type]  # fields by name
    return Outcome(end, Party.NOBODY, Phase.NONE, 200, fault, "main", record)


CRASH = ended(End.ERROR, Fault(FaultKind.INTERNAL, "a defect"))
CUT = ended(End.ERROR, Fault(FaultKind.TRUNCATED, "the upstream's"))


@given(some.text(), some.floats(0, 100), some.floats(0, 100))
def test_a_larger_share_takes_nobody_out_again(sticky: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    if Rollout(StreamingSettings(rollout_percent=small)).engine(sticky) == "actors":
        assert Rollout(StreamingSettings(rollout_percent=large)).engine(sticky) == "actors"


@given(some.text())
def test_all_and_none(sticky: str) -> None:
    assert Rollout(StreamingSettings()).engine(sticky) == "actors"
    assert Rollout(StreamingSettings(rollout_percent=0)).engine(sticky) == "relay"
    assert Rollout(StreamingSettings(engine="relay")).engine(sticky) == "relay"


def test_faults_of_its_own_send_every_stream_to_the_relay(caplog: pytest.LogCaptureFixture) -> None:
    rollout = Rollout(StreamingSettings(fallback_faults=3, fallback_window=10.0))
    for now in (0.0, 1.0):
        rollout.ended(CRASH, "actors", now)
    assert rollout.engine("anyone") == "actors"
    rollout.ended(CRASH, "actors", 2.0)
    assert rollout.engine("anyone") == "relay"
    assert "3 faults of its own within 10 s, the last: a stage crashed" in rollout.fallback
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]
    assert rollout.statistics().fallen_back
    rollout.set_percent(50)
    assert (rollout.fallback, rollout.percent) == ("", 50)
    rollout.ended(CRASH, "actors", 3.0)
    assert not rollout.fallback  # counted from nought again


def test_faults_far_apart_of_upstreams_of_clients_or_of_the_relay_change_nothing() -> None:
    rollout = Rollout(StreamingSettings(fallback_faults=2, fallback_window=10.0))
    for turn in range(20):
        rollout.ended(CRASH, "actors", 11.0 * turn)
        rollout.ended(CUT, "actors", 11.0 * turn)
        rollout.ended(ended(End.CANCELLED), "actors", 11.0 * turn)
        rollout.ended(CRASH, "relay", 11.0 * turn)
    assert rollout.engine("anyone") == "actors"
    assert rollout.statistics().own_faults == {"actors": 20, "relay": 20}


def test_the_fallback_can_be_off() -> None:
    rollout = Rollout(StreamingSettings(fallback_faults=0))
    for _ in range(100):
        rollout.ended(CRASH, "actors", 0.0)
    assert rollout.engine("anyone") == "actors"


def test_a_reload_ends_a_fallback() -> None:
    settings = StreamingSettings(fallback_faults=1)
    rollout = Rollout(settings)
    rollout.ended(CRASH, "actors", 0.0)
    assert rollout.percent == 0
    rollout.reconfigure(msgspec.structs.replace(settings, rollout_percent=25.0))
    assert rollout.percent == 25


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (ended(), ""),
        (CUT, ""),
        (ended(End.CANCELLED), ""),
        (CRASH, "a stage crashed"),
        (ended(End.ERROR), "contradict"),
        (ended(End.DONE, Fault(FaultKind.TRUNCATED, "cut")), "contradict"),
        (Outcome(End.DONE, Party.NOBODY, Phase.NONE, 502, None, "", Tally(ended=1.0)), "done under the status 502"),
        (Outcome(End.DONE, Party.NOBODY, Phase.NONE, 200, None, "", Tally()), "without a time"),
    ],
)
def test_what_is_a_fault_of_our_own(outcome: Outcome, reason: str) -> None:
    assert (reason in own_fault(outcome)) if reason else own_fault(outcome) == ""


@pytest.mark.parametrize(
    ("outcome", "verdict", "result"),
    [
        (ended(), ShadowVerdict(End.DONE), "alike"),
        (CUT, ShadowVerdict(End.ERROR, FaultKind.TRUNCATED), "alike"),
        (ended(), ShadowVerdict(End.ERROR, FaultKind.TRUNCATED), "unfinished"),
        (ended(), ShadowVerdict(End.CANCELLED), "unfinished"),
        (ended(), ShadowVerdict(End.DONE, repairs={"B1": 1}), "repaired"),  # type: ignore[arg-type]  # a Counter is a dict
        (ended(End.CANCELLED), ShadowVerdict(End.CANCELLED), "cancelled"),
        (ended(), ShadowVerdict(End.CANCELLED, dropped=3), "incomplete"),
        (ended(), ShadowVerdict(End.CANCELLED, crashed="KeyError()"), "crashed"),
    ],
)
def test_how_a_shadow_compares(outcome: Outcome, verdict: ShadowVerdict, result: str) -> None:
    rollout = Rollout(StreamingSettings(engine="relay", shadow=True))
    rollout.compared(outcome, verdict)
    assert {name: count for name, count in rollout.statistics().shadowed.items() if count} == {result: 1}
    assert rollout.report()["shadow"]["comparison"] == {result: 1}  # type: ignore[index]  # of a report, for JSON


def test_the_report_tells_times_of_each_engine() -> None:
    rollout = Rollout(StreamingSettings())
    for n in range(1, 101):
        rollout.ended(ended(first_token=1.0 + n / 1000, holds=1, longest_hold=n / 10000), "actors", 0.0)
    engines = rollout.report()["engines"]
    assert engines["actors"]["first_token_ms"] == {"p50": 50.0, "p99": 99.0}  # type: ignore[index]
    assert engines["actors"]["longest_hold_ms"] == {"p50": 5.0, "p99": 9.9}  # type: ignore[index]
    assert engines["relay"]["first_token_ms"] == {}  # type: ignore[index]

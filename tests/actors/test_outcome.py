"""Outcome: the two letters that say who ended a request, and where."""

from __future__ import annotations

import pytest

from actors import End, Fault, FaultKind, Outcome, Party, Phase, Tally
from actors.stream_processor import party_of


@pytest.mark.parametrize(
    ("party", "phase", "code"),
    [
        (Party.NOBODY, Phase.NONE, "--"),
        (Party.CLIENT, Phase.CONNECTING, "CC"),
        (Party.CLIENT_STALLED, Phase.DATA, "cD"),
        (Party.UPSTREAM_SILENT, Phase.HEAD, "uH"),
        (Party.PROXY, Phase.LAST, "PL"),
    ],
)
def test_the_termination_code_is_party_and_phase(party: Party, phase: Phase, code: str) -> None:
    assert Outcome(End.ERROR, party, phase, 0, None, "", Tally()).termination == code


def test_no_two_parties_and_no_two_phases_share_a_letter() -> None:
    for letters in ([party.value for party in Party], [phase.value for phase in Phase]):
        assert len(set(letters)) == len(letters)
        assert {len(letter) for letter in letters} == {1}


@pytest.mark.parametrize("kind", FaultKind)
def test_every_fault_has_somebody_who_ended_the_stream(kind: FaultKind) -> None:
    silent = {FaultKind.CONNECT_TIMEOUT, FaultKind.FIRST_TOKEN_TIMEOUT, FaultKind.IDLE_TIMEOUT}
    ours = {FaultKind.LOOP, FaultKind.TOTAL_TIMEOUT, FaultKind.SHUTDOWN, FaultKind.INTERNAL, FaultKind.UNAVAILABLE, FaultKind.BUSY}
    expected = Party.UPSTREAM_SILENT if kind in silent else Party.PROXY if kind in ours else Party.UPSTREAM
    assert party_of(Fault(kind, "")) is expected


def test_tallies_share_nothing() -> None:
    one, other = Tally(), Tally()
    one.repairs["B1"] += 1
    one.faults["a", "connect"] += 1
    assert not other.repairs
    assert not other.faults

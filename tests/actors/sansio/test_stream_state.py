"""The state table: it covers the union, and what it does not list is illegal and changes nothing."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest

from actors import Complete, Tally
from actors.sansio import stream_state as st
from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import AttemptStarted
from actors.sansio.stream_machine import StreamMachine
from actors.sansio.stream_policy import StreamPolicy
from actors.sansio.stream_state import TRANSITIONS, IllegalTransition, StreamEvent, StreamState, advance

from ...fakes import DONE, content, plain_buffer

STATES: tuple[type[StreamState], ...] = get_args(StreamState)
EVENTS: tuple[type[StreamEvent], ...] = get_args(StreamEvent)
PAIRS = list(itertools.product(STATES, EVENTS))


def test_the_table_covers_every_state_and_uses_every_event() -> None:
    assert set(TRANSITIONS) == set(STATES)
    assert {event for row in TRANSITIONS.values() for event in row} == set(EVENTS)
    assert {type(after) for row in TRANSITIONS.values() for after in row.values()} == set(STATES) - {st.StateInitial}


def test_nothing_leaves_the_last_state_and_it_can_be_reached_from_each() -> None:
    assert TRANSITIONS[st.StateTerminating] == {}
    for state in set(STATES) - {st.StateTerminating}:
        assert st.StateTerminating() in TRANSITIONS[state].values()


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_advance_follows_the_table_and_refuses_the_rest(state: type[StreamState], event: type[StreamEvent]) -> None:
    before = state()
    if event in TRANSITIONS[state]:
        assert advance(before, event()) == TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransition, match=f"{event.__name__} is no event of {state.__name__}"):
            advance(before, event())
        assert before == state()


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[st.StateTerminating] = {}  # type: ignore[index]


def test_an_illegal_event_leaves_the_machine_as_it_was() -> None:
    tally = Tally()
    machine = StreamMachine(StreamPolicy(), plain_buffer, tally, 0.0)
    machine.receive(AttemptStarted(1, "a", (), math.inf), 0.0)
    machine.receive([*ChunkParser().feed(content("Hello"))], 0.1)
    counted = tally.transitions.copy()
    with pytest.raises(IllegalTransition):
        machine._advance(st.Joined(), 0.2)  # no item that may come brings this about: that is what the other tests show
    assert machine.state == st.StateNormalFlow()
    assert tally.transitions == counted
    machine.receive([*ChunkParser().feed(DONE)], 0.3)
    assert machine.end == Complete()

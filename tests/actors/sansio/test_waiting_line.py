"""Who goes on and who waits: fairness between keys, full lines, and that no place is ever lost or given twice."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as hs
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.sansio.waiting_line import STREAMS, FairLine, Place, Standing, WaitingLines

if TYPE_CHECKING:
    from collections.abc import Mapping


def lines(streams: int = 1, waiting: int = 100, slots: Mapping[str, int] | None = None) -> WaitingLines:
    return WaitingLines(streams, waiting, slots or {})


class Someone:
    """Asks for places, and knows how often it was woken."""

    def __init__(self, of: WaitingLines) -> None:
        self.of = of
        self.woken: list[str] = []

    def ask(self, key: str, kind: str = STREAMS, *, patient: bool = True, name: str = "") -> Place:
        return self.of.ask(kind, key, lambda: self.woken.append(name or key), patient=patient)


def test_places_are_given_until_there_are_none_and_then_in_the_order_of_asking() -> None:
    s = Someone(lines(streams=2))
    taken = [s.ask("a") for _ in range(2)]
    waiting = [s.ask("a", name=str(n)) for n in range(3)]
    assert [p.standing for p in (*taken, *waiting)] == [Standing.GRANTED] * 2 + [Standing.WAITING] * 3
    assert (s.of.taken()[STREAMS], s.of.waiting) == (2, 3)
    for place in (*taken, waiting[0]):
        s.of.give_back(place)
    assert s.woken == ["0", "1", "2"]
    assert (s.of.taken()[STREAMS], s.of.waiting) == (2, 0)


def test_keys_are_served_in_turn_whatever_each_has_in_line() -> None:
    s = Someone(lines())
    holder = s.ask("x")
    places = {name: s.ask(name[0], name=name) for name in ("a1", "a2", "a3", "a4", "b1", "b2", "c1")}
    for _ in range(7):
        s.of.give_back(holder)
        holder = places[s.woken[-1]]
    assert s.woken == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_a_key_that_joins_later_stands_behind_the_keys_that_wait() -> None:
    line = FairLine(1)
    for name in ("a", "a", "b"):
        line.join(Place("", name, lambda: None))
    assert (first := line.next()) is not None
    assert first.key == "a"
    line.join(Place("", "c", lambda: None))
    assert [place.key for _ in range(3) if (place := line.next()) is not None] == ["b", "a", "c"]
    assert line.next() is None


def test_no_limit_is_no_line() -> None:
    s = Someone(lines(streams=0, waiting=0))
    assert {s.ask("a").standing for _ in range(10_000)} == {Standing.GRANTED}


def test_nobody_overtakes_those_who_wait() -> None:
    s = Someone(lines(streams=1))
    holder = s.ask("a")
    waiting = s.ask("a")
    s.of.give_back(holder)
    s.of.reconfigure(1, 100, {})
    assert waiting.standing is Standing.GRANTED
    assert s.ask("b", patient=False).standing is Standing.TURNED_AWAY


def test_who_gives_up_waiting_leaves_no_gap() -> None:
    s = Someone(lines())
    holder, *waiting = s.ask("a"), s.ask("a", name="1"), s.ask("a", name="2")
    s.of.give_back(waiting[0])
    s.of.give_back(waiting[0])  # twice is once
    s.of.give_back(holder)
    assert s.woken == ["2"]
    assert (s.of.taken()[STREAMS], s.of.waiting) == (1, 0)


def test_a_full_line_turns_the_newcomer_away() -> None:
    s = Someone(lines(waiting=2))
    places = [s.ask("a") for _ in range(4)]
    assert places[3].standing is Standing.TURNED_AWAY
    assert s.of.waiting == 2
    s.of.give_back(places[3])
    assert (s.of.taken()[STREAMS], s.of.waiting) == (1, 2)


def test_a_full_line_makes_room_for_a_key_that_waits_far_less() -> None:
    s = Someone(lines(waiting=4))
    s.ask("greedy")
    waiting = [s.ask("greedy", name=str(n)) for n in range(4)]
    modest = s.ask("modest")
    assert modest.standing is Standing.WAITING
    assert [p.standing for p in waiting] == [Standing.WAITING] * 3 + [Standing.DISPLACED]
    assert s.woken == ["3"]
    assert s.ask("modest").standing is Standing.TURNED_AWAY  # 3 against what would be 2: no twice
    assert s.ask("greedy").standing is Standing.TURNED_AWAY
    assert s.of.waiting == 4


def test_the_lines_share_their_length_and_keep_apart_what_they_give() -> None:
    s = Someone(lines(streams=0, waiting=2, slots={"a": 1, "b": 1}))
    a, b = s.ask("k", "a"), s.ask("k", "b")
    s.ask("k", "a", name="for a")
    s.ask("k", "b", name="for b")
    assert s.ask("k", "a").standing is Standing.TURNED_AWAY
    s.of.give_back(b)
    assert s.woken == ["for b"]
    s.of.give_back(a)
    assert s.woken == ["for b", "for a"]


def test_other_limits_count_at_once_and_take_nothing_away() -> None:
    s = Someone(lines(streams=1, slots={"gone": 1}))
    s.ask("a"), s.ask("a", "gone")
    waiting = [s.ask("a", name=str(n)) for n in range(3)] + [s.ask("a", "gone", name="gone")]
    s.of.reconfigure(3, 100, {"new": 1})
    assert sorted(s.woken) == ["0", "1", "gone"]
    s.of.reconfigure(1, 100, {})
    assert s.of.taken()[STREAMS] == 3
    s.of.give_back(waiting[0])
    s.of.give_back(waiting[1])
    assert s.woken[-1] != "2"  # above the new limit
    assert s.ask("a", "new").standing is Standing.GRANTED


def test_there_are_no_places_of_an_unknown_kind() -> None:
    with pytest.raises(KeyError):
        lines().ask("unknown", "a", lambda: None)


class AnyOrder(RuleBasedStateMachine):
    """Whatever is asked, given back and reconfigured in whatever order: counts are exact, and no free place has somebody waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = {STREAMS: 2, "a": 1, "b": 3}
        self.most_waiting = 4
        self.lines = WaitingLines(2, 4, {"a": 1, "b": 3})
        self.places: list[Place] = []
        self.woken: Counter[int] = Counter()

    @rule(kind=hs.sampled_from([STREAMS, "a", "b"]), key=hs.sampled_from("xyz"), patient=hs.booleans())
    def ask(self, kind: str, key: str, patient: bool) -> None:
        number = len(self.places)
        place = self.lines.ask(kind, key, lambda: self.woken.update([number]), patient=patient)
        assert patient or place.standing is not Standing.WAITING
        assert not self.woken[number]
        self.places.append(place)

    @rule(data=hs.data())
    def give_back(self, data: hs.DataObject) -> None:
        if self.places:
            self.lines.give_back(data.draw(hs.sampled_from(self.places)))

    @rule(streams=hs.integers(0, 3), a=hs.integers(1, 3))
    def reconfigure(self, streams: int, a: int) -> None:
        self.limits |= {STREAMS: streams, "a": a}
        self.lines.reconfigure(streams, self.most_waiting, {"a": a, "b": 3})

    @invariant()
    def counts_are_exact(self) -> None:
        for kind, limit in self.limits.items():
            of_kind = Counter(place.standing for place in self.places if place.kind == kind)
            assert self.lines.taken()[kind] == of_kind[Standing.GRANTED]
            if of_kind[Standing.WAITING]:
                assert limit
                assert of_kind[Standing.GRANTED] >= limit
        waiting = sum(place.standing is Standing.WAITING for place in self.places)
        assert self.lines.waiting == waiting <= self.most_waiting
        assert max(self.woken.values(), default=0) <= 1


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase

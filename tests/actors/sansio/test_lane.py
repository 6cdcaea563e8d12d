"""One lane: what is held, what is dropped, and that fewer than two factors never drop anything."""

from __future__ import annotations

import pytest

from actors.sansio import envelope, evidence
from actors.sansio.chunks import Delta, Event, Field
from actors.sansio.evidence import NOTHING, Evidence
from actors.sansio.hypotheses import Duplicate, Hypothesis, Replay, Snapshot
from actors.sansio.lane import Lane
from actors.sansio.stream_facts import StreamFacts
from actors.sansio.ticket import Ticket
from actors.sansio.transcript import KEPT, Transcript

THRESHOLD = 3.0


class Driver:
    """Feeds a lane and remembers what each delta became."""

    def __init__(self, *, tool: bool = False) -> None:
        self.lane = Lane(StreamFacts(THRESHOLD, -2.5, -2.5), tool=tool)
        self.tickets: list[Ticket] = []

    def feed(self, *texts: str) -> Driver:
        for text in texts:
            delta = Delta(0, Field.CONTENT, text)
            event = Event(b"", b"{}", (delta,))
            ticket = Ticket(event, 0.0)
            self.tickets.append(ticket)
            if not self.lane.plain(text, event, 0.0):
                self.lane.judge(ticket, 0, delta, event, 0.0)
        return self

    @property
    def out(self) -> list[str | None]:
        """What each delta leaves as; None while it is held."""
        return [
            None if ticket.unsettled else ticket.texts.get(0, ticket.chunk.deltas[0].text)  # type: ignore[union-attr]  # only events here
            for ticket in self.tickets
        ]


def test_the_first_delta_never_waits() -> None:
    for text in ("I", "\n", "**", '{"a":1}', "a long first piece of text"):
        assert Driver().feed(text).out == [text]


def test_ordinary_text_never_waits() -> None:
    driver = Driver().feed("The", " cat", " sat", " on", " the", " mat", ".")
    assert driver.out == ["The", " cat", " sat", " on", " the", " mat", "."]
    assert driver.lane.calm


def test_a_snapshot_chain_is_held_then_repaired() -> None:
    driver = Driver().feed("The", "The cat")
    assert driver.out == ["The", None]
    driver.feed("The cat sat")
    assert driver.out == ["The", " cat", " sat"]
    driver.feed("The cat sat", "The cat sat down")
    assert driver.out[3:] == ["", " down"]


def test_a_chain_that_ends_is_incremental_again() -> None:
    driver = Driver().feed("Sure", "Sure", "Sure, I'll", "Sure, I'll help", " you", " with", " Sure")
    assert driver.out == ["Sure", "", ", I'll", " help", " you", " with", " Sure"]


def test_a_refuted_suspicion_is_released_as_it_came() -> None:
    driver = Driver().feed("The", "There", " is")
    assert driver.out == ["The", "There", " is"]
    assert driver.lane.resolved == "pattern"
    assert driver.lane.refused


def test_doubled_deltas() -> None:
    driver = Driver().feed("The", "The", " user", " user")
    assert driver.out == ["The", None, None, None]
    driver.feed(" wants", " wants", " to", " to", " know", " know")
    assert driver.out == ["The", "", " user", "", " wants", "", " to", "", " know", ""]
    assert driver.feed(" go", " home").out[-2:] == [" go", " home"]


def test_a_few_short_words_said_twice_are_said_twice() -> None:
    deltas = [" do", " do", " sol", " sol", " la", " la", " sol", "\n"]
    driver = Driver().feed(*deltas)
    driver.lane.finish()
    assert driver.out == deltas


def test_tripled_deltas() -> None:
    words = ["The", " user", " wants", " to"]
    assert Driver().feed(*(word for word in words for _ in range(3))).out == [out for word in words for out in (word, "", "")]


def test_a_consolidated_copy_at_the_end() -> None:
    words = ["Paris", "is", "the", "capital", "of", "France", "and", "its", "largest", "city"]
    deltas = [words[0], *(f" {word}" for word in words[1:])]
    assert Driver().feed(*deltas, "".join(deltas)).out == [*deltas, ""]


def test_a_replay_after_a_marker() -> None:
    deltas = ["Paris is", " the capital", " of France"]
    driver = Driver().feed(*deltas)
    driver.lane.mark(evidence.RESTART_HEAD)
    driver.feed("Paris", " is the", " capital of", " France and", " more")
    assert driver.out == [*deltas, "", "", "", " and", " more"]


def test_a_replay_without_a_marker_passes() -> None:
    deltas = ["Paris is", " the capital", " of France"]
    assert Driver().feed(*deltas, *deltas).out == deltas * 2


def test_a_replay_that_differs_is_not_spliced() -> None:
    driver = Driver().feed("Paris is", " the capital", " of France")
    driver.lane.mark(evidence.RESTART_HEAD)
    driver.feed("Paris is", " a large", " city")
    assert "".join(text or "" for text in driver.out[3:]) == "Paris is a large city"


LONG = ["Paris is", " the capital", " of France", " and the largest", " of its cities"]


def test_a_replay_that_differs_late_gives_back_what_it_swallowed() -> None:
    driver = Driver().feed(*LONG)
    driver.lane.mark(evidence.RESTART_HEAD)
    driver.feed(*LONG[:4])
    assert driver.out == [*LONG, "", "", "", ""]
    driver.feed(" in size")
    assert driver.out[-1] == " in size"
    assert driver.tickets[-1].returned == [ticket.chunk for ticket in driver.tickets[5:9]]


def test_a_replay_that_ends_inside_gives_back_what_it_swallowed() -> None:
    driver = Driver().feed(*LONG)
    driver.lane.mark(evidence.RESTART_HEAD)
    driver.feed(*LONG[:4])
    assert driver.lane.take_back() == [ticket.chunk for ticket in driver.tickets[5:]]
    assert driver.lane.take_back() == []
    assert driver.feed(" of course").out[-1] == " of course"


def test_a_revised_tail_loses_nothing() -> None:
    driver = Driver().feed(
        "A text", "A text that", "A text that grows", "A text that grows on", "A text that grows on*", "A text that grows on and on"
    )
    assert driver.out[-2:] == ["*", " and on"]


def test_release_sends_what_is_held_and_watches_on() -> None:
    driver = Driver().feed("The", "The")
    driver.lane.release(watch=True)
    assert driver.out == ["The", "The"]
    driver.feed("The cat")
    assert driver.out[-1] == " cat"  # two relations and the odds: it may still win, but never takes back


def test_arguments_that_cannot_be_json_prove_a_snapshot_at_once() -> None:
    assert Driver(tool=True).feed('{"city', '{"city": "Paris', '{"city": "Paris"}').out == ['{"city', '": "Paris', '"}']


def test_arguments_twice_and_a_trailing_empty_object() -> None:
    driver = Driver(tool=True).feed('{"city":', ' "Paris"}', '{"city": "Paris"}', "{}", '{"city":', ' "Paris"}')
    assert driver.out == ['{"city":', ' "Paris"}', "", "", "", ""]


def test_doubled_fragments_of_arguments() -> None:
    assert Driver(tool=True).feed('{"', '{"', "city", "city", '":', '":', "1}", "1}").out == ['{"', "", "city", "", '":', "", "1}", ""]


def test_a_second_object_that_begins_like_the_first_is_not_swallowed() -> None:
    assert Driver(tool=True).feed('{"a":1}', "{", '"b":2}').out == ['{"a":1}', "{", '"b":2}']


def test_a_lane_of_any_length_stays_calm_and_bounded() -> None:
    transcript = Transcript()
    for number in range(3 * KEPT // 1000):
        transcript.append(f"{number:07} " * 125)
    assert transcript.length == 3 * KEPT // 1000 * 1000
    assert len(transcript.whole()) < 2 * KEPT


def test_a_transcript_is_whole_however_it_was_read() -> None:
    transcript, text = Transcript(), ""
    for number in range(2000):
        transcript.append(piece := f"{number} ")
        text += piece
        if number % 7 == 0:
            assert transcript.whole() == text
    assert transcript.whole() == text
    assert transcript.first == "0 "


# ---- two independent factors, always --------------------------------------------------------------------------------

SIZE, USAGE = Evidence("size", 6.0), envelope.STUCK_USAGE


def snapshot(*texts: str) -> Snapshot:
    made = Snapshot(0.0, texts[0], texts[1], NOTHING, head=True)
    for text in texts[2:]:
        assert made.follow(text, NOTHING) is not None
    return made


def duplicate(*values: str) -> Duplicate:
    made = Duplicate(0.0, values[0], 2, NOTHING, from_start=True)
    for value in values[1:]:
        made.follow(value, NOTHING)
        made.follow(value, NOTHING)
    return made


@pytest.mark.parametrize(
    ("hypothesis", "found"),
    [
        (snapshot("The cat", "The cat"), ()),
        (snapshot("The cat", "The cat sat"), ()),
        (snapshot("\n", "\n", "\n\n"), ()),
        (snapshot("la ", "la la ", "la la la "), ()),
        (duplicate("The"), ()),
        (duplicate("The", "The", "The"), ()),
    ],
)
def test_one_pair_of_chunks_is_one_factor_at_any_odds(hypothesis: Hypothesis, found: tuple[Evidence, ...]) -> None:
    hypothesis.score = 1000.0
    assert not hypothesis.ready(THRESHOLD)


@pytest.mark.parametrize("found", [SIZE, USAGE, envelope.SERIALISER_TURN, evidence.GRAMMAR, evidence.FINISH, evidence.HISTORY])
def test_a_pair_and_one_independent_fact_are_two(found: Evidence) -> None:
    hypothesis = snapshot("The cat", "The cat sat")
    hypothesis.score = 1000.0
    hypothesis.add(found)
    assert hypothesis.ready(THRESHOLD)


@pytest.mark.parametrize(
    "hypothesis", [snapshot("The", "The cat", "The cat sat"), duplicate("The", " cat"), snapshot("The cat", "The cat sat")]
)
def test_factors_without_the_odds_drop_nothing(hypothesis: Hypothesis) -> None:
    hypothesis.add(USAGE)
    hypothesis.score = THRESHOLD - 0.01
    assert not hypothesis.ready(THRESHOLD)


def test_a_marker_needs_enough_text() -> None:
    whole = "Paris is the capital of France and the largest of its cities"
    for because, enough in ((evidence.RESTART_MARKER, 39), (evidence.RESTART_HEAD, 30)):
        assert not Replay(whole, whole[: enough - 6], because).ready(THRESHOLD)
        assert Replay(whole, whole[:enough], because).ready(THRESHOLD)
    assert Replay("Paris is it", "Paris is it", evidence.RESTART_MARKER).ready(THRESHOLD)  # all of it


def test_what_an_upstream_is_known_for_counts_only_with_a_factor() -> None:
    hypothesis = snapshot("la", "la", "land")
    hypothesis.score, hypothesis.lean = THRESHOLD - 1, 3.0
    assert not hypothesis.ready(THRESHOLD)
    hypothesis.add(Evidence("nonce", 0.5))
    assert hypothesis.ready(THRESHOLD)


def test_timing_never_makes_the_difference() -> None:
    assert evidence.timing(0.0) < THRESHOLD - 2.5  # less than any informative relation
    hypothesis = duplicate("The")
    hypothesis.score = THRESHOLD
    assert not hypothesis.ready(THRESHOLD)

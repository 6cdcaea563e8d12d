"""What an upstream's streams teach, how far that may go, and that it is forgotten."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.sansio.shapes import SHAPES
from actors.sansio.smart_buffer import SmartBuffer
from actors.sansio.stuttering_detector import StutteringDetector, StutterPolicy
from actors.sansio.upstream_history import MOST, UpstreamHistory
from tests.fakes import content, finish
from tests.stutter.wire import play

DAY = 86_400.0


def taught(streams: int, shape: str = "B1", now: float = 0.0) -> UpstreamHistory:
    history = UpstreamHistory()
    for _ in range(streams):
        history.note({shape: 1}, 0, now)
    return history


def test_it_begins_with_nothing() -> None:
    learned = UpstreamHistory().learned(5.0)
    assert (learned.streams, learned.proven, learned.refuted, learned.last_proof_age) == (0, {}, 0, None)
    assert learned.prior == pytest.approx(0.0)


def test_it_counts_streams_not_repairs() -> None:
    history = UpstreamHistory()
    history.note({"A1": 40, "G3": 7}, 0, 10.0)
    history.note({}, 3, 20.0)
    learned = history.learned(25.0)
    assert (learned.streams, learned.proven, learned.refuted, learned.last_proof_age) == (2, {"A1": 1, "G3": 1}, 3, 15.0)


def test_proofs_raise_the_prior_up_to_the_cap() -> None:
    priors = [taught(count).prior(0.0) for count in range(12)]
    assert priors[0] == pytest.approx(0.0)
    assert priors[1] == pytest.approx(0.301, abs=1e-3)  # the guess of 1 in 317 has become 2 in 318
    assert priors == sorted(priors)
    assert priors[-1] == MOST


def test_clean_streams_and_refuted_holds_lower_it_again() -> None:
    history = taught(4)
    before = history.prior(0.0)
    history.note({}, 0, 0.0)
    after_clean = history.prior(0.0)
    history.note({}, 50, 0.0)
    assert before > after_clean > history.prior(0.0) > 0.0


@pytest.mark.parametrize("shape", sorted(set(SHAPES) - {"A1", "A2", "B1"}))
def test_only_repeated_heads_make_a_repeated_head_likelier(shape: str) -> None:
    assert taught(50, shape).prior(0.0) == pytest.approx(0.0)


def test_it_forgets() -> None:
    history = taught(20, now=1000.0)
    assert history.prior(1000.0 + DAY * 0.9) == MOST
    learned = history.learned(1000.0 + DAY * 1.05)
    assert (learned.streams, learned.proven, learned.last_proof_age) == (0, {}, None)
    assert learned.prior == pytest.approx(0.0)


def test_zero_seconds_learn_nothing() -> None:
    history = UpstreamHistory(forget=0.0)
    history.note({"B1": 1}, 4, 1.0)
    assert history.learned(1.0).streams == 0
    assert history.prior(1.0) == pytest.approx(0.0)


NOTES = st.lists(st.tuples(st.sets(st.sampled_from(SHAPES)), st.integers(0, 3), st.floats(0, 50_000)), max_size=60)


@given(NOTES, st.floats(-6.0, -0.5), st.floats(1.0, 1e6))
def test_whatever_it_saw_the_prior_stays_between_nothing_and_the_cap(
    notes: list[tuple[set[str], int, float]], base: float, forget: float
) -> None:
    history, now = UpstreamHistory(forget, base), 0.0
    for shapes, refuted, wait in notes:
        now += wait
        history.note(dict.fromkeys(shapes, 1), refuted, now)
        learned = history.learned(now)
        assert 0.0 <= learned.prior <= MOST
        assert learned.streams <= len(notes)
        assert all(count <= learned.streams for count in learned.proven.values())


TEXTS = st.text(min_size=1, max_size=80) | st.sampled_from(["The", "**", "\n", "I", "10", "Sure, here is the answer to it: "])


@given(TEXTS, st.text(max_size=40))
def test_with_the_highest_prior_one_pair_of_chunks_still_decides_nothing(head: str, tail: str) -> None:
    """Whether the second chunk equals the first or extends it: text alone, however likely a repeat is held to be."""
    history = taught(1000)
    assert history.prior(0.0) == MOST
    for profile in ("generic", "dashscope", "portal"):
        blocks = [content(head), content(head + tail), content("\x00"), finish()]
        buffer = SmartBuffer(StutteringDetector(StutterPolicy(profile=profile), history))
        result = play([(0.02 * place, raw) for place, raw in enumerate(blocks)], buffer=buffer)
        assert [json.loads(block[6:])["choices"][0]["delta"].get("content") for block in result.raw.split(b"\n\n")[:2]] == [
            head,
            head + tail,
        ]


def test_a_detector_tells_its_history_what_it_proved() -> None:
    history = UpstreamHistory()
    words = ["The capital", "The capital of Norway", "The capital of Norway is", "The capital of Norway is Oslo, by the fjord."]
    for mode in ("repair", "observe", "off"):
        buffer = SmartBuffer(StutteringDetector(StutterPolicy(mode=mode), history))
        play([(0.02 * place, content(word)) for place, word in enumerate(words)], buffer=buffer)
        buffer.close(3.0)
    learned = history.learned(5.0)
    assert (learned.streams, learned.proven, learned.refuted, learned.last_proof_age) == (2, {"A1": 2}, 0, 2.0)


def test_a_hold_for_nothing_counts_as_refuted() -> None:
    history = UpstreamHistory()
    buffer = SmartBuffer(StutteringDetector(history=history))
    play([(0.02 * place, content(word)) for place, word in enumerate(["ha", "ha", " so", " what"])], buffer=buffer)
    buffer.close(1.0)
    assert history.learned(1.0).refuted == 1

"""Injected stutter is repaired, and whatever is injected into whatever text, nothing of it is lost."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .injections import CHUNKINGS, PROVES, SHAPES, TOOL_SHAPES, cut
from .wire import ENVELOPES, Envelope, build, is_subsequence, play, text_of, write

#: A text of our own, in tokens as servers send them.
_TEXT = (
    "Sure| —| here| is| a| short| overview|.|\n\n|##| Water|\n\n|It| boils| at| |100|°C|,| freezes| at| |0|°C|.|\n|-| Ice| floats|:| ice|"
    "| is| lighter| than| water|.|\n|-| 水| 很|重要|,| 人人|都|知道|.|\n\n|```|python|\n|"
    "for| i| in| range|(|10|):|\n|   | print|(|i|,| i| *| i|)|\n|```|\n\n|"
    "That| is| all| that| there| is| to| say| about| it| for| now|;| ask| me| for| more| if| you| like|."
)
_CALL = r'{"|city|":| "|Paris|",| "|days|":| [|1|,| |2|,| |3|],| "|note|":| "|go| go|, |\"|slow|ly|\"|"}'
TOKENS, ARGUMENTS = _TEXT.split("|"), _CALL.split("|")
#: Exact repair from the stream alone is impossible: the tail was revised after it was sent, or nothing says that it is a repeat.
NEVER_EXACT = {"K1", "F2"}


@pytest.mark.parametrize("style", ENVELOPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_in_text(shape: str, style: Envelope) -> None:
    rng = random.Random(shape)
    for chunking in ("tokens", "groups", "bursts"):
        clean = build(cut(TOKENS, chunking, rng), rng, gap=CHUNKINGS[chunking])
        stream = SHAPES[shape](clean, rng)
        blocks = write(stream, style)
        result = play(blocks)
        assert is_subsequence(text_of(clean), result.only)
        assert max(result.held, default=0) <= 0.4 + 1e-9
        assert not result.late_first
        if shape in NEVER_EXACT or style not in PROVES.get(shape, ENVELOPES):
            assert result.only != text_of(clean)
            if shape in PROVES:  # nothing proves it: it passes on, untouched
                assert result.raw == b"".join(raw for _, raw in blocks)
        else:
            assert result.only == text_of(clean), (chunking, [piece.text for piece in stream][:12])


@pytest.mark.parametrize("style", ENVELOPES)
@pytest.mark.parametrize("shape", TOOL_SHAPES)
def test_a_shape_in_arguments(shape: str, style: Envelope) -> None:
    rng = random.Random(shape)
    for chunking in ("tokens", "groups", "bursts"):
        clean = build(cut(ARGUMENTS, chunking, rng), rng, gap=CHUNKINGS[chunking], field="arguments")
        assert play(write(TOOL_SHAPES[shape](clean, rng), style)).only == text_of(clean)


# A small alphabet makes coincidences the rule: equal neighbours, prefixes, runs.
PIECES = st.sampled_from(
    ["a", "b", "ab", "aa", "the", "The", " cat", "\n", "\n\n", " ", "1", "11", "**", "#", "{", "}", "哈", "。", "\ud83d", "word\n"]
)
WORDS = st.sampled_from(TOKENS)
SEEDS = st.integers(0, 2**20)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=30), st.sampled_from(["nonce", "usage"]), st.sampled_from([0.0002, 0.05, 0.3]), SEEDS)
def test_a_clean_stream_with_proof_in_every_event_is_untouched(deltas: list[str], style: Envelope, gap: float, seed: int) -> None:
    # A chain of deltas that each contain all text before them is a cumulative stream, whatever the nonce says: excluded.
    so_far = ""
    for text in deltas:
        if so_far and text != so_far and text.startswith(so_far):
            return
        so_far += text
    rng = random.Random(seed)
    blocks = write(build(deltas, rng, gap=gap), style)
    result = play(blocks)
    assert result.raw == b"".join(raw for _, raw in blocks)
    assert not result.late_first


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | WORDS, min_size=1, max_size=40), st.sampled_from(ENVELOPES), st.sampled_from([0.0002, 0.05, 0.3]), SEEDS)
def test_a_clean_stream_without_relations_is_untouched(deltas: list[str], style: Envelope, gap: float, seed: int) -> None:
    kept: list[str] = []
    for text in deltas:  # no delta equals its neighbour, and none begins with all text so far
        if text and (not kept or (text != kept[-1] and not text.startswith("".join(kept)))):
            kept.append(text)
    rng = random.Random(seed)
    blocks = write(build(kept, rng, gap=gap), style)
    result = play(blocks)
    assert result.raw == b"".join(raw for _, raw in blocks)
    assert not result.held


@settings(max_examples=400, deadline=None)
@given(
    st.lists(WORDS, min_size=8, max_size=50),
    st.sampled_from(sorted(SHAPES)),
    st.sampled_from(sorted(CHUNKINGS)),
    st.sampled_from(ENVELOPES),
    SEEDS,
)
def test_no_injection_loses_text(tokens: list[str], shape: str, chunking: str, style: Envelope, seed: int) -> None:
    rng = random.Random(seed)
    deltas = cut(tokens, chunking, rng)
    if len(deltas) < 6 or deltas[1].startswith(deltas[0]):
        return  # a text whose second delta begins with its first, after a proven repeat of that: no detector could tell
    if shape == "C3" and any(delta == following for delta, following in itertools.pairwise(deltas)):
        return  # "x x" before "y y z z" where every delta comes twice from y on, or from x on: the same stream
    clean = build(deltas, rng, gap=CHUNKINGS[chunking])
    result = play(write(SHAPES[shape](clean, rng), style))
    assert is_subsequence(text_of(clean), result.only)
    assert max(result.held, default=0) <= 0.4 + 1e-9
    assert not result.late_first
    assert not result.buffer.holding


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(PIECES, max_size=3), max_size=20), st.sampled_from([0.001, 0.1]), SEEDS)
def test_whatever_comes_what_leaves_is_a_part_of_it_in_order(groups: list[list[str]], gap: float, seed: int) -> None:
    deltas = [text for group in groups for text in group]
    result = play(write(build(deltas, random.Random(seed), gap=gap), "constant"))
    assert is_subsequence(result.only, "".join(deltas))
    assert result.raw.endswith(b"data: [DONE]\n\n")

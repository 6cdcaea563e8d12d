"""The shapes of stutter, over any script: what they repeat, and that they never lose what was said."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.simulator.scripts import Piece, Script, speech, text_of, tokens_of, tool_calls
from server.simulator.stutter import CALL_SHAPES, TEXT_SHAPES

words = st.lists(st.text(min_size=1), min_size=1, max_size=12)


def script_of(tokens: list[str], seed: int = 0) -> Script:
    return speech([tokens], random.Random(seed))


def shaped(shape: str, script: Script) -> Script:
    return TEXT_SHAPES[shape][1](script, random.Random(1))


def texts(script: Script) -> list[str]:
    return [piece.text for piece in script if piece.text]


def is_subsequence(small: list[Piece], large: list[Piece]) -> bool:
    rest = iter(large)
    return all(any(piece == other for other in rest) for piece in small)


@given(st.text())
def test_tokens_join_to_their_text(text: str) -> None:
    assert "".join(tokens_of(text)) == text


@pytest.mark.parametrize("shape", sorted(TEXT_SHAPES.keys() - {"a1", "a2", "a3", "b2", "b3", "k1"}))
@given(tokens=words)
def test_repeats_only_add(shape: str, tokens: list[str]) -> None:
    script = script_of(tokens)
    told = shaped(shape, script)
    assert is_subsequence(script[: len(script) // 2], told)
    assert len(told) > len(script)


@pytest.mark.parametrize("shape", ["a1", "a2", "a3", "b2", "b3"])
@given(tokens=words)
def test_snapshots_tell_what_was_said_so_far(shape: str, tokens: list[str]) -> None:
    """Reading each text as "everything so far" where it begins so, else as new, gives the good text back, in every shape."""
    script = script_of(tokens)
    told = texts(shaped(shape, script))
    said = "".join(tokens)
    if shape in ("a1", "a2", "a3"):
        assert told[-1] == said
    snapshots = {said[: len(text)] for text in told}
    assert all(text in snapshots or text in tokens for text in told)


@given(tokens=words)
def test_everything_so_far(tokens: list[str]) -> None:
    assert texts(shaped("a1", script_of(tokens))) == ["".join(tokens[: i + 1]) for i in range(len(tokens))]


@given(tokens=words)
def test_a_revised_tail_ends_in_the_good_text(tokens: list[str]) -> None:
    assert texts(shaped("k1", script_of(tokens)))[-1] == "".join(tokens)


@given(tokens=words)
def test_the_second_telling_of_a_restart_is_whole(tokens: list[str]) -> None:
    script = script_of(tokens)
    again = [piece for piece in shaped("f1", script) if piece.restarted]
    assert text_of(again) == text_of(script)
    assert [piece.finish for piece in again][-1] == "stop"


@given(tokens=words, shape=st.sampled_from(["b1", "c1", "c2", "c3", "d1", "d2"]))
def test_a_duplicate_keeps_its_envelope(tokens: list[str], shape: str) -> None:
    """As many different pieces as the good script has: nothing in a copy tells that it is one."""
    script = script_of(tokens)
    assert {piece.nonce for piece in shaped(shape, script)} == {piece.nonce for piece in script}


@given(tokens=words, shape=st.sampled_from(["a2", "e1", "f1", "f2"]))
def test_what_is_written_again_gets_a_new_nonce(tokens: list[str], shape: str) -> None:
    told = shaped(shape, script_of(tokens))
    assert len({piece.nonce for piece in told}) == len(told)


@pytest.mark.parametrize("shape", CALL_SHAPES)
@given(fragment=st.integers(1, 30))
def test_the_good_arguments_can_be_read_from_every_shape(shape: str, fragment: int) -> None:
    arguments = '{"city":"Oslo","days":[1,2]}'
    script = tool_calls([("f", arguments)], random.Random(0), fragment=fragment)
    told = texts(CALL_SHAPES[shape][1](script, random.Random(1)))
    good = texts(script)
    assert "".join(good) == arguments
    match shape:
        case "g1":
            assert told[-1] == arguments
        case "g2" | "g2-braces":
            assert told[:-1] == good
            json.loads(told[-1])
        case "g3":
            assert told == good
        case "g4":
            assert told[::2] == told[1::2] == good

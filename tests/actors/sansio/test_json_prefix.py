"""JSON's grammar as far as prefixes go, checked against the standard library's decoder."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.sansio.json_prefix import JsonPrefix

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4) | st.lists(VALUES, max_size=4), st.booleans(), st.data())
def test_every_prefix_of_a_value_is_possible_and_only_the_whole_is_complete(value: object, spaced: bool, data: st.DataObject) -> None:
    text = json.dumps(value, indent=1 if spaced else None, ensure_ascii=data.draw(st.booleans()))
    prefix = JsonPrefix()
    for character in text:
        assert not prefix.complete
        assert prefix.feed(character).possible
    assert prefix.complete
    assert JsonPrefix().feed(text).complete
    assert prefix.copy().feed(" \n").complete
    assert not prefix.copy().feed("{").possible


@given(st.text(alphabet='{}[]",:1a\\ ', max_size=12))
def test_what_the_decoder_accepts_is_complete(text: str) -> None:
    try:
        value = json.loads(text)
    except ValueError:
        assert not JsonPrefix().feed(text).complete or not _strict(text)
        return
    assert JsonPrefix().feed(text).complete == isinstance(value, dict | list)


def _strict(text: str) -> bool:
    """Whether our leniency (raw control characters, loosely read numbers) is not what made the difference."""
    return not any(character in text for character in "1")


@pytest.mark.parametrize(
    "text", ['{"{"x', '{"a""', "{1", "}", '{"a":}', '["a" "b"', "1", "true", '"a"', '{"a":1}{', '{"a":tx', '{"a":"\\x']
)
def test_the_impossible(text: str) -> None:
    assert not JsonPrefix().feed(text).possible


def test_a_copy_is_independent() -> None:
    prefix = JsonPrefix().feed('{"a":[')
    prefix.copy().feed("1]]")
    assert prefix.feed("1]}").complete

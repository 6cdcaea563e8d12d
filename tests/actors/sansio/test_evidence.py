"""Each factor of evidence alone: what it weighs, and what it must not be fooled by."""

from __future__ import annotations

import pytest

from actors.sansio import evidence
from actors.sansio.evidence import NOTHING, Kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("\n\n", Kind.BLANK),
        ("", Kind.BLANK),
        (" 42", Kind.DIGIT),
        ("1.5", Kind.DIGIT),
        ("I", Kind.LETTER),
        ("ff", Kind.LETTER),
        ("人", Kind.LETTER),
        ("**", Kind.PUNCTUATION),
        (" The", Kind.WORD),
        ("你好", Kind.WORD),
        ("></div", Kind.PUNCTUATION),
        ("\ud83d", Kind.PUNCTUATION),
    ],
)
def test_kind_of(text: str, kind: Kind) -> None:
    assert evidence.kind_of(text) is kind


@pytest.mark.parametrize("text", ["aa", "----", "abab", "la la ", "abcabcab", "\n\n", "xyz" * 2000])
def test_a_unit_repeated_is_a_run(text: str) -> None:
    assert evidence.is_run(text)


@pytest.mark.parametrize("text", ["", "a", "ab", "aba", "The cat sat on the mat", "aab", "ab" * 5 + "c", "x" * 3000 + "y" * 3000])
def test_other_text_is_no_run(text: str) -> None:
    assert not evidence.is_run(text)


def test_a_run_carries_no_information_and_a_chinese_character_three_times_a_letters() -> None:
    assert evidence.information("hahaha") == 0
    assert evidence.information("The cat") == 6
    assert evidence.information("你好啊") == 9


def test_prefix_pattern_weighs_words_above_digits() -> None:
    weights = [evidence.prefix_pattern(before, before + ", xyz", 0) for before in ("Then", "The", "7")]
    assert weights == sorted(weights, reverse=True)


def test_prefix_pattern_grows_with_what_is_reproduced() -> None:
    texts = ["Hm", "Hello", "Hello there dear", "Hello there dear friend of mine"]
    for earlier in (0, 1):
        weights = [evidence.prefix_pattern(before, before + " x", earlier) for before in texts]
        assert weights == sorted(weights)
        assert weights[0] < weights[1] < weights[2]


def test_prefix_pattern_distrusts_a_word_that_begins_like_another() -> None:
    for before, longer, other in ((" in", " insert", " in it"), (" Ann", " Anna", " Ann, ")):
        assert evidence.prefix_pattern(before, longer, 0) < evidence.prefix_pattern(before, other, 0)
    # Without a separator before it, and with more than an ending behind, it is hardly the next word.
    assert evidence.prefix_pattern("in", "insert", 0) > evidence.prefix_pattern(" in", " insert", 0)
    assert evidence.prefix_pattern("10", "100", 0) <= 1.5
    assert evidence.prefix_pattern("你", "你好", 0) == evidence.prefix_pattern("你", "你, ", 0)


def test_prefix_pattern_says_next_to_nothing_of_a_run() -> None:
    assert evidence.prefix_pattern("la la ", "la la la ", 0) == pytest.approx(0.2)


def test_prefix_pattern_weighs_the_second_relation_most() -> None:
    assert evidence.prefix_pattern("The cat", "The cat sat", 1) > evidence.prefix_pattern("The cat", "The cat sat", 0)
    assert evidence.prefix_pattern("The cat", "The cat sat", 2) == pytest.approx(2.0)


@pytest.mark.parametrize(("lengths", "weight"), [([3, 5, 8], 0.3), ([3, 5], 0.0), ([3, 20, 30], 0.0), ([8, 5, 3], 0.0), ([], 0.0)])
def test_length_progression_wants_small_steps(lengths: list[int], weight: float) -> None:
    assert evidence.length_progression(lengths) == pytest.approx(weight)


def test_timing_only_orders() -> None:
    assert 0 < evidence.timing(0.0004) < 0.5
    assert evidence.timing(0.02) == 0


def test_content_similarity() -> None:
    weights = [evidence.content_similarity(text) for text in (" The", "**Note", "I", "7", "\n")]
    assert weights == sorted(weights, reverse=True)
    assert evidence.content_similarity("haha") == pytest.approx(0.2)
    assert evidence.content_similarity("A short line\n") < evidence.content_similarity("A short line")
    assert evidence.content_similarity("A sentence of some length that no model would repeat, letter by letter.") > 2.5


@pytest.mark.parametrize(("a", "b", "share"), [("abc", "abd", 2), ("", "abc", 0), ("abc", "abc", 3), ("abc", "abcdef", 3), ("x", "y", 0)])
def test_shared_prefix(a: str, b: str, share: int) -> None:
    assert evidence.shared_prefix(a, b) == share


def test_size_outlier() -> None:
    whole = "It was a dark and stormy night"
    assert evidence.size_outlier(whole, whole, 7, 6).weight > 5
    assert evidence.size_outlier(whole, whole, 20, 6) == NOTHING  # the largest chunk is not much smaller
    assert evidence.size_outlier(whole, whole, 7, 2) == NOTHING  # too few chunks to know
    assert evidence.size_outlier("0 0 0 0 0 0 0 0 0 0 0 0 ", "0 0 0 0 0 0 ", 1, 6) == NOTHING


def test_replayed_text() -> None:
    assert evidence.replayed_text("Hello, ") == pytest.approx(0.375)
    assert evidence.replayed_text("Hello " * 30) == 0  # a run
    assert evidence.replayed_text("".join(f"word{number}" for number in range(40))) == 6.0

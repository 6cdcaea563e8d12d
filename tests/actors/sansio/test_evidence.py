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


@pytest.mark.parametrize(
    ("before", "text"),
    [("la la ", "la la la "), (" ====", " ========="), ("ITS_ME, ", "ITS_ME, ITS_"), ("no ", "no no no, ")],
)
def test_prefix_pattern_says_next_to_nothing_of_what_goes_on_alike(before: str, text: str) -> None:
    assert evidence.prefix_pattern(before, text, 0) == evidence.prefix_pattern(before, text, 1) == pytest.approx(0.2)


def test_prefix_pattern_takes_words_with_separators_for_speech_where_they_came_twice() -> None:
    assert evidence.prefix_pattern("very ", "very good", 1, repeated=True) < evidence.prefix_pattern("very ", "very good", 1)
    assert evidence.prefix_pattern("very", "very good", 1, repeated=True) == evidence.prefix_pattern("very", "very good", 1)
    assert evidence.prefix_pattern(", Ann", ", Ann, you", 1) < evidence.prefix_pattern("Ann", "Ann, you", 1)


def test_prefix_pattern_trusts_a_letter_alone_only_with_what_follows_it() -> None:
    assert evidence.prefix_pattern("I", "I'll", 1) > evidence.prefix_pattern("I", "I.", 1)
    assert evidence.prefix_pattern(" I", " I'll", 1) == evidence.prefix_pattern(" I", " I.", 1)


def test_prefix_pattern_trusts_signs_little() -> None:
    assert evidence.prefix_pattern(" 1", " 1 0", 0) < evidence.prefix_pattern("1", "1, ", 0)
    assert evidence.prefix_pattern(" |", " |-", 1) < evidence.prefix_pattern(" |", " |-a", 1)


@pytest.mark.parametrize(
    ("text", "glued"), [("The", True), ("I", True), (" The", False), ("The ", False), ("So,", False), ("你好", False), ("", False)]
)
def test_glued(text: str, glued: bool) -> None:
    assert evidence.glued(text) is glued


def test_head_similarity_distrusts_separators() -> None:
    weights = [evidence.head_similarity(text) for text in ("Never", " never", " never,")]
    assert weights == sorted(set(weights), reverse=True)
    assert evidence.head_similarity("I") > evidence.head_similarity(" I")


def test_doubled_grows_with_the_word() -> None:
    weights = [evidence.doubled(text) for text in (" do", " row", " stream", " merrily down")]
    assert weights == sorted(weights)
    assert weights[0] < 0.6 < 1.9 < weights[-1]
    assert evidence.doubled("stream") > evidence.doubled(" stream")  # "streamstream" is no text
    assert evidence.doubled("研究") < evidence.doubled("Hello")


def test_doubled_takes_short_lines_for_a_song() -> None:
    song = ["Frère Jacques,\n", "Dormez-vous ?\n", "Sonnez les matines !\n", "Ding, dang, dong.\n"]
    assert sum(map(evidence.doubled, song)) < 4
    assert evidence.doubled("A line of some length that nobody would sing.\n") >= 2.0


def test_doubled_signs_and_digits_are_worth_less_than_a_word() -> None:
    assert max(evidence.doubled(text) for text in ("7", "\n", ",", "---", "}}")) < evidence.doubled(" weather")


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


@pytest.mark.parametrize("text", [" weather", " a", ",", " (", "**  \n- **y**", " ", " 3", "4°"])
def test_what_clean_text_has_seldom_twice_in_a_row(text: str) -> None:
    assert evidence.seldom_twice(text)


@pytest.mark.parametrize("text", ["7", "12", "\n", "\n\n", "----", "haha", "}", "))", " {}", "#"])
def test_what_clean_text_often_has_twice_in_a_row(text: str) -> None:
    assert not evidence.seldom_twice(text)


def test_a_tag_that_opens_a_thought_weighs_what_a_word_does() -> None:
    assert evidence.head_similarity("<think>") == evidence.head_similarity("<think>\n") == evidence.head_similarity("Hello")
    assert evidence.head_similarity("<div>") < evidence.head_similarity("Hello")


def test_half_a_sentence_with_a_blank_is_no_stammer() -> None:
    assert evidence.prefix_pattern("very ", "very good", 1, repeated=True) < 4
    assert evidence.prefix_pattern("I said to my dear, ", "I said to my dear, go", 1, repeated=True) < 4  # a refrain
    assert evidence.prefix_pattern("In the observability ", "In the observability department", 1, repeated=True) > 4

"""Each factor of evidence alone: what it weighs, and what it must not be fooled by."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.sansio import evidence
from actors.sansio.chunks import Event
from actors.sansio.evidence import NEVER, NOTHING, Kind


def event(*, tokens: int | None = None, order: str = "", **fields: Any) -> Event:
    choice: dict[str, Any] = {"index": 0, "delta": {"content": "x"}, "finish_reason": None}
    if order == "head":
        choice = {"finish_reason": None, "logprobs": None, "delta": {"content": "x"}, "index": 0}
    elif order == "rest":
        choice = {"delta": {"content": "x"}, "finish_reason": None, "index": 0, "logprobs": None}
    if "logprobs" in fields:
        choice["logprobs"] = {"content": [{"token": "x", "logprob": value} for value in fields.pop("logprobs")]}
    data = json.dumps({"id": "1", "created": 5, **fields, "choices": [choice]}).encode()
    return Event(b"data: " + data + b"\n\n", data, completion_tokens=tokens)


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
        assert weights == sorted(set(weights))


def test_prefix_pattern_distrusts_a_word_that_begins_like_another() -> None:
    assert evidence.prefix_pattern("in", "insert", 0) == pytest.approx(evidence.prefix_pattern("in", "in it", 0) - 0.75)
    assert evidence.prefix_pattern("Ann", "Anna", 0) == pytest.approx(evidence.prefix_pattern("Ann", "Ann, ", 0) - 1.5)
    assert evidence.prefix_pattern("10", "100", 0) == pytest.approx(0.5)
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


def test_serialiser_order() -> None:
    head, rest, other = event(order="head"), event(order="rest"), event()
    assert evidence.head_order(head.data) is True
    assert evidence.head_order(rest.data) is False
    assert evidence.head_order(other.data) is None
    assert evidence.serialiser(head, rest).weight == NEVER
    assert evidence.serialiser(head, head) == evidence.serialiser(other, other) == NOTHING


def test_usage() -> None:
    assert evidence.usage(event(tokens=4), event(tokens=5), trusted=True).weight == NEVER
    assert evidence.usage(event(tokens=4), event(tokens=4), trusted=True).weight > 5
    assert evidence.usage(event(tokens=4), event(tokens=4), trusted=False) == NOTHING
    assert evidence.usage(event(tokens=0), event(tokens=0), trusted=True) == NOTHING  # a counter that is filled in at the end
    assert evidence.usage(event(), event(tokens=4), trusted=True) == NOTHING
    assert evidence.usage(event(tokens=5), event(tokens=4), trusted=True) == NOTHING


def test_a_nonce_known_by_name() -> None:
    assert evidence.nonce(event(obfuscation="xK3f9aQ"), event(obfuscation="xK3f9aQ"), []).weight > 5
    assert evidence.nonce(event(obfuscation="xK3f9aQ"), event(obfuscation="bT"), []).weight == NEVER
    assert 1 < evidence.nonce(event(obfuscation="x"), event(obfuscation="x"), []).weight < 3  # one of 62


def test_mistrals_padding_is_only_a_length() -> None:
    assert evidence.nonce(event(p="abcdefghij"), event(p="abcdefghij"), []).weight == pytest.approx(1.5)
    assert evidence.nonce(event(p="abcdefghij"), event(p="abcd"), []).weight == NEVER


def test_an_unknown_nonce_has_to_differ_in_every_event_so_far() -> None:
    recent = [event(trace=f"8f14e45f-{number}") for number in range(4)]
    last = recent[-1]
    assert evidence.nonce(last, event(trace="8f14e45f-3"), recent[:-1]).weight > 5
    assert evidence.nonce(last, event(trace="8f14e45f-9"), recent[:-1]).weight == NEVER
    assert evidence.nonce(last, event(trace="8f14e45f-9"), recent[:1]) == NOTHING
    constant = [event(trace="8f14e45f", x=number) for number in range(4)]
    assert evidence.nonce(constant[-1], event(trace="8f14e45f"), constant) == NOTHING


def test_a_clock_is_no_nonce() -> None:
    recent = [event(timestamp=f"2026-11-22T12:00:0{number}") for number in range(4)]
    assert evidence.nonce(recent[-1], event(timestamp="2026-11-22T12:00:03"), recent) == NOTHING


def test_logprobs() -> None:
    assert evidence.logprobs(event(logprobs=[-0.31]), event(logprobs=[-0.31]), 0).weight > 5
    assert evidence.logprobs(event(logprobs=[-0.31]), event(logprobs=[-0.32]), 0).weight == NEVER
    assert evidence.logprobs(event(logprobs=[0.0]), event(logprobs=[0.0]), 0) == NOTHING  # certain is certain each time
    assert evidence.logprobs(event(logprobs=[0.0]), event(), 0) == NOTHING
    assert evidence.logprobs(event(logprobs=[-0.31]), event(logprobs=[-0.31]), 7) == NOTHING


def test_replayed_text() -> None:
    assert evidence.replayed_text("Hello, ") == pytest.approx(1.5)
    assert evidence.replayed_text("Hello " * 30) == 0  # a run
    assert evidence.replayed_text("A long text of which every letter came before, from the start") == 6.0


def test_the_first_finding_against_a_repeat_decides() -> None:
    before, now = event(tokens=4, obfuscation="xK3f9aQ"), event(tokens=5, obfuscation="xK3f9aQ")
    assert evidence.judge_repeat(before, now, [], 0, trusted_usage=True) == evidence.Evidence("usage", NEVER)


def test_findings_for_a_repeat_add_up() -> None:
    before = event(tokens=4, obfuscation="xK3f9aQ", logprobs=[-0.5])
    found = evidence.judge_repeat(before, before, [], 0, trusted_usage=True)
    assert found.name == "usage+logprobs+nonce"
    assert found.weight > 12


@pytest.mark.parametrize("data", [b"{", b"[1]", b'{"obfuscation":1}', b'{"choices":1}', b"\xff", b"{" * 5000])
def test_odd_data_says_nothing(data: bytes) -> None:
    odd = Event(b"", data)
    assert evidence.judge_repeat(odd, odd, [odd] * 4, 0, trusted_usage=False) == NOTHING

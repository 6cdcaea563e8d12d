"""Which fields of a stream are believed to hold a nonce, and what those prove."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Event
from actors.sansio.envelope import Envelope
from actors.sansio.evidence import NEVER, NOTHING
from actors.sansio.nonces import Nonces, other_padding, same_padding

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def event(text: str, **fields: Any) -> Event:
    body = {"id": "c", "model": "m", **fields, "choices": [{"index": 0, "delta": {"content": text}}]}
    (chunk,) = ChunkParser().feed(b"data: " + json.dumps(body).encode() + b"\n\n")
    assert isinstance(chunk, Event)
    return chunk


def envelope(text: str, **fields: Any) -> Envelope:
    return Envelope(event(text, **fields))


def said(name: str, *values: str) -> list[Event]:
    """Different texts, each with a value."""
    return [event(f" {place}", **{name: value}) for place, value in enumerate(values)]


def weight(name: str, values: list[str], was: str, now: str) -> float:
    nonces = Nonces()
    for one in said(name, *values):
        nonces.note(one)
    before = event("again", **{name: was})
    nonces.note(before)
    return nonces.judge(Envelope(before), envelope("again", **{name: now})).weight


def drawn(count: int, length: int = 12, letters: str = LETTERS) -> list[str]:
    rng = random.Random(count)
    return ["".join(rng.choices(letters, k=length)) for _ in range(count)]


def test_a_field_known_by_name_has_to_have_differed_once() -> None:
    assert weight("obfuscation", ["xK3f9aQ"], "bT2pLm4", "bT2pLm4") == 7.0
    assert Nonces().judge(*(envelope("a", obfuscation="xK3f9aQ") for _ in range(2))) == NOTHING
    assert weight("obfuscation", ["xK3f9aQ"], "bT2pLm4", "q") == NEVER


def test_a_short_one_proves_less() -> None:
    assert 1 < weight("obfuscation", ["xK3f9aQ"], "b", "b") < 2
    assert weight("p", ["abc", "abcdefgh", "a", "abcde", "abcdefghijk"], "abcd", "abcd") < 1.0  # few lengths were seen
    assert weight("p", ["abcdefghijklmnopqrstuvwxyz0123456789"[:length] for length in range(1, 36)], "ab", "ab") == pytest.approx(
        1.5, abs=0.1
    )


@pytest.mark.parametrize(
    "values",
    [
        ["redacted", "redacted"],
        ["", "", "", ""],
        ["xK3f9aQ", "xK3f9aQ", "bT2pLm4"],  # it stood still once
        ["xK3f9aQ", "", "xK3f9aQ", "bT2pLm4"],  # also with nothing between
    ],
)
def test_padding_that_a_gateway_fills_is_none(values: list[str]) -> None:
    last = values[-1] or "redacted"
    assert weight("obfuscation", values, last, last) == 0.0


def test_a_re_delivery_is_no_standing_still() -> None:
    nonces = Nonces()
    for value in drawn(8, 7):
        for _ in range(2):
            nonces.note(event(f" {value}", obfuscation=value))
    last = event("x", obfuscation="bT2pLm4")
    assert nonces.judge(Envelope(last), Envelope(last)).weight == 7.0


@pytest.mark.parametrize("letters", [LETTERS, "0123456789abcdef"])
def test_an_unknown_field_has_to_have_differed_in_every_event(letters: str) -> None:
    *values, last, other = drawn(9, 16, letters)
    assert weight("trace", values, last, last) == 7.0
    assert weight("trace", values, last, other) == NEVER
    assert weight("trace", values[:2], last, last) == 0.0
    assert weight("trace", [*values, values[-1]], last, last) == 0.0  # the same under another text
    assert weight("trace", [*values, values[0]], last, last) == 0.0  # the same later


@pytest.mark.parametrize(
    "values",
    [
        [f"2026-11-02T10:00:00.{ms:03}Z" for ms in (1, 24, 51, 70, 91, 111)],
        [f"{0x6543210000 + 3571 * step:012x}" for step in range(1, 7)],
        [f"event-{number:08}" for number in range(9)],
        ["inference-node-07", "inference-node-12", "inference-node-03", "inference-node-18", "inference-node-01"],
        ["stockholm", "amsterdam-a", "marseille", "edinburgh-2", "barcelona", "frankfurt-b"],
    ],
    ids=["time", "hexadecimal clock", "counter", "nodes", "places"],
)
def test_clocks_counters_and_names_are_none(values: list[str]) -> None:
    assert weight("which", values[:-1], values[-1], values[-1]) == 0.0
    assert weight("which", values[:-1], values[-1], "another") == 0.0


def test_a_clock_known_by_name_is_none() -> None:
    *values, last = drawn(9)
    assert weight("timestamp", values, last, last) == 0.0


def test_what_is_no_text_or_no_json_says_nothing() -> None:
    odd = Event(b"", b"{oops")
    nonces = Nonces()
    for _ in range(6):
        nonces.note(odd)
    assert nonces.judge(Envelope(odd), Envelope(odd)) == NOTHING
    nonces = Nonces()
    for number in range(8):
        nonces.note(event(f" {number}", trace=[number], other=number))
    assert nonces.judge(Envelope(odd), envelope("x", trace="a")) == NOTHING


def test_a_stream_without_nonces_is_not_read_to_its_end() -> None:
    nonces = Nonces()
    for number in range(6):
        nonces.note(event(f" {number}"))
    for value in drawn(9):
        nonces.note(event(f" {value}", obfuscation=value))
    assert nonces.judge(*(envelope("a", obfuscation="xK3f9aQ") for _ in range(2))) == NOTHING


def test_a_shared_padding_is_proven_by_a_third_envelope() -> None:
    one = envelope("a", obfuscation="xK3f9aQ")
    assert same_padding(one, one) == "xK3f9aQ"
    assert other_padding("xK3f9aQ", envelope("b", obfuscation="bT2pLm4")).weight == 7.0
    assert other_padding("xK3f9aQ", one) == other_padding("xK3f9aQ", envelope("b")) == NOTHING
    assert other_padding("abc", envelope("b", p="abcdef")) == NOTHING
    assert same_padding(one, envelope("a", obfuscation="bT2pLm4")) == same_padding(envelope("a"), envelope("a")) == ""

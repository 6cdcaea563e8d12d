"""What an event says of itself besides its text: each factor alone, and what it must not be fooled by."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Event
from actors.sansio.envelope import Envelope, Standstill, counted_anew, judge_repeat, logprobs, sampled_anew, serialiser, usage
from actors.sansio.evidence import NEVER, NOTHING, Evidence
from actors.sansio.stream_facts import StreamFacts


def event(text: str = "x", *, tokens: int | None = None, order: str = "", rates: tuple[float, ...] = (), **fields: Any) -> Event:
    choice: dict[str, Any] = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    if order == "head":
        choice = {"finish_reason": None, "logprobs": None, "delta": {"content": text}, "index": 0}
    elif order == "rest":
        choice = {"delta": {"content": text}, "finish_reason": None, "index": 0, "logprobs": None}
    if rates:
        choice["logprobs"] = {"content": [{"token": text, "logprob": value} for value in rates]}
    body = {"id": "1", "created": 5, **fields, "choices": [choice]} | (
        {"usage": {"completion_tokens": tokens}} if tokens is not None else {}
    )
    (chunk,) = ChunkParser().feed(b"data: " + json.dumps(body).encode() + b"\n\n")
    assert isinstance(chunk, Event)
    return chunk


def facts(*, rises: int = 5, erratic: bool = False, recent: tuple[Event, ...] = ()) -> StreamFacts:
    known = StreamFacts(3.0, -2.5, -2.5)
    known.usage_rises, known.usage_erratic = rises, erratic
    known.recent.extend(recent)
    for one in recent:
        known.nonces.note(one)
    return known


def envelope(text: str = "x", *, tokens: int | None = None, order: str = "", rates: tuple[float, ...] = ()) -> Envelope:
    return Envelope(event(text, tokens=tokens, order=order, rates=rates))


def test_serialiser_order() -> None:
    head, rest, other = envelope(order="head"), envelope(order="rest"), envelope()
    assert head.head_order is True
    assert rest.head_order is False
    assert other.head_order is None
    assert serialiser(head, rest).weight == NEVER
    assert serialiser(head, head) == serialiser(other, other) == NOTHING


def test_usage() -> None:
    assert usage(event(tokens=4), event(tokens=5), facts()).weight == NEVER
    assert usage(event(tokens=4), event(tokens=4), facts()).weight > 5
    assert usage(event(tokens=4), event(tokens=4), facts(rises=0)) == NOTHING
    assert usage(event(tokens=4), event(tokens=4), facts(rises=1)).weight < usage(event(tokens=4), event(tokens=4), facts()).weight
    assert usage(event(tokens=4), event(tokens=4), facts(erratic=True)) == NOTHING
    assert usage(event(tokens=0), event(tokens=0), facts()) == NOTHING  # a counter that is filled in at the end
    assert usage(event(), event(tokens=4), facts()) == NOTHING
    assert usage(event(tokens=5), event(tokens=4), facts()) == NOTHING


@pytest.mark.parametrize(
    ("first", "length", "counts", "proven"),
    [
        (1, 4, (2, 3), [False, True]),  # it goes on to count the answer
        (1, 4, (1, 2, 3), [False, False, False]),  # each chunk's own tokens
        (1, 4, (2, 1, 2, 3), [False, False, False, False]),
        (40, 160, (80,), [True]),  # too many for the next chunk alone
        (40, 160, (41,), [True]),
        (4, 16, (None, 5, 6), [False, False, False]),
    ],
)
def test_a_counter_that_stood_still(first: int, length: int, counts: tuple[int | None, ...], proven: list[bool]) -> None:
    standstill = Standstill(first, length)
    assert [standstill.proven(envelope(" say", tokens=count)) for count in counts] == proven


def test_a_text_that_was_counted_is_no_copy() -> None:
    whole = "The quick brown fox jumps over the dog."
    assert counted_anew(event(tokens=10), event(tokens=20), len(whole), whole)
    assert counted_anew(event(tokens=10), event(tokens=22), len(whole), whole + " The end")
    assert not counted_anew(event(tokens=10), event(tokens=10), len(whole), whole)
    assert not counted_anew(event(tokens=10), event(tokens=12), len(whole), whole + " The end")  # its tail was
    assert not counted_anew(event(), event(tokens=20), len(whole), whole)
    assert sampled_anew(envelope(whole, rates=(-0.5, -0.25)), 0)
    assert not sampled_anew(envelope(whole, rates=(-0.5,)), 0)


def test_logprobs() -> None:
    value, known = -0.3104985, tuple(envelope(f" {number}", rates=(-0.1234567 - number,)) for number in range(3))
    assert logprobs(envelope(rates=(value,)), envelope(rates=(value,)), 0, known).weight > 5
    assert logprobs(envelope(rates=(value,)), envelope(rates=(value - 0.01,)), 0, ()).weight == NEVER
    assert logprobs(envelope(rates=(value,)), envelope(), 0, known) == NOTHING
    assert logprobs(envelope(rates=(value,)), envelope(rates=(value,)), 7, known) == NOTHING
    assert logprobs(envelope(rates=(value,)), envelope(rates=(value,)), 0, known[:2]) == NOTHING  # nothing to compare with
    assert logprobs(envelope(rates=(value,)), envelope(rates=(value,)), 0, (*known, envelope(" 4", rates=(value,)))) == NOTHING


@pytest.mark.parametrize("value", [0.0, -1.19e-07, -0.0004, -9999.0, -100.0, -0.31, -0.0123, -0.5, -1.0625, -0.4990234375])
def test_a_value_that_many_tokens_have_says_nothing(value: float) -> None:
    known = tuple(envelope(f" {number}", rates=(-0.1234567 - number,)) for number in range(3))
    assert logprobs(envelope(rates=(value,)), envelope(rates=(value,)), 0, known) == NOTHING


def test_the_first_finding_against_a_repeat_decides() -> None:
    recent = (event(" a", obfuscation="kT4vQx9"), event(" b", obfuscation="b8WnZ2p"))
    before, now = event(tokens=4, obfuscation="xK3f9aQ"), event(tokens=5, obfuscation="xK3f9aQ")
    assert judge_repeat(before, now, 0, facts(recent=recent)) == Evidence("usage", NEVER)


def test_findings_for_a_repeat_add_up() -> None:
    recent = tuple(event(f" {number}", tokens=number, obfuscation=f"kT4vQ{number}", rates=(-0.1234567 - number,)) for number in range(4))
    before, now = (event(tokens=4, obfuscation="xK3f9aQ", rates=(-0.3104985,)) for _ in range(2))
    found = judge_repeat(before, now, 0, facts(recent=recent))
    assert found.name == "usage+logprobs+nonce"
    assert found.weight > 12


def test_within_one_event_nothing_is_a_repeat() -> None:
    one = event(tokens=4, obfuscation="xK3f9aQ")
    assert judge_repeat(one, one, 0, facts()).weight == NEVER


@pytest.mark.parametrize("rate", ["1" * 400, '"x"', "null", "[]", "9" * 5000])
def test_log_probabilities_that_are_no_numbers_say_nothing(rate: str) -> None:
    data = b'{"choices":[{"index":0,"delta":{"content":"x"},"logprobs":{"content":[{"logprob":%s}]}}]}' % rate.encode()
    assert Envelope(Event(data, data)).logprobs(0) == []


@pytest.mark.parametrize("data", [b"{", b"[1]", b'{"obfuscation":1}', b'{"choices":1}', b"\xff", b"{" * 5000])
def test_odd_data_says_nothing(data: bytes) -> None:
    odd = Event(b"", data)
    assert judge_repeat(odd, Event(b"", data), 0, facts(recent=(odd,) * 4)) == NOTHING

"""What is read by its form is what would have been read from its JSON."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Event
from actors.sansio.event_form import EventForm

TEXTS = st.text(max_size=12) | st.sampled_from(
    ["the quick brown fox", "m", "c1", ":", ",", '","', '":"', "content", "\\", "\u2028", "\x7f", "é", "日本"]
)


def block(text: str, *, field: str = "content", compact: bool = True, ascii_only: bool = False, **more: object) -> bytes:
    value = {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": {field: text}, "finish_reason": None}], **more}
    separators = (",", ":") if compact else (", ", ": ")
    return b"data: " + json.dumps(value, separators=separators, ensure_ascii=ascii_only).encode("utf-8", "replace") + b"\n\n"


def read(raw: bytes) -> Event:
    (event,) = ChunkParser().feed(raw)
    assert isinstance(event, Event)
    return event


def learnt(*texts: str, **more: object) -> EventForm:
    form = EventForm(1000)
    for text in texts:
        form.learn(read(block(text, **more)))  # type: ignore[arg-type]
    return form


@given(
    texts=st.lists(TEXTS, max_size=30),
    fields=st.lists(st.sampled_from(["content", "content", "reasoning_content", "refusal"]), min_size=1, max_size=3),
    compact=st.booleans(),
    ascii_only=st.booleans(),
)
@example(texts=["a", "b", "c", "the quick brown fox", "d", "e"], fields=["content"], compact=True, ascii_only=False)
@example(texts=["a", "b", "c", "m", "n", "o"], fields=["content"], compact=True, ascii_only=False)
@example(texts=["a"] * 5 + ["\n", '"', "\\", "\u2028", "", "b"], fields=["content"], compact=False, ascii_only=False)
def test_every_event_reads_as_if_it_came_alone(texts: list[str], fields: list[str], compact: bool, ascii_only: bool) -> None:
    wire = [
        block(text, field=fields[number * len(fields) // len(texts)], compact=compact, ascii_only=ascii_only)
        for number, text in enumerate(texts)
    ]
    alone = [chunk for raw in wire for chunk in ChunkParser().feed(raw)]
    one_by_one = ChunkParser()
    assert [chunk for raw in wire for chunk in one_by_one.feed(raw)] == alone
    assert ChunkParser().feed(b"".join(wire)) == alone


def test_the_form_is_known_after_a_few_events() -> None:
    form = learnt("a", "b", "c")
    assert form.read(block("x")) is None
    form.learn(read(block("d")))
    assert form.read(block(" more")) == read(block(" more"))
    form.learn(read(block("line\n")))  # which is written with an escape, and has no form to learn
    assert form.read(block("日本")) == read(block("日本"))


@pytest.mark.parametrize("text", ["", "\n", '"', "\\", "\x00", "\u2028"])
def test_a_text_that_may_be_more_than_text_is_read_as_json(text: str) -> None:
    assert learnt("a", "b", "c", "d").read(block(text)) is None
    assert learnt("a", "b", "c", "d").read(block("a").replace(b'"a"', b'"%b"' % text.encode())) is None


def test_invalid_utf8_is_no_text() -> None:
    assert learnt("a", "b", "c", "d").read(block("a").replace(b'"a"', b'"\xff"')) is None


@pytest.mark.parametrize(
    "other",
    [
        block("a", id="c2"),
        block("a", field="reasoning"),
        block("a", usage={"completion_tokens": 2}),
        block("a")[:-1],
        block("a") + block("b"),
        block("a").replace(b'"a"', b"null"),
        block("a" * 1000),
        b"",
    ],
)
def test_another_form_is_left_alone(other: bytes) -> None:
    assert learnt("a", "b", "c", "d").read(other) is None


@pytest.mark.parametrize(
    "raw",
    [
        block("m").replace(b'"content":"m"', b'"content":"\\u006d"'),  # the only "m" that is found is the model's name
        block("content").replace(b'"content"}', b'"cont\\u0065nt"}'),
        block("the quick brown fox", note="the quick brown fox"),
        block("a").replace(b'{"content"', b'{"content":"a","content"'),
        b'data: {"x\\"content":"a","choices":[{"delta":{"content" :"\\u0061"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"a","tool_calls":[{"id":"1"}]}}]}\n\n',
    ],
)
def test_a_place_that_is_not_the_text_is_no_form(raw: bytes) -> None:
    form = learnt("a", "b", "c")
    form.learn(read(raw))
    assert form.read(raw) is None


def test_two_choices_of_which_one_speaks() -> None:
    wire = [b'data: {"choices":[{"index":0,"delta":{}},{"index":1,"delta":{"content":"%d"}}]}\n\n' % number for number in range(8)]
    form = EventForm(1000)
    for raw in wire:
        form.learn(read(raw))
    assert form.read(wire[2]) == read(wire[2])


def test_an_upstream_without_a_form_is_given_up() -> None:
    form = EventForm(1000)
    for number in range(40):
        raw = block("word", nonce=number)
        assert form.read(raw) is None
        form.learn(read(raw))
    assert form.given_up
    kept = learnt("a", "b", "c", "d")
    for number in range(40):
        kept.learn(read(block("word", clock=number)))
        assert kept.read(block("more", clock=number)) == read(block("more", clock=number))
    assert not kept.given_up

"""Texts out, structure in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from server.flights.redaction import redact_block, redact_text


@given(some.text())
def test_a_text_keeps_its_length_its_blanks_and_its_signs_and_nothing_else(text: str) -> None:
    redacted = redact_text(text)
    assert len(redacted) == len(text)
    for before, after in zip(text, redacted, strict=True):
        assert not before.isalnum() or after in "x0〇"
        assert before != " " or after == " "


def _values(document: Any) -> list[str]:
    if isinstance(document, dict):
        return [text for key, value in document.items() for text in ([] if key in ("id", "model") else _values(value))]
    if isinstance(document, list):
        return [text for value in document for text in _values(value)]
    return [document] if isinstance(document, str) else []


_JSON = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53), 2**53) | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    max_leaves=20,
)


@given(some.dictionaries(some.text(), _JSON))
def test_no_string_of_any_document_survives(document: dict[str, Any]) -> None:
    block = b"data: " + json.dumps(document).encode() + b"\n\n"
    try:
        redacted = json.loads(redact_block(block).removeprefix(b"data: "))
    except ValueError:
        return  # it was no JSON that a client could read (a lone surrogate), and was replaced as a whole
    for text in _values(redacted):
        assert not [character for character in text if character.isalnum() and character not in "x0〇"]


def test_the_form_of_a_chunk_stays() -> None:
    block = (
        b'data: {"id":"chatcmpl-1","model":"qwen3","choices":[{"index":0,"delta":{"role":"assistant","content":"My PIN is 1234."},'
        b'"finish_reason":null,"logprobs":{"content":[{"token":"PIN","logprob":-0.5,"bytes":[80,73,78]}]}}]}\n\n'
    )
    document = json.loads(redact_block(block).removeprefix(b"data: "))
    assert document["id"] == "chatcmpl-1"
    assert document["model"] == "qwen3"
    [choice] = document["choices"]
    assert choice["delta"] == {"role": "assistant", "content": "xx xxx xx 0000."}
    assert choice["logprobs"]["content"] == [{"token": "xxx", "logprob": -0.5, "bytes": None}]


@pytest.mark.parametrize(
    ("block", "redacted"),
    [
        (b"data: [DONE]\n\n", b"data: [DONE]\n\n"),
        (b": secret word\n\n", b": xxxxxx xxxx\n\n"),
        (b"event: message\r\ndata: {}\r\n\r\n", b"event: message\r\ndata: {}\r\n\r\n"),
        (b'data: {"choices":[{"delta":{"content":"torn\n\n', b'data: {"xxxxxxx":[{"xxxxx":{"xxxxxxx":"xxxx\n\n'),
        (b"data: " + b"[" * 5000 + b"\n\n", b"data: " + b"[" * 5000 + b"\n\n"),
        (b"data: \xff\xfe raw\n\n", "data: �� xxx\n\n".encode()),
        (b'data: {"my secret key is 42":1}\n\n', b'data: {"xx xxxxxx xxx xx 00":1}\n\n'),
    ],
)
def test_what_is_no_chunk(block: bytes, redacted: bytes) -> None:
    assert redact_block(block) == redacted

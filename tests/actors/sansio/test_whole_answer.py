"""A whole completion restated as the stream that was asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors import Fault, FaultKind
from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Done, Event
from actors.sansio.whole_answer import to_stream

from .machine_script import Stream


def streamed(completion: dict[str, Any]) -> tuple[dict[str, Any], Event]:
    restated = to_stream(json.dumps(completion).encode(), "a")
    assert isinstance(restated, bytes)
    one, done = ChunkParser().feed(restated)
    assert isinstance(one, Event)
    assert isinstance(done, Done)
    return json.loads(one.data), one


def test_a_chat_completion_becomes_one_chunk_and_done() -> None:
    completion = {
        "id": "c1",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hi \u6f22\u2028"}, "finish_reason": "stop", "logprobs": None}
        ],
        "usage": {"completion_tokens": 2},
    }
    data, event = streamed(completion)
    assert data["object"] == "chat.completion.chunk"
    assert data["choices"][0]["delta"] == {"role": "assistant", "content": "Hi \u6f22\u2028"}
    assert "message" not in data["choices"][0]
    assert data["usage"] == {"completion_tokens": 2}
    assert event.finished == (0,)


def test_tool_calls_get_the_index_that_streams_need() -> None:
    calls = [
        {"id": "x", "function": {"name": "f", "arguments": "{}"}},
        {"id": "y", "index": 5, "function": {"name": "g", "arguments": "{}"}},
    ]
    data, event = streamed({"choices": [{"message": {"tool_calls": calls}, "finish_reason": "tool_calls"}]})
    assert [call["index"] for call in data["choices"][0]["delta"]["tool_calls"]] == [0, 5]
    assert data["choices"][0]["index"] == 0
    assert [delta.call_index for delta in event.deltas] == [0, 5]


def test_a_legacy_completion_keeps_its_text() -> None:
    data, event = streamed({"object": "text_completion", "choices": [{"text": "Hi", "finish_reason": "stop"}, {"text": "Ho"}]})
    assert [delta.text for delta in event.deltas] == ["Hi", "Ho"]
    assert event.choices == (0, 1)
    assert data["object"] == "text_completion"


def test_the_pipeline_takes_it_for_a_whole_stream() -> None:
    restated = to_stream(b'{"choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}]}', "a")
    assert isinstance(restated, bytes)
    stream = Stream()
    stream.start()
    stream.data(restated)
    assert stream.text() == "Hello"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"choices":null}',
        b'{"choices":7}',
        b'{"choices":[7]}',
        b'{"choices":["x"]}',
        b'{"choices":[{"message":null}]}',
        b'{"choices":[{"message":{"tool_calls":[7]}}]}',
        b'{"choices":{"a":1}}',
        b'{"choices":[{"message":{"content":"cut',
        b"[" * 100_000,
    ],
)
def test_what_is_no_completion_is_a_fault(body: bytes) -> None:
    fault = to_stream(body, "a")
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.upstream, fault.http_status) == (FaultKind.BAD_RESPONSE, "a", 502)

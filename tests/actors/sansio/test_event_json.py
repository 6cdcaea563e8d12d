"""What the JSON of one event becomes: its texts, how much of an answer it carries, and the many forms of an error."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Chunk, Delta, Event, Field, InBandError, Malformed, Weight
from actors.sansio.event_json import has_text, read_event


def parse(data: bytes) -> list[Chunk]:
    parser = ChunkParser()
    return parser.feed(data) + parser.close(clean=True)


def one(data: bytes | str | dict[str, Any]) -> Chunk:
    """The only chunk of a block with this data."""
    if isinstance(data, dict):
        data = json.dumps(data)
    if isinstance(data, str):
        data = data.encode()
    (chunk,) = parse(b"data: " + data + b"\n\n")
    return chunk


def event(data: bytes | str | dict[str, Any]) -> Event:
    chunk = one(data)
    assert isinstance(chunk, Event), chunk
    return chunk


def delta(**fields: object) -> Event:
    return event({"id": "c", "choices": [{"index": 0, "delta": fields, "finish_reason": None}]})


# ---- weights --------------------------------------------------------------------------------------------------------

NOTHING, REASONING, OUTPUT = Weight.NOTHING, Weight.REASONING, Weight.OUTPUT


@pytest.mark.parametrize(
    ("fields", "weight"),
    [
        ({}, NOTHING),
        ({"role": "assistant", "content": ""}, NOTHING),
        ({"role": "assistant", "content": None, "refusal": None, "tool_calls": None, "function_call": None}, NOTHING),
        ({"tool_calls": []}, NOTHING),
        ({"content": " "}, OUTPUT),
        ({"reasoning": "x"}, REASONING),
        ({"reasoning_content": "x", "content": ""}, REASONING),
        ({"reasoning": "", "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}, REASONING),
        ({"reasoning_details": []}, NOTHING),
        ({"reasoning": "x", "content": "y"}, OUTPUT),
        ({"reasoning": "x", "channel": "analysis", "token_id": 5}, REASONING),
        ({"refusal": "x"}, OUTPUT),
        ({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}, OUTPUT),
        ({"tool_calls": [{"custom": {"input": "x"}}]}, OUTPUT),
        ({"function_call": {"name": "f"}}, OUTPUT),
        ({"function_call": {}}, NOTHING),
        ({"audio": {"data": "UklG"}}, OUTPUT),
        ({"annotations": [{"type": "url_citation"}]}, OUTPUT),
        ({"annotations": [], "audio": {"data": None}, "extra": "", "flag": True}, NOTHING),
        ({"content": [{"type": "text", "text": "x"}]}, OUTPUT),
        ({"content": [{"type": "text", "text": ""}], "reasoning": {}}, OUTPUT),
        ({"content": []}, NOTHING),
    ],
)
def test_weight_of_a_delta(fields: dict[str, object], weight: Weight) -> None:
    assert delta(**fields).weight is weight


@pytest.mark.parametrize(
    ("choice", "weight", "finished"),
    [
        ({"delta": {}, "finish_reason": "stop"}, OUTPUT, True),
        ({"delta": {}, "finish_reason": ""}, NOTHING, False),
        ({"delta": {}, "finish_reason": "null"}, NOTHING, False),
        ({"delta": {}, "finish_reason": {"type": "stop"}}, OUTPUT, True),
        ({"text": "x"}, OUTPUT, False),
        ({"text": ""}, NOTHING, False),
        ({"text": ["x"]}, OUTPUT, False),
        ({"message": {"role": "assistant", "content": "x"}}, OUTPUT, False),
        ({"message": {"role": "assistant", "content": ""}}, NOTHING, False),
        ({"message": {"role": "assistant", "content": "full text"}, "delta": {"content": ""}}, NOTHING, False),
        ({"delta": "text"}, OUTPUT, False),
        ({"delta": None}, NOTHING, False),
    ],
)
def test_weight_of_a_choice(choice: dict[str, object], weight: Weight, finished: bool) -> None:
    result = event({"choices": [choice]})
    assert (result.weight, result.finished) == (weight, (0,) if finished else ())


def test_a_choice_that_is_no_object_counts_as_output() -> None:
    assert event('{"choices":["x"]}').weight is OUTPUT
    assert event('{"choices":{"0":{}}}').weight is OUTPUT
    assert event('{"choices":[null]}').weight is NOTHING
    assert event('{"type":"ping"}').weight is NOTHING


# ---- tolerance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "deltas"),
    [
        ('{"choices":[{"delta":{"content":"\\ud83d"}}]}', (Delta(0, Field.CONTENT, "\ud83d"),)),
        ('{"x":NaN,"choices":[{"delta":{"content":"a"}}]}', (Delta(0, Field.CONTENT, "a"),)),
        ('{"choices":[{"index":"1","delta":{"content":"a"}}]}', (Delta(1, Field.CONTENT, "a"),)),
        ('{"choices":[{"index":1.0,"delta":{"content":"a"}}]}', (Delta(1, Field.CONTENT, "a"),)),
        ('{"choices":[{"index":true,"delta":{"content":"a"}}]}', (Delta(0, Field.CONTENT, "a"),)),
        ('{"choices":[{"index":null,"delta":{"content":"a"}}]}', (Delta(0, Field.CONTENT, "a"),)),
        ('{"choices":[null,{"delta":{"content":"a"}}]}', (Delta(0, Field.CONTENT, "a", 1),)),
        ('{"choices":[{"delta":{"content":5,"reasoning":"a"}}]}', (Delta(0, Field.REASONING, "a"),)),
        ('{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"a"}}]}}]}', (Delta(0, Field.TOOL_ARGUMENTS, "a", 0, 0, 0),)),
        (
            '{"choices":[{"delta":{"tool_calls":[{"index":2,"id":"x","function":{"arguments":"a"}}],"y":1}}]}',
            (Delta(0, Field.TOOL_ARGUMENTS, "a", 0, 2, 0, "x"),),
        ),
        (
            '{"choices":[{"delta":{"tool_calls":[{"id":"","function":{"arguments":"a"}}]}}]}',
            (Delta(0, Field.TOOL_ARGUMENTS, "a", 0, 0, 0),),
        ),
        ('{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":{"a":1}}},"x"]}}]}', ()),
        ('{"choices":[{"delta":{"function_call":{"name":"f","arguments":"a"}}}]}', (Delta(0, Field.FUNCTION_ARGUMENTS, "a"),)),
        ('{"choices":[{"delta":{"function_call":{"arguments":"a"},"y":1}}]}', (Delta(0, Field.FUNCTION_ARGUMENTS, "a"),)),
        ('{"created":' + "9" * 5000 + ',"choices":[{"delta":{"content":"a"},"x":"\\ud800"}]}', (Delta(0, Field.CONTENT, "a"),)),
        ('{"choices":null}', ()),
        ("{}", ()),
    ],
)
def test_odd_but_valid_json_passes(data: str, deltas: tuple[Delta, ...]) -> None:
    result = event(data)
    assert (result.deltas, result.data) == (deltas, data.encode())


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.none()
_functions = st.fixed_dictionaries({}, optional={"name": _texts, "arguments": _texts})
_calls = st.fixed_dictionaries({}, optional={"index": st.integers(0, 3) | st.none(), "id": _texts, "function": _functions})
_deltas = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("role", "content", "reasoning", "reasoning_content", "refusal"), _texts)
    | {
        "function_call": _functions,
        "tool_calls": st.lists(_calls, max_size=3),
        "reasoning_details": st.lists(st.just({"text": "x"}), max_size=1),
    },
)
_choices = st.fixed_dictionaries(
    {},
    optional={"index": st.integers(0, 3), "delta": _deltas, "text": _texts, "finish_reason": _texts, "message": st.just({"content": "x"})},
)


@given(choices=st.lists(_choices, max_size=3), tokens=st.none() | st.integers(0, 10**6))
def test_both_readings_agree(choices: list[dict[str, Any]], tokens: int | None) -> None:
    """What the quick reading says of a chunk, the lenient one says too; NaN sends the same chunk there."""
    value: dict[str, Any] = {"id": "c", "choices": choices, "usage": {"completion_tokens": tokens}}
    quick = event(value)
    lenient = event({**value, "nan": float("nan")})
    assert msgspec.structs.replace(lenient, raw=quick.raw, own_data=quick.data) == quick


def test_ids_and_usage() -> None:
    assert event('{"id":17,"choices":[]}').id == "17"
    assert event('{"id":null,"choices":[],"usage":null}').completion_tokens is None
    assert event('{"usage":{"completion_tokens":7}}').completion_tokens == 7
    assert event('{"usage":{"completion_tokens":"7"}}').completion_tokens is None


def test_has_text_looks_into_everything() -> None:
    deep: Any = "x"
    for _ in range(50_000):
        deep = [deep]
    assert has_text(deep)
    assert not has_text([{"a": {"b": ["", None, 0, 1.5, True]}}])


# ---- what is no event -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "may_carry_output"),
    [
        (b"ping", False),
        (b"123", False),
        (b"null", False),
        (b'"ping"', False),
        (b'[{"a":"b"},{}]', False),
        (b'{"id":"x","choi', True),
        (b'x","choices":[]}', True),
        (b'{"a":1} {"b":2}', True),
        (b'{"a":"\x01"}', True),
        (b"[" * 100_000, False),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, True),
    ],
)
def test_malformed(data: bytes, may_carry_output: bool) -> None:
    """FAULTS row 15."""
    (chunk,) = parse(b"data: " + data + b"\n\n")
    assert isinstance(chunk, Malformed)
    assert (chunk.may_carry_output, chunk.oversize) == (may_carry_output, False)
    assert chunk.raw == (b"data: " + data + b"\n\n")[:2048]


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["choices", "delta", "index", "content", "tool_calls", "function", "arguments", "usage", "error", "id", "message"]
                )
                | st.sampled_from(["code", "finish_reason", "text", "reasoning", "function_call", "completion_tokens", "object", "x"]),
                inner,
            )
        ),
        max_leaves=30,
    )
)
def test_any_json_object_is_an_event_or_an_error(value: object) -> None:
    chunk = one(json.dumps({"choices": [{"delta": value}, value], "y": value}))
    assert isinstance(chunk, Event)
    chunk = one(json.dumps({"v": value} if not isinstance(value, dict) else value))
    assert isinstance(chunk, Event | InBandError)


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "message", "type_", "code", "status"),
    [
        (b'data: {"error":{"message":"m","type":"t","code":"c"}}', "m", "t", "c", 0),
        (b'data: {"error":{"message":"m","type":"t","code":429}}', "m", "t", "429", 429),
        (b'data: {"error":{"message":"m","code":"503"}}', "m", "", "503", 503),
        (b'data: {"error":{"message":"m","code":1301,"status":500}}', "m", "", "1301", 500),
        (b'data: {"error":"m"}', "m", "", "", 0),
        (b'data: {"error":"m","code":500,"type":"x"}', "m", "", "500", 500),
        (b'data: {"error":true}', "", "", "", 0),
        (b'data: {"error":{"code":400,"message":"m"},"choices":[{"delta":{"content":""},"finish_reason":"error"}]}', "m", "", "400", 400),
        (b'data: {"object":"error","message":"m","type":"BadRequestError","code":400}', "m", "BadRequestError", "400", 400),
        (b'data: {"code":"InvalidParameter","message":"m","request_id":"r"}', "m", "", "InvalidParameter", 0),
        (b'data: {"code":10013,"message":"m","sid":"s","choices":[]}', "m", "", "10013", 0),
        (b'data: [{"error":{"code":503,"message":"m","status":"UNAVAILABLE"}}]', "m", "", "503", 503),
        (b'event: error\ndata: {"error":{"message":"m"}}', "m", "", "", 0),
        (b'event: error\ndata: {"message":"m","status_code":529}', "m", "", "", 529),
        (b"event: error\ndata: gone\ndata: wrong", "gone\nwrong", "", "", 0),
        (b"event: error\ndata: 5", "", "", "", 0),
        (b'error: {"detail":"d","error":{"message":"m"}}', "m", "", "", 0),
        (b'error: {"code":500,"message":"m","type":"server_error"}', "m", "server_error", "500", 500),
        (b'error:"m"', "m", "", "", 0),
    ],
)
def test_in_band_errors(block: bytes, message: str, type_: str, code: str, status: int) -> None:
    """FAULTS rows 12 and 12b."""
    block += b"\n\n"
    assert parse(block) == [InBandError(block, message, type_, code, status)]


@pytest.mark.parametrize(
    "data",
    [
        '{"error":null,"choices":[{"delta":{"content":"a"}}]}',
        '{"error":{},"choices":[]}',
        '{"error":"","choices":[]}',
        '{"code":0,"message":"Success","choices":[]}',
        '{"code":200,"message":"ok"}',
        '{"code":"x","message":"m","choices":[{"delta":{}}]}',
        '{"message":"no code"}',
        '{"choices":[{"delta":{"content":"{\\"error\\":1}"}}]}',
    ],
)
def test_what_is_no_error(data: str) -> None:
    event(data)


def test_an_error_text_is_bounded() -> None:
    chunk = one({"error": {"message": "x" * 10_000, "type": "y" * 10_000, "code": "z" * 10_000}})
    assert isinstance(chunk, InBandError)
    assert len(chunk.message) + len(chunk.type) + len(chunk.code) < 3000


def test_read_event_without_a_block_of_its_own() -> None:
    assert read_event(b"raw", b'{"choices":[]}') == Event(b"raw", b'{"choices":[]}')

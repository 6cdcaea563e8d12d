"""The rewriter changes the texts it was asked to change and not one byte beside them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunk_rewriter import rewrite
from actors.sansio.chunks import Chunk, Event, Field

ROOT = Path(__file__).parents[3]
RECORDINGS = sorted((ROOT / "tests" / "recordings").glob("*.sse"))
CORPUS = sorted((ROOT.parent / "shared" / "corpus").glob("*.sse"))


def parse(data: bytes) -> list[Chunk]:
    parser = ChunkParser()
    return parser.feed(data) + parser.close(clean=True)


def event(data: bytes | str, prefix: bytes = b"data: ", end: bytes = b"\n\n") -> Event:
    (chunk,) = parse(prefix + (data.encode() if isinstance(data, str) else data) + end)
    assert isinstance(chunk, Event)
    return chunk


def data_of(block: bytes | None) -> bytes:
    assert block is not None
    (chunk,) = parse(block)
    assert isinstance(chunk, Event)
    assert chunk.raw == block
    return chunk.data


def put(value: Any, original: Event, number: int, text: str) -> None:
    """The same change, made on the decoded value."""
    delta = original.deltas[number]
    choice = value["choices"][delta.position]
    match delta.field:
        case Field.TEXT:
            choice["text"] = text
        case Field.FUNCTION_ARGUMENTS:
            choice["delta"]["function_call"]["arguments"] = text
        case Field.TOOL_ARGUMENTS:
            choice["delta"]["tool_calls"][delta.call_position]["function"]["arguments"] = text
        case field:
            choice["delta"][field] = text


ODD = (
    '{ "id" : "x",\t"created":1.50, "choices" : [ {"logprobs":{"content":[{"token":"}{","logprob":-0.10}]},"index": 0 ,'
    '"delta":{"a":"\\"},{[","content":"a\\"b\\\\" , "x":[{"content":"no"},[]], "reasoning":"r"} },{"index":1,"delta":{"content":"é🚀"}}'
    ' ] ,"usage":null,"z":1e3}'
)


def test_every_other_byte_stays() -> None:
    block = rewrite(event(ODD), {1: "NEW", 2: "2"})
    assert block == b"data: " + ODD.replace('"a\\"b\\\\"', '"NEW"').replace('"é🚀"', '"2"').encode() + b"\n\n"


def test_only_given_texts_change() -> None:
    """ODD holds reasoning, content and the second choice's content, numbered in that order."""
    original = event(ODD)
    assert [delta.text for delta in original.deltas] == ["r", 'a"b\\', "é🚀"]
    assert data_of(rewrite(original, {0: "R"})) == ODD.replace('"reasoning":"r"', '"reasoning":"R"').encode()
    assert rewrite(original, {}) == original.raw


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('{"choices":[{"text":"a","index":0}]}', '{"choices":[{"text":"Z","index":0}]}'),
        (
            '{"choices":[{"delta":{"function_call":{"name":"f","arguments":"a"}}}]}',
            '{"choices":[{"delta":{"function_call":{"name":"f","arguments":"Z"}}}]}',
        ),
        (
            '{"choices":[{"delta":{"tool_calls":[{"index":0},{"index":1,"function":{"arguments":"a"}}]}}]}',
            '{"choices":[{"delta":{"tool_calls":[{"index":0},{"index":1,"function":{"arguments":"Z"}}]}}]}',
        ),
        ('{"choices":[{"delta":{"refusal":"a"}}]}', '{"choices":[{"delta":{"refusal":"Z"}}]}'),
        ('{"choices":[null,{"delta":{"content":"a"}}]}', '{"choices":[null,{"delta":{"content":"Z"}}]}'),
        # of duplicate names the last one counts; names may be escaped; the same name elsewhere is another thing
        (
            '{"choices":[],"choices":[{"delta":{"content":"b","content":"a"}}]}',
            '{"choices":[],"choices":[{"delta":{"content":"b","content":"Z"}}]}',
        ),
        ('{"\\u0063hoices":[{"delta":{"conten\\u0074":"a"}}]}', '{"\\u0063hoices":[{"delta":{"conten\\u0074":"Z"}}]}'),
        ('{"x":{"choices":[{"delta":{"content":"b"}}]},"choices":[{"delta":{"content":"a"}}]}', None),
        ('{"choices":[{"delta":{"content":"\\ud83d"},"n":NaN}]}', '{"choices":[{"delta":{"content":"Z"},"n":NaN}]}'),
    ],
)
def test_a_value_is_found_by_its_path(data: str, expected: str | None) -> None:
    expected = expected or data.replace('"a"', '"Z"')
    assert data_of(rewrite(event(data), {0: "Z"})) == expected.encode()


@pytest.mark.parametrize("text", ["\ud83d", "\udc00x", "a\nb\r\0", '"\\/', "\u2028\u2029\x85", "你好🚀", "</script>"])
def test_any_text_survives(text: str) -> None:
    block = rewrite(event('{"choices":[{"delta":{"content":"a"}}]}'), {0: text})
    assert block is not None
    assert block.isascii()
    assert json.loads(data_of(block))["choices"][0]["delta"]["content"] == text


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b'data:{"choices":[{"text":"a"}]}\n\n', b'data:{"choices":[{"text":"Z"}]}\n\n'),
        (b'data: {"choices":[{"text":"a"}]}\r\n\r\n', b'data: {"choices":[{"text":"Z"}]}\n\n'),
        (b'data: {"choices":[{"text":"a"}]}\r\r', b'data: {"choices":[{"text":"Z"}]}\n\n'),
        (
            b'id: 7\ndata: {"choices":\ndata: [{"text":"a"}]}\nevent: x\n\n',
            b'id: 7\ndata: {"choices":\ndata: [{"text":"Z"}]}\nevent: x\n\n',
        ),
        (b': "a"\ndata: {"choices":[{"text":"a"}]}\n\n', b': "a"\ndata: {"choices":[{"text":"Z"}]}\n\n'),
    ],
)
def test_framing_around_the_data_is_kept(block: bytes, expected: bytes) -> None:
    (original,) = parse(block)
    assert isinstance(original, Event)
    assert rewrite(original, {0: "Z"}) == expected


# ---- the envelope and the role --------------------------------------------------------------------------------------


def test_envelope_replaces_scalars_that_exist() -> None:
    original = event('{"id":"a","created": 1,"model":null,"usage":{"id":"a"},"choices":[{"id":"a","text":"t"}]}')
    block = rewrite(original, {}, {"id": 'n"', "created": 2, "model": "m", "system_fingerprint": "absent", "usage": 5})
    assert data_of(block) == b'{"id":"n\\"","created": 2,"model":"m","usage":{"id":"a"},"choices":[{"id":"a","text":"t"}]}'


def test_envelope_alone_never_drops_an_event() -> None:
    assert rewrite(event('{"id":"a","choices":[]}'), {}, {"id": "b"}) == b'data: {"id":"b","choices":[]}\n\n'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"role":"assistant","content":"x"}', '{"content":"x"}'),
        ('{"content":"x" , "role":"assistant"}', '{"content":"x"}'),
        ('{"content":"x","role":"assistant","y":1}', '{"content":"x","y":1}'),
        ('{ "role":"a", "role":"b", "content":"x", "role":"c"}', '{ "content":"x"}'),
        ('{"content":"x"}', '{"content":"x"}'),
    ],
)
def test_drop_role(before: str, after: str) -> None:
    original = event('{"choices":[{"delta":' + before + "}]}")
    assert data_of(rewrite(original, {}, drop_role=True)) == ('{"choices":[{"delta":' + after + "}]}").encode()


@pytest.mark.parametrize("delta", ['{"role":"assistant"}', '{"role":"assistant","content":""}', '{"role":"a","role":"b"}', "{}", "null"])
def test_a_role_chunk_without_its_role_is_nothing(delta: str) -> None:
    assert rewrite(event('{"id":"a","choices":[{"delta":' + delta + ',"finish_reason":null}]}'), {}, drop_role=True) is None


def test_drop_role_together_with_texts() -> None:
    original = event('{"choices":[{"delta":{"role":"assistant","content":"a"}},{"delta":{"content":"b","role":"x"}},{"index":2}]}')
    block = rewrite(original, {0: "A", 1: ""}, drop_role=True)
    assert data_of(block) == b'{"choices":[{"delta":{"content":"A"}},{"delta":{"content":""}},{"index":2}]}'
    assert rewrite(original, {0: "", 1: ""}, drop_role=True) is None
    assert rewrite(original, {0: "", 1: ""}) is not None


# ---- what is left ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rest",
    [
        "",
        ',"finish_reason":null,"logprobs":null,"index":0',
        ',"logprobs":{"content":[]}',
        ',"content_filter_results":{}',
    ],
)
def test_an_emptied_event_goes(rest: str) -> None:
    for delta in ('{"content":"a"}', '{"content":"a","tool_calls":null,"refusal":null,"audio":{},"annotations":[],"reasoning":""}'):
        assert rewrite(event('{"usage":null,"choices":[{"delta":' + delta + rest + "}]}"), {0: ""}) is None


def test_emptied_arguments_go() -> None:
    call = '{"index":0,"type":"function","function":{"arguments":"a"}}'
    assert rewrite(event('{"choices":[{"delta":{"tool_calls":[' + call + "]}}]}"), {0: ""}) is None
    assert rewrite(event('{"choices":[{"delta":{"function_call":{"arguments":"a"}}}]}'), {0: ""}) is None


@pytest.mark.parametrize(
    "data",
    [
        '{"usage":{"completion_tokens":1},"choices":[{"delta":{"content":"a"}}]}',
        '{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}',
        '{"choices":[{"delta":{"content":"a","role":"assistant"}}]}',
        '{"choices":[{"delta":{"content":"a","reasoning":"r"}}]}',
        '{"choices":[{"delta":{"content":"a","audio":{"id":"x"}}}]}',
        '{"choices":[{"delta":{"content":"a","unknown":0}}]}',
        '{"choices":[{"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":0}]}}]}',
        '{"choices":[{"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}',
        '{"choices":[{"delta":{"content":"a"}},{"index":1,"finish_reason":"stop"}]}',
        '{"choices":[{"delta":{"content":"a","tool_calls":[{"index":0,"id":"x"}]}}]}',
        '{"choices":[{"delta":{"content":"a","tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}',
        '{"choices":[{"delta":{"content":"a","function_call":{"name":"f"}}}]}',
        '{"choices":[{"delta":{"content":"a"}},"odd"]}',
    ],
)
def test_an_emptied_event_with_anything_else_stays(data: str) -> None:
    original = event(data)
    number = next(i for i, delta in enumerate(original.deltas) if delta.text == "a")
    assert data_of(rewrite(original, {number: ""})) == data.replace('"content":"a"', '"content":""').encode()


# ---- properties -----------------------------------------------------------------------------------------------------

_any_text = st.text(st.characters(codec=None, exclude_categories=[]), max_size=8)
_json = st.recursive(
    st.none() | st.integers() | st.text(max_size=4), lambda v: st.lists(v, max_size=2) | st.dictionaries(st.text(max_size=3), v, max_size=2)
)
_call = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"arguments": _any_text})}, optional={"index": st.integers(0, 2), "id": _any_text}
)
_delta = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("content", "reasoning", "reasoning_content", "refusal", "role"), _any_text),
        "tool_calls": st.lists(_call, max_size=2),
        "function_call": st.fixed_dictionaries({"arguments": _any_text}),
        "other": _json,
    },
)
_choice = st.fixed_dictionaries({"delta": _delta}, optional={"index": st.integers(0, 2), "text": _any_text, "logprobs": _json})


@given(
    choices=st.lists(_choice, max_size=2),
    other=_json,
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 0, 2]),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    choose=st.data(),
)
def test_random_texts_in_random_chunks(
    choices: list[Any], other: Any, ascii_only: bool, indent: int | None, line_end: bytes, choose: st.DataObject
) -> None:
    value = {"id": "c", "other": other, "choices": choices, "zero": -0.0}
    try:
        lines = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode().split(b"\n")
    except UnicodeEncodeError:  # lone surrogates exist in escaped form only
        lines = json.dumps(value, indent=indent).encode().split(b"\n")
    (original,) = parse(b"".join(b"data: " + line + line_end for line in lines) + line_end)
    assert isinstance(original, Event)
    texts = choose.draw(st.dictionaries(st.integers(0, len(original.deltas) - 1), _any_text) if original.deltas else st.just({}))
    for number, text in texts.items():
        put(value, original, number, text)
    block = rewrite(original, texts)
    if block is None:
        assert texts
        assert not any(texts.get(i) for i in range(len(original.deltas)))
    else:
        assert json.loads(data_of(block)) == value
        assert math.copysign(1, json.loads(data_of(block))["zero"]) == -1
    same = rewrite(original, {i: delta.text for i, delta in enumerate(original.deltas)})
    assert json.loads(data_of(same)) == json.loads(original.data)


@pytest.mark.parametrize("path", [*RECORDINGS, *CORPUS], ids=lambda path: path.stem)
def test_recordings_rewritten(path: Path) -> None:
    for original in parse(path.read_bytes()):
        if isinstance(original, Event):
            expected = json.loads(original.data)
            same = rewrite(original, {i: delta.text for i, delta in enumerate(original.deltas)})
            assert json.loads(data_of(same)) == expected
            for number in range(len(original.deltas)):
                put(expected, original, number, 'n"ew')
            assert json.loads(data_of(rewrite(original, dict.fromkeys(range(len(original.deltas)), 'n"ew')))) == expected


def test_a_large_text_is_replaced_in_linear_time() -> None:
    """A pattern that backtracks would need minutes or its whole stack for this."""
    data = '{"choices":[{"x":' + "[" * 400 + '"\\"[{"' + "]" * 400 + ',"delta":{"y":"' + '\\"{[a' * 200_000 + '","content":"a"}}]}'
    assert data_of(rewrite(event(data), {0: "b"})) == data.replace('"content":"a"', '"content":"b"').encode()

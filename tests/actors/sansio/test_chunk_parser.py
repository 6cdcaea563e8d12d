"""The parser as a whole: what each kind of event becomes, on our own recordings, hand-made vectors and, where it is there, the corpus."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Chunk, Comment, Delta, Done, Event, Field, InBandError, Malformed, Weight

ROOT = Path(__file__).parents[3]
RECORDINGS = sorted((ROOT / "tests" / "recordings").glob("*.sse"))
CORPUS = sorted((ROOT.parent / "shared" / "corpus").glob("*.sse"))
assert RECORDINGS


def parse(*reads: bytes, clean: bool = True, max_event: int = 100_000) -> list[Chunk]:
    parser = ChunkParser(max_event)
    return [chunk for read in reads for chunk in parser.feed(read)] + parser.close(clean)


def cuts(data: bytes, points: set[int]) -> list[bytes]:
    edges = [0, *sorted(point for point in points if 0 < point < len(data)), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def text_of(chunks: list[Chunk], field: Field = Field.CONTENT, choice: int = 0) -> str:
    return "".join(d.text for c in chunks if isinstance(c, Event) for d in c.deltas if d.field is field and d.choice == choice)


# ---- splitting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_a_recording_reads_the_same_for_every_cut(path: Path) -> None:
    """FAULTS rows 23, 24 and 27."""
    data = path.read_bytes()
    whole = parse(data)
    for point in range(1, len(data)):
        assert parse(data[:point], data[point:]) == whole
    for step in (1, 2):
        assert parse(*(data[i : i + step] for i in range(0, len(data), step))) == whole
    if path.stem not in ("bom", "bare_lines", "unterminated_done", "malformed"):
        assert b"".join(chunk.raw for chunk in whole) == data


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
@given(points=st.sets(st.integers(0, 2500), max_size=40))
def test_a_recording_reads_the_same_for_random_cuts(path: Path, points: set[int]) -> None:
    data = path.read_bytes()
    assert parse(*cuts(data, points)) == parse(data)


@given(data=st.binary(max_size=300) | st.text('\r\n: {}[]"data:error,\\ud8x\ufeff', max_size=300).map(str.encode), clean=st.booleans())
@example(data=b'data: {"a":"\xff"}\n\n', clean=True)
@example(data=b"event: error\ndata: \xff\n\n", clean=True)
@example(data=b"error: {\xff}\n\n", clean=True)
def test_no_bytes_make_it_raise(data: bytes, clean: bool) -> None:
    whole = parse(data, clean=clean, max_event=100)
    strip = [type(chunk) for chunk in whole]
    assert [type(chunk) for chunk in parse(*(data[i : i + 1] for i in range(len(data))), clean=clean, max_event=100)] == strip


# ---- what the recordings say ----------------------------------------------------------------------------------------


def recording(name: str) -> list[Chunk]:
    return parse((ROOT / "tests" / "recordings" / f"{name}.sse").read_bytes())


def kinds(chunks: list[Chunk]) -> str:
    return "".join(type(chunk).__name__[0] for chunk in chunks)  # Event, Comment, Done, InBandError, Malformed


@pytest.mark.parametrize(
    ("name", "expected", "text"),
    [
        ("plain", "E" * 9 + "D", "The Weight of Paper.\n\nÜnïcode 你好 🚀"),
        ("bom", "EED", "The"),
        ("cr", "EEEED", "ab"),
        ("crlf_message", "EEE", "One two"),
        ("bare_lines", "EEED", "你好，世界"),
        ("comments", "CCEECEEED", "Yes"),
        ("multi_line", "ECCD", "multi"),
        ("reasoning", "EEEEED", "42"),
        ("error_field", "EEI", "So"),
        ("error_event", "EEI", "So"),
        ("error_in_choices", "EEID", "So"),
        ("unterminated_done", "EEED", "x"),
        ("no_done", "EEE", "xy"),
        ("parts", "EEEEED", "Yes"),
        ("surrogates", "EEED", "\ud83d\ude80 up\u2028"),
        ("malformed", "EEMMCMEED", "xy"),
        ("rare_fields", "EEEEEEED", ""),
    ],
)
def test_recordings(name: str, expected: str, text: str) -> None:
    chunks = recording(name)
    assert (kinds(chunks), text_of(chunks)) == (expected, text)


def test_tool_calls_are_addressed() -> None:
    chunks = recording("tools")
    deltas = [d for c in chunks if isinstance(c, Event) for d in c.deltas]
    assert deltas == [
        Delta(0, Field.TOOL_ARGUMENTS, '{"city"', 0, 0, 0),
        Delta(0, Field.TOOL_ARGUMENTS, ':"Ulm"}', 0, 0, 0),
        Delta(0, Field.TOOL_ARGUMENTS, "{}", 0, 1, 0),
    ]
    assert all(c.weight is Weight.OUTPUT for c in chunks[1:-1] if isinstance(c, Event))


def test_choices_keep_their_indexes() -> None:
    chunks = recording("two_choices")
    assert (text_of(chunks, choice=0), text_of(chunks, choice=1)) == ("ab", "ab")
    assert [(c.choices, c.finished) for c in chunks if isinstance(c, Event)] == [((0, 1), ())] * 2 + [((1,), (1,)), ((0,), (0,))]
    (event,) = parse(b'data: {"choices":[{"index":1,"delta":{"content":"a"}},{"index":0,"delta":{"content":"b"}}]}\n\n')
    assert isinstance(event, Event)
    assert event.deltas == (Delta(1, Field.CONTENT, "a", 0), Delta(0, Field.CONTENT, "b", 1))


def test_bare_lines_are_framed_for_clients() -> None:
    """iFlytek's framing. To the letter it is one event, and no client could read it."""
    data = (ROOT / "tests" / "recordings" / "bare_lines.sse").read_bytes()
    chunks = parse(data)
    assert [chunk.raw for chunk in chunks] == [line + b"\n\n" for line in data.splitlines() if line]
    parser = ChunkParser()
    counts = [len(parser.feed(line)) for line in data.splitlines(keepends=True)]
    assert counts == [0, 2, 1, 1, 0]  # only the first one waits


def test_usage_and_ids() -> None:
    chunks = recording("plain")
    assert [c.completion_tokens for c in chunks if isinstance(c, Event)] == [None] * 8 + [7]
    assert {c.id for c in chunks if isinstance(c, Event)} == {"cmpl-1"}


# ---- what is no event -----------------------------------------------------------------------------------------------


def test_an_event_beyond_the_limit() -> None:
    """FAULTS row 22."""
    exact = b'data: {"choices":[]}'
    assert kinds(parse(exact + b"\n\n", max_event=len(exact) + 1)) == "E"
    too_large, after = parse(exact + b"\n\ndata: [DONE]\n\n", max_event=len(exact))
    assert isinstance(too_large, Malformed)
    assert too_large.oversize
    assert too_large.may_carry_output
    assert isinstance(after, Done)


@pytest.mark.parametrize("data", [b"data: [DONE]\n\n", b"data:[DONE]\n\n", b"data: [DONE] \r\n\r\n", b": x\ndata: [DONE]\nid: 1\n\n"])
def test_done(data: bytes) -> None:
    assert parse(data) == [Done(data)]


@pytest.mark.parametrize(
    ("block", "passed"),
    [
        (b": keep-alive\n\n", b": keep-alive\n\n"),
        (b"\n", b"\n"),
        (b"unknown: 1\n\n", b"unknown: 1\n\n"),
        (b"error\n\n", b"error\n\n"),
        (b"error: later\n\n", b"error: later\n\n"),
        (b"error: null\n\n", b"error: null\n\n"),
        # openai-python would parse the empty data of these as JSON and raise
        (b"data:\n\n", b""),
        (b"data\ndata\n\n", b""),
        (b"event: ping\n\n", b""),
        (b"event: error\n\n", b""),
        (b"id: 1\n: note\n\n", b": note\n\n"),
        (b"retry: 3000\n\n", b""),
    ],
)
def test_blocks_that_dispatch_nothing(block: bytes, passed: bytes) -> None:
    assert parse(block) == [Comment(passed)]


def test_invalid_utf8_is_replaced_and_never_passed_on() -> None:
    """FAULTS row 25."""
    for where in (b'{"choices":[{"delta":{"content":"a\xe4\xbdz"}}]}', b'{"m":"\xff","choices":[{"delta":{"content":"a\xef\xbf\xbdz"}}]}'):
        (chunk,) = parse(b"data: " + where + b"\n\n")
        assert isinstance(chunk, Event)
        assert chunk.deltas[0].text == "a\ufffdz"
        assert "\ufffd" in chunk.raw.decode()
    assert parse(b": \xff\n\n") == [Comment(": \ufffd\n\n".encode())]


def test_a_character_cut_by_the_network_stays_whole() -> None:
    data = 'data: {"choices":[{"delta":{"content":"你🚀é"}}]}\n\n'.encode()
    for point in range(len(data)):
        assert text_of(parse(data[:point], data[point:])) == "你🚀é"


def test_a_carriage_return_inside_the_data_is_a_line_end() -> None:
    """White space to a JSON decoder, but what follows it belongs to another line of the block."""
    assert kinds(parse(b'data: {"choices":\r[]}\n\n')) == "M"
    assert kinds(parse(b'data: {"choices":\rdata: []}\n\n')) == "E"


def test_nul_and_line_separators_inside_json() -> None:
    """FAULTS row 26."""
    data = 'data: {"choices":[{"delta":{"content":"a\\u0000b\\n\\nc\u2028\u0085d"}}]}\n\n'.encode()
    assert text_of(parse(data)) == "a\0b\n\nc\u2028\u0085d"


# ---- the end of the body --------------------------------------------------------------------------------------------

CHUNK = b'data: {"choices":[{"delta":{"content":"a"}}]}'


@pytest.mark.parametrize(
    ("tail", "raw"),
    [
        (CHUNK, CHUNK + b"\n\n"),
        (CHUNK + b"\n", CHUNK + b"\n\n"),
        (b"data: [DONE]", b"data: [DONE]\n\n"),
        (b'error: {"message":"x"}', b'error: {"message":"x"}\n\n'),
        (CHUNK[:-1], None),  # FAULTS row 16
        (CHUNK[:-1] + b"\n", None),
        (b"data: ping\n", None),
        (b": comment\n", None),
        (b"dat", None),
    ],
)
def test_an_unterminated_tail(tail: bytes, raw: bytes | None) -> None:
    assert [chunk.raw for chunk in parse(tail, clean=True)] == ([raw] if raw else [])
    assert parse(tail, clean=False) == []


def test_bare_lines_at_the_end_of_the_body() -> None:
    assert kinds(parse(CHUNK + b"\ndata: [DONE]")) == "ED"


def test_data_before_an_error_field_goes_ahead() -> None:
    chunks = parse(CHUNK + b'\nerror: {"message":"m"}\n\n')
    assert kinds(chunks) == "EI"
    assert chunks[0].raw == CHUNK + b"\n\n"


# ---- the corpus -----------------------------------------------------------------------------------------------------

#: Recordings that hold an error; every other one holds none. None of them holds a malformed event.
CORPUS_ERRORS = {
    "gpustack-ruby_llm-chat_with_extended_thinking_gpustack_qwen3_streams_thinking_content_when_available-0",
    "groq-pydantic-ai-test_tool_use_failed_error_streaming_with_text-0",
    "openrouter-pydantic-ai-test_openrouter_stream_error-0",
}


@pytest.mark.skipif(not CORPUS, reason="the recorded streams (../shared/corpus) are not here")
def test_the_corpus_holds_no_malformed_event() -> None:
    errors = set()
    for path in CORPUS:
        data = path.read_bytes()
        chunks = parse(data)
        assert parse(*(data[i : i + 97] for i in range(0, len(data), 97))) == chunks, path.name
        assert not any(isinstance(chunk, Malformed) for chunk in chunks), path.name
        if any(isinstance(chunk, InBandError) for chunk in chunks):
            errors.add(path.stem)
        if path.stem != "spark-zh-iflytek" and data.endswith(b"\n\n"):
            assert b"".join(chunk.raw for chunk in chunks) == data, path.name
    assert errors == CORPUS_ERRORS


@pytest.mark.skipif(not CORPUS, reason="the recorded streams (../shared/corpus) are not here")
def test_the_corpus_texts_are_those_that_json_reads() -> None:
    """An independent, simple-minded reading of the same files finds the same text."""
    for path in CORPUS:
        expected = ""
        for line in path.read_bytes().splitlines():
            name, _, value = line.partition(b":")
            if name != b"data" or value.strip() == b"[DONE]" or (chunk := json.loads(value)).get("error"):
                continue
            for choice in chunk.get("choices") or []:
                texts = [(choice.get("delta") or {}).get("content"), choice.get("text")]
                expected += "".join(text for text in texts if isinstance(text, str))
        found = "".join(
            d.text for c in parse(path.read_bytes()) if isinstance(c, Event) for d in c.deltas if d.field in (Field.CONTENT, Field.TEXT)
        )
        assert found == expected, path.name

"""Is it a stream, a whole answer, or a failure that says 200?"""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.sansio.faults import Fault, FaultKind
from actors.sansio.stream_head import HEAD_LIMIT, HeadSniffer, StreamHead

ROOT = Path(__file__).parents[3]
SSE = "text/event-stream; charset=utf-8"
STREAM = StreamHead(sse=True)
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
ANSWER = (
    b'{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}'
)


def sniff(*reads: bytes, content_type: str = SSE, limit: int = HEAD_LIMIT) -> StreamHead | Fault:
    sniffer = HeadSniffer(content_type, "local", limit)
    for read in reads:
        if verdict := sniffer.feed(read):
            return verdict
    return sniffer.close()


def fault(*reads: bytes, content_type: str = SSE, limit: int = HEAD_LIMIT) -> Fault:
    verdict = sniff(*reads, content_type=content_type, limit=limit)
    assert isinstance(verdict, Fault), verdict
    assert verdict.upstream == "local"
    return verdict


@pytest.mark.parametrize(
    "frame",
    [
        TEXT,
        b'data: {"choices":[{"delta":{"reasoning_content":"Hm"}}]}\n\n',
        b'data: {"choices":[{"delta":{"refusal":"No"}}]}\n\n',
        b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f"}}]}}]}\n\n',
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[{"text":"Hi"}]}\r\n\r\n',
        b"data: [DONE]\n\n",  # after a role chunk it is an answer, though an empty one
    ],
)
def test_the_first_meaningful_frame_commits(frame: bytes) -> None:
    sniffer = HeadSniffer(SSE, "local")
    assert sniffer.feed(b": processing\n\n") is None
    assert sniffer.feed(ROLE) is None
    assert sniffer.feed(b'data: {"choices":[],"usage":{"completion_tokens":0}}\n\n') is None
    assert sniffer.feed(b"data: ping\n\n") is None
    assert sniffer.feed(frame[:-2]) is None
    assert sniffer.feed(frame[-2:]) == STREAM


def test_a_torn_first_frame_commits() -> None:
    """What follows from it is decided by the machine, which has the settings."""
    assert sniff(b'data: {"choices":[{"delta":{"conte\n\n') == STREAM


@pytest.mark.parametrize(
    ("content_type", "mislabelled"),
    [
        ("text/event-stream", False),
        ("Text/Event-Stream;charset=UTF-8", False),
        ("", True),
        ("application/json", True),
        ("text/plain", True),
        ("text/event-streams", True),
    ],
)
def test_real_events_count_whatever_the_content_type(content_type: str, mislabelled: bool) -> None:
    """FAULTS row 13."""
    assert sniff(ROLE, TEXT, content_type=content_type) == StreamHead(sse=True, mislabelled=mislabelled)


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b'{"error":{"message":"slow down","code":429}}', FaultKind.RATE_LIMITED, 429, "rate_limit_exceeded"),
        (b'{"error":{"message":"overloaded","type":"server_error","code":503}}', FaultKind.IN_BAND_ERROR, 503, "upstream_error"),
        (b'{"error":"boom"}', FaultKind.IN_BAND_ERROR, 502, "upstream_error"),
        (
            b'{"object":"error","message":"too long: maximum context length","code":400}',
            FaultKind.CONTEXT_LENGTH,
            400,
            "context_length_exceeded",
        ),
        (b'[{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT"}}]', FaultKind.BAD_REQUEST, 400, "invalid_request_error"),
    ],
)
def test_an_error_inside_a_200_is_restated(body: bytes, kind: FaultKind, status: int, code: str) -> None:
    """FAULTS rows 12 and 12b: as a whole body and as the first event, in every form."""
    for content_type in (SSE, "application/json"):
        for reads in ([body], [b" \n" + body + b"\n"], [body[:9], body[9:]], [b"data: " + body + b"\n\n"], [ROLE, b"data: " + body]):
            told = fault(*reads, content_type=content_type)
            assert (told.kind, told.http_status, told.code) == (kind, status, code)
    if body.startswith(b"{"):
        assert fault(b": hi\n\nerror: " + body + b"\n\n").kind is kind
        assert fault(b"event: error\ndata: " + body + b"\n\n").kind is kind


def test_a_whole_answer_is_relayed_as_it_is() -> None:
    assert sniff(ANSWER, content_type="application/json") == StreamHead(sse=False)
    assert sniff(ANSWER) == StreamHead(sse=False, mislabelled=True)
    assert sniff(b"\xef", b"\xbb\xbf", ANSWER, content_type="application/json") == StreamHead(sse=False)
    assert sniff(b'{"choices":[{"text":""}]}', content_type="application/json") == StreamHead(sse=False)


def test_json_waits_for_its_end() -> None:
    sniffer = HeadSniffer("application/json", "local", 200)
    assert sniffer.feed(ANSWER) is None
    assert sniffer.feed(b" " * 200) == StreamHead(sse=False)  # beyond the limit: it has choices, so it is no error
    assert fault(b'{"a":"' + b"x" * 300 + b'"}', limit=200, content_type="application/json").kind is FaultKind.BAD_RESPONSE


@pytest.mark.parametrize(
    ("body", "content_type", "told"),
    [
        (b'{"status":"ok"}', "application/json", '{"status":"ok"}'),
        (b'{"choices":[]}', "application/json", '{"choices":[]}'),
        (b'{"choices":[{"message":{"con', "application/json", '{"choices":[{"message":{"con'),
        (b"<html><body><h1>502 Bad\x1b Gateway</h1>" + b"<p>x" * 500, "text/html", "502 Bad Gateway x x"),
        (b"<!doctype html><title>Login</title>", SSE, "Login"),
        (b"upstream connect error", "text/plain", "upstream connect error"),
        (b"upstream connect error", SSE, "upstream connect error"),
        (b"no\n\nevents\n\n", "", "no events"),
        (b"\x1f\x8b\x08\x00\xff\xfe", SSE, ""),
        (b"", "application/json", "empty body"),
        (b" \r\n", "text/plain", "empty body"),
    ],
)
def test_what_is_neither_stream_nor_answer(body: bytes, content_type: str, told: str) -> None:
    """FAULTS rows 11 and 12, for a 200."""
    verdict = fault(body, content_type=content_type)
    assert (verdict.kind, verdict.http_status, verdict.code) == (FaultKind.BAD_RESPONSE, 502, "upstream_bad_response")
    assert told in verdict.message
    assert len(verdict.message) < 250
    assert verdict.message.isprintable()
    assert verdict.message in json.loads(verdict.to_json())["error"]["message"]


@pytest.mark.parametrize("body", [b"", b": hi\n\n", ROLE, b"event: ping\n\n", b"data: ping\n\n", ROLE + TEXT[:-9], b'data: {"cho'])
def test_an_end_before_anything_was_said(body: bytes) -> None:
    """FAULTS rows 16 and 17."""
    verdict = fault(body)
    assert (verdict.kind, verdict.http_status) == (FaultKind.TRUNCATED, 502)
    assert "before it said anything" in verdict.message


def test_done_alone_is_an_empty_answer() -> None:
    for reads in ([b"data: [DONE]\n\n"], [b"data: [DONE]"], [b": hi\n\n", b"data: [DONE]\n\n"]):
        verdict = fault(*reads)
        assert verdict.kind is FaultKind.TRUNCATED
        assert "empty answer" in verdict.message


def test_a_frame_without_its_blank_line_counts_at_the_end() -> None:
    assert sniff(ROLE, TEXT.rstrip()) == STREAM


def test_the_limit_commits_to_what_looks_like_a_stream() -> None:
    comment = b": " + b"x" * 97 + b"\n"
    for content_type in (SSE, "text/plain"):
        sniffer = HeadSniffer(content_type, "local", 1000)
        assert [sniffer.feed(comment) for _ in range(10)] == [None] * 10
        assert sniffer.feed(b":") == StreamHead(sse=True, mislabelled=content_type != SSE)
    assert sniff(b"data: " + b"x" * 1000, limit=1000) == STREAM
    assert sniff(b"binary" * 200, limit=1000) == STREAM  # it says it is one
    assert fault(b"binary" * 200, limit=1000, content_type="").kind is FaultKind.BAD_RESPONSE


@given(data=st.binary(max_size=200), content_type=st.sampled_from([SSE, "application/json", ""]), points=st.sets(st.integers(0, 200)))
def test_any_bytes_get_a_verdict(data: bytes, content_type: str, points: set[int]) -> None:
    edges = [0, *sorted(point for point in points if point < len(data)), len(data)]
    assert sniff(*(data[a:b] for a, b in pairwise(edges)), content_type=content_type) == sniff(data, content_type=content_type)


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "recordings").glob("*.sse")), ids=lambda path: path.stem)
def test_our_recordings_are_streams_for_every_cut(path: Path) -> None:
    data = path.read_bytes()
    for content_type in (SSE, "application/json"):
        for point in range(min(len(data), 300)):
            assert sniff(data[:point], data[point:], content_type=content_type) == StreamHead(sse=True, mislabelled=content_type != SSE)

"""How a request is written and a response is read, whatever the pieces it comes in."""

from __future__ import annotations

import gc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import UpstreamDisconnected, UpstreamProtocolError
from actors.http1 import HEAD_BYTES, HEADER_LINES, ResponseParser, encode_head

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: Chunked\r\n\r\n"

# ---- writing ------------------------------------------------------------------------------------------------------------


def test_a_request_is_written_with_our_own_framing_and_without_what_belongs_to_a_connection() -> None:
    headers = [(b"host", b"a"), (b"X-One", b"1"), (b"Expect", b"100-continue"), (b"Transfer-Encoding", b"chunked")]
    headers += [(b"Connection", b"close"), (b"Content-Length", b"77"), (b"upgrade", b"h2c"), (b"x-one", b"2")]
    head = encode_head("POST", b"/v1/x?a=1", headers, 5)
    assert head == b"POST /v1/x?a=1 HTTP/1.1\r\nhost: a\r\nX-One: 1\r\nx-one: 2\r\ncontent-length: 5\r\n\r\n"


@pytest.mark.parametrize(("method", "length", "written"), [("GET", 0, False), ("GET", 3, True), ("POST", 0, True), ("PUT", 0, True)])
def test_a_length_is_said_where_it_means_something(method: str, length: int, written: bool) -> None:
    assert (b"content-length: %d\r\n" % length in encode_head(method, b"/", [], length)) is written


@pytest.mark.parametrize("bad", [b"a\r\nx: y", b"a\ny", b"a\ry", b"a\0"])
def test_a_request_cannot_be_made_two(bad: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        encode_head("GET", b"/", [(b"x", bad)], 0)
    with pytest.raises(UpstreamProtocolError):
        encode_head("GET", b"/", [(bad, b"x")], 0)
    with pytest.raises(UpstreamProtocolError):
        encode_head("GET", b"/" + bad, [], 0)


def test_a_target_is_one_word() -> None:
    with pytest.raises(UpstreamProtocolError):
        encode_head("GET", b"/a HTTP/1.1", [], 0)


# ---- reading ------------------------------------------------------------------------------------------------------------


def parsed(*pieces: bytes, method: str = "POST", closed: bool = False) -> tuple[ResponseParser, bytes]:
    """A parser that has seen `pieces`, and the body that it gave."""
    parser = ResponseParser(method)
    body = b""
    for piece in pieces:
        parser.feed(piece)
        body += parser.take()
    if closed:
        parser.feed(b"")
    parser.close()
    return parser, body


#: Response, its body, whether the connection can be used again. Each ends by its own framing.
WHOLE: dict[str, tuple[bytes, bytes, bool]] = {
    "length": (OK + b"Content-Length: 5\r\n\r\nhello", b"hello", True),
    "no body": (OK + b"Content-Length: 0\r\n\r\n", b"", True),
    "chunked": (CHUNKED + b"3\r\none\r\n5;a=b\r\n\r\ntwo\r\n0\r\n\r\n", b"one\r\ntwo", True),
    "trailers": (CHUNKED + b"3\r\none\r\n0\r\nX-Sum: 1\r\n\r\n", b"one", True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", True),
    "connection: close": (OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
    "HTTP/1.0 keep-alive": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
    "100 and 103 before": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
        b"hello",
        True,
    ),
    "both lengths": (OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n", b"one", False),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
}


@pytest.mark.parametrize("case", WHOLE)
@pytest.mark.parametrize("size", [1, 2, 7, 1 << 20])
def test_a_response_is_the_same_in_whatever_pieces_it_comes(case: str, size: int) -> None:
    data, body, reusable = WHOLE[case]
    parser, read = parsed(*(data[i : i + size] for i in range(0, len(data), size)))
    assert (parser.complete, parser.failure, read, parser.reusable) == (True, None, body, reusable)
    assert parser.status == int(data.rpartition(b"HTTP/1.")[2][2:5])
    assert (b"link", b"</a>") not in parser.headers


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.lists(st.integers(0, 400), max_size=12))
def test_any_chunks_in_any_pieces(chunks: list[bytes], cuts: list[int]) -> None:
    data = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    marks = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    parser, read = parsed(*(data[a:b] for a, b in pairwise(marks)))
    assert read == b"".join(chunks)
    assert parser.reusable


@given(st.binary(min_size=1, max_size=200))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    for start in (b"", OK, CHUNKED):
        assert parsed(start + data, closed=True)[0].over


def test_headers_come_in_lower_case_and_without_the_space_around_them() -> None:
    parser, _ = parsed(OK + b"X-A:  \t b\xe9 c \t\r\nX-Empty:\r\nx-a: 2\r\nContent-Length: 0\r\n\r\n")
    assert parser.headers == [(b"x-a", b"b\xe9 c"), (b"x-empty", b""), (b"x-a", b"2"), (b"content-length", b"0")]


@pytest.mark.parametrize("head", [OK + b"\r\n", b"HTTP/1.0 200 OK\r\n\r\n", OK + b"Transfer-Encoding: identity\r\n\r\n"])
def test_without_a_length_the_body_ends_with_the_connection(head: bytes) -> None:
    parser, read = parsed(head + b"hel", b"lo")
    assert (read, parser.over) == (b"hello", False)
    parser, read = parsed(head + b"hel", b"lo", closed=True)
    assert (parser.complete, parser.failure, read, parser.reusable) == (True, None, b"hello", False)


@pytest.mark.parametrize("head", [OK + b"Content-Length: 5\r\n\r\n", CHUNKED])
def test_the_answer_to_head_has_no_body(head: bytes) -> None:
    parser, _ = parsed(head, method="HEAD")
    assert parser.reusable
    parser, read = parsed(OK + b"Content-Length: 5\r\n\r\nhello", method="HEAD")
    assert (read, parser.complete, parser.reusable) == (b"", True, False)


@pytest.mark.parametrize("keeps", [b"", b"Connection: close\r\n"])
@pytest.mark.parametrize("surplus", [b"x", OK + b"Content-Length: 6\r\n\r\nforged", b"\r\n\r\nHTTP"])
def test_bytes_after_the_end_spoil_the_connection_and_not_the_response(keeps: bytes, surplus: bytes) -> None:
    parser, read = parsed(OK + keeps + b"Content-Length: 5\r\n\r\nhello" + surplus)
    assert (parser.status, parser.complete, parser.failure, read) == (200, True, None, b"hello")
    assert not parser.reusable


@pytest.mark.parametrize(
    ("data", "body", "text"),
    [
        (b"SSH-2.0-x\r\n", b"", "no HTTP"),
        (OK + b"Content-Length: 5x\r\n\r\n", b"", "Content-Length"),
        (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", b"", "Content-Length"),
        (OK + b"Bad Name: 1\r\n\r\n", b"", "header"),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", b"", "transfer-encoding 'gzip, chunked'"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", b"", "switched protocols"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"", "switched protocols"),
        (CHUNKED + b"3\r\none\r\nzz\r\n", b"one", "chunk size"),
        (CHUNKED + b"3\r\none\r\nFFFFFFFFFFFFFFFFF\r\n", b"one", "overflow"),
        (CHUNKED + b"3\r\none5\r\n", b"one", "chunk"),
        (CHUNKED + b"3\r\none\r\n-1\r\n", b"one", "chunk size"),
    ],
)
def test_what_is_no_http_is_told_after_what_came_before_it(data: bytes, body: bytes, text: str) -> None:
    parser, read = parsed(data)
    assert isinstance(parser.failure, UpstreamProtocolError)
    assert text in str(parser.failure)
    assert (read, parser.complete, parser.reusable) == (body, False, False)
    parser.feed(b"more")
    assert parser.take() == b""


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-", "inside the response head"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "inside the response head"),
        (OK + b"Content-Length: 5\r\n\r\nhell", "before the end"),
        (CHUNKED + b"3\r\none\r\n", "before the end"),
        (CHUNKED + b"3\r\non", "before the end"),
    ],
)
def test_an_early_end_says_where(data: bytes, text: str) -> None:
    parser, _ = parsed(*([data] if data else []), closed=True)
    assert isinstance(parser.failure, UpstreamDisconnected)
    assert text in str(parser.failure)


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (OK + b"X-Long: ", b"a" * 1000),
        (OK, b"X-Long: " + b"a" * 1000 + b"\r\n"),
        (b"HTTP/1.1 103 Early Hints\r\n", b"X: " + b"a" * 1000 + b"\r\n\r\nHTTP/1.1 103 Early Hints\r\n"),
        (CHUNKED + b"3;", b"a" * 1000),
        (CHUNKED + b"0\r\nX-Long: ", b"a" * 1000),
    ],
)
def test_what_is_not_body_is_bounded(start: bytes, piece: bytes) -> None:
    parser = ResponseParser("POST")
    parser.feed(start)
    fed = 0
    while not parser.over:
        parser.feed(piece)
        fed += len(piece)
        assert fed < HEAD_BYTES + 8192
    assert isinstance(parser.failure, UpstreamProtocolError)
    assert "exceeded" in str(parser.failure)
    assert fed > HEAD_BYTES - 8192
    parser.close()


def test_a_head_in_one_piece_is_bounded_too_and_a_body_behind_it_is_not_counted() -> None:
    parser, _ = parsed(OK + b"X: " + b"a" * (HEAD_BYTES + 1) + b"\r\nContent-Length: 0\r\n\r\n")
    assert "exceeded" in str(parser.failure)
    parser, read = parsed(OK + b"Content-Length: 100000\r\n\r\n" + b"a" * 100_000)
    assert (len(read), parser.failure) == (100_000, None)


def test_a_long_stream_of_small_chunks_is_no_long_head() -> None:
    parser, read = parsed(CHUNKED, *(b"1\r\n", b"x\r\n") * (HEAD_BYTES // 3))
    assert (len(read), parser.failure) == (HEAD_BYTES // 3, None)


def test_header_lines_are_counted() -> None:
    most = OK + b"X: 1\r\n" * (HEADER_LINES - 1) + b"Content-Length: 0\r\n"
    assert parsed(most + b"\r\n")[0].reusable
    assert "lines" in str(parsed(most + b"X: 1\r\n\r\n")[0].failure)


def test_a_closed_parser_leaves_nothing_to_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            parsed(WHOLE["chunked"][0])
        assert gc.collect() == 0
    finally:
        gc.enable()

"""Heads in plain form: what is taken is what h11 reads, and nothing that a rule of the edge would refuse."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.edge_guard import RequestHead, check_head
from server.edge_head import read_plain_head
from server.settings import EdgeSettings

LIMITS = EdgeSettings()
USUAL = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:8143\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n"
    b"User-Agent: OpenAI/Python 2.8.1\r\nX-Stainless-Retry-Count: 0\r\nAuthorization: Bearer sk-1\r\nContent-Length: 12\r\n\r\n"
)


def with_(*lines: bytes, line: bytes = b"POST /v1/embeddings HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join([line, host, *lines]) + b"\r\n\r\n"


def agrees_with_h11(data: bytes) -> None:
    """If the head is taken, h11 and the rules take it too, and read the same."""
    head = read_plain_head(data, LIMITS)
    if head is None:
        return
    peer = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMITS.max_header_bytes)
    peer.receive_data(data)
    event = peer.next_event()
    assert isinstance(event, h11.Request)
    assert check_head(RequestHead(data[: head.size], event.method, event.target, event.http_version, list(event.headers)), LIMITS) is None
    assert (event.method, event.target.partition(b"?")) == (b"POST", (head.path, b"?" if b"?" in event.target else b"", head.query))
    assert list(event.headers) == head.headers
    assert not peer.they_are_waiting_for_100_continue
    assert peer.trailing_data[0] == data[head.size :]
    assert peer.their_state is h11.SEND_BODY
    body, state = peer.next_event(), b""
    while isinstance(body, h11.Data):
        state, body = state + bytes(body.data), peer.next_event()
    assert state == data[head.size : head.size + head.length]
    assert isinstance(body, h11.EndOfMessage) == (len(data) >= head.size + head.length)
    # A server that answers keeps the connection exactly where we do.
    peer.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
    peer.send(h11.EndOfMessage())
    assert (peer.our_state is not h11.MUST_CLOSE) == head.keeps


def test_what_a_client_sends_is_plain() -> None:
    head = read_plain_head(USUAL + b'{"model":"x"', LIMITS)
    assert head is not None
    assert (head.path, head.query, head.size, head.length, head.keeps) == (b"/v1/chat/completions", b"", len(USUAL), 12, True)
    assert head.headers[0] == (b"host", b"localhost:8143")
    assert head.headers[-2:] == [(b"authorization", b"Bearer sk-1"), (b"content-length", b"12")]
    agrees_with_h11(USUAL + b'{"model":"x"}')


@pytest.mark.parametrize(
    "data",
    [
        USUAL[:-2],
        USUAL.replace(b"POST", b"GET"),
        USUAL.replace(b"/v1/", b"/v2/"),
        USUAL.replace(b"/chat", b"/%63hat"),
        USUAL.replace(b"/v1/", b"http://localhost/v1/"),
        USUAL.replace(b"HTTP/1.1", b"HTTP/1.0"),
        USUAL.replace(b"\r\n", b"\n"),
        USUAL.replace(b": 12", b":12 "),
        USUAL.replace(b": 12", b" : 12"),
        USUAL.replace(b": 12", b": +12"),
        USUAL.replace(b": 12", b": 1_2"),
        USUAL.replace(b": 12", b": 0x12"),
        USUAL.replace(b": 12", b": 12, 12"),
        USUAL.replace(b": 12", b": 1234567890123456"),
        USUAL.replace(b"Host: localhost:8143\r\n", b""),
        USUAL.replace(b"keep-alive", b"Upgrade"),
        USUAL.replace(b"keep-alive", b"close, te"),
        with_(b"Host: b"),
        with_(b"Content-Length: 1", b"Content-Length: 1"),
        with_(b"Connection: close", b"Connection: keep-alive"),
        with_(b"Transfer-Encoding: chunked"),
        with_(b"Content-Length: 3", b"TRANSFER-ENCODING: x"),
        with_(b"Expect: 100-continue"),
        with_(b"Upgrade: h2c"),
        with_(b"X-A: b\r\n c"),
        with_(b"X-A:\r\n\tc"),
        with_(b"X-A: \x00"),
        with_(b"X-A: \xe4"),
        with_(b"X-A: a\tb"),
        with_(b"X A: b"),
        with_(b"X-A: a\rb"),
        with_(b"X-A:"),
        with_(b" X-A: b"),
        with_(*[b"A: b"] * 100),
        with_(b"A: " + b"b" * 16_384),
        with_(line=b"POST /v1/" + b"a" * 8189 + b" HTTP/1.1"),
        with_(line=b"POST  /v1/ HTTP/1.1"),
        with_(line=b"POST /v1/#a HTTP/1.1"),
        b"\r\n" + USUAL,
        b"",
    ],
)
def test_what_is_not_plain_is_left_to_h11(data: bytes) -> None:
    assert read_plain_head(data, LIMITS) is None


@pytest.mark.parametrize("data", [with_(*[b"A: b"] * 99), with_(line=b"POST /v1/" + b"a" * 8188 + b" HTTP/1.1")])
def test_the_limits_are_those_of_the_edge(data: bytes) -> None:
    assert read_plain_head(data, LIMITS) is not None
    agrees_with_h11(data)


_BYTES = [b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b": ", b",", b"\x00", b"\x0b", b"\x80", b"?", b"%", b"/", b"#", b"0", b"1", b"a"]
_LINES = [b"Host: b", b"Content-Length: 0", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Connection: close", b"Upgrade: h2c", b""]
_PIECES = st.sampled_from([*_BYTES, *(line + b"\r\n" for line in _LINES), b"HTTP/1.1", b"POST ", b"Expect: 100-continue\r\n"])


@given(st.lists(st.tuples(st.integers(0, len(USUAL)), st.integers(0, 12), _PIECES), max_size=4))
@example([(len(USUAL) - 4, 2, b"5")])
def test_whatever_is_taken_h11_reads_the_same(changes: list[tuple[int, int, bytes]]) -> None:
    """A usual request with a few bytes cut out and others put in."""
    data = USUAL + b'{"model":"x"}'
    for place, removed, piece in changes:
        data = data[:place] + piece + data[place + removed :]
    agrees_with_h11(data)


_TOKEN = st.text("ABCXYZabcxyz-_019", min_size=1, max_size=12).map(str.encode)
_VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20).map(str.encode)


@given(st.lists(st.tuples(_TOKEN, _VALUE), max_size=6), st.sampled_from([b"", b"?a=b", b"?"]), st.binary(max_size=20))
def test_headers_are_what_h11_makes_of_them(headers: list[tuple[bytes, bytes]], query: bytes, body: bytes) -> None:
    lines = [name + b": " + value for name, value in headers]
    agrees_with_h11(with_(*lines, b"Content-Length: %d" % len(body), line=b"POST /v1/x" + query + b" HTTP/1.1") + body)

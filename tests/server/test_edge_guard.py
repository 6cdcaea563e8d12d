"""The rules for a request's head, on heads as h11 reads them."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.edge_guard import RequestHead, check_head, cut_head, too_large, too_slow, unreadable
from server.settings import EdgeSettings

LIMITS = EdgeSettings(max_headers=5, max_header_bytes=1024, max_target=100)


def head(*lines: bytes, first: bytes = b"GET / HTTP/1.1") -> RequestHead:
    """The head that h11 reads from these lines."""
    raw = b"\r\n".join((first, b"Host: localhost", *lines)) + b"\r\n\r\n"
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    return RequestHead(raw, event.method, event.target, event.http_version, list(event.headers))


def code(given: RequestHead) -> str | None:
    refusal = check_head(given, LIMITS)
    return refusal.code if refusal is not None else None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (head(), None),
        (head(first=b"GET / HTTP/1.0"), None),
        (head(b"Content-Length: 0"), None),
        (head(b"Transfer-Encoding: chunked"), None),
        (head(b"A:", b"B:", b"C:", b"D:"), None),
        (head(b"A:", b"B:", b"C:", b"D:", b"E:"), "too_many_headers"),
        (head(first=b"GET /" + b"a" * 99 + b" HTTP/1.1"), None),
        (head(first=b"GET /" + b"a" * 100 + b" HTTP/1.1"), "uri_too_long"),
        (head(b"A: " + b"a" * 984), None),  # 1024 bytes with its line ends
        (head(b"A: " + b"a" * 985), "headers_too_large"),
        (head(b"content-length: 0", b"TRANSFER-ENCODING: chunked"), "ambiguous_framing"),
        (head(b"Transfer-Encoding: chunked", first=b"POST / HTTP/1.0"), "ambiguous_framing"),
        (head(b"A: a\r\n b"), "folded_header"),
        (head(b"A: a\r\n\tb"), "folded_header"),
        (head(b"A: a\n b"), "folded_header"),
        (head(b"A: a\x01b"), "malformed_request"),
        (head(b"A:\x1fa"), "malformed_request"),
        (head(b"A: a\x7fb"), "malformed_request"),
        (head(b"A: a\tb"), None),
        (head(b"A: \x80\xff"), None),
        (head(b"upgrade: x"), "upgrade_not_supported"),
        (head(b"Upgrade:"), "upgrade_not_supported"),
        (head(first=b"CONNECT a:1 HTTP/1.1"), "method_not_allowed"),
        (head(first=b"GET HTTPS://a/b HTTP/1.1"), None),
        (head(first=b"OPTIONS * HTTP/1.1"), None),
        (head(first=b"GET a/b HTTP/1.1"), "malformed_request"),
        (head(first=b"GET ftp://a/b HTTP/1.1"), "malformed_request"),
        (head(first=b"GET /a#b HTTP/1.1"), "malformed_request"),
        (head(first=b"GET /a?b#c HTTP/1.1"), "malformed_request"),
        (head(first=b"GET http://a/b#c HTTP/1.1"), "malformed_request"),
        (head(first=b"GET / HTTP/0.9"), "http_version_not_supported"),
        (head(first=b"GET / HTTP/2.0"), "http_version_not_supported"),
        (head(first=b"GET / HTTP/1.2"), "http_version_not_supported"),
    ],
)
def test_what_is_refused(given: RequestHead, expected: str | None) -> None:
    assert code(given) == expected


def test_a_refusal_is_an_openai_error_that_names_the_limit() -> None:
    refusal = check_head(head(first=b"GET /" + b"a" * 100 + b" HTTP/1.1"), LIMITS)
    assert refusal is not None
    assert b'"code": "uri_too_long"' in refusal.body()
    assert "edge.max_target = 100" in refusal.message
    assert "edge.header_timeout = 5 s" in too_slow(LIMITS).message
    assert "edge.max_header_bytes = 1024" in too_large(LIMITS).message


@pytest.mark.parametrize(("proposed", "status"), [(400, 400), (431, 431), (501, 501), (418, 400)])
def test_what_h11_cannot_read_keeps_its_status_where_it_says_something(proposed: int, status: int) -> None:
    assert unreadable(proposed, LIMITS).status == status


@given(st.binary(max_size=200))
def test_the_head_is_cut_where_h11_cuts_it(body: bytes) -> None:
    raw = head(b"A: b").raw
    assert cut_head(raw + body) == raw


@given(st.integers(0, len(head(b"A: b").raw) - 1))
def test_half_a_head_is_all_there_is(end: int) -> None:
    assert cut_head(head(b"A: b").raw[:end]) == head(b"A: b").raw[:end]

"""Our reading of HTTP/1.1 beside h11's: the same responses, in the same pieces, mean the same to both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import h11
from hypothesis import event, given, settings
from hypothesis import strategies as st

from actors.http1 import ResponseParser

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Reading:
    """What somebody made of the bytes of a connection, up to its end.

    Args:
      body: as far as it came.
      whole: it came to the end that its framing promised.
      keeps: another request may follow.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    whole: bool
    keeps: bool


def ours(pieces: Sequence[bytes], method: str) -> Reading:
    parser = ResponseParser(method)
    body = b""
    for piece in pieces:
        parser.feed(piece)
        body += parser.take()
    keeps = parser.reusable
    parser.feed(b"")
    parser.close()
    headers = parser.headers if parser.head_complete else []  # before that nobody looks at them
    return Reading(parser.status, headers, body + parser.take(), parser.complete, keeps)


def theirs(pieces: Sequence[bytes], method: str) -> Reading:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "a"), ("content-length", "0")]))
    connection.send(h11.EndOfMessage())
    status, headers, body, whole, keeps = 0, list[tuple[bytes, bytes]](), b"", False, False
    for piece in (*pieces, b""):
        try:
            connection.receive_data(piece)
            while not whole and (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                match event:
                    case h11.Response():
                        status, headers = event.status_code, [(bytes(n), bytes(v)) for n, v in event.headers]
                    case h11.Data():
                        body += bytes(event.data)
                    case h11.EndOfMessage():
                        whole = True
                        keeps = piece != b"" and connection.our_state is h11.DONE and connection.their_state is h11.DONE
                    case h11.ConnectionClosed():
                        break
        except h11.RemoteProtocolError:
            break
    return Reading(status, headers, body, whole, keeps and not connection.trailing_data[0])


# What both take: h11 lets a space stand before a chunk extension's name, llhttp does not; no server writes one.
_NAMES = st.sampled_from([b"x-a", b"Content-Type", b"X-Request-Id", b"set-cookie"])
_VALUES = st.binary(max_size=20).map(lambda b: bytes(c for c in b if 33 <= c < 127 or c > 160))
_INTERIM = st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"])
_EXTENSIONS = st.sampled_from([b"", b";a=b", b';name="x"', b";x"])


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[str, bytes]:
    """A method and the response to it, perhaps cut short."""
    method = draw(st.sampled_from(["POST", "POST", "GET", "HEAD"]))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    status = draw(st.sampled_from([200, 200, 200, 201, 204, 304, 400, 413, 429, 500]))
    lines = [b"HTTP/%b %d Some" % (version, status)]
    lines += [name + b": " + value for name, value in draw(st.lists(st.tuples(_NAMES, _VALUES), max_size=4))]
    lines += draw(st.sampled_from([[], [], [b"Connection: close"], [b"connection: keep-alive"]]))
    body = draw(st.binary(max_size=60))
    framing = draw(st.sampled_from(["length", "chunked", "chunked", "end"]))
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunked" and version == b"1.1":
        lines.append(b"Transfer-Encoding: chunked")
        pieces = [body[i : i + 7] for i in range(0, len(body), 7)]
        chunks = [b"%x%b\r\n%b\r\n" % (len(piece), draw(_EXTENSIONS), piece) for piece in pieces]
        body = b"".join(chunks) + b"0\r\n" + draw(st.sampled_from([b"", b"x-sum: 1\r\n"])) + b"\r\n"
    if status in (204, 304) or method == "HEAD":
        body = b""
    whole = draw(_INTERIM) + b"\r\n".join(lines) + b"\r\n\r\n" + body
    return method, whole[: draw(st.integers(0, len(whole)))] if draw(st.booleans()) else whole


@settings(max_examples=400, deadline=None)
@given(exchanges(), st.lists(st.integers(1, 300), max_size=10))
def test_whatever_the_response_and_the_cuts_both_read_the_same(exchange: tuple[str, bytes], cuts: list[int]) -> None:
    method, data = exchange
    marks = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in pairwise(marks)]
    read, expected = ours(pieces, method), theirs(pieces, method)
    event(f"whole: {expected.whole}, head: {expected.status > 0}")
    if b"HTTP/1.0" in data:
        expected = replace(expected, keeps=read.keeps)  # h11 knows no keep-alive there
    elif method == "HEAD" and not read.keeps:
        expected = replace(expected, keeps=False)  # llhttp is not told that no body follows, and closes where none is announced
    assert read == expected

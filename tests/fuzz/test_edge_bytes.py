"""The edge under bytes that nobody foresaw, over real sockets: it answers or closes, serves the next one, and hides no request.

What is compared is what the upstream saw and what a reader by the letter finds in the same bytes (strict_reading.py): a request that the
upstream sees and that reader does not is a smuggled one, whatever trick it came by.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as hs

from ..e2e.raw_connection import asking, request
from ..e2e.test_edge_vectors import CHUNKED, HIDDEN, NAMED
from .living_edge import LivingEdge, living_edge
from .strict_reading import read_requests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .strict_reading import Told

OK: Final = asking("ok")
#: What an edge may say to bytes; never a 500, which would be a defect of its own.
STATUSES: Final = frozenset({100, 200, 204, 400, 401, 403, 404, 405, 408, 413, 414, 415, 421, 431, 501, 505})
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 (\d{3}) [ -~]*\r\n")
#: An example waits for a deadline of the edge, 0.15 s: a quarter of the profile's examples, with up to eight connections in each.
FUZZ: Final = settings(suppress_health_check=[HealthCheck.too_slow], max_examples=settings().max_examples // 4)

#: What requests are made of, and what is put between their parts to confuse a reader.
PIECES: Final = hs.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b" ", b"\t", b"\0", b"\x0b", b"\x80", b"\xff", b":", b";", b",", b"0", b"-1", b"0x"),
        *(b"GET / HTTP/1.1\r\n", b"GET /healthz HTTP/1.0\r\n", b"HEAD /healthz HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        *(b"POST /v1/chat/completions HTTP/1.1\r\n", b"POST /v1/embeddings HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n", b" HTTP/1.1"),
        *(b"CONNECT a:1 HTTP/1.1\r\n", b"Host: localhost\r\n", b"Host: evil.example\r\n", b"X-A: b\r\n", b"Content-Length:"),
        *(b"0\r\n\r\n", b"5\r\nhello\r\n", b"5;a=b\r\nhello\r\n", b"0\r\nX-A: b\r\n\r\n", b"ffffffffffffffff\r\n", b"00005\r\nhello\r\n"),
        *(OK, b"{}", b"[", HIDDEN, request(OK), b"x" * 300),
    ]
)
#: Lines that another reader might take for the body's length, or for an end of HTTP/1.1.
TRICKS: Final = hs.sampled_from(
    [
        *(
            b"Content-Length: 0",
            b"Content-Length: 5",
            b"Content-Length: +5",
            b"Content-Length: 5, 5",
            b"Content-Length: 0\r\n 5",
            b"content-length:48",
        ),
        *(
            CHUNKED,
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding:\r\n chunked",
            b"Transfer-Encoding : chunked",
            b"Transfer-Encoding: CHUNKED",
        ),
        *(
            b"Transfer-Encoding:",
            b"Transfer_Encoding: chunked",
            b"Transfer-Encoding: chunked\r",
            b"TE: chunked",
            b"Trailer: Content-Length",
        ),
        *(
            b"X-A: b\r\n\tc",
            b"X-A: b\rTransfer-Encoding: chunked",
            b"X-A: b\nTransfer-Encoding: chunked",
            b"X-A: \0",
            b"Connection: content-length",
        ),
        *(
            b"Connection: close",
            b"Connection: keep-alive",
            b"Connection: upgrade",
            b"Upgrade: h2c",
            b"Upgrade: websocket",
            b"Expect: 100-continue",
        ),
    ]
)
WHOLE: Final = [
    request(OK),
    request(None, CHUNKED) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(OK), OK),
    request(None, CHUNKED) + b"%x;a=b\r\n%b\r\n%x\r\n%b\r\n0\r\nX-T: 1\r\n\r\n" % (5, OK[:5], len(OK) - 5, OK[5:]),
    request(OK, line=b"POST /v1/embeddings HTTP/1.1"),
    request(line=b"GET /v1/models HTTP/1.1"),
    request(OK) + HIDDEN,
    request(None, CHUNKED) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(OK), OK) + HIDDEN,
]


@hs.composite
def mutated(draw: hs.DrawFn) -> bytes:
    """A good request to which a few things happened."""
    data = draw(hs.sampled_from(WHOLE))
    for _ in range(draw(hs.integers(1, 4))):
        place = draw(hs.integers(0, len(data)))
        if draw(hs.booleans()):  # between two lines, where it does most harm
            ends = [0, *(found.end() for found in re.finditer(rb"\n", data))]
            place = draw(hs.sampled_from(ends))
        match draw(hs.sampled_from(["trick", "trick", "version", "insert", "delete", "replace", "double", "case", "cut"])):
            case "trick":
                data = data.replace(b"\r\n", b"\r\n" + draw(TRICKS) + b"\r\n", 1)
            case "version":
                data = data.replace(b"HTTP/1.1", draw(hs.sampled_from([b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1"])), 1)
            case "insert":
                data = data[:place] + draw(PIECES) + data[place:]
            case "delete":
                data = data[:place] + data[place + draw(hs.integers(1, 20)) :]
            case "replace":
                data = data[:place] + draw(hs.binary(min_size=1, max_size=2)) + data[place + 1 :]
            case "double":
                data = data[:place] + data[place : place + draw(hs.integers(1, 60))] + data[place:]
            case "case":
                data = data[:place] + data[place : place + 20].swapcase() + data[place + 20 :]
            case _:
                data = data[:place]
    return data


BYTES: Final = hs.one_of(mutated(), hs.lists(PIECES, max_size=12).map(b"".join), hs.binary(max_size=200))
CUTS: Final = hs.lists(hs.integers(1, 400), max_size=3)


@pytest.fixture(scope="module")
def edge() -> Iterator[LivingEdge]:
    with living_edge() as running:
        yield running


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """In pieces, each a write of its own."""
    edges = [0, *sorted(place for place in set(places) if place < len(data)), len(data)]
    return [data[one:other] for one, other in pairwise(edges) if one < other]


def asked_openly(told: Told) -> bool:
    return told.method == b"POST" and b"/v1/" in told.target


def check(edge: LivingEdge, sent: list[bytes], answers: list[bytes]) -> None:
    """Nothing but proper answers, nothing upstream that nobody asked for, and the next one is served."""
    openly = Counter(told.body for data in sent for told in read_requests(data) if asked_openly(told))
    for data, answer in zip(sent, answers, strict=True):
        told = f"{data!r} -> {answer[:300]!r}"
        assert not answer or _STATUS_LINE.match(answer), told
        statuses = [int(status) for status in _STATUS_LINE.findall(answer)]
        assert STATUSES.issuperset(statuses), told
        # One that is refused ends the connection, so there is at most one answer more than there are requests beyond doubt.
        assert len([status for status in statuses if status >= 200]) <= len(read_requests(data)) + 1, told
    edge.canary()
    seen = Counter(body for path, body in edge.take_seen() if path != "/v1/models")
    assert seen <= openly, f"smuggled: {seen - openly}"
    assert edge.failures() == 0, "what a client sent counts against the upstream, and can shut it for the others"


@FUZZ
@given(hs.lists(hs.tuples(BYTES, CUTS), min_size=1, max_size=8))
def test_whatever_bytes_come(edge: LivingEdge, sent: list[tuple[bytes, list[int]]]) -> None:
    check(edge, [data for data, _ in sent], edge.talk(*[cut(data, places) for data, places in sent]))


@FUZZ
@given(hs.lists(hs.tuples(BYTES, CUTS), min_size=1, max_size=8))
def test_whatever_bytes_come_to_the_admin_listener(edge: LivingEdge, sent: list[tuple[bytes, list[int]]]) -> None:
    answers = edge.talk(*[cut(data, places) for data, places in sent], address=edge.admin)
    check(edge, [data for data, _ in sent], answers)


@pytest.mark.parametrize("name", NAMED)
def test_row_53_each_vector_with_its_reading_by_the_letter(name: str, edge: LivingEdge) -> None:
    """The strict reader is no judge of its own: it must find in each vector what the table says the upstream may see."""
    vector = NAMED[name]
    openly = [told for told in read_requests(vector.sent) if asked_openly(told)]
    assert len(openly) >= vector.upstream
    if 400 in vector.statuses or 501 in vector.statuses:
        assert openly == []
    check(edge, [vector.sent], edge.talk([vector.sent]))

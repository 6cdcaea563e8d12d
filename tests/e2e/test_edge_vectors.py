"""Row 53: the byte vectors of the smuggling and abuse table, through the real listener, one connection each.

Each is answered as its row says, once; a request on a new connection is answered afterwards; and the upstream sees what was asked for
openly, never a second request that was hidden in the first.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from server.settings import EdgeSettings

from .raw_connection import asking, connected, request
from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from server.simulator import Simulator

    from .running_proxy import LogTap, RunningProxy

pytestmark = pytest.mark.usefixtures("way")

OK: Final = asking("ok")
#: A whole request, hidden behind or inside another.
HIDDEN: Final = request(asking("ok:text=hidden"))
GET: Final = b"GET /healthz HTTP/1.1"
CHUNKED: Final = b"Transfer-Encoding: chunked"


class Vector(NamedTuple):
    """What is sent and what has to follow.

    Args:
      statuses: of the responses, in this order.
      upstream: requests that the upstream has to see.
      stays: the connection stays open.
    """

    name: str
    sent: bytes
    statuses: tuple[int, ...]
    upstream: int = 0
    stays: bool = False


def length(*values: str) -> bytes:
    """A request whose Content-Length is said in these ways."""
    return request(None, *(f"Content-Length: {value}".encode() for value in values)) + OK + HIDDEN


def coded(*lines: bytes) -> bytes:
    """A chunked request that says so in these lines, with a hidden one behind its last chunk."""
    return request(None, *lines) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(OK), OK) + HIDDEN


def chunks(body: bytes) -> bytes:
    return request(None, CHUNKED) + body


def get(*headers: bytes, line: bytes = GET, host: bytes = b"localhost") -> bytes:
    return request(None, *headers, line=line, host=host)


N: Final = len(OK)

REFUSED: Final = [
    Vector("CL.TE", request(None, b"Content-Length: 6", CHUNKED) + b"0\r\n\r\n" + HIDDEN, (400,)),
    Vector("TE.CL", request(None, CHUNKED, b"Content-Length: 4") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN), (400,)),
    Vector("CL 2 and CL 30", length(str(N), str(N + 30)), (400,)),
    Vector("CL list", length(f"{N}, {N + 30}"), (400,)),
    Vector("CL negative", length("-1"), (400,)),
    Vector("CL with plus", length(f"+{N}"), (400,)),
    Vector("CL hexadecimal", length(hex(N)), (400,)),
    Vector("CL with underscore", length("1_0"), (400,)),
    Vector("CL in Arabic digits", length("٢"), (400,)),
    Vector("CL beyond 64 bits", length("18446744073709551618"), (413,)),
    Vector("TE xchunked", coded(b"Transfer-Encoding: xchunked"), (501,)),
    Vector("TE chunked, identity", coded(b"Transfer-Encoding: chunked, identity"), (501,)),
    Vector("TE gzip, chunked", coded(b"Transfer-Encoding: gzip, chunked"), (501,)),
    Vector("TE twice", coded(CHUNKED, b"Transfer-Encoding: identity"), (501,)),
    Vector("TE with a space before the colon", coded(b"Transfer-Encoding : chunked", b"Content-Length: 3"), (400,)),
    Vector("TE after a vertical tab", coded(b"Transfer-Encoding:\x0bchunked", b"Content-Length: 3"), (400,)),
    Vector("NUL in a value", get(b"X-A: a\x00b"), (400,)),
    Vector("bare CR in a value", get(b"X-A: a\rTransfer-Encoding: chunked"), (400,)),
    Vector("a control character in a value", get(b"X-A: a\x01b"), (400,)),
    Vector("a target without a slash", get(line=b"GET healthz HTTP/1.1"), (400,)),
    Vector("a target with a fragment", get(line=b"GET /healthz#x HTTP/1.1"), (400,)),
    Vector("space in a name", get(b"X A: b"), (400,)),
    Vector("leading space", GET + b"\r\n X-A: b\r\nHost: localhost\r\n\r\n", (400,)),
    Vector("TE on HTTP/1.0", coded(CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0", 1), (400,)),
    Vector("obs-fold", get(b"X-A: b\r\n c"), (400,)),
    Vector("obs-fold with a tab", get(b"X-A: b\r\n\tc"), (400,)),
    Vector("obs-fold of TE", request(b"0\r\n\r\n" + HIDDEN, b"Transfer-Encoding:\r\n chunked"), (400,)),
    Vector("chunk size 0x2", chunks(b"0x2\r\n{}\r\n0\r\n\r\n"), (400,)),
    Vector("chunk size -2", chunks(b"-2\r\n{}\r\n0\r\n\r\n"), (400,)),
    Vector("chunk extension with a bare LF", chunks(b"2;\nxx\r\n{}\r\n0\r\n\r\n" + HIDDEN), (400,)),
    Vector("chunk without its CRLF", chunks(b"2\r\n{}xx0\r\n\r\n" + HIDDEN), (400,)),
    Vector("chunk extension of 64 KiB", chunks(b"2;" + b"x" * 65_536 + b"\r\n{}\r\n0\r\n\r\n"), (431,)),
    Vector("no Host", GET + b"\r\nX-A: b\r\n\r\n", (400,)),
    Vector("two Hosts", get(b"Host: localhost"), (400,)),
    Vector("absolute-form of a foreign host", get(line=b"GET http://evil.example/healthz2 HTTP/1.1"), (421,)),
    Vector("CONNECT", get(line=b"CONNECT upstream:443 HTTP/1.1"), (405,)),
    Vector("HTTP/9.9", get(line=b"GET /healthz HTTP/9.9"), (505,)),
    Vector("HTTP/2.0", get(line=b"GET /healthz HTTP/2.0"), (505,)),
    Vector("Upgrade h2c", get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"), (400,)),
    Vector("Upgrade h2c with a body", request(OK, b"Connection: Upgrade", b"Upgrade: h2c"), (400,)),
    Vector("Upgrade websocket", get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: a"), (400,)),
    Vector("preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", (505,)),
    Vector("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x9c" * 32, (400,)),
    Vector("a header of 64 KiB", get(b"X-A: " + b"a" * 65_536), (431,)),
    Vector("a header of 17 KiB", get(b"X-A: " + b"a" * 17_000), (431,)),
    Vector("101 headers", get(*[b"X-A: b"] * 98), (431,)),
    Vector("1000 headers", get(*[b"X-A: b"] * 1000), (431,)),
    Vector("5000 headers", get(*[b"A: b"] * 5000), (431,)),
    Vector("a path of 8 KiB and one byte", get(line=b"GET /" + b"a" * 8192 + b" HTTP/1.1"), (414,)),
    Vector("a path of 20 KiB", get(line=b"GET /" + b"a" * 20_000 + b" HTTP/1.1"), (414,)),
    Vector("a query of 20 KiB", request(OK, line=b"POST /v1/chat/completions?" + b"a" * 20_000 + b" HTTP/1.1"), (414,)),
]
#: Nothing in them can be refused when it comes, but the end never does: a deadline answers.
BOUNDED: Final = [
    Vector("chunk lines with bare LF", chunks(b"2\n{}\n0\n\n"), (408,)),
    Vector("chunk size beyond 64 bits", chunks(b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n" + HIDDEN), (408,)),
    Vector("stalled body", request(None, b"Content-Length: 1000") + b"{", (408,)),
    Vector("half a head", b"POST /v1/chat/completions HTTP/1.1\r\nHost: loc", (408,)),
    Vector("half a head behind a request", get() + b"POST /v1/chat", (200, 408)),
    Vector("silence", b"", ()),
]
HARMLESS: Final = [
    Vector("CL twice the same", request(OK, b"Content-Length: %d" % N), (200,), 1, stays=True),
    Vector("bare LF", request(OK).replace(b"\r\n", b"\n"), (200,), 1, stays=True),
    Vector("bare LF after the request line", request(OK).replace(b"\r\n", b"\n", 1), (200,), 1, stays=True),
    Vector("trailer Content-Length", chunks(b"%x\r\n%b\r\n0\r\nContent-Length: 5\r\n\r\n" % (N, OK)), (200,), 1, stays=True),
    Vector("absolute-form", get(line=b"GET http://localhost/healthz HTTP/1.1", host=b"evil.example"), (200,), stays=True),
    Vector("absolute-form without a path", get(line=b"GET http://localhost HTTP/1.1"), (200,), stays=True),
    Vector("TRACE", get(line=b"TRACE /healthz HTTP/1.1"), (405,), stays=True),
    Vector("odd path", get(line=b"GET /../..//healthz%2f..%2f HTTP/1.1"), (404,), stays=True),
    Vector("two requests at once", request(OK) + request(OK), (200, 200), 2, stays=True),
    Vector("Expect 200-maybe", request(OK, b"Expect: 200-maybe"), (200,), 1, stays=True),
    Vector("Expect 100-continue", request(OK, b"Expect: 100-continue"), (100, 200), 1, stays=True),
    Vector("HTTP/1.0", request(OK).replace(b"HTTP/1.1", b"HTTP/1.0", 1), (200,), 1),
    Vector("100 headers", get(*[b"X-A: b"] * 97), (200,), stays=True),
    Vector("a path of 8 KiB", get(line=b"GET /" + b"a" * 8191 + b" HTTP/1.1"), (404,), stays=True),
]
NAMED: Final = {vector.name: vector for vector in (*REFUSED, *BOUNDED, *HARMLESS)}


@asynccontextmanager
async def edge(simulator: Simulator, short: bool) -> AsyncIterator[RunningProxy]:
    """A proxy whose deadlines do not hold up the suite. `short`: one of them is what answers."""
    limits = EdgeSettings(header_timeout=0.5, body_timeout=0.5) if short else EdgeSettings()
    async with running_proxy(settings_for({"main": simulator}, edge=limits), simulator) as running:
        yield running


@pytest.mark.parametrize("name", NAMED)
async def test_row_53(name: str, simulator: Simulator, log: LogTap) -> None:
    vector = NAMED[name]
    async with edge(simulator, vector in BOUNDED) as proxy:
        async with connected(proxy.base_url) as connection:
            await connection.send(vector.sent)
            for index, status in enumerate(vector.statuses):
                response = await connection.response()
                assert response.status == status
                last = index == len(vector.statuses) - 1
                assert response.closes == (last and not vector.stays)
                if status >= 400 and not vector.stays:
                    assert response.headers["content-type"] == "application/json"
                    assert response.error["message"]
            if vector.stays:
                await connection.send(get())
                assert (await connection.response()).body == b"ok\n"
            else:
                assert await connection.closed() == b""
        # The canary.
        assert (await proxy.client.post("/chat/completions", asking("ok:text=canary"))).status == 200
    assert [seen.model for seen in simulator.observer.seen] == ["ok"] * vector.upstream + ["ok:text=canary"]
    troubles = [line["event"] for line in log.lines if line["level"] in ("warning", "error")]
    assert set(troubles) <= {"loop_blocked"}  # which is the machine's own affair


@pytest.mark.parametrize("name", ["CL.TE", "TE.CL", "obs-fold", "Upgrade h2c", "TE on HTTP/1.0"])
async def test_row_53_one_that_comes_byte_by_byte_is_refused_all_the_same(name: str, proxy: RunningProxy, simulator: Simulator) -> None:
    async with connected(proxy.base_url) as connection:
        for byte in NAMED[name].sent:
            await connection.send(bytes([byte]))
        assert (await connection.response()).status == 400
    assert simulator.observer.requests == 0


async def test_a_refused_head_request_has_no_body(proxy: RunningProxy) -> None:
    async with connected(proxy.base_url) as connection:
        await connection.send(get(b"Upgrade: h2c", line=b"HEAD /healthz HTTP/1.1"))
        assert (await connection.closed()).endswith(b"\r\n\r\n")


async def test_refusals_are_counted(proxy: RunningProxy) -> None:
    for wrong in (get(b"Upgrade: h2c"), get(line=b"GET / HTTP/1.1", host=b"evil.example")):
        async with connected(proxy.base_url) as connection:
            await connection.send(wrong)
            await connection.closed()
    assert b'evenflow_requests_total{endpoint="other",status_class="4xx"} 2.0' in (await proxy.admin.get("/metrics")).body


@pytest.mark.parametrize("name", ["CL.TE", "Upgrade h2c"])
async def test_the_admin_listener_refuses_them_as_well(name: str, proxy: RunningProxy) -> None:
    async with connected(proxy.proxy.admin_url) as connection:
        await connection.send(NAMED[name].sent)
        assert (await connection.response()).status == 400
        assert await connection.closed() == b""

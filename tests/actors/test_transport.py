"""Our transport over real sockets: requests, responses, early answers, and a name for everything that goes wrong."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import httpx
import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from actors.connection_pool import PoolStatistics
from actors.errors import (
    UpstreamConnectError,
    UpstreamDisconnected,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamTlsError,
)
from actors.transport import Transport

from .scripted_server import (
    BOTH_SCHEMES,
    CHUNKED,
    END,
    HELLO,
    LONG,
    OK,
    Peer,
    Server,
    answers,
    reader_of,
    send,
    serving,
    silent,
    transport_of,
    trust,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .scripted_server import Script


# ---- requests and responses -----------------------------------------------------------------------------------------------


@BOTH_SCHEMES
async def test_a_connection_serves_one_request_after_another(scheme: str) -> None:
    async with serving(answers(HELLO, CHUNKED + b"3\r\none\r\n" + END, HELLO), scheme=scheme) as server, transport_of() as transport:
        told: list[int] = []
        for expected in (b"hello", b"one", b"hello"):
            response = await send(transport, server, connected=lambda: told.append(server.connections))
            assert response.status_code == 200
            assert await whole(response) == expected
        assert (server.connections, len(told)) == (1, 3)
        assert transport.statistics() == PoolStatistics(open=1, idle=1, opened=1, reused=2)


@BOTH_SCHEMES
async def test_httpx_itself_can_use_it(scheme: str) -> None:
    async with serving(answers(HELLO, CHUNKED + b"3\r\none\r\n3\r\ntwo\r\n" + END, HELLO), scheme=scheme) as server:
        async with transport_of() as transport, httpx.AsyncClient(transport=transport) as client:
            assert (await client.post(server.url, json={"a": 1})).text == "hello"
            async with client.stream("GET", server.url) as response:
                assert b"".join([data async for data in response.aiter_raw()]) == b"onetwo"

            async def body() -> AsyncIterator[bytes]:
                yield b"streamed"

            assert (await client.post(server.url, content=body())).text == "hello"
        assert server.connections == 1


async def test_one_read_of_the_network_is_one_item() -> None:
    go_on = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"3\r\none\r\n3\r\ntwo\r\n")
        await go_on.wait()
        await peer.send(b"5\r\nthree\r\n" + END)

    async with serving(script) as server, transport_of() as transport:
        reader = reader_of(await send(transport, server))
        assert await reader.read() == b"onetwo"
        go_on.set()
        assert await reader.read() == b"three"
        assert [await reader.read(), await reader.read()] == [b"", b""]


@BOTH_SCHEMES
async def test_a_long_body_both_ways(scheme: str) -> None:
    size = 3_000_000
    sent: list[int] = []

    async def script(peer: Peer) -> None:
        sent.append((await peer.request()).count(b"x"))
        await peer.send(OK + b"Content-Length: %d\r\n\r\n" % size + b"y" * size)
        await peer.left()

    async with serving(script, scheme=scheme) as server, transport_of() as transport:
        reader = reader_of(await send(transport, server, body=b"x" * size))
        received = 0
        while data := await reader.read():
            assert len(data) <= 65536
            received += len(data)
        assert (sent, received) == ([size], size)
        assert transport.statistics().idle == 1


@pytest.mark.parametrize("response", [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"])
async def test_a_response_without_a_body_needs_no_reading(response: bytes) -> None:
    async with serving(answers(response, HELLO)) as server, transport_of() as transport:
        await send(transport, server, "GET", b"")
        assert transport.statistics().idle == 1
        assert await whole(await send(transport, server)) == b"hello"


async def test_head_has_no_body() -> None:
    async with serving(answers(OK + b"Content-Length: 5\r\n\r\n", HELLO)) as server, transport_of() as transport:
        assert await whole(await send(transport, server, "HEAD", b"")) == b""
        assert await whole(await send(transport, server)) == b"hello"
        assert server.connections == 1


@BOTH_SCHEMES
@pytest.mark.parametrize("head", [OK + b"Connection: close\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
async def test_a_body_may_end_with_its_connection(head: bytes, scheme: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head + b"hel", b"lo")

    async with serving(script, scheme=scheme) as server, transport_of() as transport:
        for _ in range(2):
            assert await whole(await send(transport, server)) == b"hello"
        assert server.connections == 2
        assert transport.statistics().idle == 0


async def test_interim_responses_are_skipped_and_never_asked_for() -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", HELLO)
        await peer.left()

    async with serving(script) as server, transport_of() as transport:
        headers = {"expect": "100-continue", "transfer-encoding": "chunked", "connection": "close"}
        request = httpx.Request("POST", server.url, headers=headers, stream=httpx.ByteStream(b"{}"))
        response = await transport.handle_async_request(request)
        assert (response.status_code, response.headers.get("link")) == (200, None)
        assert await whole(response) == b"hello"
    assert seen == [b"POST /v1?a=1 HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}"]


# ---- a response to a request that is still being sent (FAULTS row 36) --------------------------------------------------------

TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge"


@BOTH_SCHEMES
async def test_an_early_error_stops_the_sending_and_is_reported(scheme: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.stream.receive_some(100)
        await peer.send(TOO_LARGE[:-5])
        await wait_all_tasks_blocked()
        await peer.send(TOO_LARGE[-5:])
        await trio.sleep_forever()  # it neither reads nor closes

    async with serving(script, scheme=scheme) as server, transport_of() as transport:
        response = await send(transport, server, body=LONG)
        assert response.status_code == 413
        assert await whole(response) == b"large"
        assert transport.statistics().idle == 0  # half a request is on it


@BOTH_SCHEMES
async def test_an_early_error_of_a_server_that_closes_is_reported(scheme: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.stream.receive_some(100)
        await peer.send(TOO_LARGE)
        plain = peer.stream.transport_stream if isinstance(peer.stream, trio.SSLStream) else peer.stream
        await plain.send_eof()
        await trio.sleep_forever()

    async with serving(script, scheme=scheme) as server, transport_of() as transport:
        response = await send(transport, server, body=LONG)
        assert response.status_code == 413
        assert await whole(response) == b"large"


async def test_an_early_error_whose_text_does_not_end_is_reported_soon(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05

    async def script(peer: Peer) -> None:
        await peer.stream.receive_some(100)
        await peer.send(TOO_LARGE[:-2])
        await trio.sleep_forever()

    async with serving(script) as server, transport_of() as transport:
        response = await send(transport, server, body=LONG)
        assert (response.status_code, trio.current_time() < 2) == (413, True)
        assert await reader_of(response).read() == b"lar"
        await response.aclose()


async def test_an_early_answer_that_is_no_error_waits_for_the_rest_of_the_request() -> None:
    sizes: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(CHUNKED + b"3\r\none\r\n")
        sizes.append((await peer.request()).count(b"x"))
        await peer.send(END)
        await peer.left()

    async with serving(script) as server, transport_of() as transport:
        assert await whole(await send(transport, server, body=LONG[: 1 << 22])) == b"one"
        assert transport.statistics().idle == 1
    assert sizes == [1 << 22]


# ---- failures -------------------------------------------------------------------------------------------------------------


def says(*pieces: bytes, resets: bool = False) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)
        if resets:
            await wait_all_tasks_blocked()  # what was sent is read before the reset, which would overtake it
            peer.reset()

    return script


async def receive(transport: Transport, server: Server, received: bytearray) -> None:
    """Send a request and keep what comes of its answer."""
    reader = reader_of(await send(transport, server))
    while data := await reader.read():
        received += data


@BOTH_SCHEMES
@pytest.mark.parametrize(
    ("script", "body", "expected", "text"),
    [
        (says(), b"", UpstreamDisconnected, "without an answer"),
        (says(resets=True), b"", UpstreamDisconnected, "Connection reset"),
        (says(b"HTTP/1.1 200 O"), b"", UpstreamDisconnected, "inside the response head"),
        (says(b"I speak no HTTP\r\n"), b"", UpstreamProtocolError, "no HTTP"),
        (says(CHUNKED + b"3\r\none\r\n"), b"one", UpstreamDisconnected, "before the end"),
        (says(CHUNKED + b"3\r\none\r\n", resets=True), b"one", UpstreamDisconnected, "Connection reset"),
        (says(CHUNKED + b"3\r\none\r\nzz\r\n"), b"one", UpstreamProtocolError, "chunk size"),
        (says(HELLO[:-2]), b"hel", UpstreamDisconnected, "before the end"),
    ],
)
async def test_what_goes_wrong_has_a_name(script: Script, body: bytes, expected: type[UpstreamError], text: str, scheme: str) -> None:
    async with serving(script, scheme=scheme) as server, transport_of() as transport:
        received = bytearray()
        with pytest.raises(UpstreamError, match=text) as caught:
            await receive(transport, server, received)
        assert type(caught.value) is expected
        assert received == body  # what came whole is not taken away
        assert (transport.statistics().open, server.connections) == (0, 1)


async def test_bytes_after_the_end_leave_the_response_whole_and_the_connection_unused() -> None:
    async with serving(answers(HELLO + HELLO)) as server, transport_of() as transport:
        for _ in range(2):
            assert await whole(await send(transport, server)) == b"hello"
            assert transport.statistics().open == 0
        assert server.connections == 2


async def test_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        request = httpx.Request("GET", f"http://127.0.0.1:{held.getsockname()[1]}/")
        async with transport_of() as transport:
            with pytest.raises(UpstreamConnectError, match="Connection refused"):
                await transport.handle_async_request(request)


@pytest.mark.parametrize("url", ["ftp://a/", "http:///x", "/x"])
async def test_a_url_that_leads_nowhere(url: str) -> None:
    async with transport_of() as transport:
        with pytest.raises(UpstreamProtocolError, match="URL"):
            await transport.handle_async_request(httpx.Request("GET", url))


async def test_a_certificate_that_is_not_trusted() -> None:
    async with serving(answers(HELLO), scheme="https") as server:
        transport = Transport(trust(trustme.CA()))
        with pytest.raises(UpstreamTlsError, match=r"TLS: .*certificate"):
            await send(transport, server)
        assert transport.statistics().opened == 0


async def test_the_protocol_is_agreed_on_in_the_handshake() -> None:
    agreed: list[str | None] = []

    async def script(peer: Peer) -> None:
        assert isinstance(peer.stream, trio.SSLStream)
        await peer.request()
        agreed.append(peer.stream.selected_alpn_protocol())
        await peer.send(HELLO)

    async with serving(script, scheme="https") as server, transport_of() as transport:
        await whole(await send(transport, server))
    assert agreed == ["http/1.1"]


async def test_the_connect_timer_covers_the_handshake(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with serving(silent) as server, transport_of() as transport:
        url = server.url.replace("http:", "https:")
        began = trio.current_time()
        with pytest.raises(UpstreamTimeout) as caught:
            await transport.handle_async_request(httpx.Request("GET", url, extensions={"timeout": {"connect": 3.0}}))
        assert (caught.value.setting, caught.value.seconds, trio.current_time() - began < 4) == ("timers.connect", 3.0, True)
        await server.done.wait()

"""Our transport over HTTP/2 and real sockets: what it does over HTTP/1.1, and what only HTTP/2 can say."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import httpx
import pytest
import trio
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from trio.testing import wait_all_tasks_blocked

from actors.connection_pool import PoolLimits, PoolStatistics
from actors.errors import UpstreamDisconnected, UpstreamError, UpstreamProtocolError
from actors.http2 import WINDOW

from .http2_server import Http2Peer, hello, over_http2
from .scripted_server import HELLO, LONG, answers, reader_of, send, serving, transport_of, whole

if TYPE_CHECKING:
    from .scripted_server import Peer, Script

PING = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + b"question"


# ---- requests and responses -----------------------------------------------------------------------------------------------


async def test_a_connection_serves_one_request_after_another_and_never_two_at_once() -> None:
    async with serving(hello(), scheme="https") as server, transport_of(http2=True) as transport:
        for _ in range(3):
            response = await send(transport, server)
            assert (response.status_code, response.extensions["http_version"]) == (200, b"HTTP/2")
            assert await whole(response) == b"hello"
        assert transport.statistics() == PoolStatistics(open=1, idle=1, opened=1, reused=2)

    async def slow(peer: Http2Peer) -> None:
        asked = await peer.request()
        assert asked is not None
        await peer.answer(asked.stream, b"one", end=False)
        await peer.left()
        assert len(peer.asked) == 1

    async with serving(over_http2(slow), scheme="https") as server, transport_of(http2=True) as transport:
        readers = [reader_of(await send(transport, server)) for _ in range(3)]
        assert server.connections == 3
        for reader in readers:
            await reader.aclose()


async def test_the_request_is_what_it_is_over_http1_but_for_what_belongs_to_a_connection() -> None:
    seen: list[tuple[list[tuple[bytes, bytes]], bytes]] = []

    async def script(peer: Http2Peer) -> None:
        while (asked := await peer.request()) is not None:
            seen.append((asked.headers, asked.body))
            await peer.answer(asked.stream, b"hello")

    headers = [
        ("Host", "a.example"),
        ("X-One", "1"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("authorization", "Bearer k"),
    ]
    async with serving(over_http2(script), scheme="https") as server, transport_of(http2=True) as transport:
        for method, body in (("POST", b"{}"), ("GET", b"")):
            request = httpx.Request(method, server.url, headers=headers, stream=httpx.ByteStream(body))
            assert await whole(await transport.handle_async_request(request)) == b"hello"
    common = [
        (b":scheme", b"https"),
        (b":authority", b"a.example"),
        (b":path", b"/v1?a=1"),
        (b"x-one", b"1"),
        (b"authorization", b"Bearer k"),
    ]
    assert seen == [
        ([(b":method", b"POST"), *common, (b"content-length", b"2")], b"{}"),
        ([(b":method", b"GET"), *common], b""),
    ]


@pytest.mark.parametrize("text", ["a\r\nb: c", "a\nb", "a\0b"])
async def test_no_header_can_become_two(text: str) -> None:
    async with serving(hello(), scheme="https") as server, transport_of(http2=True) as transport:
        request = httpx.Request("POST", server.url, headers=[(b"host", b"a"), (b"x", text.encode())], stream=httpx.ByteStream(b"{}"))
        with pytest.raises(UpstreamProtocolError, match="does not allow"):
            await transport.handle_async_request(request)


async def test_a_long_body_both_ways() -> None:
    size = 3_000_000

    async def script(peer: Http2Peer) -> None:
        while (asked := await peer.request()) is not None:
            await peer.answer(asked.stream, end=False)
            await peer.send(asked.stream, asked.body, end=True)

    async with serving(over_http2(script), scheme="https") as server, transport_of(http2=True) as transport:
        for _ in range(2):
            assert await whole(await send(transport, server, body=b"x" * size)) == b"x" * size
        assert (server.connections, transport.statistics().idle) == (1, 1)


@pytest.mark.parametrize(("method", "status"), [("GET", 204), ("GET", 304), ("HEAD", 200)])
async def test_a_response_without_a_body_needs_no_reading(method: str, status: int) -> None:
    async def script(peer: Http2Peer) -> None:
        while (asked := await peer.request()) is not None:
            await peer.answer(asked.stream, headers=[(b"content-length", b"5")] if status != 204 else [], status=status)

    async with serving(over_http2(script), scheme="https") as server, transport_of(http2=True) as transport:
        for _ in range(2):
            assert (await send(transport, server, method, b"")).status_code == status
            assert transport.statistics().idle == 1
        assert server.connections == 1


async def test_interim_responses_and_trailers_are_skipped() -> None:
    async def script(peer: Http2Peer) -> None:
        while (asked := await peer.request()) is not None:
            peer.h2.send_headers(asked.stream, [(b":status", b"103"), (b"link", b"</x>")])
            await peer.answer(asked.stream, b"hello", end=False)
            peer.h2.send_headers(asked.stream, [(b"grpc-status", b"0")], end_stream=True)
            await peer.flush()

    async with serving(over_http2(script), scheme="https") as server, transport_of(http2=True) as transport:
        for _ in range(2):
            response = await send(transport, server)
            assert (response.status_code, response.headers.get("link")) == (200, None)
            assert await whole(response) == b"hello"
        assert server.connections == 1


async def test_a_server_without_http2_is_asked_as_ever() -> None:
    async def script(peer: Peer) -> None:
        assert isinstance(peer.stream, trio.SSLStream)
        await answers(HELLO, HELLO)(peer)

    async with serving(script, scheme="https", protocols=["http/1.1"]) as server, transport_of(http2=True) as transport:
        for _ in range(2):
            response = await send(transport, server)
            assert response.extensions["http_version"] == b"HTTP/1.1"
            assert await whole(response) == b"hello"
        assert server.connections == 1


# ---- a response to a request that is still being sent (FAULTS row 36) --------------------------------------------------------


@pytest.mark.parametrize("ending", ["stream", "reset", "nothing"])
async def test_an_early_error_stops_the_sending_and_is_reported(ending: str) -> None:
    async def script(peer: Http2Peer) -> None:
        peer.reads = False  # there is no room for the rest, ever
        while not peer.asked:
            await peer.hear()
        await peer.answer(1, b"large", status=413, end=ending != "nothing")
        if ending == "reset":
            await peer.reset(1, ErrorCodes.NO_ERROR)
        await peer.left()

    async with serving(over_http2(script), scheme="https") as server, transport_of(http2=True) as transport:
        response = await send(transport, server, body=LONG)
        assert response.status_code == 413
        assert await reader_of(response).read() == b"large"
        await response.aclose()
        assert transport.statistics().open == 0  # half a request is on it
        await server.done.wait()


async def test_an_early_answer_that_is_no_error_waits_for_the_rest_of_the_request() -> None:
    size = 1 << 22
    sizes: list[int] = []

    async def script(peer: Http2Peer) -> None:
        while not peer.asked:
            await peer.hear()
        await peer.answer(1, b"one", end=False)
        asked = await peer.request()
        assert asked is not None
        sizes.append(len(asked.body))
        await peer.send(1, b"two", end=True)
        await peer.left()

    async with serving(over_http2(script), scheme="https") as server, transport_of(http2=True) as transport:
        assert await whole(await send(transport, server, body=LONG[:size])) == b"onetwo"
        assert transport.statistics().idle == 1
    assert sizes == [size]


# ---- failures -------------------------------------------------------------------------------------------------------------


def says(*pieces: str, code: ErrorCodes = ErrorCodes.NO_ERROR) -> Script:
    async def script(peer: Http2Peer) -> None:
        await peer.request()
        for piece in pieces:
            match piece:
                case "head":
                    await peer.answer(1, end=False)
                case "one":
                    await peer.answer(1, b"one", end=False)
                case "short":
                    await peer.answer(1, b"one", [(b"content-length", b"9")], end=False)
                    await peer.stream.send_all(bytes([0, 0, 0, 0, 1, 0, 0, 0, 1]))  # the end, which h2 would not say
                case "reset":
                    await peer.reset(1, code)
                case "goaway":
                    await peer.goaway(1, code)
                case "http1":
                    await peer.stream.send_all(HELLO)
                case "nonsense":
                    await peer.stream.send_all(bytes([0, 0, 1, 0, 0, 0, 0, 0, 0, 0]))  # DATA on no stream
                case "half":
                    await peer.stream.send_all(bytes([0, 0, 9, 0, 0]))
                case "tcp reset":
                    await wait_all_tasks_blocked()  # what was sent is read before the reset, which would overtake it
                    assert isinstance(peer.stream, trio.SSLStream)
                    below = peer.stream.transport_stream
                    below.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    below.socket.close()
                case "fin":
                    await peer.close_side()
                case "wait":
                    await peer.left()

    return over_http2(script)


@pytest.mark.parametrize(
    ("script", "body", "expected", "text"),
    [
        (says("fin"), b"", UpstreamDisconnected, "without an answer"),
        (says("tcp reset"), b"", UpstreamDisconnected, "Connection reset"),
        (says("one", "fin"), b"one", UpstreamDisconnected, "before the end"),
        (says("one", "half", "fin"), b"one", UpstreamDisconnected, "before the end"),
        (says("one", "tcp reset"), b"one", UpstreamDisconnected, "Connection reset"),
        (says("one", "goaway", "fin", code=ErrorCodes.INTERNAL_ERROR), b"one", UpstreamDisconnected, r"before the end.*\(INTERNAL_ERROR\)"),
        (says("reset", "wait", code=ErrorCodes.INTERNAL_ERROR), b"", UpstreamDisconnected, "INTERNAL_ERROR"),
        (says("reset", "wait", code=ErrorCodes.REFUSED_STREAM), b"", UpstreamDisconnected, "REFUSED_STREAM"),
        (says("one", "reset", "wait", code=ErrorCodes.CANCEL), b"one", UpstreamDisconnected, "CANCEL"),
        (says("one", "reset", "wait", code=ErrorCodes.PROTOCOL_ERROR), b"one", UpstreamProtocolError, "PROTOCOL_ERROR"),
        (says("reset", "wait", code=ErrorCodes.HTTP_1_1_REQUIRED), b"", UpstreamProtocolError, "HTTP_1_1_REQUIRED"),
        (says("http1", "wait"), b"", UpstreamProtocolError, "a frame of"),
        (says("one", "nonsense", "wait"), b"one", UpstreamProtocolError, "does not speak HTTP/2"),
        (says("short", "wait"), b"one", UpstreamProtocolError, "does not speak HTTP/2"),
    ],
)
async def test_what_goes_wrong_has_a_name(script: Script, body: bytes, expected: type[UpstreamError], text: str) -> None:
    async with serving(script, scheme="https") as server, transport_of(http2=True) as transport:
        received = b""

        async def receive() -> None:
            nonlocal received
            reader = reader_of(await send(transport, server))
            while data := await reader.read():
                received += data

        with trio.fail_after(60), pytest.raises(UpstreamError, match=text) as caught:
            await receive()
        assert type(caught.value) is expected
        assert received == body  # what came whole is not taken away
        assert (transport.statistics().open, server.connections) == (0, 1)


# ---- GOAWAY, and connections that were idle (FAULTS row 35) --------------------------------------------------------------------


async def test_a_server_that_will_close_finishes_what_it_has_begun_and_gets_no_more() -> None:
    """nginx says GOAWAY beside the last of a thousand answers, others when they are restarted. The stream is to go on."""

    async def script(peer: Http2Peer) -> None:
        asked = await peer.request()
        assert asked is not None
        await peer.answer(asked.stream, b"one", end=False)
        await peer.goaway(asked.stream)
        await peer.send(asked.stream, b"two")
        await wait_all_tasks_blocked()
        await peer.send(asked.stream, b"three", end=True)
        await peer.left()

    async with serving(over_http2(script), scheme="https") as server, transport_of(http2=True) as transport:
        for connections in (1, 2):
            assert await whole(await send(transport, server)) == b"onetwothree"
            assert (server.connections, transport.statistics().open) == (connections, 0)


@pytest.mark.parametrize("how", ["goaway", "refused", "closed", "no streams"])
async def test_a_request_that_a_used_connection_did_not_take_is_tried_on_a_new_one(how: str) -> None:
    async def script(peer: Http2Peer) -> None:
        asked = await peer.request()
        assert asked is not None
        if how == "no streams":
            peer.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 0})
        await peer.answer(asked.stream, b"hello")
        late = await peer.request()
        if how == "no streams":
            assert late is None
            return
        assert late is not None
        if how == "goaway":
            await peer.goaway(asked.stream)
        elif how == "refused":
            await peer.reset(late.stream, ErrorCodes.REFUSED_STREAM)
        if how != "closed":
            await peer.left()

    async with serving(over_http2(script), hello(), scheme="https") as server, transport_of(http2=True) as transport:
        for _ in range(2):
            assert await whole(await send(transport, server)) == b"hello"
        assert (server.connections, transport.statistics().open) == (2, 1)


async def test_a_new_connection_that_takes_nothing_is_a_failure_of_the_server() -> None:
    async def script(peer: Http2Peer) -> None:
        await peer.request()
        await peer.goaway(0, ErrorCodes.ENHANCE_YOUR_CALM)
        await peer.left()

    async with serving(over_http2(script), scheme="https") as server, transport_of(http2=True) as transport:
        with pytest.raises(UpstreamDisconnected, match=r"did not take the request \(ENHANCE_YOUR_CALM\)"):
            await send(transport, server)
        assert server.connections == 1


@pytest.mark.parametrize("how", ["goaway", "closed"])
async def test_an_idle_connection_that_the_server_gave_up_gets_no_request(how: str) -> None:
    idle = trio.Event()

    async def script(peer: Http2Peer) -> None:
        asked = await peer.request()
        assert asked is not None
        await peer.answer(asked.stream, b"hello")
        await idle.wait()
        if how == "goaway":
            await peer.goaway(asked.stream)
            await peer.left()
            assert len(peer.asked) == 1

    async with serving(over_http2(script), hello(), scheme="https") as server, transport_of(http2=True) as transport:
        for connections in (1, 2):
            assert await whole(await send(transport, server)) == b"hello"
            assert server.connections == connections
            idle.set()
            await wait_all_tasks_blocked()


async def test_a_server_that_asks_whether_an_idle_connection_lives_is_answered_with_the_next_request() -> None:
    idle = [trio.Event() for _ in range(3)]
    confirmed: list[int] = []

    async def script(peer: Http2Peer) -> None:
        for event in idle:
            asked = await peer.request()
            assert asked is not None
            confirmed.append(len(peer.confirmed))
            await peer.answer(asked.stream, b"hello")
            await event.wait()
            peer.h2.ping(b"are here")
            await peer.flush()

    async with serving(over_http2(script), scheme="https") as server, transport_of(http2=True) as transport:
        for event in idle:
            assert await whole(await send(transport, server)) == b"hello"
            event.set()
            await wait_all_tasks_blocked()
        assert server.connections == 1
    assert confirmed == [0, 1, 2]


async def test_a_server_that_asks_during_a_silence_is_answered_at_once() -> None:
    async def script(peer: Http2Peer) -> None:
        asked = await peer.request()
        assert asked is not None
        for where in ("before the head", "in the body"):
            if where == "in the body":
                await peer.answer(asked.stream, b"one", end=False)
            peer.h2.ping(b"question")
            await peer.flush()
            known = len(peer.confirmed)
            while len(peer.confirmed) == known:
                assert await peer.hear()
        await peer.send(asked.stream, b"two", end=True)
        await peer.left()

    async with serving(over_http2(script), scheme="https") as server, transport_of(http2=True) as transport:
        assert await whole(await send(transport, server)) == b"onetwo"


async def test_pings_without_end_are_no_answer() -> None:
    async def script(peer: Http2Peer) -> None:
        asked = await peer.request()
        assert asked is not None
        await peer.answer(asked.stream, b"one", end=False)
        try:
            while True:
                await peer.stream.send_all(PING * 100)
        except trio.BrokenResourceError:
            pass

    async with serving(over_http2(script), scheme="https") as server, transport_of(http2=True) as transport:
        reader = reader_of(await send(transport, server))
        assert await reader.read() == b"one"
        with trio.fail_after(60), pytest.raises(UpstreamProtocolError, match="nothing of a body"):
            await reader.read()


# ---- leaving --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["sending", "head", "silent", "flowing"])
async def test_whoever_leaves_in_whatever_phase_takes_the_stream_along(phase: str) -> None:
    reached = trio.Event()

    async def script(peer: Http2Peer) -> None:
        if phase == "sending":
            peer.reads = False
            while not peer.asked or len(peer.asked[0].body) < 60_000:
                await peer.hear()
        else:
            await peer.request()
        if phase in ("silent", "flowing"):
            await peer.answer(1, b"one", end=False)
        reached.set()
        if phase == "flowing":
            try:
                while True:
                    await peer.send(1, b"more" * 1000)
            except trio.BrokenResourceError:
                return
        await peer.left()

    async with serving(over_http2(script), scheme="https") as server, transport_of(http2=True) as transport:

        async def ask() -> None:
            reader = reader_of(await send(transport, server, body=LONG if phase == "sending" else b"{}"))
            try:
                while await reader.read():
                    pass
            finally:
                await reader.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await reached.wait()
            if phase != "flowing":
                await wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        assert transport.statistics().open == 0
        with trio.fail_after(60):
            await server.done.wait()  # the server sees us leave


async def test_closing_before_the_end_closes_the_connection() -> None:
    async def script(peer: Http2Peer) -> None:
        asked = await peer.request()
        assert asked is not None
        await peer.answer(asked.stream, b"one", end=False)
        await peer.left()

    async with serving(over_http2(script), scheme="https") as server, transport_of(http2=True) as transport:
        reader = reader_of(await send(transport, server))
        await reader.read()
        with trio.CancelScope() as scope:  # even for whoever is cancelled
            scope.cancel()
            await reader.aclose()
        await reader.aclose()
        assert transport.statistics().open == 0
        with pytest.raises(UpstreamDisconnected, match="closed before its end"):
            await reader.read()
        await server.done.wait()


async def test_a_cancelled_read_can_be_repeated_and_its_connection_used_again() -> None:
    go_on = trio.Event()

    async def script(peer: Http2Peer) -> None:
        asked = await peer.request()
        assert asked is not None
        await peer.answer(asked.stream, b"data: [DONE]\n\n", end=False)
        await go_on.wait()
        peer.h2.end_stream(asked.stream)
        await peer.flush()
        asked = await peer.request()
        assert asked is not None
        await peer.answer(asked.stream, b"hello")
        await peer.left()

    async with serving(over_http2(script), scheme="https") as server, transport_of(http2=True) as transport:
        reader = reader_of(await send(transport, server))
        assert await reader.read() == b"data: [DONE]\n\n"
        with trio.move_on_after(0.01) as scope:
            await reader.read()
        assert scope.cancelled_caught
        go_on.set()
        assert await reader.read() == b""
        await reader.aclose()
        assert await whole(await send(transport, server)) == b"hello"
        assert server.connections == 1


# ---- windows --------------------------------------------------------------------------------------------------------------


async def test_a_server_that_is_faster_than_its_reader_has_to_wait() -> None:
    size = 3 * WINDOW
    full = trio.Event()

    async def script(peer: Http2Peer) -> None:
        asked = await peer.request()
        assert asked is not None
        await peer.answer(asked.stream, end=False)
        left = size
        while peer.h2.local_flow_control_window(asked.stream):
            room = min(peer.h2.local_flow_control_window(asked.stream), 16384)
            peer.h2.send_data(asked.stream, b"x" * room)
            await peer.flush()
            left -= room
        assert left == size - WINDOW
        full.set()
        await peer.send(asked.stream, b"x" * left, end=True)
        await peer.left()

    async with serving(over_http2(script), scheme="https") as server, transport_of(http2=True) as transport:
        reader = reader_of(await send(transport, server))
        received = len(await reader.read())
        with trio.move_on_after(5):  # as much as the sockets hold has to be taken, lest it waits for them
            while not full.is_set() and received < WINDOW // 3:
                received += len(await reader.read())
        while data := await reader.read():
            received += len(data)
        assert received == size


async def test_bodies_that_nobody_takes_leave_the_window_open_for_the_next() -> None:
    body = b"x" * 10_000

    async def script(peer: Http2Peer) -> None:
        while (asked := await peer.request()) is not None:
            await peer.answer(asked.stream, body)

    async with serving(over_http2(script), scheme="https") as server, transport_of(http2=True) as transport:
        for _ in range(2 * WINDOW // len(body)):
            await (await send(transport, server)).aclose()
        assert server.connections == 1
        assert await whole(await send(transport, server)) == body


# ---- what stays open --------------------------------------------------------------------------------------------------------


async def test_idle_connections_are_swept_when_their_time_is_over(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with serving(hello(), scheme="https") as server, transport_of(PoolLimits(idle_seconds=30, age=70), http2=True) as transport:
        await whole(await send(transport, server))
        await trio.sleep(29)
        await transport.sweep()
        assert transport.statistics().idle == 1
        await trio.sleep(2)
        await transport.sweep()
        assert transport.statistics() == PoolStatistics(open=0, idle=0, opened=1, reused=0)
        await server.done.wait()

"""The connection under applications that misbehave, on real sockets."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from server.settings import EdgeSettings

from .edge_serving import PLAIN, REQUEST, START, ask, everything, part, serving

if TYPE_CHECKING:
    from .edge_serving import Receive, Send

pytestmark = pytest.mark.usefixtures("way")


async def test_nothing_is_written_after_a_write_that_was_cancelled() -> None:
    """Part of a chunk may be out: whatever followed would be taken for the rest of it."""
    cancelled = trio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        with trio.move_on_after(0.1) as waiting:
            await send(part(b"x" * 30_000_000))  # more than the kernel takes
        assert waiting.cancelled_caught
        await send(part(b"LATER", more=False))
        cancelled.set()

    async with serving(app) as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(REQUEST)
        await cancelled.wait()
        received = bytearray()

        async def read() -> None:
            async for data in stream:
                received.extend(data)

        with pytest.raises(trio.BrokenResourceError):  # what was not sent yet is dropped, not kept for whoever does not read
            await read()
        assert received
        assert b"LATER" not in received


async def test_an_application_that_waits_for_a_client_that_does_not_read_ends_with_the_grace() -> None:
    began = trio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        began.set()
        await send(part(b"x" * 30_000_000))

    async with trio.open_nursery() as nursery:
        async with serving(app, grace=0.1) as address:
            stream = await trio.open_tcp_stream(*address)
            await stream.send_all(REQUEST)
            await began.wait()
        nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(stream)


async def test_a_crash_is_the_end_of_one_request(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["path"] == "/v1/late":
            await send(START)
            await send(part(b"some"))
        if scope["path"] != "/v1/":
            raise ZeroDivisionError("a defect")
        await send(START)
        await send(part(b"fine", more=False))

    async with serving(app) as address, await trio.open_tcp_stream(*address) as neighbour:
        assert b"HTTP/1.1 500" in await ask(address, REQUEST.replace(b"/v1/", b"/v1/early"))
        late = await ask(address, REQUEST.replace(b"/v1/", b"/v1/late"))
        assert b"some" in late
        assert not late.endswith(b"0\r\n\r\n")  # cut, so that nobody takes it for whole
        await neighbour.send_all(REQUEST)
        assert b"200" in await neighbour.receive_some()
    assert [(record.levelno, record.message) for record in caplog.records] == [(logging.ERROR, "a request failed")] * 2


async def test_disconnect_is_said_as_often_as_it_is_asked_for() -> None:
    told: list[str] = []
    done = trio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        told.extend([(await receive())["type"] for _ in range(4)])
        done.set()

    async with serving(app) as address:
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(REQUEST)
        await done.wait()
    assert told == ["http.request", "http.disconnect", "http.disconnect", "http.disconnect"]


async def test_a_body_waits_for_an_application_that_is_in_no_hurry() -> None:
    go_on, size = trio.Event(), 0

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        nonlocal size
        await go_on.wait()
        more = True
        while more:
            message = await receive()
            size += len(message["body"])
            more = message["more_body"]
        await send(START)
        await send(part(b"", more=False))

    async with serving(app) as address, await trio.open_tcp_stream(*address) as stream, trio.open_nursery() as nursery:
        body = b"x" * 20_000_000
        nursery.start_soon(stream.send_all, b"POST /v1/ HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        with trio.move_on_after(0.2):
            assert await stream.receive_some() == b"", "answered before it was read"
        go_on.set()
        assert b"HTTP/1.1 200" in await stream.receive_some()
    assert size == 20_000_000


@pytest.mark.parametrize("path", ["/", "/?a=%20b", "/%c3%a4"])
async def test_an_absolute_target_is_taken_as_its_path(path: str) -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await send(START)
        await send(part(b"", more=False))

    async with serving(app) as address:
        for target, host in ((path, "here"), (f"HTTP://user@here{path}", "elsewhere")):
            await ask(address, f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    first, second = ({name: scope[name] for name in ("path", "raw_path", "query_string", "headers")} for scope in scopes)
    assert first == second


@pytest.mark.parametrize(
    ("status", "headers", "parts"),
    [
        (200, [], [b"a", b"", b"b" * 70_000, b""]),
        (200, [], [b""]),
        (200, [(b"content-length", b"5")], [b"ab", b"cde"]),
        (404, [(b"content-length", b"0"), (b"x-more", b"1")], [b""]),
        (204, [], [b"dropped"]),
        (304, [(b"content-length", b"5")], [b""]),
    ],
)
async def test_a_response_has_the_same_bytes_whichever_way_it_takes(
    status: int, headers: list[tuple[bytes, bytes]], parts: list[bytes]
) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for index, body in enumerate(parts):
            await send(part(body, more=index < len(parts) - 1))

    async with serving(app) as address:
        kept = await ask(address, REQUEST + REQUEST.replace(b"localhost", b"localhost\r\nConnection: close"))
    # h11 writes its own names with capitals.
    head, _, body = re.sub(rb"date: [^\r]*\r\n", b"", kept[: len(kept) // 2 - 9]).partition(b"\r\n\r\n")
    framed = [b"transfer-encoding: chunked"] if status == 200 and not headers else []
    assert head.lower().split(b"\r\n") == [b"http/1.1 %d " % status, *(b": ".join(pair) for pair in headers), *framed]
    if framed:
        assert body == b"".join(b"%x\r\n%b\r\n" % (len(data), data) for data in parts if data) + b"0\r\n\r\n"
    else:
        assert body == (b"".join(parts) if status == 200 else b"")
    assert kept.count(b"HTTP/1.1 ") == 2
    assert b"connection: close" in kept[len(kept) // 2 - 9 :].lower()


async def test_a_body_that_was_not_wanted_ends_the_connection_behind_the_answer() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send(part(b"no", more=False))

    async with serving(app) as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(b"POST /v1/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
        answer = b""
        while not answer.endswith(b"0\r\n\r\n"):
            answer += await stream.receive_some()
        await stream.send_all(b"x" * 500_000)  # nobody resets it
        assert b"connection: close" in answer.lower()
        assert await stream.receive_some() == b""


async def test_an_application_may_end_the_connection() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 421, "headers": [(b"connection", b"close"), (b"content-length", b"2")]})
        await send(part(b"no", more=False))

    async with serving(app) as address:
        answer = (await ask(address)).lower()
    assert answer.count(b"connection: close") == 1
    assert answer.endswith(b"no")


async def test_a_header_with_a_line_break_is_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"b\r\nx-evil: 1")]})
        await send(part(b"", more=False))

    async with serving(app) as address:
        answer = await ask(address)
    assert b"HTTP/1.1 500" in answer
    assert b"x-evil" not in answer


async def test_a_response_shorter_or_longer_than_it_said_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send(part(b"abc"))
        await send(part(b"" if scope["path"] == "/v1/" else b"defg", more=False))

    async with serving(app) as address:
        for sent in (REQUEST, REQUEST.replace(b"/v1/", b"/v1/long")):
            answer = await ask(address, sent)
            assert answer.endswith(b"abc")
    assert [record.message for record in caplog.records] == ["a request failed"] * 2


async def test_requests_in_plain_form_and_others_take_turns_on_one_connection() -> None:
    other = b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n"
    served: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        served.append(scope["path"])
        body = b""
        while (message := await receive())["more_body"]:
            body += message["body"]
        await send(START)
        await trio.lowlevel.checkpoint()
        await send(part(b"", more=False))

    with_body = b"POST /v1/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nabcde"
    chunked = b"POST /v1/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    requests = [REQUEST, other, other, with_body, chunked, REQUEST, with_body, with_body, other, chunked]
    paths = ["/other" if request is other else "/v1/" for request in requests]
    everything_at_once = b"".join(requests)
    async with serving(app) as address:
        for size in (len(everything_at_once), 1000, 61, 7, 1):
            served.clear()
            async with await trio.open_tcp_stream(*address) as stream:
                answers = b""
                for start in range(0, len(everything_at_once), size):
                    await stream.send_all(everything_at_once[start : start + size])
                while answers.count(b"0\r\n\r\n") < len(requests):
                    answers += await stream.receive_some()
            assert served == paths
            assert answers.count(b"HTTP/1.1 200") == len(requests)


CHUNKED = b"POST /v1/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 40 + b"0\r\n\r\n"


@pytest.mark.parametrize("request_bytes", [REQUEST, CHUNKED], ids=["whole", "chunked"])
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
async def test_a_request_that_comes_in_the_moment_in_which_the_wait_for_it_ends_is_answered(
    used: bool, request_bytes: bytes, mock_clock: trio.testing.MockClock
) -> None:
    """As after a pause of the whole event loop: it lies in the kernel, and the deadline has passed. It came in time."""
    bodies: list[bytes] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            assert message["type"] == "http.request", "the client has not left"
            body, more = body + message["body"], message["more_body"]
            await trio.lowlevel.checkpoint()
        bodies.append(body)
        with trio.move_on_after(0.1):
            pytest.fail(f"the client has not left: {await receive()}")
        await send(START)
        await send(part(b"fine", more=False))

    async with serving(app, limits=EdgeSettings(header_timeout=1.0, keepalive_timeout=1.0)) as address:
        with socket.create_connection(address) as client:
            if used:
                client.sendall(REQUEST)
                await trio.testing.wait_all_tasks_blocked(0.01)
                mock_clock.jump(0.5)
            await trio.testing.wait_all_tasks_blocked(0.01)
            bodies.clear()
            client.sendall(request_bytes)
            mock_clock.jump(1.5)
            await trio.testing.wait_all_tasks_blocked(0.01)
            mock_clock.jump(0.2)
            await trio.testing.wait_all_tasks_blocked(0.01)
            client.setblocking(False)
            assert client.recv(65_536).endswith(b"fine\r\n0\r\n\r\n")
    assert bodies == [request_bytes.count(b"x") * b"x"]


async def test_a_head_that_trickles_on_in_the_moment_in_which_its_time_is_up_is_refused(mock_clock: trio.testing.MockClock) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        pytest.fail("no request came")

    async with serving(app, limits=EdgeSettings(header_timeout=1.0)) as address:
        with socket.create_connection(address) as client:
            client.sendall(REQUEST[:-4])
            await trio.testing.wait_all_tasks_blocked(0.01)
            client.sendall(b"\r\nX-Slow: 1")
            mock_clock.jump(1.5)
            await trio.testing.wait_all_tasks_blocked(0.01)
            client.setblocking(False)
            assert client.recv(65_536).startswith(b"HTTP/1.1 408 ")


async def test_what_comes_in_the_moment_in_which_the_connection_ends_is_no_request(mock_clock: trio.testing.MockClock) -> None:
    """The client was told that this answer is the last: nobody is asked on behalf of a request that nobody will answer."""
    served: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        served.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await trio.sleep(0.1)
        await send(part(b"last", more=False))

    async with serving(app) as address:
        for _ in range(20):  # whether the application's turn or the reader's comes first is left to chance
            with socket.create_connection(address) as client:
                client.sendall(REQUEST)
                await trio.testing.wait_all_tasks_blocked(0.01)
                client.sendall(REQUEST.replace(b"/v1/", b"/v1/next"))
                mock_clock.jump(0.1)
                await trio.testing.wait_all_tasks_blocked(0.01)
                client.setblocking(False)
                assert client.recv(65_536).endswith(b"last\r\n0\r\n\r\n")
    assert served == ["/v1/"] * 20


@pytest.mark.parametrize("behind", [b"\r\n", REQUEST])
@pytest.mark.parametrize("at_once", [True, False])
async def test_what_comes_behind_a_last_request_does_not_touch_its_answer(at_once: bool, behind: bytes) -> None:
    """Some clients end a body with an empty line; and whoever asks for the end of the connection has nothing more to say."""
    begun, go_on = trio.Event(), trio.Event()
    served: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        served.append(scope["path"])
        await send(START)
        await send(part(b"first"))
        begun.set()
        await go_on.wait()
        await send(part(b"last", more=False))

    async with serving(app) as address, await trio.open_tcp_stream(*address) as stream:
        last = REQUEST.replace(b"localhost", b"localhost\r\nConnection: close")
        await stream.send_all(last + behind if at_once else last)
        await begun.wait()
        if not at_once:
            await stream.send_all(behind)
        await trio.testing.wait_all_tasks_blocked(0.01)
        go_on.set()
        answer = await everything(stream)
    assert b"HTTP/1.1 200" in answer
    assert answer.endswith(b"last\r\n0\r\n\r\n")
    assert served == ["/v1/"]


async def test_a_write_that_was_cancelled_before_it_began_ends_the_connection_too(caplog: pytest.LogCaptureFixture) -> None:
    """h11 counts it as sent: what followed would be a body without its head. In plain form no such write can be cancelled."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["path"] == "/v1/begun":
            await send(START)
            await send(part(b"first"))
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await send(START if scope["path"] == "/v1/" else part(b"second"))

    async with serving(app) as address:
        for path in (b"/v1/", b"/v1/begun"):
            answer = bytearray()
            async with await trio.open_tcp_stream(*address) as stream:
                await stream.send_all(REQUEST.replace(b"/v1/", path))
                with contextlib.suppress(trio.BrokenResourceError):
                    async for data in stream:
                        answer += data
            assert b"0\r\n\r\n" not in answer
            assert b"HTTP/1.1 500 " in answer or path == b"/v1/begun" or not PLAIN.get()
    assert not caplog.records

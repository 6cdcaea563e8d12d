"""Between the requests of one connection, and what comes of its client while one is answered."""

from __future__ import annotations

import errno
import gc
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from server.edge_concurrent import ConcurrentConnection
from server.edge_connection import Connection
from server.edge_exchange import EXTENSION
from server.settings import EdgeSettings

from .edge_serving import PLAIN, REQUEST, START, ask, everything, part, serving

if TYPE_CHECKING:
    from .edge_serving import Receive, Send

pytestmark = pytest.mark.usefixtures("way")

LAST = REQUEST.replace(b"localhost", b"localhost\r\nConnection: close")


async def echo(scope: Any, receive: Receive, send: Send) -> None:
    """Answers with the request's body."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    await send(START)
    await send(part(body, more=False))


async def answer(stream: trio.SocketStream) -> bytes:
    data = b""
    while not data.endswith(b"0\r\n\r\n"):
        data += await stream.receive_some()
    return data


@pytest.mark.parametrize("ahead", [True, False])
async def test_a_request_does_not_wait_for_what_is_left_to_do_behind_the_answer_before(ahead: bool) -> None:
    """An upstream may be given a moment to end its body, which is worth more than the connection to it."""
    go_on, left = trio.Event(), trio.Event()
    ended: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/v1/leave":
            assert (await receive())["type"] == "http.disconnect"
            left.set()
            return
        await send(START)
        await send(part(scope["path"].encode(), more=False))
        await go_on.wait()
        ended.append(scope["path"])

    requests = [REQUEST.replace(b"/v1/", b"/v1/%d" % number) for number in range(3)]
    async with serving(app, grace=60.0) as address:
        async with await trio.open_tcp_stream(*address) as stream:
            if ahead:
                await stream.send_all(b"".join(requests))
            received = b""
            for number, request in enumerate(requests):
                if not ahead:
                    await stream.send_all(request)
                while b"/v1/%d\r\n0\r\n\r\n" % number not in received:
                    received += await stream.receive_some()
            await stream.send_all(REQUEST.replace(b"/v1/", b"/v1/leave"))
        await left.wait()
        assert not ended
        go_on.set()
    assert sorted(ended) == ["/v1/0", "/v1/1", "/v1/2"]


async def test_an_application_that_gave_up_a_write_hears_that_nobody_is_there() -> None:
    heard = trio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                assert (await receive())["type"] == "http.disconnect"
                heard.set()

            nursery.start_soon(listen)
            await send(START)
            with trio.move_on_after(0.05):
                await send(part(b"x" * 30_000_000))  # more than the kernel takes
            await heard.wait()

    async with serving(app) as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(REQUEST)
        await heard.wait()


async def test_a_client_that_leaves_is_noticed_while_its_body_lies_untaken() -> None:
    """As long as all of it is here: of a body that is not, the client's kernel keeps the rest, and the end behind it."""
    left = trio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if PLAIN.get():
            scope["extensions"][EXTENSION].watch(left.set)
            await left.wait()

    async with serving(app) as address:
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(b"POST /v1/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n" + b"x" * 1_048_577)
        if PLAIN.get():
            await left.wait()


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
async def test_a_client_that_says_nothing_is_left_without_a_word(used: bool, mock_clock: trio.testing.MockClock) -> None:
    limits = EdgeSettings(header_timeout=3.0, keepalive_timeout=5.0)
    async with serving(echo, limits=limits) as address, await trio.open_tcp_stream(*address) as stream:
        if used:
            await stream.send_all(REQUEST)
            await answer(stream)
        await trio.testing.wait_all_tasks_blocked(0.01)
        mock_clock.jump(4.9 if used else 2.9)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await stream.send_all(REQUEST)
        assert b"200" in await answer(stream)  # it had so long
        await trio.testing.wait_all_tasks_blocked(0.01)
        mock_clock.jump(5.1)
        assert await everything(stream) == b""


async def test_a_new_connection_has_one_deadline_for_its_head_whenever_that_begins(mock_clock: trio.testing.MockClock) -> None:
    async with serving(echo, limits=EdgeSettings(header_timeout=3.0)) as address:
        with socket.create_connection(address) as client:
            await trio.testing.wait_all_tasks_blocked(0.01)
            mock_clock.jump(2.0)
            client.sendall(REQUEST[:-4])
            await trio.testing.wait_all_tasks_blocked(0.01)
            mock_clock.jump(2.0)
            await trio.testing.wait_all_tasks_blocked(0.01)
            client.setblocking(False)
            assert client.recv(65_536).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("state", ["idle", "silent", "behind an answer"])
async def test_a_server_that_stops_does_not_wait_for_whoever_asks_nothing(state: str) -> None:
    go_on = trio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        if state == "behind an answer":
            await go_on.wait()

    stopped = trio.Event()

    async def serve(task_status: trio.TaskStatus[tuple[str, int]]) -> None:
        async with serving(app, grace=120.0) as address:
            task_status.started(address)
            await stopped.wait()

    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve)
        async with await trio.open_tcp_stream(*address) as stream:
            if state != "silent":
                await stream.send_all(REQUEST)
                await answer(stream)
            await trio.testing.wait_all_tasks_blocked(0.01)
            stopped.set()
            await trio.testing.wait_all_tasks_blocked(0.01)
            go_on.set()
            assert await everything(stream) == b""


async def test_a_request_that_came_before_the_server_stopped_is_answered() -> None:
    begun, go_on = trio.Event(), trio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        begun.set()
        await go_on.wait()
        await echo(scope, receive, send)

    async with trio.open_nursery() as nursery:
        async with serving(app, grace=60.0) as address:
            stream = await trio.open_tcp_stream(*address)
            await stream.send_all(REQUEST)
            await begun.wait()

            async def let_it() -> None:
                await trio.testing.wait_all_tasks_blocked(0.01)
                go_on.set()

            nursery.start_soon(let_it)
        told = await everything(stream)
        assert b"HTTP/1.1 200" in told
        assert told.endswith(b"0\r\n\r\n")
        assert b"connection: close" in told.lower()
        await stream.aclose()


class Full:
    """A pump that has no room."""

    def add(self, fd: int, call: object) -> None:
        raise OSError(errno.ENOSPC, "no room")


@pytest.mark.parametrize("lacks", ["a descriptor", "room"])
async def test_where_nothing_can_watch_all_is_as_ever(lacks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def pump() -> Full:
        if lacks == "room":
            return Full()
        raise OSError(errno.EMFILE, "no descriptor")

    monkeypatch.setattr("server.edge_connection.pump", pump)
    async with serving(echo) as address:
        assert await ask(address, LAST) == await ask(address, LAST)
        async with await trio.open_tcp_stream(*address) as stream:
            await trio.testing.wait_all_tasks_blocked(0.01)  # it is waited for before it asks
            for _ in range(2):
                await stream.send_all(REQUEST)
                assert b"200" in await answer(stream)


async def test_nothing_keeps_a_connection_that_has_ended() -> None:
    """Neither a cycle nor what watched its socket; a collection is not waited for."""
    torn = trio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["path"] == "/v1/wait":
            await receive()
            await receive()
        elif scope["path"] == "/v1/torn":
            await send(START)
            with trio.move_on_after(0.02):
                await send(part(b"x" * 30_000_000))
            torn.set()
        else:
            await echo(scope, receive, send)

    def kept() -> list[object]:
        return [one for one in gc.get_objects() if isinstance(one, Connection | ConcurrentConnection) and not one.is_last]

    async with serving(app) as address:
        gc.collect()
        gc.disable()
        try:
            clients = [await trio.open_tcp_stream(*address) for _ in range(5)]  # at once, so that each has a descriptor of its own
            for client, path in zip(clients, (b"/v1/", b"/v1/wait", b"/v1/torn", b"/v1/wait"), strict=False):  # the last says nothing
                await client.send_all(REQUEST.replace(b"/v1/", path))
            await torn.wait()
            for client in clients:
                await trio.aclose_forcefully(client)
            await trio.testing.wait_all_tasks_blocked(0.05)
            if PLAIN.get():  # hypercorn's protocol is a cycle
                assert len(kept()) <= 1  # whoever was called last by the pump may still be named there
        finally:
            gc.enable()

"""Both outlets, on real sockets under the same tests: what they write, and what becomes of a client that stalls or leaves."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio

from actors import ClientGone, ClientStalled, ResponseHead
from server.edge_listener import open_edge
from server.listeners import open_listener
from server.outlets import AsgiOutlet, PlainOutlet, exchange_of
from server.settings import Address, EdgeSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Outlet = AsgiOutlet | PlainOutlet
    Script = Callable[[Outlet], Awaitable[None]]
    Write = Callable[[Outlet, bytes], Awaitable[None]]

REQUEST = b"POST /v1/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = ResponseHead(200, ((b"x-a", b"b"),))
BIG = b"x" * 30_000_000  # more than the kernel takes
STALL = 0.2


@pytest.fixture(params=["plain", "asgi", "asgi on an exchange"])
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["awaited", "at once"])
def write(request: pytest.FixtureRequest) -> Write:
    """Both ways to write must do the same."""

    async def awaited(outlet: Outlet, data: bytes) -> None:
        await outlet.write(data)

    async def at_once(outlet: Outlet, data: bytes) -> None:
        if not outlet.write_nowait(data):
            await outlet.flush()

    return awaited if request.param == "awaited" else at_once


@asynccontextmanager
async def answered_by(script: Script, way: str, stall: float = STALL) -> AsyncIterator[trio.SocketStream]:
    """A client whose request is answered by what `script` does with its outlet. On leaving, the script has ended."""
    ended = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            exchange = exchange_of(scope)
            assert (exchange is not None) == (way != "asgi")
            if exchange is not None and way == "plain":
                await script(PlainOutlet(exchange, send, stall))
                return
            async with trio.open_nursery() as nursery:
                outlet = AsgiOutlet(send, stall)
                nursery.start_soon(outlet.deliver)
                await script(outlet)
                nursery.cancel_scope.cancel()
        finally:
            ended.set()

    listener = open_listener(Address("127.0.0.1", 0), "bind", backlog=16, write_timeout=30.0)
    address = listener.getsockname()
    with trio.fail_after(60):
        async with open_edge(app, listener, EdgeSettings(), grace=5.0, patience=lambda: 5.0, plain=way != "asgi"):
            async with await trio.open_tcp_stream(*address) as stream:
                await stream.send_all(REQUEST)
                yield stream
            await ended.wait()


async def body_of(stream: trio.SocketStream) -> bytes:
    """What comes behind the head, until the end of the body or of the connection."""
    answer = b""
    with suppress(trio.BrokenResourceError):  # a torn response ends with a reset
        while not answer.endswith(b"0\r\n\r\n") and (data := await stream.receive_some()):
            answer += data
    return answer.partition(b"\r\n\r\n")[2]


async def test_a_body_in_parts(way: str, write: Write) -> None:
    async def script(outlet: Outlet) -> None:
        await outlet.start(HEAD)
        await write(outlet, b"one")
        await write(outlet, b"two")
        await outlet.finish()

    async with answered_by(script, way) as client:
        assert await body_of(client) == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


async def test_the_first_bytes_and_the_last_may_come_with_head_and_end(way: str) -> None:
    async def script(outlet: Outlet) -> None:
        await outlet.start(HEAD, b"one")
        await outlet.finish(b"two")

    async with answered_by(script, way) as client:
        assert await body_of(client) == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


@pytest.mark.parametrize("size", [0, 3, 10_000_000])
async def test_a_whole_answer_may_leave_in_one_write(way: str, size: int) -> None:
    async def script(outlet: Outlet) -> None:
        if not outlet.start_nowait(HEAD, b"x" * size, ends=True):
            await outlet.flush()

    async with answered_by(script, way, stall=5.0) as client:
        body = await body_of(client)
    assert body.endswith(b"0\r\n\r\n")
    assert body.count(b"x") == size


async def test_what_the_socket_takes_at_once_needs_no_waiting() -> None:
    async def script(outlet: Outlet) -> None:
        await outlet.start(HEAD)
        assert outlet.write_nowait(b"one")
        assert outlet.write_nowait(b"two")
        await outlet.finish()

    async with answered_by(script, "plain") as client:
        assert await body_of(client) == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


async def test_a_head_leaves_without_a_body(way: str) -> None:
    """A stream's first keep-alive comment may be seconds away."""
    seen = trio.Event()

    async def script(outlet: Outlet) -> None:
        await outlet.start(HEAD)
        await seen.wait()
        await outlet.finish(b"late")

    async with answered_by(script, way) as client:
        assert (await client.receive_some()).endswith(b"\r\n\r\n")
        seen.set()
        assert await client.receive_some()


async def test_a_client_that_does_not_read_stalls(way: str, write: Write) -> None:
    raised: list[type[BaseException]] = []

    async def script(outlet: Outlet) -> None:
        await outlet.start(HEAD)
        try:
            while True:
                await write(outlet, BIG)
        except ClientGone as loss:
            raised.append(type(loss))
        outlet.abort()

    async with answered_by(script, way) as client:
        while not raised:  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert not (await body_of(client)).endswith(b"0\r\n\r\n")
    assert raised == [ClientStalled]


async def test_a_client_that_does_not_take_the_end_stalls(way: str) -> None:
    raised: list[type[BaseException]] = []

    async def script(outlet: Outlet) -> None:
        await outlet.start(HEAD)
        try:
            await outlet.finish(BIG)
        except ClientGone as loss:
            raised.append(type(loss))
        outlet.abort()

    async with answered_by(script, way):
        while not raised:  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert raised == [ClientStalled]


async def test_a_slow_client_that_takes_each_part_in_time_gets_all(way: str, write: Write) -> None:
    async def script(outlet: Outlet) -> None:
        await outlet.start(HEAD)
        for _ in range(40):
            await write(outlet, b"x" * 65_536)
        await outlet.finish()

    async with answered_by(script, way, stall=1.0) as client:
        size = 0
        while data := await client.receive_some(65_536):
            size += len(data)
            await trio.sleep(0.02)  # slower than it is written
            if data.endswith(b"0\r\n\r\n"):
                break
    assert size > 40 * 65_536


async def test_a_cancelled_write_leaves_nothing_that_passes_for_whole(way: str, write: Write) -> None:
    async def script(outlet: Outlet) -> None:
        await outlet.start(HEAD)
        with trio.move_on_after(0.1):
            await write(outlet, BIG)
            await write(outlet, BIG)
        outlet.abort()
        outlet.abort()

    async with answered_by(script, way, stall=60.0) as client:
        assert not (await body_of(client)).endswith(b"0\r\n\r\n")


async def test_an_abort_is_the_end_of_the_connection(way: str) -> None:
    async def script(outlet: Outlet) -> None:
        await outlet.start(HEAD, b"some")
        outlet.abort()

    async with answered_by(script, way) as client:
        assert b"4\r\nsome\r\n".startswith(await body_of(client))  # through ASGI it may be cut off on its way


async def test_whoever_writes_to_a_client_that_left_is_told(write: Write) -> None:
    """Only where writes are our own: what ASGI sends to a client that left is lost without a word."""
    left, raised = trio.Event(), trio.Event()
    told: list[type[BaseException]] = []

    async def script(outlet: Outlet) -> None:
        assert isinstance(outlet, PlainOutlet)
        await outlet.start(HEAD, b"some")
        await left.wait()
        try:
            while True:
                await write(outlet, b"more")
                await trio.lowlevel.checkpoint()
        except ClientGone as loss:
            told.append(type(loss))
        outlet.abort()
        raised.set()

    async with answered_by(script, "plain") as client:
        await client.receive_some()
        client.setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # SO_LINGER 0: it leaves with a reset
        await client.aclose()
        left.set()
        await raised.wait()
    assert told == [ClientGone]


async def test_a_watcher_is_told_once_when_the_client_leaves() -> None:
    told: list[str] = []
    watching = trio.Event()

    async def script(outlet: Outlet) -> None:
        assert isinstance(outlet, PlainOutlet)
        gone = trio.Event()

        def left() -> None:
            told.append("left")
            gone.set()

        outlet._exchange.watch(left)
        watching.set()
        await gone.wait()
        outlet._exchange.watch(lambda: told.append("left before"))
        outlet.abort()

    async with answered_by(script, "plain"):
        await watching.wait()
    assert told == ["left", "left before"]

"""Our transport's connections: when one is used again, and that whatever is cancelled leaves none behind."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.connection_pool import PoolLimits, PoolStatistics
from actors.errors import (
    UpstreamDisconnected,
)

from .scripted_server import BOTH_SCHEMES, CHUNKED, END, HELLO, LONG, Peer, answers, reader_of, send, serving, transport_of, whole

# ---- connections that are dead before they are used again (FAULTS row 35) ------------------------------------------------------


@BOTH_SCHEMES
@pytest.mark.parametrize("how", ["closes", "resets", "says more"])
async def test_an_idle_connection_that_changed_is_noticed_before_it_is_used(how: str, scheme: str) -> None:
    changed = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HELLO)
        match how:
            case "resets":
                peer.reset()
            case "says more":
                await peer.send(HELLO)
        changed.set()
        if how == "says more":
            await peer.left()

    async with serving(script, answers(HELLO), scheme=scheme) as server, transport_of() as transport:
        assert await whole(await send(transport, server)) == b"hello"
        await changed.wait()
        await wait_all_tasks_blocked()
        assert await whole(await send(transport, server)) == b"hello"
        assert transport.statistics() == PoolStatistics(open=1, idle=1, opened=2, reused=0)


@BOTH_SCHEMES
@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("body", [b"{}", b"x" * 3_000_000], ids=["short", "long"])
async def test_a_connection_that_dies_as_it_is_used_again_costs_one_more_try(resets: bool, body: bytes, scheme: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HELLO)
        await peer.stream.receive_some(1)  # the next request arrives, and is not answered
        if resets:
            peer.reset()

    async with serving(script, answers(HELLO), scheme=scheme) as server, transport_of() as transport:
        assert await whole(await send(transport, server)) == b"hello"
        assert await whole(await send(transport, server, body=body)) == b"hello"
        assert transport.statistics() == PoolStatistics(open=1, idle=1, opened=2, reused=1)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200"])
async def test_a_new_connection_or_a_begun_answer_is_not_tried_again(answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        if answer:
            await peer.request()
            await peer.send(HELLO)
        await peer.request()
        await peer.send(answer)

    async with serving(script) as server, transport_of() as transport:
        if answer:
            await whole(await send(transport, server))
        with pytest.raises(UpstreamDisconnected):
            await send(transport, server)
        assert (server.connections, transport.statistics().open) == (1, 0)


async def test_a_dead_connection_and_a_dead_server_are_one_failure() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HELLO)
        await peer.request()

    async def closes(peer: Peer) -> None:
        await peer.request()

    async with serving(script, closes, answers(HELLO)) as server, transport_of() as transport:
        await whole(await send(transport, server))
        with pytest.raises(UpstreamDisconnected, match="without an answer"):
            await send(transport, server)
        assert server.connections == 2


# ---- cancellation ---------------------------------------------------------------------------------------------------------


@BOTH_SCHEMES
@pytest.mark.parametrize("phase", ["handshake", "sending", "head", "body"])
async def test_cancelled_in_every_phase(phase: str, scheme: str) -> None:
    if (phase, scheme) == ("handshake", "http"):
        scheme = "https"
    reached = trio.Event()

    async def script(peer: Peer) -> None:
        if phase == "sending":
            await peer.stream.receive_some(10)
            reached.set()
            await trio.sleep_forever()
        if phase != "handshake":
            await peer.request()
        if phase == "body":
            await peer.send(CHUNKED + b"3\r\none\r\n")
        reached.set()
        await peer.left()

    async with serving(script, scheme="http" if phase == "handshake" else scheme) as server, transport_of() as transport:
        if phase == "handshake":
            server.url = server.url.replace("http:", "https:")

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
            await wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        assert transport.statistics().open == 0
        if phase != "sending":
            await server.done.wait()  # the server sees us leave


@BOTH_SCHEMES
async def test_a_cancelled_read_can_be_repeated_and_its_connection_used_again(scheme: str) -> None:
    go_on = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"e\r\ndata: [DONE]\n\n\r\n")
        await go_on.wait()
        await peer.send(END)
        await answers(HELLO)(peer)

    async with serving(script, scheme=scheme) as server, transport_of() as transport:
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


async def test_closing_takes_note_of_an_end_that_is_already_there() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"e\r\ndata: [DONE]\n\n\r\n")
        await peer.send(END)
        server.done.set()
        await answers(HELLO)(peer)

    async with serving(script) as server, transport_of() as transport:
        reader = reader_of(await send(transport, server))
        await reader.read()
        await server.done.wait()
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:  # even for whoever is cancelled
            scope.cancel()
            await reader.aclose()
        assert transport.statistics().idle == 1
        assert await whole(await send(transport, server)) == b"hello"


@BOTH_SCHEMES
@pytest.mark.parametrize("flowing", [False, True])
async def test_closing_before_the_end_closes_the_connection(flowing: bool, scheme: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"3\r\none\r\n")
        while flowing:
            await peer.send(b"3\r\ntwo\r\n" * 1000)
        await peer.left()

    async with serving(script, scheme=scheme) as server, transport_of() as transport:
        reader = reader_of(await send(transport, server))
        await reader.read()
        await reader.aclose()
        await reader.aclose()
        assert transport.statistics().open == 0
        with pytest.raises(UpstreamDisconnected, match="closed before its end"):
            await reader.read()
        assert not reader.complete
        await server.done.wait()


async def test_closing_the_transport_ends_what_is_under_way() -> None:
    async with serving(answers(CHUNKED + b"3\r\none\r\n"), answers(HELLO)) as server, transport_of() as transport:
        reader = reader_of(await send(transport, server))
        assert await reader.read() == b"one"
        await whole(await send(transport, server))
        assert transport.statistics() == PoolStatistics(open=2, idle=1, opened=2, reused=0)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                with pytest.raises(UpstreamDisconnected, match="on this side"):
                    await reader.read()

            await wait_all_tasks_blocked()
            await transport.aclose()
        assert transport.statistics().open == 0


# ---- what stays open --------------------------------------------------------------------------------------------------------


async def test_idle_connections_are_bounded_and_the_last_one_back_is_the_first_one_out() -> None:
    ports: list[int] = []
    go_on = trio.Event()

    async def script(peer: Peer) -> None:
        assert isinstance(peer.stream, trio.SocketStream)
        port = peer.stream.socket.getpeername()[1]
        while await peer.request():
            ports.append(port)
            await peer.send(CHUNKED)
            await go_on.wait()
            await peer.send(END)

    async with serving(script) as server, transport_of(PoolLimits(idle=2)) as transport:
        responses = [await send(transport, server) for _ in range(4)]
        go_on.set()
        for response in responses:
            await whole(response)
        assert transport.statistics() == PoolStatistics(open=2, idle=2, opened=4, reused=0)
        for _ in range(3):
            await whole(await send(transport, server))
        assert ports[4:] == [ports[3]] * 3


async def test_an_idle_connection_expires(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05
    limits = PoolLimits(idle_seconds=30, age=70)
    async with serving(answers(*[HELLO] * 9)) as server, transport_of(limits) as transport:
        for wait, opened in [(0, 1), (29, 1), (31, 2), (29, 2), (29, 2), (29, 3)]:  # the last one is not idle for long, but old
            await trio.sleep(wait)
            await whole(await send(transport, server))
            assert transport.statistics().opened == opened, wait


async def test_a_closed_transport_keeps_nothing() -> None:
    async with serving(answers(HELLO)) as server, transport_of() as transport:
        for opened in (1, 2):  # the second request stands for one that was on its way
            assert await whole(await send(transport, server)) == b"hello"
            await transport.aclose()
            assert transport.statistics() == PoolStatistics(open=0, idle=0, opened=opened, reused=0)
        assert await whole(await send(transport, server)) == b"hello"
        assert transport.statistics().open == 0


async def test_an_old_connection_among_younger_ones_is_not_used_again(autojump_clock: trio.testing.MockClock) -> None:
    go_on = trio.Event()

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(CHUNKED)
            await go_on.wait()
            await peer.send(END)

    autojump_clock.autojump_threshold = 0.05
    async with serving(script) as server, transport_of(PoolLimits(idle_seconds=30, age=70)) as transport:
        old = await send(transport, server)
        await trio.sleep(60)
        young = await send(transport, server)
        go_on.set()
        await whole(young)
        await whole(old)  # back last, so that it would be out first; 70 s old before it has been idle for 30
        await trio.sleep(15)
        await whole(await send(transport, server))
        assert transport.statistics() == PoolStatistics(open=1, idle=1, opened=2, reused=1)

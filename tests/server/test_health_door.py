"""The admin listener's door: it answers while the event loop cannot, says when the loop is stuck, and hands on all that is no probe."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from server.edge_listener import open_edge
from server.health_door import STUCK, HealthDoor
from server.listeners import open_listener
from server.settings import Address, EdgeSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROBE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nUser-Agent: probe/1\r\n\r\n"
LAST = PROBE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


@asynccontextmanager
async def door(since_turn: float = 0.0, header_timeout: float = 5.0) -> AsyncIterator[tuple[str, int]]:
    """The address of a listener whose application says "from the loop"."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"13")]})
        await send({"type": "http.response.body", "body": b"from the loop"})

    listener = open_listener(Address("127.0.0.1", 0), "admin_bind", backlog=16, write_timeout=30.0)
    address = listener.getsockname()
    with trio.fail_after(60):
        async with open_edge(
            app, listener, EdgeSettings(header_timeout=header_timeout), grace=0.0, most=8, let_in=HealthDoor(lambda: since_turn).accept
        ):
            yield address


def ask(address: tuple[str, int], *pieces: bytes) -> bytes:
    """What comes until the server closes; blocks, so it is for a thread."""
    with socket.create_connection(address, timeout=30) as sock:
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(0.05)  # so that they are read apart
        answer = b""
        while data := sock.recv(65_536):
            answer += data
    return answer


async def test_it_answers_while_the_loop_is_blocked() -> None:
    answers: list[bytes] = []

    async with door() as address, trio.open_nursery() as nursery:
        blocked = threading.Event()

        def probe() -> None:
            blocked.wait()
            answers.append(ask(address, LAST))

        nursery.start_soon(trio.to_thread.run_sync, probe)
        await wait_all_tasks_blocked()
        end = time.monotonic() + 20.0
        blocked.set()
        while time.monotonic() < end and not answers:
            pass  # nothing else runs in the loop, and this never gives up the interpreter by itself
        assert answers, "the probe was not answered while the loop was blocked"
    (answer,) = answers
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" in head
    assert body == b'{\n  "status": "ok"\n}\n'


@pytest.mark.parametrize(("since", "status"), [(STUCK - 0.1, b"200"), (STUCK, b"503")])
async def test_a_loop_that_is_stuck_is_unhealthy(since: float, status: bytes) -> None:
    async with door(since) as address:
        answer = await trio.to_thread.run_sync(ask, address, LAST)
    assert answer[9:12] == status
    assert (b"the event loop has not turned for 10 s" in answer) == (status == b"503")


async def test_a_probe_may_ask_again_on_its_connection() -> None:
    async with door() as address:
        answer = await trio.to_thread.run_sync(ask, address, PROBE, PROBE, LAST)
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.count(b"connection: keep-alive") == 2


@pytest.mark.parametrize(
    "pieces",
    [
        (LAST.replace(b"/healthz", b"/status"),),
        (LAST.replace(b"GET", b"POST"),),
        (LAST.replace(b"GET", b"HEAD"),),
        (LAST.replace(b"/healthz", b"/healthz?a"),),
        (LAST.replace(b"probe/1", b"probe/1\r\nContent-Length: 0"),),
        (LAST.replace(b"probe/1", b"probe/1\r\nExpect: 100-continue"),),
        (LAST[:10], LAST[10:]),
        (PROBE + LAST,),
        (PROBE, LAST.replace(b"/healthz", b"/status")),
    ],
)
async def test_whatever_else_comes_goes_to_the_loop_as_it_came(pieces: tuple[bytes, ...]) -> None:
    async with door() as address:
        answer = await trio.to_thread.run_sync(ask, address, *pieces)
    assert b"content-length: 13\r\n" in answer


@pytest.mark.parametrize("sent", [b"", b"GET /hea", b"\x16\x03\x01", PROBE.replace(b"Host: localhost\r\n", b"")])
async def test_what_never_becomes_a_request_meets_the_rules_of_the_loop(sent: bytes) -> None:
    async with door(header_timeout=0.3) as address, await trio.open_tcp_stream(*address) as stream:
        if sent:
            await stream.send_all(sent)
        answer = b"".join([data async for data in stream])
    assert answer[9:12] in (b"", b"400", b"408")
    assert b"from the loop" not in answer


async def test_too_many_connections_are_turned_away_and_probes_are_not() -> None:
    async with door() as address:
        streams = [await trio.open_tcp_stream(*address) for _ in range(8)]
        for stream in streams:
            await stream.send_all(b"GET /st")
        with trio.fail_after(60):
            turned_away = await trio.open_tcp_stream(*address)
            await turned_away.send_all(b"GET /status HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"503" in await turned_away.receive_some()
            assert b"200 OK" in await trio.to_thread.run_sync(ask, address, LAST)
        for stream in (*streams, turned_away):
            await stream.aclose()


async def test_at_the_end_nothing_stays_open() -> None:
    async with door() as address:
        silent = await trio.open_tcp_stream(*address)
        served = await trio.open_tcp_stream(*address)
        await served.send_all(PROBE)
        assert await served.receive_some()
    with trio.fail_after(60):
        for stream in (silent, served):
            assert await partial(stream.receive_some, 1)() == b""
            await stream.aclose()
    with pytest.raises(OSError, match="failed"):
        await trio.open_tcp_stream(*address)

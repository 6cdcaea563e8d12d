"""Idle connections go away by themselves: when their time is over, or when the server has closed them. Nobody has to ask for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from actors import Candidate, Timers, Upstream, UpstreamRequest, open_upstream_client

from .http2_server import hello
from .scripted_server import AUTHORITY, HELLO, Peer, answers, serving

if TYPE_CHECKING:
    from pathlib import Path

    from actors import UpstreamClient

REQUEST = UpstreamRequest("POST", "/chat/completions", (), b"{}")


async def ask(client: UpstreamClient, upstream: Upstream) -> None:
    response = await client.send(Candidate(upstream, None, Timers()), REQUEST, REQUEST.body)
    assert await response.read_all(100) == b"hello"
    await response.aclose()


@pytest.mark.parametrize("http2", [False, True])
async def test_an_idle_connection_is_closed_soon_after_its_time(
    http2: bool, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    script = hello() if http2 else answers(*[HELLO] * 9)
    async with serving(script, scheme="https") as server:
        upstream = Upstream("a", server.url.removesuffix("?a=1"), ca_file=str(tmp_path / "ca.pem"), http2=http2)
        async with open_upstream_client([upstream]) as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.keep_sweeping)
            for _ in range(3):  # each use begins its time anew
                await ask(client, upstream)
                await trio.sleep(20)
                assert client.open_connections() == {"a": 1}
            assert server.connections == 1
            began = trio.current_time()
            await server.done.wait()  # the server sees it go
            assert 5 < trio.current_time() - began < 20
            assert client.open_connections() == {"a": 0}
            await ask(client, upstream)
            assert server.connections == 2
            nursery.cancel_scope.cancel()


async def test_an_idle_connection_that_the_server_closed_is_not_kept(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HELLO)

    async with serving(script) as server:
        upstream = Upstream("a", server.url.removesuffix("?a=1"))
        async with open_upstream_client([upstream]) as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.keep_sweeping)
            await ask(client, upstream)
            assert client.open_connections() == {"a": 1}
            await trio.sleep(6)
            assert client.open_connections() == {"a": 0}
            nursery.cancel_scope.cancel()


async def test_a_connection_in_use_is_none_of_the_sweepers_business(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HELLO[:-2])
        await trio.sleep(400)  # longer than a connection may be idle, and than it may be old
        await peer.send(HELLO[-2:])
        await peer.left()

    async with serving(script) as server:
        upstream = Upstream("a", server.url.removesuffix("?a=1"))
        async with open_upstream_client([upstream]) as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.keep_sweeping)
            with trio.fail_after(1000):
                await ask(client, upstream)
            nursery.cancel_scope.cancel()

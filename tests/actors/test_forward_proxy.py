"""A forward proxy between us and the upstream: httpx's transport speaks to it, whatever `transport` says."""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from actors import Candidate, Timers, Upstream, UpstreamRequest, open_upstream_client
from actors.errors import UpstreamConnectError, UpstreamError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

REQUEST = UpstreamRequest("POST", "/chat/completions", (), b'{"model": "m"}')
EVENTS = [b'data: {"n": %d}\n\n' % n for n in range(3)]


@dataclass
class ForwardProxy:
    """A proxy for http:// by absolute targets and for https:// by CONNECT.

    Args:
      refusal: what it answers instead of serving, if anything.
      heads: of the requests that it saw.
      connects: host and port of the tunnels that it opened.
    """

    refusal: bytes = b""
    port: int = 0
    heads: list[bytes] = field(default_factory=list)

    async def handle(self, stream: trio.SocketStream) -> None:
        head = await head_of(stream)
        self.heads.append(head)
        if self.refusal:
            await stream.send_all(self.refusal)
            return
        target = head.split(b" ")[1]
        authority = target if head.startswith(b"CONNECT ") else target.split(b"/")[2]
        host, _, port = authority.rpartition(b":")
        async with await trio.open_tcp_stream(host.decode(), int(port)) as beyond:
            if head.startswith(b"CONNECT "):
                await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                await beyond.send_all(head)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pump, stream, beyond)
                await pump(beyond, stream)
                nursery.cancel_scope.cancel()


async def pump(one: trio.SocketStream, other: trio.SocketStream) -> None:
    try:
        async for data in one:
            await other.send_all(data)
        await other.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def head_of(stream: trio.abc.ReceiveStream) -> bytes:
    data = bytearray()
    while b"\r\n\r\n" not in data:
        data += await stream.receive_some(1)
    return bytes(data)


async def stream_of_events(stream: trio.abc.Stream) -> None:
    """An upstream that sends a few events, each in a write of its own."""
    await head_of(stream)
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    for event in EVENTS:
        await stream.send_all(b"%x\r\n%b\r\n" % (len(event), event))
    await stream.send_all(b"0\r\n\r\n")
    await stream.receive_some()


@asynccontextmanager
async def listening(handle: Callable[..., Awaitable[object]], tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, handle, [trio.SSLListener(listener, tls) if tls else listener])
            yield listener.socket.getsockname()[1]
            nursery.cancel_scope.cancel()


async def ask(upstream: Upstream) -> bytes:
    async with open_upstream_client([upstream]) as client:
        response = await client.send(Candidate(upstream, None, Timers()), REQUEST, REQUEST.body)
        try:
            return await response.read_all(1 << 20)
        finally:
            await response.aclose()


@pytest.mark.parametrize("configured", ["own", "httpx"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_stream_comes_through_a_forward_proxy(configured: str, scheme: str, tmp_path: Path) -> None:
    authority, file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    between = ForwardProxy()
    async with listening(stream_of_events, tls if scheme == "https" else None) as port, listening(between.handle) as proxy:
        upstream = Upstream(
            name="a",
            base_url=f"{scheme}://127.0.0.1:{port}/v1",
            ca_file=str(file),
            proxy=f"http://me:sk-canary-proxy@127.0.0.1:{proxy}",
            transport=configured,  # type: ignore[arg-type]
        )
        assert await ask(upstream) == b"".join(EVENTS)
    (head,) = between.heads
    place = f"127.0.0.1:{port}"
    wanted = f"CONNECT {place} HTTP/1.1\r\n" if scheme == "https" else f"POST http://{place}/v1/chat/completions HTTP/1.1\r\n"
    assert head.startswith(wanted.encode())
    assert b"proxy-authorization: basic " in head.lower()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"])
async def test_the_environments_proxy_is_asked_by_nobody(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be told every prompt and every key. Whoever wants it writes `proxy = "env:HTTP_PROXY"`."""
    between = ForwardProxy()
    async with listening(stream_of_events) as port, listening(between.handle) as proxy:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        for transport in ("own", "httpx"):
            upstream = Upstream(name="a", base_url=f"http://127.0.0.1:{port}/v1", transport=transport)
            assert await ask(upstream) == b"".join(EVENTS)
    assert between.heads == []


@pytest.mark.parametrize("status", [b"407 Proxy Authentication Required", b"403 Forbidden", b"502 Bad Gateway"])
async def test_a_tunnel_that_is_refused_is_no_connection(status: bytes) -> None:
    between = ForwardProxy(refusal=b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % status)
    async with listening(between.handle) as proxy:
        upstream = Upstream(name="a", base_url="https://api.example/v1", proxy=f"http://me:sk-canary-proxy@127.0.0.1:{proxy}")
        with pytest.raises(UpstreamError) as caught:
            await ask(upstream)
    assert type(caught.value) is UpstreamConnectError
    assert status[:3].decode() in str(caught.value)
    assert "sk-canary" not in str(caught.value)


async def test_nobody_listens_where_the_proxy_should_be() -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        upstream = Upstream(name="a", base_url="https://api.example/v1", proxy=f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(UpstreamConnectError):
            await ask(upstream)

"""The way to the upstreams, over real sockets: what goes up, what every kind of failure becomes, and that nothing stays open.

Every test runs over both transports, which are one and the same to whoever uses them.
"""

from __future__ import annotations

import gc
import math
import socket
import ssl
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import pytest
import trio
import trio.testing
import trustme

from actors import Candidate, Secret, Timers, Upstream, UpstreamClient, UpstreamRequest, open_upstream_client
from actors.errors import (
    UpstreamConnectError,
    UpstreamDisconnected,
    UpstreamDnsError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamTlsError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from actors.upstream import UpstreamResponse

REQUEST = UpstreamRequest("POST", "/chat/completions?a=1", ((b"x-mine", b"1"), (b"x-mine", b"2")), b'{"model": "m"}')
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Some: A\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

#: Steps of a connection's script besides the bytes it sends. GREET, as the first: the server does not wait for a request.
HANG, CLOSE, RESET, AGAIN, GREET = "hang", "close", "reset", "again", "greet"


@dataclass
class Server:
    """A server whose connections each follow one script; `AGAIN` waits for a further request on the same connection."""

    scripts: list[list[bytes | str]]
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    asked: trio.Event = field(default_factory=trio.Event)
    left: trio.Event = field(default_factory=trio.Event)  # a client closed its connection before its script was over

    async def handle(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        try:
            if script[0] != GREET and not await self._receive(stream):
                return
            for step in script:
                if isinstance(step, bytes):
                    await stream.send_all(step)
                elif step == AGAIN:
                    if not await self._receive(stream):
                        return
                elif step == HANG:
                    while await stream.receive_some():
                        pass
                    self.left.set()
                elif step == RESET:
                    below = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
                    below.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    below.socket.close()
                    return
                elif step == CLOSE:
                    return
        except (trio.BrokenResourceError, ssl.SSLError):
            self.left.set()
        finally:
            await trio.aclose_forcefully(stream)

    async def _receive(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> bool:
        """Read one request; False if the client leaves instead."""
        data = bytearray()
        while b"\r\n\r\n" not in data or len(data) < data.index(b"\r\n\r\n") + 4 + _length(data):
            received = await stream.receive_some()
            if not received:
                self.left.set()
                return False
            data += received
        self.requests.append(bytes(data))
        self.asked.set()
        return True


def _length(request: bytes | bytearray) -> int:
    lines = request.lower().partition(b"\r\n\r\n")[0].split(b"\r\n")
    return next((int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")), 0)


@asynccontextmanager
async def serving(*scripts: list[bytes | str], tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(list(scripts))
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server.port = listener.socket.getsockname()[1]
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            serve = trio.serve_listeners
            await nursery.start(serve, server.handle, [trio.SSLListener(listener, tls) if tls else listener])
            yield server
            nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True, params=["own", "httpx"])
def transport(request: pytest.FixtureRequest) -> None:
    global TRANSPORT
    TRANSPORT = request.param


TRANSPORT: Literal["own", "httpx"]


@asynccontextmanager
async def client_of(upstream: Upstream, connect: float = 5.0) -> AsyncIterator[tuple[UpstreamClient, Candidate]]:
    upstream = replace(upstream, transport=TRANSPORT)
    async with open_upstream_client([upstream]) as client:
        yield client, Candidate(upstream, None, Timers(connect=connect))
    assert client.open_connections() == {"a": 0}
    gc.collect()  # what was dropped while suspended would be reported here, as an error


def upstream_at(server: Server, scheme: str = "http", host: str = "127.0.0.1") -> Upstream:
    return Upstream("a", f"{scheme}://{host}:{server.port}/v1")


async def send(server: Server, request: UpstreamRequest = REQUEST, upstream: Upstream | None = None) -> bytes:
    """Send one request and read its answer to the end."""
    async with client_of(upstream or upstream_at(server)) as (client, candidate):
        response = await client.send(candidate, request, request.body)
        try:
            return await response.read_all(1 << 20)
        finally:
            await response.aclose()


# ---- what goes up and what comes down -------------------------------------------------------------------------------------


async def test_an_answer_comes_as_it_is_and_its_connection_is_used_again() -> None:
    script: list[bytes | str] = [CHUNKED, b"3\r\none\r\n", b"3\r\ntwo\r\n0\r\n\r\n", AGAIN, WHOLE, AGAIN]
    async with serving(script) as server, client_of(upstream_at(server)) as (client, candidate):
        response = await client.send(candidate, REQUEST, REQUEST.body)
        assert response.status == 200
        assert (b"x-some", b"A") in response.headers
        assert (response.header("Content-Type"), response.header("absent")) == ("text/event-stream", "")
        assert await response.read_all(1 << 20) == b"onetwo"
        assert response.complete
        await response.aclose()
        second = await client.send(candidate, REQUEST, REQUEST.body)
        assert await second.read() == b"hello"
        assert await second.read() == b""
        assert await second.read() == b""  # and stays so
        await second.aclose()
        assert server.connections == 1
        assert client.open_connections() == {"a": 1}


async def test_a_request_goes_up_byte_for_byte_with_the_configured_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the environment's proxies are none of ours
    async with serving([WHOLE]) as server:
        upstream = replace(upstream_at(server), key=Secret("sk-configured"), headers=(("X-Team", "blue"),))
        async with client_of(upstream) as (client, candidate):
            request = replace(REQUEST, authorization=b"Bearer the-callers")
            response = await client.send(candidate, request, request.body, attempt=3)
            assert await response.read_all(100) == b"hello"
            await response.aclose()
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/chat/completions?a=1 HTTP/1.1"
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines[1:])]
    assert [value for name, value in headers if name == b"x-mine"] == [b"1", b"2"]
    wanted = {b"accept-encoding": b"identity", b"authorization": b"Bearer sk-configured", b"x-team": b"blue", b"x-evenflow-attempt": b"3"}
    assert {name: value for name, value in headers if name in wanted} == wanted
    assert [name for name, _ in headers].count(b"authorization") == 1
    assert body == REQUEST.body


@pytest.mark.parametrize(("authorization", "expected"), [(b"Bearer the-callers", [b"Bearer the-callers"]), (None, [])])
async def test_the_callers_own_credential_goes_up_where_that_is_configured(authorization: bytes | None, expected: list[bytes]) -> None:
    async with serving([WHOLE]) as server:
        upstream = replace(upstream_at(server), auth="client", key=Secret("sk-configured"))
        await send(server, replace(REQUEST, authorization=authorization), upstream)
    lines = server.requests[0].split(b"\r\n")
    assert [line.partition(b": ")[2] for line in lines if line.lower().startswith(b"authorization")] == expected
    assert b"sk-configured" not in server.requests[0]


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    redirect = b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    async with serving([redirect, HANG]) as server, client_of(upstream_at(server)) as (client, candidate):
        response = await client.send(candidate, REQUEST, REQUEST.body)
        assert response.status == 307
        await response.aclose()
    assert len(server.requests) == 1


async def test_nothing_is_inflated() -> None:
    async with serving([b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b"]) as server:
        assert await send(server) == b"\x1f\x8b"


# ---- what every failure becomes ---------------------------------------------------------------------------------------------


async def test_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can take the port meanwhile
        upstream = Upstream("a", f"http://127.0.0.1:{held.getsockname()[1]}/v1")
        async with client_of(upstream) as (client, candidate):
            with pytest.raises(UpstreamConnectError) as caught:
                await client.send(candidate, REQUEST, REQUEST.body)
    assert type(caught.value) is UpstreamConnectError
    assert str(caught.value)


async def test_a_name_that_does_not_resolve() -> None:
    async with client_of(Upstream("a", "http://nothing.invalid/v1")) as (client, candidate):
        with pytest.raises(UpstreamDnsError, match="does not resolve"):
            await client.send(candidate, REQUEST, REQUEST.body)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ([CLOSE], UpstreamDisconnected),
        ([RESET], UpstreamDisconnected),
        ([b"HTTP/1.1 200", CLOSE], UpstreamDisconnected),
        ([b"I speak no HTTP\r\n\r\n", HANG], UpstreamProtocolError),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", HANG], UpstreamProtocolError),
        ([WHOLE[:-2], CLOSE], UpstreamDisconnected),
        ([CHUNKED + b"3\r\none\r\n", CLOSE], UpstreamDisconnected),
        ([CHUNKED + b"3\r\none\r\n", RESET], UpstreamDisconnected),
        ([CHUNKED + b"zz\r\none\r\n", HANG], UpstreamProtocolError),
    ],
)
async def test_a_connection_that_breaks(script: list[bytes | str], expected: type[UpstreamError]) -> None:
    async with serving(script) as server:
        with pytest.raises(UpstreamError) as caught:
            await send(server)
    assert type(caught.value) is expected
    assert str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_reset_does_not_take_what_came_before() -> None:
    async with serving([CHUNKED + b"3\r\none\r\n", RESET]) as server, client_of(upstream_at(server)) as (client, candidate):
        response = await client.send(candidate, REQUEST, REQUEST.body)
        assert await response.read() == b"one"
        with pytest.raises(UpstreamDisconnected):
            await response.read()
        assert not response.complete
        await response.aclose()


async def test_an_idle_connection_that_closes_as_it_is_used_again_says_nothing_about_the_upstream() -> None:
    async with serving([WHOLE, AGAIN, CLOSE], [WHOLE]) as server, client_of(upstream_at(server)) as (client, candidate):
        for _ in range(2):
            response = await client.send(candidate, REQUEST, REQUEST.body)
            assert await response.read_all(100) == b"hello"
            await response.aclose()
        assert server.connections == 2
    async with serving([WHOLE, AGAIN, CLOSE], [CLOSE]) as server, client_of(upstream_at(server)) as (client, candidate):
        response = await client.send(candidate, REQUEST, REQUEST.body)
        await response.read_all(100)
        await response.aclose()
        with pytest.raises(UpstreamDisconnected):  # once is enough
            await client.send(candidate, REQUEST, REQUEST.body)
        assert server.connections == 2


# ---- TLS ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Authority:
    ca: trustme.CA
    file: str

    def context(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(name).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    path: Path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(path))
    return Authority(ca, str(path))


async def test_a_certificate_of_the_configured_authority_is_trusted(authority: Authority) -> None:
    async with serving([WHOLE], tls=authority.context("127.0.0.1")) as server:
        assert await send(server, upstream=replace(upstream_at(server, "https"), ca_file=authority.file)) == b"hello"


@pytest.mark.parametrize(("name", "trusted", "text"), [("127.0.0.1", False, "certificate"), ("elsewhere.invalid", True, "127.0.0.1")])
async def test_a_certificate_that_is_not_to_be_trusted(name: str, trusted: bool, text: str, authority: Authority) -> None:
    async with serving([WHOLE], tls=authority.context(name)) as server:
        upstream = replace(upstream_at(server, "https"), ca_file=authority.file if trusted else None, key=Secret("sk-configured"))
        with pytest.raises(UpstreamTlsError, match=text) as caught:
            await send(server, upstream=upstream)
    assert "sk-configured" not in str(caught.value)
    assert server.requests == []


async def test_plain_http_on_a_tls_port() -> None:
    async with serving([GREET, b"HTTP/1.1 400 Bad Request\r\n\r\n", HANG]) as server:
        with pytest.raises(UpstreamTlsError):
            await send(server, upstream=upstream_at(server, "https"))


async def test_a_handshake_that_never_ends_counts_to_the_connect_timer() -> None:
    async with serving([HANG]) as server, client_of(upstream_at(server, "https"), connect=0.05) as (client, candidate):
        with pytest.raises(UpstreamTimeout) as caught:
            await client.send(candidate, REQUEST, REQUEST.body)
        assert (caught.value.setting, caught.value.seconds) == ("timers.connect", 0.05)
        assert client.open_connections() == {"a": 0}


# ---- leaving ------------------------------------------------------------------------------------------------------------


async def started(client: UpstreamClient, candidate: Candidate) -> UpstreamResponse:
    response = await client.send(candidate, REQUEST, REQUEST.body)
    assert await response.read() == b"one"
    return response


async def test_closing_mid_body_closes_the_connection() -> None:
    async with serving([CHUNKED + b"3\r\none\r\n", HANG]) as server, client_of(upstream_at(server)) as (client, candidate):
        response = await started(client, candidate)
        await response.aclose()
        assert client.open_connections() == {"a": 0}
        await server.left.wait()


async def test_closing_before_the_body_was_touched_closes_the_connection() -> None:
    async with serving([CHUNKED, HANG]) as server, client_of(upstream_at(server)) as (client, candidate):
        response = await client.send(candidate, REQUEST, REQUEST.body)
        await response.aclose()
        assert client.open_connections() == {"a": 0}
        await server.left.wait()


async def test_whoever_is_cancelled_can_still_close() -> None:
    async with serving([CHUNKED + b"3\r\none\r\n", HANG]) as server, client_of(upstream_at(server)) as (client, candidate):
        response = await started(client, candidate)
        with trio.CancelScope() as scope:
            scope.cancel()
            await response.aclose()
        assert client.open_connections() == {"a": 0}
        await server.left.wait()


@pytest.mark.parametrize("script", [[HANG], [CHUNKED + b"3\r\none\r\n", HANG]], ids=["before the head", "mid-body"])
async def test_cancelled_while_the_upstream_is_silent(script: list[bytes | str]) -> None:
    connected = trio.Event()
    async with serving(script) as server, client_of(upstream_at(server)) as (client, candidate):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                response = await client.send(candidate, REQUEST, REQUEST.body, connected=connected.set)
                try:
                    await response.read_all(1 << 20)
                finally:
                    await response.aclose()

            await server.asked.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        assert connected.is_set()
        assert client.open_connections() == {"a": 0}
        await server.left.wait()


async def test_cancelled_inside_a_handshake() -> None:
    async with serving([HANG]) as server, client_of(upstream_at(server, "https"), connect=math.inf) as (client, candidate):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, candidate, REQUEST, REQUEST.body)
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        assert client.open_connections() == {"a": 0}
        await server.left.wait()


async def test_leaving_the_clients_block_closes_idle_connections() -> None:
    async with serving([WHOLE, HANG]) as server:
        assert await send(server) == b"hello"
        await server.left.wait()

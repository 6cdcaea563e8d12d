"""Upstreams that cannot be reached: no listener, no such name, no trust. Told at once, with no key in it."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from server.settings import UpstreamSettings

from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .running_proxy import LogTap, RunningProxy

BOTH_ENGINES = pytest.mark.parametrize("engine", ["actors", "relay"])
BOTH_FORMS = pytest.mark.parametrize("stream", [True, False])


async def refused(proxy: RunningProxy, code: str, *, stream: bool = True, failures: int = 1) -> str:
    """One request that gets a 502 with this code; returns what was told."""
    answer = await proxy.client.ask("ok", stream=stream)
    assert (answer.status, answer.error["code"]) == (502, code)
    assert "main" in answer.error["message"]
    await proxy.until_quiet()
    assert proxy.circuit("main").failures == failures
    return str(answer.error["message"])


@BOTH_ENGINES
@BOTH_FORMS
async def test_row_1_nobody_listens(stream: bool, engine: str, unused_port: int, log: LogTap) -> None:
    url = f"http://127.0.0.1:{unused_port}/v1"
    async with running_proxy(settings_for({"main": url}, engine=engine)) as proxy:
        began = trio.current_time()
        await refused(proxy, "upstream_connect_error", stream=stream, failures=3)
        assert trio.current_time() - began < 5.0  # timers.connect was not waited out
        (line,) = log.requests()
        assert (line["termination"], line["attempts"]) == ("UC", 3)


@BOTH_ENGINES
async def test_row_2_the_name_does_not_resolve(engine: str) -> None:
    settings = settings_for({"main": "http://no-such-host.invalid:1/v1"}, engine=engine, retry={"retries": 0})
    async with running_proxy(settings) as proxy:
        assert "does not resolve" in await refused(proxy, "upstream_dns_error")


@asynccontextmanager
async def tls_server(certificate: trustme.LeafCert) -> AsyncIterator[int]:
    """A server that answers one good request per connection, over TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)

    async def serve(stream: trio.SocketStream) -> None:
        secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            await secured.receive_some()
            body = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            await secured.send_all(head + body)
            await secured.aclose()
        except trio.BrokenResourceError:
            return  # the client did not trust us

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@BOTH_ENGINES
@pytest.mark.parametrize("case", ["unknown authority", "wrong name", "expired"])
async def test_row_3_a_certificate_that_is_not_to_be_trusted(case: str, engine: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    trusted = trustme.CA() if case == "unknown authority" else authority
    name = "elsewhere.example" if case == "wrong name" else "127.0.0.1"
    expiry = datetime(2020, 1, 1, tzinfo=UTC) if case == "expired" else None
    trusted.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with tls_server(authority.issue_cert(name, not_after=expiry)) as port:
        table = UpstreamSettings(base_url=f"https://127.0.0.1:{port}/v1", ca_file=str(tmp_path / "ca.pem"))
        async with running_proxy(settings_for({"main": table}, engine=engine)) as proxy:
            await refused(proxy, "upstream_tls_error")


@BOTH_ENGINES
async def test_a_configured_authority_is_trusted(engine: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with tls_server(authority.issue_cert("127.0.0.1")) as port:
        table = UpstreamSettings(base_url=f"https://127.0.0.1:{port}/v1", ca_file=str(tmp_path / "ca.pem"))
        async with running_proxy(settings_for({"main": table}, engine=engine)) as proxy:
            answer = await proxy.client.ask("ok")
            assert answer.done
            assert answer.text() == "hi"

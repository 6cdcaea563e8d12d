"""An upstream over TLS, with an authority of its own: streams are what they are without, and so is leaving them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import trio
import trustme

from .raw_client import RawClient
from .running_proxy import running_proxy, settings_for, upstream_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from server.simulator import Simulator

    from .running_proxy import LogTap

BOTH_TRANSPORTS = pytest.mark.parametrize("transport", ["own", "httpx"])


@dataclass
class Front:
    """TLS in front of a simulator.

    Args:
      ca_file: who trusts it trusts this.
      names: that clients asked for (SNI).
      protocols: that were agreed on (ALPN).
    """

    ca_file: str
    port: int = 0
    names: list[str | None] = field(default_factory=list)
    protocols: list[str | None] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"https://localhost:{self.port}/v1"


@pytest.fixture
async def front(simulator: Simulator, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Front]:
    """Its certificate says localhost, or what a test gives as parameter."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    front = Front(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.sni_callback = lambda _, asked, __: front.names.append(asked)
    authority.issue_cert(getattr(request, "param", "localhost")).configure_cert(context)
    place = urlsplit(simulator.base_url)

    async def handle(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError:
            return  # it does not trust us
        front.protocols.append(stream.selected_alpn_protocol())
        assert place.hostname is not None
        assert place.port is not None
        async with await trio.open_tcp_stream(place.hostname, place.port) as beyond, trio.open_nursery() as nursery:
            nursery.start_soon(_pump, stream, beyond, nursery.cancel_scope)
            await _pump(beyond, stream, nursery.cancel_scope)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    front.port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, [trio.SSLListener(listener, context, https_compatible=True)])
        yield front
        nursery.cancel_scope.cancel()


async def _pump(source: trio.abc.ReceiveStream, target: trio.abc.SendStream, both: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some():
            await target.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    both.cancel()  # whichever side ends first takes the other along


@BOTH_TRANSPORTS
async def test_a_stream_over_tls_is_repaired_like_any_other(transport: str, simulator: Simulator, front: Front) -> None:
    upstream = upstream_of(simulator, base_url=front.base_url, ca_file=front.ca_file, transport=transport)
    async with running_proxy(settings_for({"main": upstream}), simulator) as proxy:
        for _ in range(3):
            answer = await proxy.client.ask("count:50")
            assert answer.done
            assert [int(word) for word in answer.text().split()] == list(range(1, 51))
        plain = RawClient(simulator.base_url, None)
        repaired, stuttered = await proxy.client.ask("stutter-b1:envelope=nonce"), await plain.ask("stutter-b1:envelope=nonce")
        assert repaired.done
        assert len(repaired.text()) < len(stuttered.text())
    assert set(front.names) == {"localhost"}
    assert set(front.protocols) == {"http/1.1"}


@BOTH_TRANSPORTS
@pytest.mark.parametrize("model", ["endless:pace=5", "silence"])
async def test_a_client_that_leaves_is_felt_behind_tls(model: str, transport: str, simulator: Simulator, front: Front) -> None:
    upstream = upstream_of(simulator, base_url=front.base_url, ca_file=front.ca_file, transport=transport)
    async with running_proxy(settings_for({"main": upstream}), simulator) as proxy:
        async with proxy.client.open(model) as exchange:
            if model != "silence":
                await exchange.read_until(b"data: ")
            await simulator.observer.wait_for(lambda observer: observer.active == 1)
            await exchange.leave()
        await simulator.observer.wait_for(lambda observer: observer.closes == 1)


@BOTH_TRANSPORTS
@pytest.mark.parametrize("front", ["elsewhere.example"], indirect=True)
async def test_an_upstream_whose_certificate_is_anothers_gets_nothing_and_is_told_apart(
    transport: str, simulator: Simulator, front: Front, log: LogTap
) -> None:
    upstream = upstream_of(simulator, base_url=front.base_url, ca_file=front.ca_file, transport=transport)
    async with running_proxy(settings_for({"main": upstream}), simulator) as proxy:
        answer = await proxy.client.ask("ok")
    assert answer.status == 502
    assert simulator.observer.requests == 0
    (line,) = log.requests()
    assert (line["fault"], line["upstream"]) == ("tls", "main")
    assert "localhost" in line["fault_message"]

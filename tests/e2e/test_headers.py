"""Which headers cross, and which do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actors.routes import Secret

from .raw_client import CLIENT_KEY, UPSTREAM_KEY, RawClient
from .running_proxy import running_proxy, settings_for, upstream_of

if TYPE_CHECKING:
    from server.simulator import Simulator

    from .running_proxy import LogTap, RunningProxy

pytestmark = pytest.mark.usefixtures("way")

BOTH_ENGINES = pytest.mark.parametrize("engine", ["actors", "relay"])
BOTH_FORMS = pytest.mark.parametrize("stream", [True, False])


@BOTH_ENGINES
@BOTH_FORMS
async def test_what_comes_down(stream: bool, proxy: RunningProxy, simulator: Simulator) -> None:
    answer = await proxy.client.ask("odd-headers", stream=stream)
    assert answer.status == 200
    for name in ("set-cookie", "x-hop", "keep-alive", "proxy-authenticate", "server"):
        assert answer.header(name) == ""
    assert "x-hop" not in answer.header("connection")
    assert answer.header("openai-processing-ms") == "12"
    assert answer.header("x-evenflow-upstream-request-id") == "req-sim-1"
    assert answer.header("x-evenflow-upstream") == "main"
    assert answer.header("x-evenflow-attempts") == "1"
    names = [name for name, _ in answer.headers]
    assert len(names) == len(set(names)), "a header came twice"


@BOTH_ENGINES
async def test_the_headers_of_a_stream(engine: str, proxy: RunningProxy) -> None:
    answer = await proxy.client.ask("ok")
    assert answer.header("content-type") == "text/event-stream"
    assert answer.header("cache-control") == "no-cache"
    assert answer.header("x-accel-buffering") == "no"
    assert answer.header("x-evenflow-engine") == engine
    assert answer.header("transfer-encoding") == "chunked"
    assert answer.header("content-length") == ""


@BOTH_ENGINES
@BOTH_FORMS
async def test_what_goes_up(stream: bool, proxy: RunningProxy, simulator: Simulator) -> None:
    sent = {
        "cookie": "session=1",
        "connection": "close, x-mine",
        "x-mine": "hop",
        "te": "trailers",
        "accept-encoding": "gzip, br",
        "x-api-key": CLIENT_KEY,
        "x-forwarded-for": "10.0.0.1",
        "forwarded": "for=10.0.0.1",
        "proxy-authorization": "Basic abc",
        "x-evenflow-attempt": "77",
        "user-agent": "tester/1",
        "x-stainless-lang": "python",
        "openai-organization": "org-1",
    }
    assert (await proxy.client.ask("ok", stream=stream, headers=sent)).status == 200
    (seen,) = simulator.observer.seen
    for name in ("cookie", "x-mine", "te", "x-api-key", "x-forwarded-for", "forwarded", "proxy-authorization"):
        assert name not in seen.headers
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.headers["user-agent"] == "tester/1"
    assert seen.headers["x-stainless-lang"] == "python"
    assert seen.headers["openai-organization"] == "org-1"
    assert seen.headers["x-evenflow-attempt"] == "1"
    assert seen.headers["host"] == f"127.0.0.1:{simulator.port}"
    assert seen.headers["content-length"] == str(len(seen.body))
    assert "transfer-encoding" not in seen.headers


@BOTH_ENGINES
@BOTH_FORMS
async def test_the_configured_credential_goes_up_and_the_callers_does_not(stream: bool, proxy: RunningProxy, simulator: Simulator) -> None:
    await proxy.client.ask("ok", stream=stream)
    # The simulator keeps of a credential what a log would: its last four characters.
    assert simulator.observer.seen[0].headers["authorization"] == f"...{UPSTREAM_KEY[-4:]}"


@BOTH_ENGINES
@BOTH_FORMS
async def test_the_callers_own_credential_goes_up_where_that_is_configured(stream: bool, engine: str, simulator: Simulator) -> None:
    upstream = upstream_of(simulator, key=None, auth="client")
    async with running_proxy(settings_for({"main": upstream}, engine=engine), simulator) as proxy:
        await proxy.client.ask("ok", stream=stream)
        assert simulator.observer.seen[0].headers["authorization"] == f"...{CLIENT_KEY[-4:]}"


@BOTH_ENGINES
@BOTH_FORMS
async def test_a_client_cannot_choose_the_upstream(stream: bool, proxy: RunningProxy, simulator: Simulator, spare: Simulator) -> None:
    """Whatever other gateways read from a request to find the one to ask, the configured credential among what it would get."""
    place = f"127.0.0.1:{spare.port}"
    chosen: dict[str, Any] = {
        "api_base": spare.base_url,
        "base_url": spare.base_url,
        "api_url": spare.base_url,
        "host": place,
        "provider": {"url": place},
    }
    headers = {"x-portkey-custom-host": spare.base_url, "x-forwarded-host": place, "x-original-host": place, "x-upstream": spare.base_url}
    async with proxy.client.open("ok", stream=stream, headers=headers, **chosen) as exchange:
        assert (await exchange.rest()).status == 200
    absolute = await proxy.root.post(f"{spare.base_url}/chat/completions", b'{"model":"ok","messages":[]}')
    assert absolute.status in (200, 400)  # its path counts at the most
    assert spare.observer.connections == spare.observer.requests == 0
    assert {seen.headers["host"] for seen in simulator.observer.seen} == {f"127.0.0.1:{simulator.port}"}


@BOTH_ENGINES
async def test_without_a_credential_none_goes_up(engine: str, simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": upstream_of(simulator, key=None)}, engine=engine), simulator) as proxy:
        await proxy.client.ask("ok")
        assert "authorization" not in simulator.observer.seen[0].headers


@BOTH_ENGINES
async def test_configured_headers_are_added(engine: str, simulator: Simulator) -> None:
    upstream = upstream_of(simulator, headers={"X-Team": Secret("blue"), "HTTP-Referer": Secret("https://example.org")})
    async with running_proxy(settings_for({"main": upstream}, engine=engine), simulator) as proxy:
        await proxy.client.ask("ok")
        headers = simulator.observer.seen[0].headers
        assert (headers["x-team"], headers["http-referer"]) == ("blue", "https://example.org")


@BOTH_ENGINES
@BOTH_FORMS
async def test_a_harmless_request_id_is_echoed(stream: bool, proxy: RunningProxy, log: LogTap) -> None:
    answer = await proxy.client.ask("ok", stream=stream, headers={"x-request-id": "my.request_ID-1"})
    assert answer.header("x-request-id") == "my.request_ID-1"
    await proxy.until_quiet()
    assert log.requests()[0]["id"] == "my.request_ID-1"


@BOTH_ENGINES
@pytest.mark.parametrize("theirs", ["", "a" * 65, "two words", "semi;colon", "\xe9", "<script>"])
async def test_any_other_request_id_is_replaced(theirs: str, proxy: RunningProxy) -> None:
    answer = await proxy.client.ask("ok", headers={"x-request-id": theirs})
    ours = answer.header("x-request-id")
    assert ours != theirs
    assert ours.startswith("ev-")


@pytest.mark.parametrize("model", ["http-400", "http-503", "silence"])
async def test_errors_have_a_request_id_too(model: str, simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}, timers={"first_token": 0.05}), simulator) as proxy:
        answer = await proxy.client.ask(model, headers={"x-request-id": "abc"})
        assert answer.header("x-request-id") == "abc"
        refused = await RawClient(proxy.base_url, "wrong").ask("ok", headers={"x-request-id": "abc"})
        assert (refused.status, refused.header("x-request-id")) == (401, "abc")

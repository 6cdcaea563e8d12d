"""`breaker_per_model`: one model that fails stops no other, and no client can add a circuit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.settings import RouteSettings, UpstreamRef

from .running_proxy import running_proxy, settings_for, upstream_of
from .test_admission import metrics_of
from .test_breaker import QUICK, order, status_of

if TYPE_CHECKING:
    from server.simulator import Simulator

    from .running_proxy import LogTap

SHUT = QUICK | {"open_base": 30.0, "alone_open_max": 30.0}


async def test_a_model_that_fails_stops_no_other(simulator: Simulator, log: LogTap) -> None:
    upstream = upstream_of(simulator, breaker_per_model=True, models=("http-503", "ok"))
    async with running_proxy(settings_for({"main": upstream}, retry={"retries": 0}, breaker=SHUT), simulator) as proxy:
        for _ in range(2):
            await proxy.client.ask("http-503")
        refused = await proxy.client.ask("http-503")
        assert (refused.status, refused.error["code"]) == (503, "upstream_unavailable")
        assert "upstream 'main' is open for the model http-503" in refused.error["message"]
        assert (await proxy.client.ask("ok")).status == 200
        assert (await proxy.client.ask("count")).status == 200  # known to nobody: the upstream's own circuit
        states = {name: circuit.state for name, circuit in proxy.proxy.services.breaker.statistics().upstreams.items()}
        assert states == {"main": "closed", "main[http-503]": "open", "main[ok]": "closed"}
        shown = await metrics_of(proxy)
        assert shown['evenflow_breaker_state{state="closed",upstream="main"}'] == 2
        assert shown['evenflow_breaker_state{state="open",upstream="main"}'] == 1
        assert shown['evenflow_breaker_transitions_total{from="closed",to="open",upstream="main"}'] == 1
        assert not any("[" in name for name in shown)  # no model is ever a label
        assert (await status_of(proxy, "main[http-503]"))["state"] == "open"
        assert [line["upstream"] for line in log.lines if line["event"] == "breaker"] == ["main[http-503]"]


async def test_an_order_for_an_upstream_means_its_models_too(simulator: Simulator) -> None:
    upstream = upstream_of(simulator, breaker_per_model=True, models=("http-503", "ok"))
    async with running_proxy(settings_for({"main": upstream}, retry={"retries": 0}, breaker=SHUT), simulator) as proxy:
        for _ in range(2):
            await proxy.client.ask("http-503")
        assert await order(proxy, "main/reset") == 200
        assert (await proxy.client.ask("http-503")).header("x-evenflow-upstream") == "main"
        assert (await proxy.client.ask("http-503")).error["code"] == "overloaded"
        assert await order(proxy, "main/force", {"state": "forced_open"}) == 200
        assert (await proxy.client.ask("ok")).status == 503


async def test_models_that_routes_ask_for_are_known(simulator: Simulator, spare: Simulator) -> None:
    refs = (UpstreamRef("main", "http-503"), UpstreamRef("spare", "ok"))
    routes = [RouteSettings(model="bad", upstreams=refs), RouteSettings(model="ok", upstreams=("main",))]
    upstreams = {"main": upstream_of(simulator, breaker_per_model=True), "spare": upstream_of(spare)}
    settings = settings_for(upstreams, retry={"retries": 0}, breaker=SHUT, routes=routes)
    assert sorted(settings.breaker_policies()) == ["main", "main[http-503]", "main[ok]", "spare"]
    async with running_proxy(settings, simulator, spare) as proxy:
        for _ in range(4):
            assert (await proxy.client.ask("bad")).header("x-evenflow-upstream") == "spare"
        assert len(simulator.observer.seen) == 2
        assert (await proxy.client.ask("ok")).header("x-evenflow-upstream") == "main"


async def test_a_glob_is_no_model(simulator: Simulator) -> None:
    upstream = upstream_of(simulator, breaker_per_model=True)
    routes = [RouteSettings(model="qwen*", upstreams=("main",)), RouteSettings(model="*", upstreams=("main",))]
    settings = settings_for({"main": upstream}, routes=routes)
    async with running_proxy(settings, simulator) as proxy:
        assert (await proxy.client.ask("ok")).status == 200
        assert proxy.circuit("main").calls == 1
    assert list(settings.breaker_policies()) == ["main"]

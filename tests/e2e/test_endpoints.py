"""Every endpoint but the two that complete: models, health, the root, and whatever else is posted below /v1."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from server.settings import RouteSettings, UpstreamSettings
from server.simulator import FAULTS, open_simulator

from .running_proxy import running_proxy, settings_for, upstream_of

if TYPE_CHECKING:
    from server.simulator import Simulator

    from .raw_client import RawClient
    from .running_proxy import LogTap, RunningProxy

BOTH_ENGINES = pytest.mark.parametrize("engine", ["actors", "relay"])


async def test_the_models_are_those_of_the_upstream(proxy: RunningProxy) -> None:
    answer = await proxy.client.get("/models")
    assert answer.status == 200
    assert answer.json["object"] == "list"
    assert {model["id"] for model in answer.json["data"]} == set(FAULTS)
    assert all(model["object"] == "model" for model in answer.json["data"])


async def test_only_models_that_a_route_serves_are_listed(simulator: Simulator) -> None:
    routes = [RouteSettings(model="mine", upstreams=("main",)), RouteSettings(model="vendor/*", upstreams=("main",))]
    async with running_proxy(settings_for({"main": simulator}, routes=routes), simulator) as proxy:
        answer = await proxy.client.get("/models")
        assert [model["id"] for model in answer.json["data"]] == ["mine", "vendor/ok"]


@pytest.mark.parametrize("model", ["ok", "vendor/ok"])
async def test_one_model_also_with_a_slash_in_its_name(model: str, proxy: RunningProxy) -> None:
    for path in (f"/models/{model}", f"/models/{model.replace('/', '%2F')}"):
        answer = await proxy.client.get(path)
        assert answer.status == 200
        assert answer.json["id"] == model


async def test_a_model_that_does_not_exist_is_a_404_that_lists_what_does(proxy: RunningProxy) -> None:
    answer = await proxy.client.get("/models/no/such")
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert "vendor/ok" in answer.error["message"]


async def test_models_while_the_upstream_is_down_are_those_that_are_configured(unused_port: int) -> None:
    table = UpstreamSettings(base_url=f"http://127.0.0.1:{unused_port}/v1", models=("qwen3:8b", "vendor/big"))
    async with running_proxy(settings_for({"main": table})) as proxy:
        answer = await proxy.client.get("/models")
        assert [model["id"] for model in answer.json["data"]] == ["qwen3:8b", "vendor/big"]
        assert (await proxy.client.get("/models/vendor/big")).status == 200


async def test_models_of_an_upstream_that_went_down_are_those_last_known(spare: Simulator) -> None:
    async with open_simulator() as simulator:
        settings = settings_for({"main": upstream_of(simulator), "spare": spare})
        async with running_proxy(settings, spare) as proxy:
            before = (await proxy.client.get("/models")).json
            await proxy.admin.post("/breaker/main/force", json.dumps({"state": "forced_open"}).encode())
            assert (await proxy.client.get("/models")).json == before


@BOTH_ENGINES
async def test_embeddings_are_relayed_by_bytes(proxy: RunningProxy, direct: RawClient, simulator: Simulator) -> None:
    body = b'{"model":"text-embedding", "input":["one","two"] }'
    answer = await proxy.client.post("/embeddings", body)
    assert answer.status == 200
    assert answer.body == (await direct.post("/embeddings", body)).body
    assert simulator.observer.seen[0].body == body
    assert answer.header("x-evenflow-engine") == "relay"


@BOTH_ENGINES
@pytest.mark.parametrize("path", ["/audio/transcriptions", "/responses/x/y?stream=1&a=%2F", "/unknown"])
async def test_any_other_post_is_relayed_by_bytes(path: str, proxy: RunningProxy, simulator: Simulator) -> None:
    body = bytes(range(256)) * 4
    answer = await proxy.client.post(path, body, headers={"content-type": "application/octet-stream"})
    assert answer.status == 200
    assert answer.json["path"] == f"/v1{path.partition('?')[0]}"
    assert answer.json["content_type"] == "application/octet-stream"
    assert simulator.observer.seen[0].body == body


@BOTH_ENGINES
async def test_what_is_relayed_is_retried_before_its_first_byte(proxy: RunningProxy, simulator: Simulator) -> None:
    answer = await proxy.client.post("/embeddings", b'{"model":"flaky","input":"x"}')
    assert answer.status == 200
    assert len(simulator.observer.seen) == 2


@BOTH_ENGINES
async def test_what_is_relayed_is_released_when_its_client_leaves(proxy: RunningProxy, simulator: Simulator, log: LogTap) -> None:
    async with proxy.client.send("POST", "/embeddings", b'{"model":"silence","input":"x"}') as exchange:
        await simulator.observer.wait_for(lambda observer: observer.active == 1)
        await exchange.leave()
    await simulator.observer.wait_for(lambda observer: observer.closes == 1)
    await proxy.until_quiet()
    assert [line["outcome"] for line in log.requests()] == ["cancelled"]


async def test_health(proxy: RunningProxy) -> None:
    for client in (proxy.root, proxy.admin):
        assert (await client.get("/healthz")).status == 200
        assert (await client.get("/readyz")).status == 200


async def test_ready_no_more_when_the_process_is_to_stop(proxy: RunningProxy) -> None:
    proxy.proxy.services.readiness.ready = False
    for client in (proxy.root, proxy.admin):
        assert (await client.get("/healthz")).status == 200
        assert (await client.get("/readyz")).status == 503


async def test_the_root_names_the_base_url(proxy: RunningProxy) -> None:
    answer = await proxy.root.get("/")
    assert answer.status == 200
    assert proxy.base_url in answer.body.decode()


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/chat/completions"), ("POST", "/completions"), ("GET", "/models"), ("POST", "/api/chat")]
)
async def test_row_50_a_path_without_v1_is_told_the_base_url(method: str, path: str, proxy: RunningProxy) -> None:
    body = b'{"model":"ok"}' if method == "POST" else None
    async with proxy.root.send(method, path, body) as exchange:
        answer = await exchange.rest()
    assert answer.status == 404
    assert proxy.base_url in answer.error["message"]


async def test_health_and_root_want_no_key(proxy: RunningProxy) -> None:
    for path in ("/", "/healthz", "/readyz"):
        assert (await proxy.root.get(path, headers={"authorization": ""})).status == 200


async def test_status_and_metrics_tell_of_the_streams(proxy: RunningProxy, simulator: Simulator) -> None:
    async with proxy.client.open("stall") as exchange:
        await exchange.read_until(b"data: ")
        status = (await proxy.admin.get("/status")).json
        assert status["streams_active"] == 1
        assert status["upstreams"]["main"]["permits_out"] == 1
        await exchange.leave()
    await proxy.client.ask("flaky")
    await proxy.client.ask("no-done")
    await proxy.until_quiet()
    metrics = (await proxy.admin.get("/metrics")).body.decode()
    for line in (
        'evenflow_streams_total{engine="actors",outcome="done",upstream="main"} 2.0',
        'evenflow_streams_total{engine="actors",outcome="cancelled",upstream="main"} 1.0',
        'evenflow_retries_total{upstream="main"} 1.0',
        'evenflow_faults_total{kind="server_error",upstream="main"} 1.0',
        'evenflow_repairs_total{shape="done"} 1.0',
        'evenflow_breaker_state{state="closed",upstream="main"} 1.0',
        "evenflow_streams_active 0.0",
        "evenflow_upstream_cancel_seconds_count 1.0",
    ):
        assert line in metrics

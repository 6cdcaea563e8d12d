"""The next upstream of a route: when it is asked, for which model, and in whose name the client is answered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from server.settings import RouteSettings, UpstreamRef

from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from server.simulator import Simulator

    from .running_proxy import LogTap

BOTH_ENGINES = pytest.mark.parametrize("engine", ["actors", "relay"])
BOTH_FORMS = pytest.mark.parametrize("stream", [True, False])


def first_then_spare(first: str, spare: str, **fields: object) -> RouteSettings:
    """One route whose two upstreams are asked for different models, so that one can fail and the other not."""
    refs = (UpstreamRef("first", first), UpstreamRef("spare", spare))
    return RouteSettings(model="*", upstreams=refs, **fields)  # type: ignore[arg-type]


@BOTH_ENGINES
@BOTH_FORMS
async def test_the_next_upstream_is_asked_when_the_first_stays_down(
    stream: bool, engine: str, simulator: Simulator, spare: Simulator, log: LogTap
) -> None:
    settings = settings_for({"first": simulator, "spare": spare}, engine=engine, routes=[first_then_spare("http-503", "ok")])
    async with running_proxy(settings, simulator, spare) as proxy:
        answer = await proxy.client.ask("anything", stream=stream)
        assert answer.status == 200
        assert answer.header("x-evenflow-upstream") == "spare"
        assert answer.header("x-evenflow-attempts") == "4"
        assert len(simulator.observer.seen) == 3
        assert len(spare.observer.seen) == 1
        await proxy.until_quiet()
        assert log.requests()[-1]["upstream"] == "spare"
        assert (proxy.circuit("first").failures, proxy.circuit("spare").failures) == (3, 0)


@BOTH_ENGINES
@BOTH_FORMS
async def test_row_1_an_upstream_that_refuses_connections_is_left_for_the_next(
    stream: bool, engine: str, spare: Simulator, unused_port: int
) -> None:
    settings = settings_for({"first": f"http://127.0.0.1:{unused_port}/v1", "spare": spare}, engine=engine)
    async with running_proxy(settings, spare) as proxy:
        answer = await proxy.client.ask("ok", stream=stream)
        assert answer.status == 200
        assert answer.header("x-evenflow-upstream") == "spare"


@BOTH_ENGINES
async def test_a_refused_credential_is_left_for_the_next_upstream_at_once(engine: str, simulator: Simulator, spare: Simulator) -> None:
    settings = settings_for({"first": simulator, "spare": spare}, engine=engine, routes=[first_then_spare("http-401", "ok")])
    async with running_proxy(settings, simulator, spare) as proxy:
        assert (await proxy.client.ask("anything")).status == 200
        assert len(simulator.observer.seen) == 1


@BOTH_ENGINES
async def test_row_8_a_long_retry_after_goes_to_the_next_upstream_at_once(engine: str, simulator: Simulator, spare: Simulator) -> None:
    settings = settings_for({"first": simulator, "spare": spare}, engine=engine, routes=[first_then_spare("http-429:20", "ok")])
    async with running_proxy(settings, simulator, spare) as proxy:
        answer = await proxy.client.ask("anything")
        assert answer.status == 200
        assert answer.header("x-evenflow-upstream") == "spare"
        assert len(simulator.observer.seen) == 1


@BOTH_ENGINES
@pytest.mark.parametrize("status", [400, 404, 422])
async def test_row_6_the_clients_own_mistake_is_not_taken_elsewhere(
    status: int, engine: str, simulator: Simulator, spare: Simulator
) -> None:
    settings = settings_for({"first": simulator, "spare": spare}, engine=engine, routes=[first_then_spare(f"http-{status}", "ok")])
    async with running_proxy(settings, simulator, spare) as proxy:
        assert (await proxy.client.ask("anything")).status == status
        assert len(spare.observer.seen) == 0


@BOTH_ENGINES
@BOTH_FORMS
async def test_a_prompt_that_is_too_long_goes_to_another_model(stream: bool, engine: str, simulator: Simulator, spare: Simulator) -> None:
    settings = settings_for({"first": simulator, "spare": spare}, engine=engine, routes=[first_then_spare("context-length", "ok")])
    async with running_proxy(settings, simulator, spare) as proxy:
        answer = await proxy.client.ask("anything", stream=stream)
        assert answer.status == 200
        assert answer.header("x-evenflow-attempts") == "2"


@BOTH_ENGINES
async def test_a_prompt_that_is_too_long_does_not_go_to_the_same_model_elsewhere(
    engine: str, simulator: Simulator, spare: Simulator
) -> None:
    async with running_proxy(settings_for({"first": simulator, "spare": spare}, engine=engine), simulator, spare) as proxy:
        answer = await proxy.client.ask("context-length")
        assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
        assert len(spare.observer.seen) == 0


@BOTH_ENGINES
async def test_a_rejected_content_is_not_taken_elsewhere(engine: str, simulator: Simulator, spare: Simulator) -> None:
    settings = settings_for({"first": simulator, "spare": spare}, engine=engine, routes=[first_then_spare("content-filter", "ok")])
    async with running_proxy(settings, simulator, spare) as proxy:
        answer = await proxy.client.ask("anything")
        assert (answer.status, answer.error["code"]) == (400, "content_filter")
        assert len(spare.observer.seen) == 0


@BOTH_ENGINES
async def test_the_model_is_renamed_and_nothing_else(engine: str, simulator: Simulator) -> None:
    body = '{"a": "\\u00e9 ", "model" : "mine", "stream":true,  "messages":[{"role":"user","content":"model"}], "model": "mine", "x": 1e5}'
    route = RouteSettings(model="mine", upstreams=(UpstreamRef("main", "ok"),))
    async with running_proxy(settings_for({"main": simulator}, engine=engine, routes=[route]), simulator) as proxy:
        answer = await proxy.client.post("/chat/completions", body.encode())
        assert answer.status == 200
        (seen,) = simulator.observer.seen
        assert seen.body == body.replace('"mine"', '"ok"').encode()


@BOTH_ENGINES
async def test_a_body_goes_up_as_it_came(engine: str, simulator: Simulator) -> None:
    body = (
        b'{ "model":"ok","stream" :true,\n"messages":[ {"role":"user","content":"\\ud83d\\ude00 \xf0\x9f\x98\x80"}],"temperature":0.10}\n'
    )
    async with running_proxy(settings_for({"main": simulator}, engine=engine), simulator) as proxy:
        assert (await proxy.client.post("/chat/completions", body)).status == 200
        (seen,) = simulator.observer.seen
        assert seen.body == body


async def test_an_exact_route_goes_before_a_glob_before_the_star(simulator: Simulator, spare: Simulator) -> None:
    routes = [
        RouteSettings(model="*", upstreams=(UpstreamRef("main", "count:1"),)),
        RouteSettings(model="big-*", upstreams=(UpstreamRef("main", "count:2"),)),
        RouteSettings(model="big-one", upstreams=(UpstreamRef("main", "count:3"),)),
    ]
    async with running_proxy(settings_for({"main": simulator}, routes=routes), simulator) as proxy:
        for asked in ("other", "big-two", "big-one"):
            assert (await proxy.client.ask(asked)).status == 200
        asked_for = [json.loads(seen.body)["model"] for seen in simulator.observer.seen]
        assert asked_for == ["count:1", "count:2", "count:3"]


async def test_a_model_without_a_route_is_told_what_there_is(simulator: Simulator) -> None:
    routes = [RouteSettings(model="mine", upstreams=("main",)), RouteSettings(model="qwen*", upstreams=("main",))]
    async with running_proxy(settings_for({"main": simulator}, routes=routes), simulator) as proxy:
        answer = await proxy.client.ask("theirs")
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")
        assert "mine" in answer.error["message"]
        assert "qwen*" in answer.error["message"]
        assert len(simulator.observer.seen) == 0

"""A second upstream beside a silent one, over real sockets: the faster answers, the other is let go at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from server.settings import RouteSettings, UpstreamRef

from .running_proxy import running_proxy, settings_for
from .test_admission import metrics_of

if TYPE_CHECKING:
    from trio.testing import MockClock

    from server.simulator import Simulator

    from .running_proxy import LogTap

BOTH_ENGINES = pytest.mark.parametrize("engine", ["actors", "relay"])
BOTH_FORMS = pytest.mark.parametrize("stream", [True, False])


def hedged(first: str, spare: str, after: float = 0.1) -> list[RouteSettings]:
    refs = (UpstreamRef("first", first), UpstreamRef("spare", spare))
    return [RouteSettings(model="*", upstreams=refs, hedge_after=after)]


@BOTH_ENGINES
@BOTH_FORMS
async def test_row_04_a_silent_upstream_costs_only_the_hedges_delay(
    stream: bool, engine: str, simulator: Simulator, spare: Simulator, log: LogTap
) -> None:
    settings = settings_for({"first": simulator, "spare": spare}, engine=engine, routes=hedged("silence", "ok"))
    async with running_proxy(settings, simulator, spare) as proxy:
        began = trio.current_time()
        answer = await proxy.client.ask("any", stream=stream)
        assert trio.current_time() - began < 20.0  # timers.first_token is 300 s
        assert (answer.status, answer.header("x-evenflow-upstream"), answer.header("x-evenflow-attempts")) == (200, "spare", "2")
        assert answer.done if stream else answer.json["choices"]
        await simulator.observer.wait_for(lambda observer: observer.closes == 1)
        await proxy.until_quiet()
        line = log.requests()[-1]
        assert (line["hedged"], line["attempts"], line["outcome"]) == ({"won": 1}, 2, "done")
        assert (proxy.circuit("first").slow, proxy.circuit("first").failures) == (1, 0)
        assert (await metrics_of(proxy))['evenflow_hedges_total{result="won"}'] == 1


@BOTH_ENGINES
async def test_the_first_may_win_all_the_same(engine: str, simulator: Simulator, spare: Simulator, log: LogTap, clock: MockClock) -> None:
    settings = settings_for({"first": simulator, "spare": spare}, engine=engine, routes=hedged("slow-first-token:10", "silence"))
    async with running_proxy(settings, simulator, spare) as proxy:
        async with proxy.client.open("any") as exchange:
            await spare.observer.wait_for(lambda observer: observer.active == 1)
            clock.jump(10.0)
            answer = await exchange.rest()
        assert (answer.status, answer.header("x-evenflow-upstream"), answer.done) == (200, "first", True)
        await spare.observer.wait_for(lambda observer: observer.closes == 1)
        await proxy.until_quiet()
        assert log.requests()[-1]["hedged"] == {"lost": 1}


@BOTH_ENGINES
@BOTH_FORMS
async def test_rows_41_and_43_both_are_let_go_when_the_client_leaves(
    stream: bool, engine: str, simulator: Simulator, spare: Simulator, log: LogTap
) -> None:
    settings = settings_for({"first": simulator, "spare": spare}, engine=engine, routes=hedged("silence", "silence"))
    async with running_proxy(settings, simulator, spare) as proxy:
        async with proxy.client.open("any", stream=stream) as exchange:
            await spare.observer.wait_for(lambda observer: observer.active == 1)
            await exchange.leave()
        for upstream in (simulator, spare):
            await upstream.observer.wait_for(lambda observer: observer.closes == 1)
        await proxy.until_quiet()
        assert log.requests()[-1]["hedged"] == {"cancelled": 1}
        assert (proxy.circuit("first").calls, proxy.circuit("spare").calls) == (0, 0)


async def test_a_silent_route_is_asked_once_each(simulator: Simulator, spare: Simulator) -> None:
    settings = settings_for({"first": simulator, "spare": spare}, routes=hedged("silence", "silence"), timers={"first_token": 0.3})
    async with running_proxy(settings, simulator, spare) as proxy:
        answer = await proxy.client.ask("any")
        assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
        assert (len(simulator.observer.seen), len(spare.observer.seen)) == (1, 1)


async def test_embeddings_are_not_asked_twice(simulator: Simulator, spare: Simulator) -> None:
    settings = settings_for({"first": simulator, "spare": spare}, routes=hedged("slow-headers:0.3", "ok"))
    async with running_proxy(settings, simulator, spare) as proxy:
        await proxy.client.post("/embeddings", b'{"model": "any", "input": "x"}')
        assert len(spare.observer.seen) == 0

"""The circuit breaker as clients and operators see it: it refuses, moves a route on, closes again, and obeys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from server.settings import RouteSettings, UpstreamRef
from server.simulator import open_simulator, parse_scenario

from .running_proxy import eventually, running_proxy, settings_for

if TYPE_CHECKING:
    from trio.testing import MockClock

    from server.simulator import Simulator

    from .running_proxy import LogTap, RunningProxy

BOTH_ENGINES = pytest.mark.parametrize("engine", ["actors", "relay"])
BOTH_FORMS = pytest.mark.parametrize("stream", [True, False])
#: Two failures open it, for half a minute.
QUICK = {"consecutive_failures": 2, "open_base": 30.0, "alone_open_max": 30.0, "jitter": 0.0, "successes": 1}
NO_RETRY = {"retries": 0}


async def status_of(proxy: RunningProxy, upstream: str = "main") -> dict[str, Any]:
    answer = await proxy.admin.get("/status")
    assert answer.status == 200
    told = answer.json["upstreams"][upstream]
    assert isinstance(told, dict)
    return told


async def order(proxy: RunningProxy, what: str, body: dict[str, str] | None = None) -> int:
    """Tell the admin listener; returns the status."""
    return (await proxy.admin.post(f"/breaker/{what}", json.dumps(body or {}).encode())).status


@BOTH_ENGINES
@BOTH_FORMS
async def test_it_opens_refuses_at_once_and_closes_again(
    stream: bool, engine: str, simulator: Simulator, log: LogTap, clock: MockClock
) -> None:
    settings = settings_for({"main": simulator}, engine=engine, retry=NO_RETRY, breaker=QUICK)
    async with running_proxy(settings, simulator) as proxy:
        for _ in range(2):
            assert (await proxy.client.ask("http-503", stream=stream)).status == 503
        assert (await status_of(proxy))["state"] == "open"
        refused = await proxy.client.ask("ok", stream=stream)  # which has less patience than the circuit is open
        assert (refused.status, refused.error["code"]) == (503, "upstream_unavailable")
        assert "'main' is open" in refused.error["message"]
        assert 5 < int(refused.header("retry-after")) <= 30
        assert len(simulator.observer.seen) == 2
        clock.jump(30.0)
        await eventually(lambda: proxy.circuit("main").state == "half_open")
        assert (await status_of(proxy))["state"] == "half_open"
        assert (await proxy.client.ask("ok", stream=stream)).status == 200
        await proxy.until_quiet()
        assert (await status_of(proxy))["state"] == "closed"
        transitions = [(line["before"], line["after"]) for line in log.lines if line["event"] == "breaker"]
        assert transitions == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]


@BOTH_ENGINES
async def test_a_route_moves_on_to_the_next_upstream_while_one_is_open(engine: str, simulator: Simulator, spare: Simulator) -> None:
    route = RouteSettings(model="*", upstreams=(UpstreamRef("first", "http-503"), UpstreamRef("spare", "ok")))
    settings = settings_for({"first": simulator, "spare": spare}, engine=engine, retry=NO_RETRY, breaker=QUICK, routes=[route])
    async with running_proxy(settings, simulator, spare) as proxy:
        for _ in range(5):
            answer = await proxy.client.ask("anything")
            assert answer.header("x-evenflow-upstream") == "spare"
        assert len(simulator.observer.seen) == 2
        assert len(spare.observer.seen) == 5


@BOTH_ENGINES
async def test_row_62_all_open_says_which_and_until_when(engine: str, simulator: Simulator, spare: Simulator) -> None:
    # No back-off is short enough to pass for no wait at all.
    settings = settings_for({"first": simulator, "spare": spare}, engine=engine, retry={"backoff_base": 60.0, "backoff_cap": 60.0})
    async with running_proxy(settings, simulator, spare) as proxy:
        for name in ("first", "spare"):
            assert await order(proxy, f"{name}/force", {"state": "forced_open"}) == 200
        answer = await proxy.client.ask("ok")
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
        for name in ("first", "spare"):  # which, and until when
            assert f"'{name}' is forced_open" in answer.error["message"]
        assert answer.error["message"].count("next try in") == 2
        assert answer.header("retry-after")
        assert len(simulator.observer.seen) == len(spare.observer.seen) == 0


async def test_what_an_upstream_said_is_not_masked_by_a_refused_fallback(simulator: Simulator, spare: Simulator) -> None:
    settings = settings_for({"first": simulator, "spare": spare}, retry=NO_RETRY)
    async with running_proxy(settings, simulator, spare) as proxy:
        await order(proxy, "spare/force", {"state": "forced_open"})
        answer = await proxy.client.ask("http-500")
        assert answer.status == 500


async def test_the_operator_can_reset_it(simulator: Simulator) -> None:
    settings = settings_for({"main": simulator}, retry=NO_RETRY, breaker=QUICK)
    async with running_proxy(settings, simulator) as proxy:
        for _ in range(2):
            await proxy.client.ask("http-503")
        assert (await proxy.client.ask("ok")).status == 503
        assert await order(proxy, "main/reset") == 200
        assert (await proxy.client.ask("ok")).status == 200


async def test_the_operator_can_force_and_release_it(proxy: RunningProxy, simulator: Simulator) -> None:
    assert await order(proxy, "main/force", {"state": "forced_open"}) == 200
    assert (await proxy.client.ask("ok")).status == 503
    assert len(simulator.observer.seen) == 0
    assert await order(proxy, "main/force", {"state": "on"}) == 200
    assert (await proxy.client.ask("ok")).status == 200


async def test_metrics_only_counts_and_never_refuses(simulator: Simulator) -> None:
    settings = settings_for({"main": simulator}, retry=NO_RETRY, breaker=QUICK | {"mode": "metrics_only"})
    async with running_proxy(settings, simulator) as proxy:
        for _ in range(4):
            assert (await proxy.client.ask("http-503")).status == 503
        assert len(simulator.observer.seen) == 4
        told = await status_of(proxy)
        assert (told["state"], told["circuit"]) == ("metrics_only", "open")


@BOTH_ENGINES
async def test_a_429_pauses_and_is_no_failure(engine: str, simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}, engine=engine, retry=NO_RETRY), simulator) as proxy:
        answer = await proxy.client.ask("http-429:30")
        assert answer.status == 429
        told = await status_of(proxy)
        assert (told["state"], told["failures"]) == ("paused", 0)
        assert 25 < told["seconds_left"] <= 30
        refused = await proxy.client.ask("ok")
        assert refused.status == 503
        assert 25 < int(refused.header("retry-after")) <= 31


@BOTH_ENGINES
async def test_a_403_about_one_model_pauses_nobody_and_a_401_pauses_the_upstream(engine: str, simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}, engine=engine, breaker={"pause": 30.0}), simulator) as proxy:
        answer = await proxy.client.ask("http-403")
        assert (answer.status, answer.error["code"]) == (502, "upstream_auth_error")
        assert "does not allow this model" in answer.error["message"]
        assert (await proxy.client.ask("ok")).status == 200
        answer = await proxy.client.ask("http-401")
        assert (answer.status, answer.error["code"]) == (502, "upstream_auth_error")
        assert (await proxy.client.ask("ok")).error["code"] == "upstream_unavailable"
        assert (await status_of(proxy))["state"] == "paused"


async def test_streams_that_break_open_it_although_http_said_200(simulator: Simulator) -> None:
    # A stream's first output ends a row of failures, so it is the rate that opens it.
    breaker = QUICK | {"minimum_calls": 2, "failure_rate": 0.5}
    async with running_proxy(settings_for({"main": simulator}, breaker=breaker), simulator) as proxy:
        for _ in range(2):
            assert (await proxy.client.ask("cut")).status == 200
        await proxy.until_quiet()
        assert proxy.circuit("main").state == "open"
        assert (await proxy.client.ask("ok")).status == 503


async def test_row_60_one_probe_reaches_a_half_open_upstream_and_the_rest_is_refused(clock: MockClock) -> None:
    scenario = parse_scenario('[[step]]\nanswer = "http-503"\ntimes = 2\n[[step]]\nanswer = "slow-first-token:20"')
    async with open_simulator(pace=0.0, scenario=scenario) as simulator:
        settings = settings_for({"main": simulator}, retry=NO_RETRY, breaker=QUICK)
        async with running_proxy(settings, simulator) as proxy:
            for _ in range(2):
                await proxy.client.ask("any")
            clock.jump(30.0)
            await eventually(lambda: proxy.circuit("main").state == "half_open")
            statuses: list[int] = []
            waits: list[str] = []

            async def one() -> None:
                answer = await proxy.client.ask("any")
                statuses.append(answer.status)
                if answer.status == 503:
                    waits.append(answer.header("retry-after"))

            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(one)
                await eventually(lambda: len(statuses) == 19)
                clock.jump(20.0)
            assert sorted(statuses) == [200] + [503] * 19
            assert all(waits)
            assert len(simulator.observer.seen) == 3


async def test_row_61_a_probe_whose_client_leaves_gives_its_permit_back(clock: MockClock) -> None:
    scenario = parse_scenario('[[step]]\nanswer = "http-503"\ntimes = 2\n[[step]]\nanswer = "silence"\ntimes = 1\n[[step]]\nanswer = "ok"')
    async with open_simulator(pace=0.0, scenario=scenario) as simulator:
        settings = settings_for({"main": simulator}, retry=NO_RETRY, breaker=QUICK)
        async with running_proxy(settings, simulator) as proxy:
            for _ in range(2):
                await proxy.client.ask("any")
            clock.jump(30.0)
            await eventually(lambda: proxy.circuit("main").state == "half_open")
            async with proxy.client.open("any") as exchange:
                await simulator.observer.wait_for(lambda observer: observer.active == 1)
                await exchange.leave()
            await simulator.observer.wait_for(lambda observer: observer.closes == 1)
            await proxy.until_quiet()
            assert (await proxy.client.ask("any")).status == 200

"""The same upstream asked again, before output was sent: for what, how often, after how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from server.simulator import open_simulator, parse_scenario

from .raw_client import RawClient
from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from server.simulator import Simulator

    from .running_proxy import LogTap, RunningProxy

BOTH_ENGINES = pytest.mark.parametrize("engine", ["actors", "relay"])
BOTH_FORMS = pytest.mark.parametrize("stream", [True, False])


@BOTH_ENGINES
@BOTH_FORMS
async def test_row_10_a_503_that_passes_is_not_seen_by_the_client(
    stream: bool, proxy: RunningProxy, simulator: Simulator, log: LogTap
) -> None:
    answer = await proxy.client.ask("flaky:fails=1", stream=stream)
    assert answer.status == 200
    assert answer.whole
    assert answer.header("x-evenflow-attempts") == "2"
    assert [seen.attempt for seen in simulator.observer.seen] == ["1", "2"]
    await proxy.until_quiet()
    (line,) = log.requests()
    assert (line["outcome"], line["attempts"]) == ("done", 2)
    assert proxy.circuit("main").failures == 1


@BOTH_ENGINES
@BOTH_FORMS
@pytest.mark.parametrize("fault", ["reset-before-headers", "close-before-headers"])
async def test_a_connection_that_breaks_before_an_answer_is_asked_again(
    fault: str, stream: bool, proxy: RunningProxy, simulator: Simulator
) -> None:
    answer = await proxy.client.ask(f"{fault}:times=2", stream=stream)
    assert answer.status == 200
    assert len(simulator.observer.seen) == 3


@pytest.mark.parametrize("fault", ["cut:after=1,times=1", "truncated:after=1,times=1", "json-error-200:times=1", "error-first:times=1"])
async def test_an_answer_that_ends_before_its_first_output_is_asked_again(fault: str, proxy: RunningProxy, simulator: Simulator) -> None:
    good = await proxy.client.ask("ok")
    answer = await proxy.client.ask(fault)
    assert answer.status == 200
    assert answer.done
    assert answer.text() == good.text()
    assert answer.header("x-evenflow-attempts") == "2"


@BOTH_ENGINES
async def test_a_whole_answer_that_was_cut_is_asked_again(proxy: RunningProxy) -> None:
    answer = await proxy.client.ask("cut:times=1", stream=False)
    assert answer.status == 200
    assert answer.json["choices"][0]["finish_reason"] == "stop"


@BOTH_ENGINES
async def test_an_answer_of_another_endpoint_that_breaks_before_its_first_byte_is_asked_for_again(
    proxy: RunningProxy, simulator: Simulator, log: LogTap
) -> None:
    answer = await proxy.client.post("/embeddings", b'{"model": "reset-after-headers:times=1", "input": "x"}')
    assert answer.status == 200
    assert answer.json["data"]
    assert len(simulator.observer.seen) == 2
    await proxy.until_quiet()
    (line,) = log.requests()
    assert (line["outcome"], line["attempts"]) == ("done", 2)


async def test_row_35_a_connection_that_was_closed_when_it_was_used_again_is_replaced(proxy: RunningProxy, simulator: Simulator) -> None:
    first = await proxy.client.ask("drop-next")
    again = await proxy.client.ask("ok")
    assert (first.status, again.status) == (200, 200)
    assert again.done
    assert again.header("x-evenflow-attempts") == "1"
    one, other = simulator.observer.seen
    assert one.connection != other.connection
    await proxy.until_quiet()
    assert proxy.circuit("main").failures == 0


@BOTH_ENGINES
@pytest.mark.parametrize(
    ("model", "least"),
    [
        ("http-429:retry_after_ms=120,times=1", 0.12),
        ("http-429-past:times=1", 0.0),
        # Nothing that could be read: as long as our own circuit is paused.
        ("http-429-garbage:times=1", 0.05),
        ("http-429:times=1", 0.05),
    ],
)
async def test_rows_8_and_9_a_429_is_waited_for_as_long_as_it_says(model: str, least: float, engine: str, simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}, engine=engine, breaker={"pause": 0.05}), simulator) as proxy:
        answer = await proxy.client.ask(model)
        assert answer.status == 200
        first, second = simulator.observer.seen
        assert least <= second.arrived - first.arrived < least + 10.0
        await proxy.until_quiet()
        assert proxy.circuit("main").failures == 0


@pytest.mark.parametrize(
    ("engine", "model", "least"),
    [
        ("actors", "http-429-seconds:times=1", 1.0),
        # The date has whole seconds and is 2 s ahead, so it is between 1 and 2 s away.
        ("relay", "http-429-date:times=1", 0.9),
    ],
)
async def test_rows_8_and_9_seconds_and_dates_are_understood(model: str, least: float, proxy: RunningProxy, simulator: Simulator) -> None:
    answer = await proxy.client.ask(model)
    assert answer.status == 200
    first, second = simulator.observer.seen
    assert least <= second.arrived - first.arrived < 10.0


@BOTH_ENGINES
@BOTH_FORMS
async def test_row_8_a_429_that_asks_for_too_long_is_handed_to_the_client_with_its_header(
    stream: bool, engine: str, simulator: Simulator
) -> None:
    settings = settings_for({"main": simulator}, engine=engine, retry={"retry_after_max": 0.1, "retry_after_max_alone": 0.1})
    async with running_proxy(settings, simulator) as proxy:
        answer = await proxy.client.ask("http-429:7", stream=stream)
        assert answer.status == 429
        assert answer.header("retry-after") == "7"
        assert answer.error["code"] == "rate_limit_exceeded"
        assert len(simulator.observer.seen) == 1


async def test_row_9_an_absurd_retry_after_is_not_waited_for(proxy: RunningProxy, simulator: Simulator) -> None:
    answer = await proxy.client.ask("http-429:1000000000")
    assert answer.status == 429
    assert len(simulator.observer.seen) == 1
    await proxy.until_quiet()
    assert proxy.circuit("main").seconds_left(0.0) > 0


@BOTH_ENGINES
@BOTH_FORMS
async def test_a_client_that_is_itself_retrying_gets_one_retry_at_most(stream: bool, proxy: RunningProxy, simulator: Simulator) -> None:
    answer = await proxy.client.ask("http-503", stream=stream, headers={"x-stainless-retry-count": "1"})
    assert answer.status == 503
    assert len(simulator.observer.seen) == 2


@BOTH_ENGINES
async def test_a_client_on_its_first_try_says_so_and_gets_all_retries(proxy: RunningProxy, simulator: Simulator) -> None:
    await proxy.client.ask("http-503", headers={"x-stainless-retry-count": "0"})
    assert len(simulator.observer.seen) == 3


@BOTH_ENGINES
async def test_row_63_the_retry_budget_bounds_the_retries_of_all_requests(engine: str, simulator: Simulator) -> None:
    settings = settings_for(
        {"main": simulator}, engine=engine, retry={"budget_ratio": 0.0, "budget_floor": 3}, breaker={"mode": "metrics_only"}
    )
    async with running_proxy(settings, simulator) as proxy:
        for _ in range(10):
            answer = await proxy.client.ask("http-503")
            assert answer.status == 503
        assert len(simulator.observer.seen) == 10 + 3


@BOTH_ENGINES
async def test_row_63_a_storm_costs_a_fifth_more_at_the_most(engine: str, simulator: Simulator) -> None:
    settings = settings_for({"main": simulator}, engine=engine, retry={"budget_floor": 0}, breaker={"mode": "metrics_only"})
    assert settings.retry.budget_ratio == 0.2
    async with running_proxy(settings, simulator) as proxy:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(proxy.client.ask, "http-503")
        asked = len(simulator.observer.seen)
        # A fifth of the attempts, retries among them: of 125, 25.
        assert 100 < asked <= 125
        assert b"evenflow_retries_refused_total" in (await proxy.admin.get("/metrics")).body


async def test_a_route_can_switch_retries_off(simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}, retry={"retries": 0}), simulator) as proxy:
        assert (await proxy.client.ask("http-503")).status == 503
        assert len(simulator.observer.seen) == 1


@BOTH_ENGINES
async def test_the_latest_error_decides_what_the_client_is_told(engine: str) -> None:
    scenario = parse_scenario(
        '[[step]]\nanswer = "http-503"\ntimes = 1\n[[step]]\nanswer = "http-500"\ntimes = 1\n[[step]]\nanswer = "http-404"'
    )
    async with (
        open_simulator(pace=0.0, scenario=scenario) as simulator,
        running_proxy(settings_for({"main": simulator}, engine=engine)) as proxy,
    ):
        answer = await proxy.client.ask("anything")
        assert answer.status == 404
        assert answer.body == (await RawClient(simulator.base_url, None).ask("anything")).body

"""Every timer that fires says which setting it was, and what it bounded is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from server.settings import RouteSettings

from .raw_client import PATIENCE
from .running_proxy import running_proxy, settings_for, upstream_of

if TYPE_CHECKING:
    from server.settings import Settings
    from server.simulator import Simulator

    from .raw_client import Answer, Exchange
    from .running_proxy import LogTap

KEEP_ALIVE = b": keep-alive\n\n"
BOTH_ENGINES = pytest.mark.parametrize("engine", ["actors", "relay"])
BOTH_FORMS = pytest.mark.parametrize("stream", [True, False])
#: Where a timer is set: for everything, for the upstream, for the route.
PLACES = pytest.mark.parametrize("place", ["globally", "upstream", "route"])


def with_timers(place: str, engine: str, simulator: Simulator, timers: dict[str, float]) -> Settings:
    """Settings in which `timers` are set at one place and far too long at the more general ones."""
    long = dict.fromkeys(timers, 60.0)
    match place:
        case "globally":
            return settings_for({"main": simulator}, engine=engine, timers=timers)
        case "upstream":
            return settings_for({"main": upstream_of(simulator, timers=timers)}, engine=engine, timers=long)
        case _:
            route = RouteSettings(model="*", upstreams=("main",), timers=timers)
            return settings_for({"main": upstream_of(simulator, timers=long)}, engine=engine, timers=long, routes=[route])


async def after_jump(clock: MockClock, exchange: Exchange, seconds: float = 10.0) -> Answer:
    """What comes of an exchange in which nothing more is on its way, once the time has passed."""
    await wait_all_tasks_blocked(0.01)
    clock.jump(seconds)
    return await exchange.rest()


@PLACES
@pytest.mark.parametrize(
    ("engine", "model"),
    [
        ("actors", "silence"),
        ("relay", "silence"),
        ("actors", "headers-byte-by-byte:20"),
        ("relay", "headers-byte-by-byte:20"),
        ("actors", "role-then-silence"),  # to the relay the first byte is the first token
    ],
)
async def test_rows_4_and_5_no_token_in_time(
    place: str, model: str, engine: str, simulator: Simulator, log: LogTap, clock: MockClock
) -> None:
    async with running_proxy(with_timers(place, engine, simulator, {"first_token": 10.0}), simulator) as proxy:
        async with proxy.client.open(model) as exchange:
            await simulator.observer.wait_for(lambda observer: observer.active == 1)
            answer = await after_jump(clock, exchange)
        assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
        assert "timers.first_token = 10 s" in answer.error["message"]
        await simulator.observer.wait_for(lambda observer: observer.closes == 1)
        await proxy.until_quiet()
        (line,) = log.requests()
        assert (line["termination"], line["setting"], line["attempts"]) == ("uH", "timers.first_token", 1)
        assert proxy.circuit("main").failures == 1


@BOTH_ENGINES
@PLACES
async def test_silence_in_the_middle(place: str, engine: str, simulator: Simulator, log: LogTap, clock: MockClock) -> None:
    async with running_proxy(with_timers(place, engine, simulator, {"idle": 10.0}), simulator) as proxy:
        async with proxy.client.open("stall") as exchange:
            await exchange.read_until(b"data: ")
            answer = await after_jump(clock, exchange)
        assert answer.status == 200
        if engine == "actors":
            assert answer.error["code"] == "upstream_timeout"
            assert "timers.idle = 10 s" in answer.error["message"]
        assert answer.whole is (engine == "actors")
        await simulator.observer.wait_for(lambda observer: observer.closes == 1)
        await proxy.until_quiet()
        (line,) = log.requests()
        assert (line["outcome"], line["termination"], line["setting"]) == ("error", "uD", "timers.idle")
        assert proxy.circuit("main").failures == 1


@pytest.mark.parametrize("model", ["comments-for-ever:pace=5", "trickle:text=abc,seconds=0.005"])
async def test_rows_29_and_34_bytes_that_are_no_token_do_not_put_it_off(model: str, simulator: Simulator) -> None:
    # An event of the trickle takes a second; its first one never comes, so it is the first token that is missed.
    async with running_proxy(settings_for({"main": simulator}, timers={"idle": 0.1, "first_token": 0.1}), simulator) as proxy:
        answer = await proxy.client.ask(model)
        assert answer.error["code"] == "upstream_timeout"


async def test_row_34_a_trickle_behind_the_first_token_is_no_token_either(simulator: Simulator, log: LogTap) -> None:
    # An event has some 200 bytes, so that each takes two seconds; bytes come fifty times as often as the timer strikes.
    async with running_proxy(settings_for({"main": simulator}, timers={"idle": 0.5}), simulator) as proxy:
        answer = await proxy.client.ask("trickle:after=4,seconds=0.01")
        assert answer.status == 200
        assert len(answer.events) == 4 + 1
        assert answer.error["code"] == "upstream_timeout"
        await simulator.observer.wait_for(lambda observer: observer.closes == 1)
        await proxy.until_quiet()
        (line,) = log.requests()
        assert (line["termination"], line["setting"]) == ("uD", "timers.idle")


@BOTH_ENGINES
@pytest.mark.parametrize("place", ["globally", "route"])  # of the whole request: no matter of one of its upstreams
async def test_row_30_a_stream_without_end(place: str, engine: str, simulator: Simulator, log: LogTap, clock: MockClock) -> None:
    async with running_proxy(with_timers(place, engine, simulator, {"total": 10.0}), simulator) as proxy:
        async with proxy.client.open("endless:pace=5") as exchange:
            await exchange.read_until(b"data: ")
            clock.jump(10.0)
            answer = await exchange.rest()
        assert answer.status == 200
        if engine == "actors":
            assert answer.error["code"] == "stream_too_long"
            assert "timers.total = 10 s" in answer.error["message"]
        assert answer.whole is (engine == "actors")
        with trio.fail_after(PATIENCE):
            await simulator.observer.wait_for(lambda observer: observer.closes == 1)
        await proxy.until_quiet()
        (line,) = log.requests()
        assert (line["outcome"], line["termination"], line["setting"]) == ("error", "PD", "timers.total")
        assert proxy.circuit("main").failures == 0


@BOTH_ENGINES
@BOTH_FORMS
async def test_the_whole_request_may_end_before_the_first_token(stream: bool, engine: str, simulator: Simulator, clock: MockClock) -> None:
    async with running_proxy(settings_for({"main": simulator}, engine=engine, timers={"total": 10.0}), simulator) as proxy:
        async with proxy.client.open("silence", stream=stream) as exchange:
            await simulator.observer.wait_for(lambda observer: observer.active == 1)
            answer = await after_jump(clock, exchange)
        assert (answer.status, answer.error["code"]) == (504, "stream_too_long")
        assert "timers.total = 10 s" in answer.error["message"]
        await simulator.observer.wait_for(lambda observer: observer.closes == 1)


@BOTH_ENGINES
async def test_the_whole_request_may_end_in_a_back_off(engine: str, simulator: Simulator) -> None:
    settings = settings_for({"main": simulator}, engine=engine, timers={"total": 0.1}, retry={"backoff_base": 60.0, "backoff_cap": 60.0})
    async with running_proxy(settings, simulator) as proxy:
        answer = await proxy.client.ask("http-503")
        assert (answer.status, answer.error["code"]) == (504, "stream_too_long")
        await proxy.until_quiet()
        metrics = (await proxy.admin.get("/metrics")).body
        assert b'evenflow_faults_total{kind="total_timeout",upstream="none"} 1.0' in metrics


async def test_a_request_that_is_not_streamed_has_no_first_token_and_no_idle_timer(simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}, timers={"first_token": 0.05, "idle": 0.05}), simulator) as proxy:
        answer = await proxy.client.ask("slow-headers:0.2", stream=False)
        assert answer.status == 200
        answer = await proxy.client.ask("slow-first-token:0.2", stream=False)
        assert answer.status == 200


@BOTH_ENGINES
@BOTH_FORMS
async def test_nobody_answers_the_connect(stream: bool, engine: str, full_backlog: int) -> None:
    url = f"http://127.0.0.1:{full_backlog}/v1"
    settings = settings_for({"main": url}, engine=engine, timers={"connect": 0.1}, retry={"retries": 0})
    async with running_proxy(settings) as proxy:
        answer = await proxy.client.ask("ok", stream=stream)
        assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
        assert "timers.connect = 0.1 s" in answer.error["message"]
        assert proxy.circuit("main").failures == 1


@BOTH_ENGINES
async def test_zero_switches_a_timer_off(engine: str, simulator: Simulator) -> None:
    timers = {"connect": 0.0, "first_token": 0.0, "idle": 0.0, "total": 0.0, "keepalive_after": 0.0, "client_stall": 0.0}
    async with running_proxy(settings_for({"main": simulator}, engine=engine, timers=timers), simulator) as proxy:
        answer = await proxy.client.ask("slow-first-token:0.1")
        assert answer.done


async def test_row_33_silence_is_filled_with_comments_until_the_timer_fires(simulator: Simulator, clock: MockClock) -> None:
    timers = {"keepalive_interval": 5.0, "idle": 60.0}
    async with running_proxy(settings_for({"main": simulator}, timers=timers), simulator) as proxy:
        async with proxy.client.open("stall") as exchange:
            await exchange.read_until(b"data: ")
            for _ in range(6):
                await wait_all_tasks_blocked(0.01)
                clock.jump(5.0)
            answer = await after_jump(clock, exchange, 60.0)
        assert answer.error["code"] == "upstream_timeout"
        assert len(answer.comments) == 6
        assert set(answer.comments) == {b": keep-alive\n\n"}


async def test_comments_come_before_the_first_token_and_stop_when_tokens_come(simulator: Simulator, clock: MockClock) -> None:
    timers = {"keepalive_after": 3.0, "keepalive_interval": 3.0}
    async with running_proxy(settings_for({"main": simulator}, timers=timers), simulator) as proxy:
        async with proxy.client.open("slow-first-token:20") as exchange:
            await simulator.observer.wait_for(lambda observer: observer.active == 1)
            await wait_all_tasks_blocked(0.01)
            clock.jump(3.0)
            await exchange.read_until(KEEP_ALIVE)
            answer = await after_jump(clock, exchange, 17.0)
        assert answer.done
        first_event = answer.body.index(b"data: ")
        assert answer.body.rindex(b": keep-alive") < first_event


async def test_a_slow_client_is_not_the_upstreams_silence(simulator: Simulator, log: LogTap, clock: MockClock) -> None:
    async with running_proxy(settings_for({"main": simulator}, timers={"idle": 10.0, "client_stall": 60.0}), simulator) as proxy:
        async with proxy.client.open("big:events=100,size=50000", receive_buffer=65_536) as exchange:
            await exchange.read_until(b"data: ")
            await wait_all_tasks_blocked(0.05)  # whatever fits between here and there is on its way, and everybody waits for the client
            clock.jump(20.0)
            await wait_all_tasks_blocked(0.01)
            assert log.requests() == []  # the stream waits for its client
            answer = await exchange.rest()
        assert answer.done

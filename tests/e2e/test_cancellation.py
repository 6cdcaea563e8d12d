"""A client that leaves, in whatever phase: its upstream is released, and nothing of its request is left over.

How fast is `make load`'s business; here it is counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from .raw_client import PATIENCE
from .running_proxy import eventually, running_proxy, settings_for

if TYPE_CHECKING:
    from server.simulator import Simulator

    from .raw_client import Exchange
    from .running_proxy import LogTap, RunningProxy

pytestmark = pytest.mark.usefixtures("way")

BOTH_ENGINES = pytest.mark.parametrize("engine", ["actors", "relay"])
HOW = pytest.mark.parametrize("how", ["fin", "rst", "half-close"])
CLIENTS = 20


async def leave(exchange: Exchange, how: str) -> None:
    match how:
        case "fin":
            await exchange.leave()
        case "rst":
            await exchange.reset()
        case "half-close":
            await exchange.half_close()


async def all_leave(proxy: RunningProxy, simulator: Simulator, how: str, model: str, *, seen: str, stream: bool = True) -> None:
    """CLIENTS clients ask for `model`, wait until they have `seen` of the answer, and leave; the simulator notices each."""
    arrived = 0
    everyone_is_there = trio.Event()

    async def one() -> None:
        nonlocal arrived
        async with proxy.client.open(model, stream=stream) as exchange:
            if seen:
                await exchange.read_until(seen.encode())
            arrived += 1
            if arrived == CLIENTS:
                await simulator.observer.wait_for(lambda observer: observer.active == CLIENTS)
                everyone_is_there.set()
            await everyone_is_there.wait()
            await leave(exchange, how)
            if how == "half-close":  # our own side closes only when the other did
                await exchange.rest()

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(one)
        await simulator.observer.wait_for(lambda observer: observer.closes == CLIENTS)
        await simulator.observer.wait_for(lambda observer: observer.connections == 0)
    await proxy.until_quiet()


async def nothing_is_left(proxy: RunningProxy, simulator: Simulator, log: LogTap, phase: str, *, stream: bool = True) -> None:
    assert simulator.observer.active == 0
    assert proxy.upstream_connections == 0
    assert proxy.circuit("main").permits_out == 0
    assert proxy.circuit("main").failures == 0
    assert proxy.proxy.services.metrics.streams_active == 0
    lines = log.requests()
    assert [(line["outcome"], line["termination"]) for line in lines] == [("cancelled", f"C{phase}")] * CLIENTS
    if stream:
        metrics = (await proxy.admin.get("/metrics")).body.decode()
        assert "evenflow_streams_active 0.0" in metrics
        assert f"evenflow_upstream_cancel_seconds_count {CLIENTS}.0" in metrics
    assert (await proxy.client.ask("ok", stream=stream)).status == 200


@BOTH_ENGINES
@HOW
@pytest.mark.parametrize("model", ["silence"])
async def test_rows_41_and_43_while_the_upstream_says_nothing_at_all(
    model: str, how: str, proxy: RunningProxy, simulator: Simulator, log: LogTap
) -> None:
    await all_leave(proxy, simulator, how, model, seen="")
    await nothing_is_left(proxy, simulator, log, "H")


@HOW
async def test_rows_41_and_43_before_the_first_token(how: str, proxy: RunningProxy, simulator: Simulator, log: LogTap) -> None:
    await all_leave(proxy, simulator, how, "role-then-silence", seen="")
    await nothing_is_left(proxy, simulator, log, "H")


@HOW
async def test_rows_41_and_43_while_keep_alives_are_all_there_is(how: str, simulator: Simulator, log: LogTap) -> None:
    timers = {"keepalive_after": 0.05, "keepalive_interval": 30.0}
    async with running_proxy(settings_for({"main": simulator}, timers=timers), simulator) as proxy:
        await all_leave(proxy, simulator, how, "role-then-silence", seen=": keep-alive")
        await nothing_is_left(proxy, simulator, log, "H")


@BOTH_ENGINES
@HOW
async def test_rows_42_and_43_in_the_middle_of_a_stream(how: str, proxy: RunningProxy, simulator: Simulator, log: LogTap) -> None:
    await all_leave(proxy, simulator, how, "endless:pace=20", seen="on and ")
    await nothing_is_left(proxy, simulator, log, "D")


@BOTH_ENGINES
@HOW
async def test_rows_42_and_43_in_the_middle_while_the_upstream_is_silent(
    how: str, proxy: RunningProxy, simulator: Simulator, log: LogTap
) -> None:
    await all_leave(proxy, simulator, how, "stall", seen="data: ")
    await nothing_is_left(proxy, simulator, log, "D")


@HOW
@pytest.mark.parametrize("model", ["silence", "stall", "slow-first-token:60", "endless:pace=20"])
async def test_rows_41_and_43_a_request_that_is_not_streamed(
    model: str, how: str, proxy: RunningProxy, simulator: Simulator, log: LogTap
) -> None:
    await all_leave(proxy, simulator, how, model, seen="", stream=False)
    await nothing_is_left(proxy, simulator, log, "H", stream=False)


@BOTH_ENGINES
@HOW
async def test_rows_41_and_43_in_a_back_off(how: str, engine: str, simulator: Simulator, log: LogTap) -> None:
    settings = settings_for(
        {"main": simulator},
        engine=engine,
        retry={"backoff_base": 60.0, "backoff_cap": 60.0, "budget_floor": 100},
        breaker={"mode": "metrics_only"},
    )
    async with running_proxy(settings, simulator) as proxy:
        exchanges: list[Exchange] = []
        async with trio.open_nursery() as nursery:
            done = trio.Event()

            async def one() -> None:
                async with proxy.client.open("http-503") as exchange:
                    exchanges.append(exchange)
                    await done.wait()
                    await leave(exchange, how)
                    if how == "half-close":
                        await exchange.rest()

            for _ in range(CLIENTS):
                nursery.start_soon(one)
            await simulator.observer.wait_for(lambda observer: observer.completed == CLIENTS)
            done.set()
        await proxy.until_quiet()
        assert len(simulator.observer.seen) == CLIENTS
        assert [(line["outcome"], line["attempts"]) for line in log.requests()] == [("cancelled", 1)] * CLIENTS
        assert proxy.circuit("main").permits_out == 0


@BOTH_ENGINES
@HOW
async def test_rows_41_and_43_while_connecting(how: str, engine: str, full_backlog: int, log: LogTap) -> None:
    settings = settings_for({"main": f"http://127.0.0.1:{full_backlog}/v1"}, engine=engine, timers={"connect": 60.0})
    async with running_proxy(settings) as proxy:
        done = trio.Event()

        async def one() -> None:
            async with proxy.client.open("ok") as exchange:
                await done.wait()
                await leave(exchange, how)
                if how == "half-close":
                    await exchange.rest()

        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(one)
            await eventually(lambda: proxy.circuit("main").permits_out == CLIENTS)  # the upstream sees no connection
            done.set()
        await proxy.until_quiet()
        assert proxy.upstream_connections == 0
        assert [(line["outcome"], line["termination"]) for line in log.requests()] == [("cancelled", "CC")] * CLIENTS
        assert proxy.circuit("main").failures == 0


async def test_others_go_on_when_one_leaves(proxy: RunningProxy, simulator: Simulator) -> None:
    good = await proxy.client.ask("count:60")
    async with proxy.client.open("count:60,pace=3") as stays, proxy.client.open("endless:pace=3") as leaves:
        await stays.read_until(b"data: ")
        await leaves.read_until(b"data: ")
        await leaves.reset()
        answer = await stays.rest()
    assert answer.done
    assert answer.text() == good.text()


async def test_a_client_that_leaves_while_it_sends_its_request_is_no_request(
    proxy: RunningProxy, simulator: Simulator, log: LogTap
) -> None:
    headers = {"content-length": "1000000"}
    async with proxy.client.send("POST", "/chat/completions", b'{"model": "ok"', headers) as exchange:
        await exchange.leave()
    await proxy.until_quiet()
    assert len(simulator.observer.seen) == 0
    assert log.requests() == []


@pytest.mark.parametrize("how", ["fin", "half-close"])
async def test_a_client_that_leaves_while_it_sends_its_request_is_counted_once_and_not_as_our_failure(
    how: str, proxy: RunningProxy
) -> None:
    async with proxy.client.send("POST", "/chat/completions", b'{"model": "ok"', {"content-length": "1000000"}) as exchange:
        await trio.testing.wait_all_tasks_blocked(0.01)
        await leave(exchange, how)
        if how == "half-close":
            raw = (await exchange.rest()).raw
            assert not raw or raw.startswith(b"HTTP/1.1 400 ")
    await proxy.until_quiet()
    await trio.testing.wait_all_tasks_blocked(0.01)
    metrics = (await proxy.admin.get("/metrics")).body.decode()
    counted = [line.rpartition(" ")[2] for line in metrics.splitlines() if line.startswith("evenflow_requests_total{")]
    assert counted == ["1.0"]


@BOTH_ENGINES
async def test_row_44_a_client_that_stops_reading_frees_its_upstream(engine: str, simulator: Simulator, log: LogTap) -> None:
    settings = settings_for({"main": simulator}, engine=engine, timers={"client_stall": 0.2})
    async with running_proxy(settings, simulator) as proxy:
        async with proxy.client.open("big:events=5000,size=50000", receive_buffer=8192) as stalled:
            await stalled.read_until(b"data: ")
            with trio.fail_after(PATIENCE):
                await simulator.observer.wait_for(lambda observer: observer.closes == 1)
            # The upstream and its permit are free although the client is still connected.
            assert (await proxy.client.ask("ok")).status == 200
            assert proxy.circuit("main").permits_out == 0
            # And in the end so is its connection: the kernel gives up on a peer that takes nothing.
            await proxy.until_quiet()
        stalled_line = next(line for line in log.requests() if line["model"].startswith("big"))
        assert (stalled_line["outcome"], stalled_line["termination"]) == ("cancelled", "cD")
        assert proxy.circuit("main").failures == 0

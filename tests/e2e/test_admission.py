"""Limits as clients see them: they wait, they are told that they wait, or they are turned away with a time to come back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from server.settings import AdmissionSettings, RouteSettings

from .raw_client import CLIENT_KEY
from .running_proxy import eventually, running_proxy, settings_for, upstream_of

if TYPE_CHECKING:
    from actors import AdmissionStatistics
    from server.simulator import Simulator

    from .raw_client import Answer
    from .running_proxy import LogTap, RunningProxy

BOTH_ENGINES = pytest.mark.parametrize("engine", ["actors", "relay"])
BOTH_FORMS = pytest.mark.parametrize("stream", [True, False])


def admitted(proxy: RunningProxy) -> AdmissionStatistics:
    return proxy.proxy.services.admission.statistics()


async def metrics_of(proxy: RunningProxy) -> dict[str, float]:
    text = (await proxy.admin.get("/metrics")).body.decode()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if not line.startswith("#")}


def is_a_clean_refusal(answer: Answer) -> bool:
    assert (answer.status, answer.error["code"], answer.error["type"]) == (503, "server_busy", "server_error")
    assert 2 <= int(answer.header("retry-after")) <= 10
    return True


@BOTH_ENGINES
@BOTH_FORMS
async def test_row_54_all_finish_or_get_503_with_retry_after_and_health_answers(stream: bool, engine: str, simulator: Simulator) -> None:
    limits = AdmissionSettings(max_streams=20, max_waiting=30, max_wait=5.0)
    async with running_proxy(settings_for({"main": simulator}, engine=engine, admission=limits), simulator) as proxy:
        answers: list[Answer] = []

        async def one() -> None:
            answers.append(await proxy.client.ask("slow-first-token:0.3", stream=stream))

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(one)
            with trio.fail_after(30):  # at no moment all of them, on a machine that is slower than their first tokens
                await simulator.observer.wait_for(lambda observer: observer.active >= 10)
            for client in (proxy.root, proxy.admin):
                for path in ("/healthz", "/readyz"):
                    began = trio.current_time()
                    assert (await client.get(path)).status == 200
                    assert trio.current_time() - began < 20.0
        served = [answer for answer in answers if answer.status == 200]
        assert len(served) >= 50
        assert all(is_a_clean_refusal(answer) for answer in answers if answer.status != 200)
        assert not any(answer.reset for answer in answers)
        assert all(answer.done for answer in served if stream)
        await proxy.until_quiet()
        assert (admitted(proxy).streams, admitted(proxy).waiting) == (0, 0)
        shown = await metrics_of(proxy)
        assert shown['evenflow_rejected_total{reason="full"}'] == 200 - len(served)
        assert shown["evenflow_waiting"] == 0


@BOTH_ENGINES
async def test_a_waiting_stream_hears_keep_alives_and_is_then_served(engine: str, simulator: Simulator, log: LogTap) -> None:
    settings = settings_for(
        {"main": upstream_of(simulator, slots=1)}, engine=engine, timers={"keepalive_after": 0.05, "keepalive_interval": 0.05}
    )
    async with running_proxy(settings, simulator) as proxy:
        async with proxy.client.open("endless") as first:
            await first.read_until(b"data:")
            async with proxy.client.open("ok") as second:
                if engine == "actors":  # the other engine adds no frames
                    await second.read_until(b": keep-alive")
                await eventually(lambda: admitted(proxy).waiting == 1)
                shown = await metrics_of(proxy)
                assert (shown["evenflow_waiting"], shown['evenflow_slots_in_use{upstream="main"}']) == (1, 1)
                status = (await proxy.admin.get("/status")).json["admission"]
                assert (status["waiting"], status["streams"], status["slots_in_use"]) == (1, 2, {"main": 1})
                assert len(simulator.observer.seen) == 1
                await first.leave()
                answer = await second.rest()
                assert answer.status == 200
                assert answer.done
        await proxy.until_quiet()
        assert admitted(proxy).slots_in_use == {"main": 0}
        assert [line["termination"] for line in log.requests()] == ["CD", "--"]


@BOTH_ENGINES
async def test_a_client_that_leaves_the_line_frees_its_place(engine: str, simulator: Simulator, log: LogTap) -> None:
    settings = settings_for({"main": upstream_of(simulator, slots=1)}, engine=engine, admission=AdmissionSettings(max_waiting=1))
    async with running_proxy(settings, simulator) as proxy:
        async with proxy.client.open("endless") as first:
            await first.read_until(b"data:")
            async with proxy.client.open("ok") as second:
                await eventually(lambda: admitted(proxy).waiting == 1)
                assert is_a_clean_refusal(await proxy.client.ask("ok"))
                await second.leave()
                await eventually(lambda: admitted(proxy).waiting == 0)
            async with proxy.client.open("ok") as third:
                await eventually(lambda: admitted(proxy).waiting == 1)
                await first.leave()
                assert (await third.rest()).status == 200
        await proxy.until_quiet()
        assert [seen.model for seen in simulator.observer.seen] == ["endless", "ok"]
        assert "CC" in [line["termination"] for line in log.requests()]


async def test_slots_are_given_to_the_clients_in_turn(simulator: Simulator) -> None:
    keys = {"greedy": CLIENT_KEY, "modest": "sk-another-client-0123456789"}
    settings = settings_for({"main": upstream_of(simulator, slots=1)}, timers={"first_token": 5.0})
    settings = msgspec.structs.replace(settings, client_keys=tuple(type(settings.client_keys[0])(key) for key in keys.values()))
    waiting = ["greedy"] * 4 + ["modest"] * 2
    async with running_proxy(settings, simulator) as proxy:

        async def one(name: str, number: int) -> None:
            answer = await proxy.client.ask("ok", headers={"authorization": f"Bearer {keys[name]}"}, user=f"{name}-{number}")
            assert answer.status == 200

        async with trio.open_nursery() as nursery, proxy.client.open("endless") as holder:
            await holder.read_until(b"data:")
            for number, name in enumerate(waiting, 1):
                nursery.start_soon(one, name, number)
                await eventually(lambda number=number: admitted(proxy).waiting == number)  # type: ignore[misc]
            await holder.leave()
        served = [json.loads(seen.body)["user"] for seen in simulator.observer.seen if b'user":' in seen.body and seen.model == "ok"]
        assert served == ["greedy-1", "modest-5", "greedy-2", "modest-6", "greedy-3", "greedy-4"]


@BOTH_ENGINES
async def test_who_waits_too_long_goes_to_the_next_upstream_of_the_route(engine: str, simulator: Simulator, spare: Simulator) -> None:
    upstreams = {"local": upstream_of(simulator, slots=1), "spare": upstream_of(spare)}
    settings = settings_for(upstreams, engine=engine, admission=AdmissionSettings(max_wait=0.1))
    async with running_proxy(settings, simulator, spare) as proxy, proxy.client.open("endless") as first:
        await first.read_until(b"data:")
        answer = await proxy.client.ask("ok")
        assert (answer.status, answer.header("x-evenflow-upstream")) == (200, "spare")
        await first.leave()


async def test_who_waits_too_long_alone_is_told_which_setting(simulator: Simulator, log: LogTap) -> None:
    settings = settings_for({"main": upstream_of(simulator, slots=1)}, admission=AdmissionSettings(max_wait=0.1))
    async with running_proxy(settings, simulator) as proxy, proxy.client.open("endless") as first:
        await first.read_until(b"data:")
        answer = await proxy.client.ask("ok", stream=False)
        assert is_a_clean_refusal(answer)
        assert "upstreams.main.slots" in answer.error["message"]
        await eventually(lambda: bool(log.requests()))
        line = log.requests()[0]
        assert (line["termination"], line["fault"], line["setting"], line["attempts"]) == ("PC", "busy", "upstreams.main.slots", 0)
        await first.leave()


# ---- memory -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
async def test_row_65_bodies_beyond_the_bound_are_shed_before_they_are_read(chunked: bool, simulator: Simulator) -> None:
    settings = settings_for({"main": simulator}, admission=AdmissionSettings(max_body_bytes=400_000))
    body = {"model": "endless", "stream": True, "messages": [{"role": "user", "content": "x" * 250_000}]}
    async with running_proxy(settings, simulator) as proxy:
        headers = {"accept": "text/event-stream"}
        async with proxy.client.send("POST", "/chat/completions", json.dumps(body).encode(), headers) as first:
            await first.read_until(b"data:")
            assert admitted(proxy).body_bytes > 250_000
            refused = await proxy.client.post("/chat/completions", json.dumps(body).encode(), chunked=chunked)
            assert is_a_clean_refusal(refused)
            assert "admission.max_body_bytes" in refused.error["message"]
            assert (await proxy.client.ask("ok")).status == 200  # a short one still fits
            await first.leave()
        await proxy.until_quiet()
        assert admitted(proxy).body_bytes == 0
        assert (await metrics_of(proxy))['evenflow_rejected_total{reason="memory"}'] == 1


async def test_row_65_when_memory_is_short_new_requests_are_shed_and_running_ones_go_on(simulator: Simulator, log: LogTap) -> None:
    tight = settings_for({"main": simulator}, admission=AdmissionSettings(max_memory=1e-9))  # what any process exceeds
    async with running_proxy(tight, simulator) as proxy:
        assert (await proxy.root.get("/readyz")).status == 200  # nobody is served: one is let in
        async with proxy.client.open("count:40,pace=20") as first:
            await first.read_until(b"data:")
            refused = await proxy.client.ask("ok")
            assert is_a_clean_refusal(refused)
            assert "admission.max_memory" in refused.error["message"]
            assert ((await proxy.root.get("/readyz")).status, (await proxy.root.get("/healthz")).status) == (503, 200)
            assert (await proxy.admin.get("/readyz")).status == 503
            status = (await proxy.admin.get("/status")).json
            assert (status["ready"], status["memory"]["short"]) == (False, True)
            assert 0 < status["memory"]["share"] < 1
            await proxy.proxy.reconfigure(settings_for({"main": simulator}, admission=AdmissionSettings(max_memory=0)))
            assert (await proxy.client.ask("ok")).done
            assert (await proxy.root.get("/readyz")).status == 200
            assert (await first.rest()).done
        metrics = await metrics_of(proxy)
        assert metrics['evenflow_rejected_total{reason="memory"}'] == 1
        assert metrics["evenflow_memory_ratio"] > 0
    assert [line["max_memory"] for line in log.lines if line["event"] == "memory"] == [1e-9]


# ---- settings -----------------------------------------------------------------------------------------------------------


async def test_other_limits_count_from_the_next_moment_on(simulator: Simulator) -> None:
    settings = settings_for({"main": upstream_of(simulator, slots=1)})
    async with running_proxy(settings, simulator) as proxy, proxy.client.open("endless") as first:
        await first.read_until(b"data:")
        async with proxy.client.open("ok") as second:
            await eventually(lambda: admitted(proxy).waiting == 1)
            wider = msgspec.structs.replace(settings, configured_upstreams={"main": upstream_of(simulator, slots=2)})
            await proxy.proxy.reconfigure(wider)
            assert (await second.rest()).status == 200
        await first.leave()


async def test_a_route_that_shares_an_upstream_shares_its_slots(simulator: Simulator) -> None:
    routes = [RouteSettings(model="endless", upstreams=("main",)), RouteSettings(model="*", upstreams=("main",))]
    settings = settings_for({"main": upstream_of(simulator, slots=1)}, routes=routes, admission=AdmissionSettings(max_wait=0.05))
    async with running_proxy(settings, simulator) as proxy, proxy.client.open("endless") as first:
        await first.read_until(b"data:")
        assert is_a_clean_refusal(await proxy.client.ask("ok"))
        await first.leave()

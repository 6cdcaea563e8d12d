"""SIGHUP: a good configuration is what new requests get, a bad one changes nothing; requests that run notice neither."""

from __future__ import annotations

import json
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors.routes import Secret
from server.main import open_proxy
from server.reload import Reloader
from server.settings import RouteSettings, Settings
from server.settings_checks import Problem, SettingsError
from server.settings_loaded import Loaded

from .raw_client import RawClient
from .running_command import CONFIG, admin_of, serving
from .running_proxy import eventually, running_proxy, settings_for, upstream_of

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from server.simulator import Simulator

    from .running_proxy import LogTap, RunningProxy


async def reload(proxy: RunningProxy, settings: Settings | Exception) -> None:
    """What SIGHUP does, with these settings in the sources."""

    def load() -> Loaded:
        if isinstance(settings, Exception):
            raise settings
        return Loaded(settings, (), {})

    await Reloader(proxy.proxy).reload(load)


async def reloads(proxy: RunningProxy) -> dict[str, Any]:
    status = (await proxy.admin.get("/status")).json
    found = status["config_reloads"]
    assert isinstance(found, dict)
    return found


# ---- a real process -------------------------------------------------------------------------------------------------


async def test_row_69_sighup_takes_the_file_as_it_is_now(simulator: Simulator, spare: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path) as (running, client):
        async with client.open("count:100,pace=5") as exchange:
            await exchange.read_until(b"data: ")
            (tmp_path / "evenflow.toml").write_text(CONFIG.format(drain=0.0, more="", upstream=spare.base_url))
            running.process.send_signal(signal.SIGHUP)
            await running.until_logged('"reload".*"accepted"')
            assert (await client.ask("ok")).done
            assert (await exchange.rest()).done
        assert (simulator.observer.requests, spare.observer.requests) == (1, 1)
        running.process.terminate()
        assert await running.ended() == 0


async def test_row_70_sighup_with_a_bad_file_changes_nothing(simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path) as (running, client):
        (tmp_path / "evenflow.toml").write_text("drian = 3\n")
        running.process.send_signal(signal.SIGHUP)
        line = json.loads((await running.until_logged('.*"reload".*'))[0])
        assert (line["level"], line["result"]) == ("error", "refused")
        assert "drian" in line["reason"]
        assert (await client.ask("ok")).done
        admin = admin_of(running)
        assert b'evenflow_config_reloads_total{result="refused"} 1.0' in (await admin.get("/metrics")).body
        shown = (await admin.get("/status")).json["config_reloads"]
        assert (shown["accepted"], shown["refused"]) == (0, 1)
        assert "drian" in shown["last_refusal"]
        running.process.terminate()
        assert await running.ended() == 0


async def test_row_69_what_needs_a_restart_is_named(simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path) as (running, client):
        more = "backlog = 77\nedge.max_target = 100\nmax_request_body = 5"
        (tmp_path / "evenflow.toml").write_text(CONFIG.format(drain=0.0, more=more, upstream=simulator.base_url))
        running.process.send_signal(signal.SIGHUP)
        line = json.loads((await running.until_logged('.*"reload".*'))[0])
        assert (line["level"], line["result"], line["needs_restart"]) == ("warning", "accepted", "backlog, edge.max_target")
        assert (await client.ask("ok")).status == 413  # what stands beside it holds
        running.process.terminate()
        assert await running.ended() == 0


# ---- inside one ------------------------------------------------------------------------------------------------------


async def test_row_69_new_requests_get_new_routes_keys_timers_and_engine(simulator: Simulator, spare: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}), simulator, spare) as proxy:
        changed = settings_for(
            {"main": simulator, "other": spare},
            engine="relay",
            retry={"retries": 0},
            routes=[
                RouteSettings(model="elsewhere-*", upstreams=("other",)),
                RouteSettings(model="silence", upstreams=("main",), timers={"first_token": 0.05}),  # no sound answer may miss it
                RouteSettings(model="*", upstreams=("main",)),
            ],
        )
        changed = msgspec.structs.replace(changed, client_keys=(Secret("sk-another-key-of-the-team"),))
        async with proxy.client.open("count:60,pace=5") as running:
            await running.read_until(b"data: ")
            await reload(proxy, changed)
            assert (await proxy.client.ask("ok")).status == 401
            client = RawClient(proxy.base_url, "sk-another-key-of-the-team")
            answer = await client.ask("ok")
            assert answer.done
            assert answer.header("x-evenflow-engine") == "relay"
            await client.ask("elsewhere-http-404")
            assert spare.observer.requests == 1
            assert (await client.ask("silence")).error["code"] == "upstream_timeout"
            assert (await running.rest()).done
        assert (await reloads(proxy))["accepted"] == 1


@pytest.mark.parametrize("transport", ["own", "httpx"])
async def test_row_69_a_removed_upstreams_connections_end_with_its_last_stream(
    transport: str, simulator: Simulator, spare: Simulator
) -> None:
    first = settings_for({"main": upstream_of(simulator, transport=transport)})
    async with running_proxy(first, simulator, spare) as proxy:
        async with proxy.client.open("count:60,pace=5") as running:
            await running.read_until(b"data: ")
            await proxy.client.ask("ok")  # on a connection of its own, idle from now on
            assert simulator.observer.connections == 2
            await reload(proxy, settings_for({"other": spare}))
            await eventually(lambda: simulator.observer.connections == 1)  # the idle one is gone
            assert (await proxy.client.ask("ok")).header("x-evenflow-upstream") == "other"
            assert (await running.rest()).done
        await eventually(lambda: simulator.observer.connections == 0)
        assert set(proxy.proxy.services.breaker.statistics().upstreams) == {"other"}


async def test_row_69_a_stream_that_began_before_may_still_be_retried_at_its_removed_upstream(
    simulator: Simulator, spare: Simulator, log: LogTap, clock: MockClock
) -> None:
    """It asks again, after the reload, for the upstream, its circuit and its connections."""
    first = settings_for({"main": simulator}, timers={"first_token": 20.0}, retry={"retries": 1})
    first = msgspec.structs.replace(first, recovery={"first_token_timeout": "retry"})
    async with running_proxy(first, simulator, spare) as proxy:
        async with proxy.client.open("silence:times=1") as running:
            await simulator.observer.wait_for(lambda observer: observer.active == 1)
            await reload(proxy, settings_for({"other": spare}))
            clock.jump(20.0)
            assert (await running.rest()).done
        assert simulator.observer.requests == 2
        assert not spare.observer.requests


async def test_row_69_connections_to_an_upstream_that_stays_are_used_on(simulator: Simulator, spare: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}), simulator, spare) as proxy:
        await proxy.client.ask("ok")
        await reload(proxy, settings_for({"main": simulator, "other": spare}, timers={"idle": 5.0}))
        await proxy.client.ask("ok")
        assert {seen.connection for seen in simulator.observer.seen} == {1}


async def test_row_69_a_circuit_that_stays_keeps_its_state(simulator: Simulator, spare: Simulator) -> None:
    breaker = {"consecutive_failures": 1, "open_base": 60.0, "open_max": 60.0, "alone_open_max": 0.0}
    settings = settings_for({"main": simulator, "other": spare}, breaker=breaker, retry={"retries": 0})
    async with running_proxy(settings, simulator, spare) as proxy:
        for name in ("main", "other"):
            await proxy.proxy.services.breaker.force(name, "on")
        await proxy.client.ask("http-500")
        assert proxy.circuit("main").state == "open"
        stutter = msgspec.structs.replace(settings.stutter, mode="observe")
        await reload(proxy, msgspec.structs.replace(settings, stutter=stutter))
        assert proxy.circuit("main").state == "open"
        # Another key is another chance.
        rekeyed = {**settings.configured_upstreams, "main": upstream_of(simulator, key=Secret("sk-another-upstream-key"))}
        await reload(proxy, msgspec.structs.replace(settings, configured_upstreams=rekeyed))
        assert proxy.circuit("main").state == "closed"


@pytest.mark.parametrize(
    "failure",
    [
        SettingsError([Problem("evenflow.toml:3", "is wrong", "correct it")]),
        PermissionError(13, "Permission denied"),
        ZeroDivisionError("a defect in reading"),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_row_70_whatever_goes_wrong_the_old_configuration_stays(failure: Exception, proxy: RunningProxy, log: LogTap) -> None:
    before = proxy.proxy.services
    await reload(proxy, failure)
    assert proxy.proxy.services is before
    assert (await proxy.client.ask("ok")).done
    assert (await reloads(proxy))["refused"] == 1
    refused = [line for line in log.lines if line["event"] == "reload"]
    assert [line["result"] for line in refused] == ["refused"]
    assert refused[0]["reason"]
    assert len(log.take_crashes()) == isinstance(failure, ZeroDivisionError)


async def test_row_70_a_certificate_that_cannot_be_read_is_refused(proxy: RunningProxy, simulator: Simulator) -> None:
    before = proxy.proxy.services
    await reload(proxy, settings_for({"main": upstream_of(simulator, ca_file="/no/such/file.pem")}))
    assert proxy.proxy.services is before
    assert (await reloads(proxy))["refused"] == 1
    assert (await proxy.client.ask("ok")).done


async def test_row_69_the_drain_is_the_newest(simulator: Simulator) -> None:
    settings = settings_for({"main": simulator}, drain=60.0)
    async with AsyncExitStack() as streams:
        async with open_proxy(settings) as proxy:
            stream = await streams.enter_async_context(RawClient(proxy.base_url).open("endless:pace=5"))
            await stream.read_until(b"data: ")
            await Reloader(proxy).reload(lambda: Loaded(msgspec.structs.replace(settings, drain=0.0), (), {}))
        assert (await stream.rest()).error["code"] == "server_shutdown"

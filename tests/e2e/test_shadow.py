"""Shadow: the relay's bytes pass untouched, and what the actors would have made of them is told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from actors.sansio.stream_machine import StreamMachine
from server.settings import StreamingSettings

from .raw_client import RawClient
from .running_proxy import LogTap, running_proxy, settings_for

if TYPE_CHECKING:
    from server.settings import Settings
    from server.simulator import Simulator

    from .running_proxy import RunningProxy


def shadowing(simulator: Simulator, **streaming: Any) -> Settings:
    settings = settings_for({"main": simulator})
    return msgspec.structs.replace(settings, streaming=StreamingSettings(**{"engine": "relay", "shadow": True, **streaming}))


def compared(proxy: RunningProxy) -> dict[str, int]:
    return {name: count for name, count in proxy.proxy.services.rollout.statistics().shadowed.items() if count}


@pytest.mark.parametrize(
    ("model", "result"),
    [
        ("ok", "alike"),
        ("stutter-b1:envelope=nonce", "repaired"),
        ("stutter-a1", "repaired"),
        ("truncated", "unfinished"),
        ("error-mid", "unfinished"),
        ("cut", "alike"),
        ("tools", "alike"),
        ("big:events=50", "alike"),
    ],
)
async def test_the_bytes_are_the_upstreams_and_the_verdict_is_ours(simulator: Simulator, model: str, result: str) -> None:
    direct = await RawClient(simulator.base_url, None).ask(model)
    async with running_proxy(shadowing(simulator), simulator) as proxy:
        simulator.reset()  # it says the same once more, but for its serial number
        answer = await proxy.client.ask(model)
        serials = [re.search(rb'"id":"([^"]+)"', body) for body in (answer.body, direct.body)]
        first, again = (found[1] if found else b"" for found in serials)
        assert answer.body == direct.body.replace(again, first)
        assert answer.header("x-evenflow-engine") == "relay"
    assert compared(proxy) == {result: 1}


async def test_a_client_that_leaves_ends_the_shadow_too(simulator: Simulator) -> None:
    async with running_proxy(shadowing(simulator), simulator) as proxy:
        async with proxy.client.open("endless:pace=1") as stream:
            await stream.read_until(b"data:")
        await simulator.observer.wait_for(lambda seen: seen.closes == 1)
    assert compared(proxy) == {"cancelled": 1}


async def test_a_shadow_that_crashes_is_counted_and_touches_nothing(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, log: LogTap
) -> None:
    def crash(*_: object) -> object:
        raise ArithmeticError("a defect of the machine")

    monkeypatch.setattr(StreamMachine, "receive", crash)
    async with running_proxy(shadowing(simulator), simulator) as proxy:
        answer = await proxy.client.ask("ok")
        assert answer.body.endswith(b"data: [DONE]\n\n")
    assert compared(proxy) == {"crashed": 1}
    assert any("the shadow of a stream crashed" in str(crash) for crash in log.take_crashes())


async def test_the_actors_own_faults_hand_all_streams_to_the_relay(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, log: LogTap
) -> None:
    settings = shadowing(simulator, engine="actors", shadow=False, fallback_faults=3)
    async with running_proxy(settings, simulator) as proxy:
        for _ in range(3):  # whatever an upstream does is no fault of ours
            assert (await proxy.client.ask("http-400")).status == 400
        with monkeypatch.context() as broken:
            broken.setattr(StreamMachine, "receive", lambda *_: 1 / 0)
            for _ in range(3):
                assert (await proxy.client.ask("ok")).header("x-evenflow-engine") == "actors"
        answer = await proxy.client.ask("ok")
        assert answer.header("x-evenflow-engine") == "relay"
        assert answer.status == 200
        proxy.proxy.services.rollout.set_percent(100)
        assert (await proxy.client.ask("ok")).header("x-evenflow-engine") == "actors"
    log.take_crashes()
    assert "the relay serves all new streams" in log.getvalue()


async def test_the_command_shows_and_changes_it(simulator: Simulator) -> None:
    async with running_proxy(shadowing(simulator, engine="actors", rollout_percent=0.0), simulator) as proxy:
        await proxy.client.ask("stutter-a1")
        command = [sys.executable, "-m", "server", "rollout", "--admin", proxy.proxy.admin_url]
        shown = await trio.run_process(command, capture_stdout=True)
        assert b"0 % of the streams are served by the actors" in shown.stdout
        assert b"1 would have been repaired" in shown.stdout
        changed = await trio.run_process([*command, "--json", "12.5"], capture_stdout=True)
        assert json.loads(changed.stdout)["percent"] == 12.5
        assert proxy.proxy.services.rollout.percent == 12.5


def test_the_command_where_nobody_answers(unused_port: int) -> None:
    command = [sys.executable, "-m", "server", "rollout", "--admin", f"http://127.0.0.1:{unused_port}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "no evenflow answers at" in result.stderr

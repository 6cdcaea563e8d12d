"""Evenflow in front of evenflow: two are a use, a loop is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from actors.routes import Secret
from server.main import open_proxy
from server.settings import UpstreamSettings

from .raw_client import CLIENT_KEY, PATIENCE, RawClient
from .running_proxy import settings_for

if TYPE_CHECKING:
    from server.settings import Settings
    from server.simulator import Simulator

    from .running_proxy import LogTap

BOTH_ENGINES = pytest.mark.parametrize("engine", ["actors", "relay"])


def its_own_upstream(port: int, engine: str = "actors") -> Settings:
    """Settings as shipped, retries included, of a proxy that leads to itself."""
    upstream = UpstreamSettings(base_url=f"http://127.0.0.1:{port}/v1", key=Secret(CLIENT_KEY))
    return msgspec.structs.replace(settings_for({"main": upstream}, engine=engine), bind=f"127.0.0.1:{port}")


@BOTH_ENGINES
@pytest.mark.parametrize("stream", [True, False])
async def test_row_78_a_loop_ends_with_508_after_eight(engine: str, stream: bool, unused_port: int, log: LogTap) -> None:
    async with open_proxy(its_own_upstream(unused_port, engine)) as proxy:
        answer = await RawClient(proxy.base_url).ask("any", stream=stream)
        assert answer.status == 508
        assert answer.error["code"] == "loop_detected"
        assert "base_url" in answer.error["message"]
        assert proxy.services.breaker.statistics().upstreams["main"].failures == 0
    lines = log.requests()
    assert len(lines) == 8  # the ninth was refused, and nobody repeated it
    assert {line["attempts"] for line in lines} == {1}


async def test_row_78_a_loop_of_model_lists_ends_too(unused_port: int) -> None:
    async with open_proxy(its_own_upstream(unused_port)) as proxy:
        with trio.fail_after(PATIENCE):
            answer = await RawClient(proxy.base_url).get("/models")
        assert (answer.status, answer.json["data"]) == (200, [])


async def test_row_78_two_in_a_row_work_and_the_upstream_sees_how_many(simulator: Simulator) -> None:
    async with open_proxy(settings_for({"main": simulator})) as inner:
        outer_upstream = UpstreamSettings(base_url=inner.base_url, key=Secret(CLIENT_KEY))
        async with open_proxy(settings_for({"inner": outer_upstream})) as outer:
            client = RawClient(outer.base_url)
            assert (await client.ask("ok")).done
            assert simulator.observer.seen[-1].headers["x-evenflow-hops"] == "2"
            await client.ask("ok", headers={"x-evenflow-hops": "no number"})
            assert simulator.observer.seen[-1].headers["x-evenflow-hops"] == "2"

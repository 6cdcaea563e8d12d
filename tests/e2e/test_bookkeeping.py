"""What has ended is written down a moment later, and nobody who reads can tell.

The clerk's time never comes here: whatever is seen was written because somebody asked, or because it was the end.
"""

from __future__ import annotations

import json
import os
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
import trio

from server import clerk
from server.main import open_proxy
from server.settings import RecorderSettings

from .raw_client import PATIENCE, RawClient
from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from pathlib import Path

    from server.simulator import Simulator

    from .running_proxy import LogTap, RunningProxy


@pytest.fixture(autouse=True)
def _nobody_hurries_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clerk, "DELAY", 600.0)


async def _dashboard(proxy: RunningProxy) -> dict[str, Any]:
    async with proxy.admin.send("GET", "/dashboard/events", b"", {}) as exchange:
        told = await exchange.read_until(b"\n\n")
    document: dict[str, Any] = json.loads(told.partition(b"data: ")[2].strip())
    return document


async def test_a_scrape_counts_what_has_ended(proxy: RunningProxy) -> None:
    for count in (1, 2):
        await proxy.client.ask("ok")
        metrics = (await proxy.admin.get("/metrics")).body.decode()
        assert f'evenflow_streams_total{{engine="actors",outcome="done",upstream="main"}} {count}.0\n' in metrics
        assert f"evenflow_stream_duration_seconds_count {count}.0\n" in metrics
        assert "evenflow_streams_active 0.0\n" in metrics


async def test_status_rollout_and_dashboard_know_what_has_ended(proxy: RunningProxy) -> None:
    await proxy.client.ask("ok")
    status = json.loads((await proxy.admin.get("/status")).body)
    assert (status["streams_active"], status["rollout"]["engines"]["actors"]["streams"]) == (0, 1)
    await proxy.client.ask("stutter-a1")
    told = await _dashboard(proxy)
    assert [stream["model"] for stream in told["ended"]] == ["ok", "stutter-a1"]
    assert (told["streams_active"], told["totals"]["done"]) == (0, 2)
    await proxy.client.ask("ok")
    assert json.loads((await proxy.admin.get("/rollout")).body)["engines"]["actors"]["streams"] == 3


async def test_a_line_has_the_time_of_its_request_s_end(proxy: RunningProxy, log: LogTap) -> None:
    await proxy.client.ask("ok")
    await proxy.client.ask("cut")
    assert log.sink.flush(PATIENCE)
    assert '"stream"' not in log.getvalue()
    ended = (await _dashboard(proxy))["ended"][0]["at"]
    one, other = log.requests()
    assert one["timestamp"] < other["timestamp"]
    # The dashboard's is the same moment, in seconds to three digits.
    assert abs(datetime.fromisoformat(one["timestamp"]).timestamp() - ended) < 0.001


async def test_the_end_of_the_process_loses_no_line_and_no_flight(simulator: Simulator, tmp_path: Path, log: LogTap) -> None:
    settings = settings_for({"main": simulator}, recorder=RecorderSettings(directory=str(tmp_path)))
    async with open_proxy(settings) as proxy:
        client = RawClient(proxy.base_url)
        for model in ("ok", "cut", "stutter-a1"):
            await client.ask(model)
        assert log.sink.flush(PATIENCE)
        assert '"stream"' not in log.getvalue()
    assert log.sink.flush(PATIENCE)
    models = [line["model"] for line in map(json.loads, log.getvalue().splitlines()) if line["event"] == "stream"]
    assert models == ["ok", "cut", "stutter-a1"]
    assert len([name for name in os.listdir(tmp_path) if name.endswith(".flight")]) == 3


async def test_a_proxy_that_is_torn_down_loses_no_line_either(simulator: Simulator, log: LogTap) -> None:
    with trio.CancelScope() as scope:
        async with open_proxy(settings_for({"main": simulator})) as proxy:
            await RawClient(proxy.base_url).ask("ok")
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert log.sink.flush(PATIENCE)
    assert len(re.findall('"event": "stream"', log.getvalue())) == 1


async def test_one_that_cannot_be_written_down_is_told_and_the_others_are(
    simulator: Simulator, log: LogTap, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_proxy(settings_for({"main": simulator}), simulator) as proxy:
        board = proxy.proxy.services.board
        ended, count = type(board).stream_ended, 0

        def fails_at_the_second(*arguments: Any) -> None:
            nonlocal count
            count += 1
            if count == 2:
                raise RuntimeError("a defect of the board")
            ended(*arguments)

        monkeypatch.setattr(type(board), "stream_ended", fails_at_the_second)
        for _ in range(3):
            await proxy.client.ask("ok")
        told = await _dashboard(proxy)
        metrics = (await proxy.admin.get("/metrics")).body.decode()
    assert (len(told["ended"]), told["streams_active"]) == (2, 0)
    assert 'evenflow_streams_total{engine="actors",outcome="done",upstream="main"} 3.0\n' in metrics
    [crash] = log.take_crashes()
    assert "a defect of the board" in crash["exception"]
    assert len(log.requests()) == 3

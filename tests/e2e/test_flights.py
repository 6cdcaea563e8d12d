"""The flight recorder end to end: a stream, its file, its timeline, and the file as an upstream."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import trio

from server.flights.flight_file import read_flight
from server.flights.playback import always
from server.settings import RecorderSettings
from server.simulator import Simulator, open_simulator

from .raw_client import RawClient
from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from pathlib import Path


async def recorded(simulator: Simulator, folder: Path, *models: str, text: str = "full", **more: object) -> list[Path]:
    settings = settings_for({"main": simulator}, recorder=RecorderSettings(directory=str(folder), text=text), **more)  # type: ignore[arg-type]
    async with running_proxy(settings, simulator) as proxy:
        for model in models:
            await proxy.client.ask(model)
    return await trio.to_thread.run_sync(lambda: sorted(folder.iterdir()))


async def test_a_repair_is_in_the_flight_with_its_decision(simulator: Simulator, tmp_path: Path) -> None:
    [path] = await recorded(simulator, tmp_path / "f", "stutter-b1:envelope=nonce")
    kinds = [kind for _, kind, _ in read_flight(path).entries]
    assert {"attempt", "chunk", "state", "judged", "released"} <= set(kinds)
    assert read_flight(path).end["repairs"] == {"B1": 1}
    shown = await trio.run_process([sys.executable, "-m", "server", "replay", str(path)], capture_stdout=True)
    told = shown.stdout.decode()
    assert "attempt 1: main answers" in told
    assert re.search(r"repaired B1 .*after", told)
    assert "StateInitial --" in told


async def test_a_retry_a_cut_and_a_client_that_leaves_are_told(simulator: Simulator, tmp_path: Path) -> None:
    paths = await recorded(simulator, tmp_path / "f", "flaky", "cut")
    flaky, cut = (read_flight(path) for path in paths)
    assert [what["fault"] for _, kind, what in flaky.entries if kind == "failed"] == ["server_error"]
    assert cut.end["outcome"] == "error"


async def test_a_flight_serves_as_an_upstream_at_its_own_pace(simulator: Simulator, tmp_path: Path) -> None:
    [path] = await recorded(simulator, tmp_path / "f", "count:count=20,pace=50")
    original = await RawClient(simulator.base_url, None).ask("count:count=20")
    scenario, recordings = always(path)
    async with open_simulator(pace=0.0, scenario=scenario, recordings=recordings) as upstream:
        began = trio.current_time()
        answer = await RawClient(upstream.base_url, None).ask("whatever")
        took = trio.current_time() - began
    assert answer.text() == original.text()
    assert answer.done
    assert 0.9 <= took <= 10.0


async def test_nothing_that_was_said_is_in_a_redacted_flight(simulator: Simulator, tmp_path: Path) -> None:
    [path] = await recorded(simulator, tmp_path / "f", "echo", text="redacted")
    assert b"hello" not in path.read_bytes()
    assert b"xxxxx" in path.read_bytes()

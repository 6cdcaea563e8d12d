"""Which engine serves a stream: by setting, by percentage, and always the same one for the same key."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import pytest

from actors.routes import Secret
from server.settings import StreamingSettings

from .raw_client import RawClient
from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from server.simulator import Simulator

pytestmark = pytest.mark.usefixtures("way")

KEYS = [f"sk-client-{n:04}" for n in range(40)]


@pytest.mark.parametrize("engine", ["actors", "relay"])
async def test_the_engine_is_named_in_a_header(engine: str, simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}, engine=engine), simulator) as proxy:
        assert (await proxy.client.ask("count:1")).header("x-evenflow-engine") == engine


async def test_an_answer_that_is_not_streamed_is_always_relayed(simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}), simulator) as proxy:
        assert (await proxy.client.ask("ok", stream=False)).header("x-evenflow-engine") == "relay"


@pytest.mark.parametrize(("percent", "engines"), [(0, {"relay"}), (100, {"actors"}), (50, {"actors", "relay"})])
async def test_a_percentage_of_the_keys_gets_the_actors_and_keeps_them(percent: float, engines: set[str], simulator: Simulator) -> None:
    settings = msgspec.structs.replace(
        settings_for({"main": simulator}),
        streaming=StreamingSettings(rollout_percent=percent),
        client_keys=tuple(Secret(key) for key in KEYS),
    )
    async with running_proxy(settings, simulator) as proxy:
        first = [(await RawClient(proxy.base_url, key).ask("count:1")).header("x-evenflow-engine") for key in KEYS]
        again = [(await RawClient(proxy.base_url, key).ask("count:1")).header("x-evenflow-engine") for key in reversed(KEYS)]
        assert again == first[::-1]
        assert set(first) == engines
        if percent == 50:
            assert 8 <= Counter(first)["actors"] <= 32


async def test_without_keys_it_sticks_to_the_request_id(simulator: Simulator) -> None:
    settings = msgspec.structs.replace(settings_for({"main": simulator}), streaming=StreamingSettings(rollout_percent=50), client_keys=())
    async with running_proxy(settings, simulator) as proxy:
        client = RawClient(proxy.base_url, None)
        engines = {}
        for n in range(24):
            headers = {"x-request-id": f"request-{n}"}
            answers = [(await client.ask("count:1", headers=headers)).header("x-evenflow-engine") for _ in range(2)]
            assert answers[0] == answers[1]
            engines[n] = answers[0]
        assert set(engines.values()) == {"actors", "relay"}

"""No client chooses where its request goes, by whatever name other proxies let it: the `api_base` of one of them gave keys away."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from .raw_connection import asking, connected, request
from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from server.simulator import Simulator

BOTH_ENGINES = pytest.mark.parametrize("engine", ["actors", "relay"])
FIELDS = ["api_base", "base_url", "api_url", "endpoint", "azure_endpoint", "custom_host", "upstream", "proxy", "host"]
HEADERS = [
    "x-portkey-custom-host",
    "x-api-base",
    "x-base-url",
    "x-forwarded-host",
    "x-original-url",
    "x-rewrite-url",
    "x-evenflow-upstream",
    "via",
]


@BOTH_ENGINES
async def test_no_field_of_a_body_and_no_header_leads_elsewhere(engine: str, simulator: Simulator, spare: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}, engine=engine), simulator, spare) as proxy:
        for name in FIELDS:
            assert (
                await proxy.client.post("/chat/completions", json.dumps({"model": "ok", "messages": [], name: spare.base_url}).encode())
            ).status == 200
        for name in HEADERS:
            value = spare.base_url if "host" not in name else f"127.0.0.1:{spare.port}"
            assert (await proxy.client.ask("ok", headers={name: value})).done
        assert (await proxy.client.ask("ok", path=f"/chat/completions?api_base={spare.base_url}", messages=[])).done
    assert simulator.observer.requests == len(FIELDS) + len(HEADERS) + 1
    assert spare.observer.requests == 0


@pytest.mark.parametrize("target", ["http://127.0.0.1:{port}/v1/embeddings", "http://localhost:{port}/v1/embeddings"])
async def test_an_absolute_target_names_us_and_nobody_else(target: str, simulator: Simulator, spare: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}), simulator, spare) as proxy, connected(proxy.base_url) as connection:
        line = f"POST {target.format(port=spare.port)} HTTP/1.1"
        await connection.send(request(asking("ok"), line=line.encode()))
        assert (await connection.response()).status == 200
    assert (simulator.observer.requests, spare.observer.requests) == (1, 0)

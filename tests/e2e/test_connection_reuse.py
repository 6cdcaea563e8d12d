"""One client connection for many requests: an answer of any kind leaves it fit for the next one (FAULTS row 55)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from .raw_client import CLIENT_KEY, PATIENCE
from .running_proxy import eventually, running_proxy, settings_for

if TYPE_CHECKING:
    from server.simulator import Simulator

    from .running_proxy import RunningProxy

pytestmark = pytest.mark.usefixtures("way")

# A POST that is refused before its body is there may close the connection, so there is none here.
#: Method, path, body, expected status: good answers, refusals of our own, errors of the upstream, streams and wholes by turns.
REQUESTS = [
    ("POST", "/v1/chat/completions", '{"model":"count:3","stream":true}', 200),
    ("POST", "/v1/chat/completions", '{"model":', 400),
    ("POST", "/v1/chat/completions", '{"model":"count:3"}', 200),
    ("GET", "/v1/models/ok", "", 200),
    ("POST", "/v1/chat/completions", '{"model":"http-404","stream":true}', 404),
    ("GET", "/v1/chat/completions", "", 405),
    ("POST", "/v1/chat/completions", '{"model":"truncated","stream":true}', 200),
    ("POST", "/v1/embeddings", '{"model":"x","input":"y"}', 200),
    ("GET", "/chat/completions", "", 404),
    ("GET", "/healthz", "", 200),
]


@pytest.mark.parametrize("engine", ["actors", "relay"])
async def test_row_55_every_answer_leaves_the_connection_fit_for_the_next(proxy: RunningProxy) -> None:
    opened = 0

    async def count(event: str, _info: object) -> None:
        nonlocal opened
        opened += event == "connection.connect_tcp.complete"

    headers = {"authorization": f"Bearer {CLIENT_KEY}", "content-type": "application/json"}
    root = proxy.base_url.removesuffix("/v1")
    with trio.fail_after(PATIENCE):
        async with httpx.AsyncClient(trust_env=False, headers=headers) as client:
            for _ in range(5):
                for method, path, body, status in REQUESTS:
                    answer = await client.request(method, root + path, content=body, extensions={"trace": count})
                    assert answer.status_code == status, (method, path, answer.text)
    assert opened == 1


async def test_an_upstream_connection_that_the_server_closed_is_let_go_without_another_request(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.upstream._SWEEP_SECONDS", 0.01)  # five, for which no test wants to wait
    async with running_proxy(settings_for({"main": simulator}), simulator) as proxy:
        assert (await proxy.client.ask("idle-close:0.01")).done
        await eventually(lambda: proxy.upstream_connections == 0)

"""Two keys that every proxy of these tests has, the upstream's and the client's: where they could get out, they do not.

Every answer that the raw client reads and every line that is logged in this folder is searched for them as well (raw_client.py,
conftest.py); here are the outputs that a test has to ask for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from actors.routes import Secret
from server.log import configure_logging
from server.main import prepare_process
from server.settings import RouteSettings

from .raw_client import CLIENT_KEY, UPSTREAM_KEY
from .running_proxy import running_proxy, settings_for, upstream_of

if TYPE_CHECKING:
    from server.settings import UpstreamSettings
    from server.simulator import Simulator

    from .running_proxy import LogTap, RunningProxy

KEYS = (UPSTREAM_KEY.encode(), CLIENT_KEY.encode())


async def everything_it_shows(proxy: RunningProxy, log: LogTap) -> bytes:
    """All that an outsider or an operator can read."""
    shown = [answer.raw for answer in [await proxy.root.get(path) for path in ("/", "/healthz", "/readyz", "/v1/models", "/no/such")]]
    shown += [answer.raw for answer in [await proxy.admin.get(path) for path in ("/", "/status", "/metrics")]]
    await proxy.until_quiet()
    log.sink.flush()
    return b"".join(shown) + log.getvalue().encode()


@pytest.mark.parametrize("engine", ["actors", "relay"])
async def test_no_output_shows_a_key(engine: str, simulator: Simulator, unused_port: int, log: LogTap) -> None:
    upstreams: dict[str, Simulator | UpstreamSettings | str] = {
        "main": upstream_of(simulator, headers={"x-secret": Secret(UPSTREAM_KEY)}),
        "gone": f"http://127.0.0.1:{unused_port}/v1",
    }
    routes = [
        RouteSettings(model="silence", upstreams=("main",), timers={"first_token": 0.5}),
        RouteSettings(model="*", upstreams=("main",)),
    ]
    async with running_proxy(settings_for(upstreams, engine=engine, routes=routes), simulator) as proxy:
        for model in ("ok", "cut", "http-400", "http-401", "http-403", "http-503", "silence", "gzip", "redirect", "odd-headers"):
            for stream in (True, False):
                if not (model == "silence" and not stream):
                    await proxy.client.ask(model, stream=stream)
        shown = await everything_it_shows(proxy, log)
    for key in KEYS:
        assert key not in shown


@pytest.mark.parametrize("key", [CLIENT_KEY, UPSTREAM_KEY])
async def test_a_key_that_a_client_puts_where_it_does_not_belong_is_not_logged(key: str, simulator: Simulator, log: LogTap) -> None:
    settings = settings_for({"main": simulator})
    prepare_process(settings)  # as `evenflow serve` begins: from here on the log knows its secrets
    log.sink = configure_logging("json", "debug", log)
    async with running_proxy(settings, simulator) as proxy:
        answer = await proxy.client.ask(f"http-404:retry_after={key}", headers={"x-request-id": "seen"})
        assert answer.status == 404
        await proxy.until_quiet()
        (line,) = log.requests()
        assert line["id"] == "seen"
        assert line["model"] == "http-404:retry_after=****"

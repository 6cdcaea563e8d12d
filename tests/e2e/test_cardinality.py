"""No client can make a time series: whatever it sends by the thousand, the number of them stays what it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from msgspec.structs import replace

from actors.routes import Secret
from server.settings import RouteSettings, UpstreamRef

from .raw_client import CLIENT_KEY
from .raw_connection import asking, connected, request
from .running_proxy import running_proxy, settings_for
from .test_admission import metrics_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from server.simulator import Simulator

    from .running_proxy import RunningProxy

#: Names below `known-` are renamed to a model of the simulator; any other is known to no route, and evenflow says so itself.
ROUTES: Final = (RouteSettings(model="known-*", upstreams=(UpstreamRef("main", "ok"),)),)
#: Requests that are sent ahead of their answers: with one at a time these tests would mostly wait.
AHEAD: Final = 50


async def send_all(proxy: RunningProxy, requests: Sequence[bytes]) -> set[int]:
    """Send them over one connection, and return which statuses came back."""
    statuses = set()
    async with connected(proxy.base_url) as connection:
        for start in range(0, len(requests), AHEAD):
            batch = requests[start : start + AHEAD]
            await connection.send(b"".join(batch))
            for _ in batch:
                statuses.add((await connection.response()).status)
    return statuses


async def assert_no_series_is_added(proxy: RunningProxy, requests: Sequence[bytes], statuses: set[int]) -> None:
    """Send the first request of each kind, look at the series, send them all, and look again.

    Args:
      requests: of kinds that alternate with a period of four at most.
    """
    assert await send_all(proxy, requests[:8]) == statuses
    await proxy.until_quiet()
    before = set(await metrics_of(proxy))
    assert await send_all(proxy, requests) == statuses
    await proxy.until_quiet()
    assert set(await metrics_of(proxy)) == before


def of_models(count: int) -> Iterator[bytes]:
    """Every fiftieth goes to the upstream, half of those as a stream; the others are answered here."""
    for number in range(count):
        if number % 50 in (0, 1):
            yield request(asking(f"known-{number}", stream=number % 50 == 0))
        else:
            yield request(asking(f"model-{number}"))


async def test_ten_thousand_models_make_no_series(simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}, routes=ROUTES), simulator) as proxy:
        await assert_no_series_is_added(proxy, list(of_models(10_000)), {200, 404})
        assert simulator.observer.requests == 402


async def test_a_thousand_paths_make_no_series(simulator: Simulator) -> None:
    """Half of them are the upstream's business, half are nobody's."""
    async with running_proxy(settings_for({"main": simulator}), simulator) as proxy:
        lines = [b"POST /v1/path-%d HTTP/1.1" % n if n % 2 else b"GET /path-%d?a=%d HTTP/1.1" % (n, n) for n in range(1000)]
        await assert_no_series_is_added(proxy, [request(b"{}", line=line) for line in lines], {200, 404})


async def test_a_thousand_clients_make_no_series(simulator: Simulator) -> None:
    """Half of them with a good key each, half with a wrong one."""
    keys = [f"sk-client-{number}-of-a-thousand" for number in range(1000)]
    settings = settings_for({"main": simulator}, routes=ROUTES)
    settings = replace(settings, client_keys=tuple(Secret(key) for key in keys[::2]))
    requests = [request(asking("model")).replace(CLIENT_KEY.encode(), key.encode()) for key in keys]
    async with running_proxy(settings, simulator) as proxy:
        await assert_no_series_is_added(proxy, requests, {401, 404})


@pytest.mark.parametrize("name", [b"x-request-id", b"user-agent", b"traceparent"])
async def test_a_thousand_ids_make_no_series(name: bytes, simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}, routes=ROUTES), simulator) as proxy:
        values = [b"00-%032x-%016x-01" % (number + 1, number + 1) for number in range(1000)]
        await assert_no_series_is_added(proxy, [request(asking("model"), name + b": " + value) for value in values], {404})

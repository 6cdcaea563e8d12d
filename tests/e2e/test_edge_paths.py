"""Where a path may lead: below the upstream's base_url, and nowhere else on that machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .raw_connection import asking, connected, request

if TYPE_CHECKING:
    from server.simulator import Simulator

    from .running_proxy import LogTap, RunningProxy

OK = asking("ok")


async def status_of(proxy: RunningProxy, target: str) -> int:
    async with connected(proxy.base_url) as connection:
        await connection.send(request(OK, line=f"POST {target} HTTP/1.1".encode()))
        return (await connection.response()).status


@pytest.mark.parametrize(
    "target",
    [
        "/v1/../admin",
        "/v1/x/../../admin",
        "/v1/%2e%2e/admin",
        "/v1/.%2E/admin",
        "/v1/..%2fadmin",
        "/v1/..%5cadmin",
        "/v1/..\\admin",
        "/v1/./embeddings",
        "/v1/embeddings/..",
        "/v1/x%0d%0aHost:%20evil.example",
        "/v1/x%0a",
        "/v1/x%00",
        "/v1/x%7f",
        "/v1%2fembeddings",
        "/%76%31/embeddings",
        "/v1/embeddings#x",
        "/v1/embeddings?a#x",
    ],
)
async def test_a_path_that_leads_out_or_means_two_things_is_refused(
    target: str, proxy: RunningProxy, simulator: Simulator, log: LogTap
) -> None:
    assert await status_of(proxy, target) == 400
    assert simulator.observer.requests == 0
    assert proxy.circuit("main").calls == 0, "it counts against the upstream"


@pytest.mark.parametrize(
    "target",
    [
        "/v1/x%3Fq=1",
        "/v1/x%23frag?a=%23",
        "/v1/files/a%2Fb",
        "/v1/a%20b",
        "/v1/%252e%252e/x",
        "/v1/%ff%fe",
        "/v1/%C3%A9?x=%C3%A9",
        "/v1/a..b/...",
        "/v1//evil.example/x",
        "/v1/@evil.example",
        "/v1/models:generate;a=b,c",
        "/v1/x?a=../..&b=http://evil.example/",
    ],
)
async def test_any_other_goes_up_as_it_came(target: str, proxy: RunningProxy, simulator: Simulator) -> None:
    assert await status_of(proxy, target) == 200
    assert [seen.target for seen in simulator.observer.seen] == [target]

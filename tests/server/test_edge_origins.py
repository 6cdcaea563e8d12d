"""What of an upstream's own CORS headers reaches a browser: nothing."""

from __future__ import annotations

from typing import Any

import pytest

from server.edge_origins import Visitors
from server.settings import EdgeSettings, Settings

from .settings_files import MAIN, problems, read

PAGE = b"https://chat.example.com"


@pytest.mark.parametrize("origins", [frozenset[str](), frozenset({PAGE.decode()})])
async def test_an_upstream_that_allows_everybody_does_so_for_itself(origins: frozenset[str]) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"headers": [(b"origin", b"https://evil.example")]}
    theirs = [(b"Access-Control-Allow-Origin", b"*"), (b"access-control-allow-credentials", b"true"), (b"x-kept", b"1")]
    await Visitors(None, origins).sending(scope, send)({"type": "http.response.start", "status": 200, "headers": theirs})
    assert sent[0]["headers"] == [(b"x-kept", b"1"), *([(b"vary", b"origin")] if origins else [])]


async def test_the_address_that_is_bound_is_a_name_as_well() -> None:
    async def send(message: Any) -> None:
        raise AssertionError(message)

    visitors = Visitors.of(Settings(bind="127.0.0.2:80", edge=EdgeSettings()))
    scope = {"method": "GET", "path": "/", "headers": [(b"host", b"127.0.0.2")]}
    assert not await visitors.answered(scope, send)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("edge.allowed_hosts = ['https://a.example']", "edge.allowed_hosts: 'https://a.example' is no host name by itself"),
        ("edge.allowed_hosts = ['a.example:443']", "edge.allowed_hosts: 'a.example:443' is no host name by itself"),
        ("edge.allowed_hosts = ['*']", "edge.allowed_hosts: '*' is no host name by itself"),
        ("edge.cors_origins = ['*']", "edge.cors_origins: '*' is no origin as a browser spells it"),
        ("edge.cors_origins = ['null']", "edge.cors_origins: 'null' is no origin"),
        ("edge.cors_origins = ['https://a.example/']", "edge.cors_origins: 'https://a.example/' is no origin"),
        ("edge.cors_origins = ['https://A.example']", "edge.cors_origins: 'https://A.example' is no origin"),
        ("edge.max_target = 16384", "edge.max_target: does not fit into edge.max_header_bytes"),
        ("edge.header_timeout = 0", "edge.header_timeout: expected float > 0.0"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_the_start(tmp_path: Any, text: str, expected: str) -> None:
    told = problems(tmp_path, f"{text}\n{MAIN}")
    assert told[0].startswith(f"evenflow.toml:1: {expected}")
    assert len(told) == 1


def test_hosts_and_origins_as_they_are_written_in_practice_are_taken(tmp_path: Any) -> None:
    hosts = "edge.allowed_hosts = ['llm.example.com', '[fd00::1]', '192.168.1.7', 'box_1']"
    origins = "edge.cors_origins = ['https://a.example', 'http://localhost:3000', 'http://[::1]:5173', 'chrome-extension://abcdef', 'app://obsidian.md']"
    assert len(read(tmp_path, f"{hosts}\n{origins}\n{MAIN}").settings.edge.cors_origins) == 5

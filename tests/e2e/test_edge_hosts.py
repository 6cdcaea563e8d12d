"""Which Host is answered, and which pages may read the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from server.settings import EdgeSettings

from .raw_client import RawClient
from .raw_connection import asking, connected, request
from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from server.simulator import Simulator

    from .raw_client import Answer
    from .running_proxy import RunningProxy

OK = asking("ok")
PAGE = b"https://chat.example.com"


async def status_for(proxy: RunningProxy, host: bytes, line: bytes = b"POST /v1/chat/completions HTTP/1.1") -> int:
    async with connected(proxy.base_url) as connection:
        await connection.send(request(OK, host=host, line=line))
        return (await connection.response()).status


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8143", "127.0.0.1", "127.0.0.1:8143", "[::1]", "[::1]:8143", "host.docker.internal:1"]
)
async def test_names_of_this_machine_are_answered(host: str, proxy: RunningProxy) -> None:
    assert await status_for(proxy, host.encode()) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8143",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:127.0.0.1",
        "",
        "[::2]",
        "::1",
        "localhost.",
    ],
)
@pytest.mark.parametrize("line", ["POST /v1/chat/completions HTTP/1.1", "GET /v1/models HTTP/1.1", "GET / HTTP/1.1"])
async def test_a_rebound_name_is_refused_and_told_the_setting(host: str, line: str, proxy: RunningProxy, simulator: Simulator) -> None:
    async with connected(proxy.base_url) as connection:
        await connection.send(request(OK if line.startswith("POST") else None, host=host.encode(), line=line.encode()))
        response = await connection.response()
        assert (response.status, response.error["code"], response.closes) == (421, "wrong_host", True)
        assert "edge.allowed_hosts" in response.error["message"]
        assert await connection.closed() == b""
    assert simulator.observer.requests == 0


async def test_probes_are_answered_by_any_name(proxy: RunningProxy) -> None:
    assert await status_for(proxy, b"10.1.2.3:8143", b"GET /healthz HTTP/1.1") == 200
    assert await status_for(proxy, b"10.1.2.3:8143", b"GET /readyz HTTP/1.1") == 200


async def test_configured_names_are_answered_too(simulator: Simulator) -> None:
    edge = EdgeSettings(allowed_hosts=("llm.Example.com",))
    async with running_proxy(settings_for({"main": simulator}, edge=edge), simulator) as proxy:
        assert await status_for(proxy, b"LLM.example.com:443") == 200
        assert await status_for(proxy, b"localhost") == 200
        assert await status_for(proxy, b"example.com") == 421


@pytest.mark.parametrize(("allowed", "status"), [((), 200), (("llm.example.com",), 421)])
async def test_off_loopback_names_count_only_where_some_are_configured(allowed: tuple[str, ...], status: int, simulator: Simulator) -> None:
    settings = msgspec.structs.replace(settings_for({"main": simulator}, edge=EdgeSettings(allowed_hosts=allowed)), bind="0.0.0.0:0")
    async with running_proxy(settings, simulator) as proxy:
        assert await status_for(proxy, b"whatever.example") == status
        assert await status_for(proxy, b"llm.example.com") == 200


# ---- CORS -----------------------------------------------------------------------------------------------------------


async def asked(proxy: RunningProxy, origin: bytes, *headers: bytes, method: bytes = b"OPTIONS") -> tuple[int, dict[str, str]]:
    """What a page of `origin` is answered."""
    async with connected(proxy.base_url) as connection:
        body = OK if method == b"POST" else None
        await connection.send(request(body, b"Origin: " + origin, *headers, line=method + b" /v1/chat/completions HTTP/1.1"))
        response = await connection.response()
        return response.status, response.headers


def cors(headers: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix("access-control-"): value for name, value in headers.items() if name.startswith("access-control-")}


PREFLIGHT = b"Access-Control-Request-Method: POST"


@pytest.mark.parametrize("origins", [(), ("https://other.example.com",)])
@pytest.mark.parametrize("origin", [PAGE, b"null", b"https://other.example.com.evil.example", b"HTTPS://OTHER.EXAMPLE.COM"])
async def test_a_page_that_is_not_listed_is_told_nothing(origins: tuple[str, ...], origin: bytes, simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}, edge=EdgeSettings(cors_origins=origins)), simulator) as proxy:
        status, headers = await asked(proxy, origin, PREFLIGHT)
        assert (status, cors(headers)) == (403, {})
        status, headers = await asked(proxy, origin, method=b"POST")
        assert (status, cors(headers)) == (200, {})


@pytest.mark.parametrize("stream", [False, True])
async def test_a_listed_page_may_ask_and_read(stream: bool, simulator: Simulator) -> None:
    edge = EdgeSettings(cors_origins=("https://other.example.com", PAGE.decode()))
    async with running_proxy(settings_for({"main": simulator}, edge=edge), simulator) as proxy:
        wanted = b"authorization,content-type,x-stainless-os"
        status, headers = await asked(proxy, PAGE, PREFLIGHT, b"Access-Control-Request-Headers: " + wanted)
        assert status == 204
        assert cors(headers) == {
            "allow-origin": PAGE.decode(),
            "allow-methods": "GET, POST",
            "allow-headers": wanted.decode(),
            "max-age": "7200",
            "expose-headers": headers["access-control-expose-headers"],
        }
        assert headers["vary"] == "origin"
        async with connected(proxy.base_url) as connection:
            await connection.send(request(asking("ok", stream=stream), b"Origin: " + PAGE))
            response = await connection.response()
        assert (response.status, response.headers["access-control-allow-origin"]) == (200, PAGE.decode())
        assert "x-request-id" in response.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in response.headers


async def test_a_listed_page_can_read_why_it_was_refused(simulator: Simulator) -> None:
    edge = EdgeSettings(cors_origins=(PAGE.decode(),))
    async with running_proxy(settings_for({"main": simulator}, edge=edge), simulator) as proxy:
        answer = await RawClient(proxy.base_url, "wrong").post("/chat/completions", OK, headers={"origin": PAGE.decode()})
        assert (answer.status, answer.header("access-control-allow-origin")) == (401, PAGE.decode())


SIMPLE = ["text/plain", "Text/Plain;charset=UTF-8", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]


async def posted(proxy: RunningProxy, kind: str, origin: str, path: str = "/embeddings") -> Answer:
    return await proxy.client.post(path, asking("ok"), headers={"content-type": kind, "origin": origin})


@pytest.mark.parametrize("kind", SIMPLE)
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000"])
async def test_what_a_page_may_send_without_asking_first_is_refused_of_one_that_is_not_listed(
    kind: str, origin: str, proxy: RunningProxy, simulator: Simulator
) -> None:
    answer = await posted(proxy, kind, origin)
    assert (answer.status, answer.error["code"]) == (403, "foreign_origin")
    assert "edge.cors_origins" in answer.error["message"]
    assert simulator.observer.requests == 0


@pytest.mark.parametrize("kind", SIMPLE)
async def test_a_listed_page_and_whoever_is_no_page_may_send_it(kind: str, simulator: Simulator) -> None:
    edge = EdgeSettings(cors_origins=(PAGE.decode(),))
    async with running_proxy(settings_for({"main": simulator}, edge=edge), simulator) as proxy:
        for origin in (PAGE.decode(), ""):
            assert (await posted(proxy, kind, origin)).status == 200
        assert (await posted(proxy, "application/json", "app://some.editor")).status == 200  # its browser would have asked before


async def test_header_names_that_are_none_are_not_repeated(simulator: Simulator) -> None:
    edge = EdgeSettings(cors_origins=(PAGE.decode(),))
    async with running_proxy(settings_for({"main": simulator}, edge=edge), simulator) as proxy:
        _, headers = await asked(proxy, PAGE, PREFLIGHT, b"Access-Control-Request-Headers: a; b=<script>")
        assert headers["access-control-allow-headers"] == "authorization, content-type"


async def test_without_configured_origins_answers_do_not_depend_on_the_origin(proxy: RunningProxy) -> None:
    _, headers = await asked(proxy, PAGE, method=b"POST")
    assert "vary" not in headers

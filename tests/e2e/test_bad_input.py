"""What a client may send wrongly: it is told so by a 4xx in OpenAI's form, and no upstream hears of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from actors.routes import Secret

from .raw_client import CLIENT_KEY
from .raw_connection import connected, request
from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from server.simulator import Simulator

    from .raw_client import Answer
    from .running_proxy import RunningProxy

CHAT = "/chat/completions"
GOOD = b'{"model":"ok","messages":[]}'


def refused(answer: Answer, simulator: Simulator, status: int) -> None:
    assert answer.status == status
    assert answer.header("content-type") == "application/json"
    assert answer.whole
    assert answer.error["message"]
    assert answer.error["type"] == "invalid_request_error"
    assert len(simulator.observer.seen) == 0


@pytest.mark.parametrize("chunked", [False, True])
async def test_row_45_a_body_beyond_the_limit(chunked: bool, simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}, max_request_body=1000), simulator) as proxy:
        fits = GOOD + b" " * (1000 - len(GOOD))
        assert (await proxy.client.post(CHAT, fits, chunked=chunked)).status == 200
        simulator.reset()
        answer = await proxy.client.post(CHAT, fits + b" ", chunked=chunked)
        refused(answer, simulator, 413)
        assert "max_request_body" in answer.error["message"]


async def test_row_45_a_body_that_announces_too_much_is_refused_before_it_is_sent(simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}, max_request_body=1000), simulator) as proxy:
        async with proxy.client.send("POST", CHAT, b"{", {"content-length": "1001"}) as exchange:
            refused(await exchange.rest(), simulator, 413)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"model": "ok",\n "messages": [}', "line 2 column 15"),
        (b'{"model": "ok"', "line 1 column 15"),
        (b"hello", "line 1 column 1"),
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"[]", "object"),
        (b'"text"', "object"),
        (b"null", "object"),
        (b'{"model": "\xff"}', "JSON"),
        (b'{"model": "ok", "n": ' + b"9" * 5000 + b"}", ""),
    ],
)
async def test_row_46_a_body_that_is_no_json_object(body: bytes, told: str, proxy: RunningProxy, simulator: Simulator) -> None:
    answer = await proxy.client.post(CHAT, body)
    refused(answer, simulator, 400)
    assert told in answer.error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"ok","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" * 100_000,
    ],
)
async def test_row_47_json_that_is_nested_too_deeply(body: bytes, proxy: RunningProxy, simulator: Simulator) -> None:
    refused(await proxy.client.post(CHAT, body), simulator, 400)
    assert (await proxy.client.ask("ok")).status == 200


async def test_row_47_brackets_inside_strings_are_no_nesting(proxy: RunningProxy) -> None:
    body = b'{"model":"echo","messages":[{"role":"user","content":"' + b"[{" * 1000 + b'\\""}],"stream":true}'
    answer = await proxy.client.post(CHAT, body)
    assert answer.done


async def test_row_48_of_a_duplicate_key_the_last_one_counts_and_the_same_bytes_go_up(proxy: RunningProxy, simulator: Simulator) -> None:
    body = b'{"model":"no-such","stream":false,"model":"ok","stream":true,"messages":[]}'
    answer = await proxy.client.post(CHAT, body)
    assert answer.done
    assert simulator.observer.seen[0].body == body


async def test_row_49_stream_null_is_as_good_as_absent(proxy: RunningProxy) -> None:
    answer = await proxy.client.post(CHAT, b'{"model":"ok","stream":null,"messages":[]}')
    assert answer.json["object"] == "chat.completion"


@pytest.mark.parametrize("value", [b'"true"', b"1", b"[]", b"{}", b'""', b"0"])
async def test_row_49_a_stream_that_is_no_boolean(value: bytes, proxy: RunningProxy, simulator: Simulator) -> None:
    answer = await proxy.client.post(CHAT, b'{"model":"ok","stream":%b,"messages":[]}' % value)
    refused(answer, simulator, 400)
    assert answer.error["param"] == "stream"


@pytest.mark.parametrize("field", [b'"model":1', b'"model":null', b'"x":1', b'"model":""', b'"model":"ok","n":0', b'"model":"ok","n":"2"'])
async def test_a_field_of_the_wrong_type_is_named(field: bytes, proxy: RunningProxy, simulator: Simulator) -> None:
    answer = await proxy.client.post(CHAT, b"{%b}" % field)
    refused(answer, simulator, 400)
    assert answer.error["param"] == ("n" if b'"n"' in field else "model")


@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_row_50_the_wrong_method(path: str, method: str, proxy: RunningProxy, simulator: Simulator) -> None:
    async with proxy.client.send(method, path) as exchange:
        answer = await exchange.rest()
    refused(answer, simulator, 405)
    assert answer.header("allow") == "POST"


async def test_row_50_models_cannot_be_posted_to_and_the_root_neither(proxy: RunningProxy, simulator: Simulator) -> None:
    answer = await proxy.root.post("/healthz", b"{}")
    refused(answer, simulator, 405)
    assert "GET" in answer.header("allow")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_row_50_the_wrong_content_type(kind: str, proxy: RunningProxy, simulator: Simulator) -> None:
    refused(await proxy.client.post(CHAT, GOOD, headers={"content-type": kind}), simulator, 415)


async def test_a_compressed_body_is_refused(proxy: RunningProxy, simulator: Simulator) -> None:
    refused(await proxy.client.post(CHAT, GOOD, headers={"content-encoding": "gzip"}), simulator, 415)


@pytest.mark.parametrize("last", [b"gzip", b"identity"])
async def test_of_two_codings_none_hides_the_other(last: bytes, proxy: RunningProxy, simulator: Simulator) -> None:
    async with connected(proxy.base_url) as connection:
        await connection.send(request(GOOD, b"Content-Encoding: gzip", b"Content-Encoding: " + last))
        assert (await connection.response()).status == 415
    assert simulator.observer.requests == 0


async def test_a_content_type_with_a_charset_is_fine(proxy: RunningProxy) -> None:
    answer = await proxy.client.post(CHAT, GOOD, headers={"content-type": "Application/JSON; charset=utf-8"})
    assert answer.status == 200


@pytest.mark.parametrize("path", ["/chat/completions", "/embeddings", "/models", "/models/ok"])
@pytest.mark.parametrize(
    "header", ["", "Bearer wrong", f"Bearer {CLIENT_KEY}x", f"Bearer {CLIENT_KEY[:-1]}", f"Basic {CLIENT_KEY}", "Bearer"]
)
async def test_row_51_a_missing_or_wrong_key(header: str, path: str, proxy: RunningProxy, simulator: Simulator) -> None:
    told = {"authorization": header}
    answer = await (proxy.client.get(path, headers=told) if "models" in path else proxy.client.post(path, GOOD, headers=told))
    refused(answer, simulator, 401)
    assert answer.header("www-authenticate") == "Bearer"
    assert answer.error["code"] == "invalid_api_key"


async def test_row_51_a_key_may_come_as_x_api_key(proxy: RunningProxy) -> None:
    answer = await proxy.client.post(CHAT, GOOD, headers={"authorization": "", "x-api-key": CLIENT_KEY})
    assert answer.status == 200


async def test_row_51_a_clients_key_does_not_open_the_admin_listener_nor_the_other_way_round(simulator: Simulator) -> None:
    settings = settings_for({"main": simulator}, admin_keys=(Secret("sk-of-the-operators"),))
    async with running_proxy(settings, simulator) as proxy:
        for key, status in (("", 401), (CLIENT_KEY, 401), ("sk-of-the-operators", 200)):
            assert (await proxy.admin.get("/status", headers={"authorization": f"Bearer {key}"})).status == status
        answer = await proxy.client.post(CHAT, GOOD, headers={"authorization": "Bearer sk-of-the-operators"})
        assert answer.status == 401


@pytest.mark.parametrize(
    ("path", "header", "status"),
    [
        ("/v1/chat/completions", "Bearer wrong", 401),
        ("/v1/chat/completions", "", 401),
        ("/chat/completions", "", 404),
        ("/v1/embeddings", None, 413),
    ],
)
async def test_row_36_an_early_refusal_is_read_although_the_body_is_still_being_sent(
    path: str, header: str | None, status: int, simulator: Simulator
) -> None:
    async with running_proxy(settings_for({"main": simulator}, max_request_body=1_000_000), simulator) as proxy:
        body = b'{"model":"ok","x":"' + b"x" * 3_000_000 + b'"}'
        answer = await proxy.root.post(path, body, headers=None if header is None else {"authorization": header})
        refused(answer, simulator, status)

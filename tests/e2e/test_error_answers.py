"""An upstream that answers with an error: the status it gets, the body it gets, and what never gets out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .running_proxy import running_proxy, settings_for, upstream_of

if TYPE_CHECKING:
    from server.simulator import Simulator

    from .raw_client import RawClient
    from .running_proxy import RunningProxy

pytestmark = pytest.mark.usefixtures("way")

BOTH_ENGINES = pytest.mark.parametrize("engine", ["actors", "relay"])
BOTH_FORMS = pytest.mark.parametrize("stream", [True, False])


@BOTH_ENGINES
@BOTH_FORMS
@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
async def test_row_6_the_clients_own_mistakes_pass_unchanged_and_are_not_repeated(
    status: int, stream: bool, proxy: RunningProxy, direct: RawClient, simulator: Simulator
) -> None:
    model = f"http-{status}"
    answer = await proxy.client.ask(model, stream=stream)
    assert len(simulator.observer.seen) == 1
    assert answer.status == status
    assert answer.body == (await direct.ask(model, stream=stream)).body
    assert answer.header("content-type") == "application/json"
    assert proxy.circuit("main").failures == 0


@BOTH_ENGINES
@BOTH_FORMS
@pytest.mark.parametrize("status", [401, 402, 403])
async def test_row_7_a_refused_credential_names_upstream_and_setting_and_no_key(status: int, stream: bool, proxy: RunningProxy) -> None:
    answer = await proxy.client.ask(f"http-{status}", stream=stream)
    assert answer.status == 502
    assert answer.error["code"] == "upstream_auth_error"
    assert "'main'" in answer.error["message"]
    assert "upstreams.main.key_env" in answer.error["message"]
    await proxy.until_quiet()
    # The simulator's 403 is about one model: the others may still be asked for.
    assert proxy.circuit("main").state == ("closed" if status == 403 else "paused")


@BOTH_ENGINES
@BOTH_FORMS
@pytest.mark.parametrize("status", [401, 402, 403, 429])
async def test_row_7_with_the_callers_own_credential_the_refusal_is_the_callers(
    status: int, stream: bool, simulator: Simulator, direct: RawClient, engine: str
) -> None:
    upstream = upstream_of(simulator, key=None, auth="client")
    async with running_proxy(settings_for({"main": upstream}, engine=engine, retry={"retries": 0}), simulator) as proxy:
        answer = await proxy.client.ask(f"http-{status}", stream=stream)
        assert answer.status == status
        assert answer.body == (await direct.ask(f"http-{status}", stream=stream)).body


@BOTH_ENGINES
@BOTH_FORMS
@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
async def test_row_10_a_server_error_that_stays_is_passed_on(status: int, stream: bool, proxy: RunningProxy, simulator: Simulator) -> None:
    answer = await proxy.client.ask(f"http-{status}", stream=stream)
    assert answer.status == status
    assert answer.error["message"]
    assert answer.header("x-evenflow-attempts") == "3"
    assert len(simulator.observer.seen) == 3
    await proxy.until_quiet()
    assert proxy.circuit("main").failures == 3


@BOTH_ENGINES
@BOTH_FORMS
async def test_row_11_an_html_page_becomes_json_with_its_status(stream: bool, proxy: RunningProxy) -> None:
    answer = await proxy.client.ask("html-error:503", stream=stream)
    assert answer.status == 503
    assert answer.header("content-type") == "application/json"
    assert "502 Bad Gateway" in answer.error["message"]
    assert "<" not in answer.error["message"]
    assert len(answer.error["message"]) < 300
    await proxy.until_quiet()
    assert proxy.circuit("main").failures == 3


@BOTH_ENGINES
@BOTH_FORMS
async def test_row_14_a_redirect_is_not_followed(stream: bool, proxy: RunningProxy, simulator: Simulator) -> None:
    answer = await proxy.client.ask("redirect", stream=stream)
    assert (answer.status, answer.error["code"]) == (502, "upstream_redirect")
    assert answer.header("location") == ""
    assert len(simulator.observer.seen) == 1


@BOTH_ENGINES
@BOTH_FORMS
async def test_row_21_a_compressed_answer_nobody_asked_for_is_never_passed_on(stream: bool, proxy: RunningProxy) -> None:
    answer = await proxy.client.ask("gzip", stream=stream)
    assert (answer.status, answer.error["code"]) == (502, "upstream_bad_response")
    assert b"\x1f\x8b" not in answer.body


@BOTH_FORMS
async def test_an_empty_body_is_an_error(stream: bool, proxy: RunningProxy) -> None:
    answer = await proxy.client.ask("empty-body", stream=stream)
    assert answer.status == 502
    assert answer.error["type"] == "upstream_error"


@BOTH_ENGINES
@BOTH_FORMS
async def test_a_quota_that_is_gone_is_told_as_it_is_and_not_repeated(stream: bool, proxy: RunningProxy, simulator: Simulator) -> None:
    answer = await proxy.client.ask("quota", stream=stream)
    assert (answer.status, answer.error["code"]) == (429, "insufficient_quota")
    assert len(simulator.observer.seen) == 1


@BOTH_ENGINES
@BOTH_FORMS
async def test_a_content_filters_rejection_passes(stream: bool, proxy: RunningProxy, direct: RawClient) -> None:
    answer = await proxy.client.ask("content-filter", stream=stream)
    assert answer.status == 400
    assert answer.body == (await direct.ask("content-filter", stream=stream)).body


@BOTH_ENGINES
@pytest.mark.parametrize("model", ["cut", "reset-after-headers"])
async def test_a_whole_answer_that_was_cut_is_an_error(model: str, proxy: RunningProxy) -> None:
    answer = await proxy.client.ask(model, stream=False)
    assert answer.status == 502
    assert answer.error["code"] == "upstream_disconnected"

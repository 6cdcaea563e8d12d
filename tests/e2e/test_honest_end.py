"""A stream ends in exactly one of done or error, whatever the upstream made of its end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from server.simulator import Recording, open_simulator

from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from server.simulator import Simulator

    from .raw_client import Answer, RawClient
    from .running_proxy import LogTap, RunningProxy

#: What "after=6" leaves of the answer: role and five pieces of text.
BEGINNING = "The river runs past the"


def ended_in_error(answer: Answer, proxy: RunningProxy, code: str) -> None:
    """The client has what came, then one frame, and no [DONE]; the upstream was asked once and is blamed once."""
    assert answer.status == 200
    assert answer.whole
    assert answer.error["code"] == code
    assert answer.error["type"] == "upstream_error"
    assert "main" in answer.error["message"]
    assert answer.finish_reasons == []
    assert answer.header("x-evenflow-attempts") == "1"
    assert proxy.circuit("main").failures == 1


async def test_row_18_a_finished_stream_without_done_gets_one(proxy: RunningProxy, log: LogTap) -> None:
    answer = await proxy.client.ask("no-done")
    assert answer.done
    assert answer.finish_reasons == ["stop"]
    await proxy.until_quiet()
    (line,) = log.requests()
    assert (line["outcome"], line["termination"], line["done_added"]) == ("done", "--", True)
    assert proxy.circuit("main").failures == 0


async def test_row_18_done_without_its_blank_line_counts_at_a_clean_end(proxy: RunningProxy) -> None:
    answer = await proxy.client.ask("done-without-blank")
    assert answer.done


@pytest.mark.parametrize(("asked", "finished", "complete"), [(1, [0], True), (2, [0, 1], True), (2, [0], False), (1, [], False)])
async def test_done_is_added_only_when_every_choice_has_finished(asked: int, finished: list[int], complete: bool) -> None:
    told: list[dict[str, Any]] = [{"index": i, "delta": {"content": "Hi."}, "finish_reason": None} for i in (finished or [0])]
    told += [{"index": i, "delta": {}, "finish_reason": "stop"} for i in finished]
    body = b"".join(b"data: %b\n\n" % json.dumps({"id": "x", "choices": [choice]}).encode() for choice in told)
    async with open_simulator(pace=0.0, recordings={"it": Recording.of(body)}) as simulator:
        async with running_proxy(settings_for({"main": simulator}), simulator) as proxy:
            answer = await proxy.client.ask("recording:it", n=asked)
            assert answer.done is complete
            if not complete:
                assert answer.error["code"] == "upstream_truncated"
            assert answer.body.startswith(body)


@pytest.mark.parametrize("model", ["truncated", "truncated-json"])
async def test_rows_16_and_17_a_clean_end_in_the_middle_is_an_error(model: str, proxy: RunningProxy, log: LogTap) -> None:
    answer = await proxy.client.ask(model)
    await proxy.until_quiet()
    ended_in_error(answer, proxy, "upstream_truncated")
    (line,) = log.requests()
    assert (line["outcome"], line["termination"], line["fault"]) == ("error", "UD", "truncated")


@pytest.mark.parametrize("model", ["reset", "bad-chunk-size", "short-chunk", "cut", "cut-in-event"])
async def test_rows_19_and_20_a_broken_connection_is_an_error(model: str, proxy: RunningProxy, log: LogTap) -> None:
    answer = await proxy.client.ask(model)
    await proxy.until_quiet()
    ended_in_error(answer, proxy, "upstream_disconnected")
    assert answer.text().startswith(BEGINNING[:10])
    (line,) = log.requests()
    assert (line["outcome"], line["termination"]) == ("error", "UD")


@pytest.mark.parametrize("model", ["cut", "truncated", "torn-chunk"])
async def test_what_came_before_the_end_is_complete(model: str, proxy: RunningProxy, simulator: Simulator) -> None:
    whole = (await proxy.client.ask("ok")).text()
    answer = await proxy.client.ask(model)
    told = answer.text()
    assert len(told) > 5
    assert whole.startswith(told)
    # The role, six events less one, and the error: not one that arrived is missing.
    assert len(answer.events) == 6 + 1


async def test_row_15_a_torn_chunk_fails_the_stream_and_is_never_shown(proxy: RunningProxy) -> None:
    answer = await proxy.client.ask("torn-chunk")
    await proxy.until_quiet()
    ended_in_error(answer, proxy, "upstream_bad_chunk")


async def test_row_15_what_cannot_have_carried_output_is_skipped_and_counted(proxy: RunningProxy, log: LogTap) -> None:
    good = await proxy.client.ask("ok")
    answer = await proxy.client.ask("ping")
    assert answer.done
    assert answer.text() == good.text()
    assert b"data: ping" not in answer.body
    await proxy.until_quiet()
    assert [line["skipped"] for line in log.requests()] == [0, 1]
    assert proxy.circuit("main").failures == 0


@pytest.mark.parametrize("engine", ["actors", "relay"])
async def test_row_12_a_json_error_in_a_200_is_never_an_empty_success(proxy: RunningProxy) -> None:
    answer = await proxy.client.ask("json-error-200")
    await proxy.until_quiet()
    assert answer.status == 502
    assert "The backend failed before it said anything." in answer.error["message"]
    assert proxy.circuit("main").failures == 3


@pytest.mark.parametrize("engine", ["actors", "relay"])
@pytest.mark.parametrize("model", ["html-error:200", "empty-body"])
async def test_row_12_a_page_or_nothing_under_a_200_is_no_success_either(model: str, proxy: RunningProxy) -> None:
    answer = await proxy.client.ask(model)
    assert answer.status == 502
    assert answer.error["code"] in ("upstream_bad_response", "upstream_truncated")


async def test_row_13_what_is_called_something_else_is_served_and_told_once_per_upstream(
    proxy: RunningProxy, direct: RawClient, log: LogTap
) -> None:
    good = (await direct.ask("ok")).text()
    for model in ("wrong-content-type", "wrong-content-type:none", "ok", "wrong-content-type"):
        answer = await proxy.client.ask(model)
        assert answer.done
        assert answer.text() == good
        assert answer.header("content-type").startswith("text/event-stream")
    (warning,) = [line for line in log.lines if "called it" in line["event"]]
    assert warning["level"] == "warning"
    assert "upstream 'main' sent a stream of events and called it application/json" in warning["event"]


@pytest.mark.parametrize("engine", ["actors", "relay"])
async def test_row_12_a_json_error_in_a_200_that_was_not_to_be_streamed(proxy: RunningProxy) -> None:
    answer = await proxy.client.ask("json-error-200", stream=False)
    assert answer.status == 502
    assert "The backend failed before it said anything." in answer.error["message"]


@pytest.mark.parametrize(("code", "status"), [(503, 503), (500, 500), (429, 429), (400, 400)])
async def test_row_12_an_error_as_the_first_event_is_restated_with_its_status(code: int, status: int, proxy: RunningProxy) -> None:
    answer = await proxy.client.ask(f"error-first:{code}")
    assert answer.status == status
    assert "The backend refused the job." in answer.error["message"]


async def test_an_error_event_in_the_middle_ends_the_stream(proxy: RunningProxy) -> None:
    answer = await proxy.client.ask("error-mid")
    await proxy.until_quiet()
    ended_in_error(answer, proxy, "backend_failed")
    assert "The backend failed in the middle of the answer." in answer.error["message"]


async def test_row_12b_an_error_field_in_the_middle_ends_the_stream(proxy: RunningProxy) -> None:
    answer = await proxy.client.ask("error-field")
    await proxy.until_quiet()
    ended_in_error(answer, proxy, "upstream_error")
    assert "failed to decode, try again, reducing the context" in answer.error["message"]


@pytest.mark.parametrize("model", ["duplicate-done", "data-after-done"])
async def test_rows_31_and_32_nothing_leaves_after_the_first_done(model: str, proxy: RunningProxy) -> None:
    good = await proxy.client.ask("ok")
    answer = await proxy.client.ask(model)
    assert answer.done
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert answer.text() == good.text()


async def test_row_39_a_tool_call_that_was_cut_never_looks_complete(proxy: RunningProxy) -> None:
    answer = await proxy.client.ask("tools-cut")
    await proxy.until_quiet()
    ended_in_error(answer, proxy, "upstream_disconnected")


async def test_row_22_an_event_within_the_limit_passes(proxy: RunningProxy) -> None:
    answer = await proxy.client.ask("huge-event:1000000")
    assert answer.done
    assert "x" * 1_000_000 in answer.text()


async def test_row_22_an_event_beyond_the_limit_is_an_error(simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}, max_event=100_000), simulator) as proxy:
        answer = await proxy.client.ask("huge-event:100001")
        await proxy.until_quiet()
        ended_in_error(answer, proxy, "event_too_large")


async def test_row_25_invalid_utf8_is_no_crash_and_loses_no_event(proxy: RunningProxy) -> None:
    good = await proxy.client.ask("ok")
    async with proxy.client.open("invalid-utf8") as exchange:
        answer = await exchange.rest()
    assert answer.body.count(b"data: ") == good.body.count(b"data: ")
    assert answer.body.endswith(b"data: [DONE]\n\n")


async def test_row_29_a_flood_of_comments_is_thinned(proxy: RunningProxy) -> None:
    answer = await proxy.client.ask("comment-flood:10000")
    assert answer.done
    assert len(answer.comments) < 5


@pytest.mark.parametrize("engine", ["relay"])
@pytest.mark.parametrize("model", ["cut", "reset", "short-chunk"])
async def test_the_relay_engine_breaks_the_connection_where_it_can_tell_nothing(model: str, proxy: RunningProxy) -> None:
    answer = await proxy.client.ask(model)
    await proxy.until_quiet()
    assert answer.status == 200
    assert not answer.whole
    assert b"error" not in answer.body
    assert proxy.circuit("main").failures == 1

"""What needs no repair leaves byte for byte as it came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from server.simulator import Simulator

    from .raw_client import RawClient
    from .running_proxy import RunningProxy

pytestmark = pytest.mark.usefixtures("way")

CLEAN = [
    "ok",
    "ok-zh",
    "reasoning",
    "refusal",
    "empty",
    "tools",
    "parallel-tools",
    "choices",
    "logprobs",
    "usage-each",
    "usage-end",
    "nonce",
    "dashscope",
    "finish:content_filter",
    "finish:length",
    "several-data-lines",
    "all-fields",
    "no-space",
    "line-breaks",
    "until-close",
    "connection-close",
    "informational",
    "wrong-content-type",
    "wrong-content-type:none",
]


async def both_bodies(proxy: RunningProxy, direct: RawClient, simulator: Simulator, model: str, **fields: Any) -> tuple[bytes, bytes]:
    """The same answer through the proxy and straight; the simulator's ids start anew for each."""
    through = await proxy.client.ask(model, **fields)
    straight = await direct.ask(model, **fields)
    assert through.status == straight.status == 200
    assert through.whole
    first, again = (f"chatcmpl-sim-{n}".encode() for n in (1, 2))
    return through.body, straight.body.replace(again, first)


@pytest.mark.parametrize("model", CLEAN)
async def test_a_clean_stream_is_not_changed(model: str, proxy: RunningProxy, direct: RawClient, simulator: Simulator) -> None:
    through, straight = await both_bodies(proxy, direct, simulator, model)
    assert through == straight


@pytest.mark.parametrize("model", ["crlf", "cr", "mixed-line-ends", "split-crlf"])
async def test_row_27_line_ends_of_every_kind_stay_as_they_are(
    model: str, proxy: RunningProxy, direct: RawClient, simulator: Simulator
) -> None:
    through, straight = await both_bodies(proxy, direct, simulator, model)
    assert through == straight


async def test_row_28_a_byte_order_mark_passes_or_goes_and_nothing_else(
    proxy: RunningProxy, direct: RawClient, simulator: Simulator
) -> None:
    through, straight = await both_bodies(proxy, direct, simulator, "bom")
    assert through.removeprefix(b"\xef\xbb\xbf") == straight.removeprefix(b"\xef\xbb\xbf")


@pytest.mark.parametrize("model", ["byte-by-byte:text=za%C5%BC%C3%B3%C5%82%C4%87%20%F0%9F%8C%8A%20end", "split-utf8"])
async def test_row_23_events_split_between_any_two_bytes_come_out_the_same(
    model: str, proxy: RunningProxy, direct: RawClient, simulator: Simulator
) -> None:
    through, straight = await both_bodies(proxy, direct, simulator, model)
    assert through == straight
    assert "\ufffd" not in through.decode()


async def test_row_24_many_events_in_one_packet_come_out_the_same(proxy: RunningProxy, direct: RawClient, simulator: Simulator) -> None:
    through, straight = await both_bodies(proxy, direct, simulator, "one-packet:text=" + "%20word" * 400)
    assert through == straight
    assert through.count(b"data: ") > 400


async def test_row_26_an_escaped_nul_passes(proxy: RunningProxy, direct: RawClient, simulator: Simulator) -> None:
    through, straight = await both_bodies(proxy, direct, simulator, "nul")
    assert through == straight
    assert b"\\u0000" in through


@pytest.mark.parametrize("model", ["repeat", "repeat:text=0%2C%200%2C%20,count=60"])
async def test_row_38_true_repetition_is_never_removed(model: str, proxy: RunningProxy, direct: RawClient, simulator: Simulator) -> None:
    through, straight = await both_bodies(proxy, direct, simulator, model)
    assert through == straight


async def test_row_40_a_usage_event_without_choices_passes(proxy: RunningProxy, direct: RawClient, simulator: Simulator) -> None:
    through, straight = await both_bodies(proxy, direct, simulator, "ok", stream_options={"include_usage": True})
    assert through == straight
    assert b'"choices":[],"usage"' in through


async def test_row_40_an_answer_that_was_cut_at_its_length_says_so(proxy: RunningProxy) -> None:
    answer = await proxy.client.ask("finish:length")
    assert answer.done
    assert answer.finish_reasons == ["length"]


async def test_several_choices_asked_for_pass(proxy: RunningProxy, direct: RawClient, simulator: Simulator) -> None:
    through, straight = await both_bodies(proxy, direct, simulator, "ok", n=3)
    assert through == straight


async def test_the_legacy_endpoint_passes(proxy: RunningProxy, direct: RawClient, simulator: Simulator) -> None:
    through, straight = await both_bodies(proxy, direct, simulator, "ok", path="/completions", prompt="hello")
    assert through == straight
    assert b'"text":' in through


async def test_comments_pass_thinned_and_nothing_else_changes(proxy: RunningProxy, direct: RawClient, simulator: Simulator) -> None:
    through = await proxy.client.ask("comments")
    straight = await direct.ask("comments")
    assert through.data == [data.replace("chatcmpl-sim-2", "chatcmpl-sim-1") for data in straight.data]
    assert 0 < len(through.comments) < len(straight.comments)


@pytest.mark.parametrize("model", ["ok", "tools", "logprobs", "choices"])
async def test_an_answer_that_is_not_streamed_is_not_changed(
    model: str, proxy: RunningProxy, direct: RawClient, simulator: Simulator
) -> None:
    through, straight = await both_bodies(proxy, direct, simulator, model, stream=False)
    assert through == straight


@pytest.mark.parametrize("engine", ["relay"])
@pytest.mark.parametrize("model", ["ok", "crlf", "byte-by-byte:text=short", "bom", "data-after-done", "torn-chunk", "no-done"])
async def test_the_relay_engine_changes_nothing_at_all(model: str, proxy: RunningProxy, direct: RawClient, simulator: Simulator) -> None:
    through, straight = await both_bodies(proxy, direct, simulator, model)
    assert through == straight

"""Stutter over real sockets: what is told once, what an upstream is remembered for, and each upstream with its own settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from server.settings import RouteSettings, StutterSettings

from .running_proxy import running_proxy, settings_for, upstream_of

if TYPE_CHECKING:
    from server.simulator import Simulator

    from .raw_client import Answer, RawClient
    from .running_proxy import RunningProxy


def joined(answer: Answer) -> dict[str, str]:
    """The one tool call as a client that joins every string would have it."""
    got = {"id": "", "name": "", "arguments": ""}
    for event in answer.events:
        for choice in event["choices"]:
            for call in choice["delta"].get("tool_calls", ()):
                got["id"] += call.get("id", "")
                got["name"] += call["function"].get("name", "")
                got["arguments"] += call["function"].get("arguments", "")
    return got


async def learned(proxy: RunningProxy, upstream: str = "main") -> dict[str, Any]:
    status = (await proxy.admin.get("/status")).json
    stutter: dict[str, Any] = status["upstreams"][upstream]["stutter"]
    return stutter


async def test_g3_a_call_has_one_id_and_one_name(proxy: RunningProxy, direct: RawClient) -> None:
    straight = joined(await direct.ask("stutter-g3"))
    answer = await proxy.client.ask("stutter-g3")
    assert answer.done
    got = joined(answer)
    times = len(straight["name"]) // len(got["name"])
    assert times > 3
    assert straight["name"] == got["name"] * times
    assert len(straight["id"]) == len(got["id"]) * times
    assert got["arguments"] == straight["arguments"]
    metrics = (await proxy.admin.get("/metrics")).body.decode()
    assert f'evenflow_repairs_total{{shape="G3"}} {times - 1}.0' in metrics


async def test_h1_an_answer_finishes_once(proxy: RunningProxy, direct: RawClient) -> None:
    assert (await direct.ask("stutter-h1")).finish_reasons == ["stop", "stop"]
    answer = await proxy.client.ask("stutter-h1")
    assert answer.finish_reasons == ["stop"]
    assert answer.text() == (await direct.ask("ok")).text()
    assert answer.done


async def test_what_an_upstream_has_shown_is_in_its_status(proxy: RunningProxy) -> None:
    assert await learned(proxy) == {"streams": 0, "proven": {}, "refuted": 0, "prior": 0.0, "last_proof_age": None}
    for model in ("ok", *["stutter-a1"] * 8):
        assert (await proxy.client.ask(model)).done
    shown = await learned(proxy)
    assert shown["streams"] == 9
    assert shown["proven"] == {"A1": 8}
    assert shown["prior"] == 0.9
    assert 0 <= shown["last_proof_age"] < 10


async def test_with_all_that_was_learned_what_cannot_be_decided_still_passes(proxy: RunningProxy, direct: RawClient) -> None:
    for _ in range(8):
        await proxy.client.ask("stutter-a1")
    for model in ("ok", "stutter-b1", "stutter-d1", "stutter-d2"):
        assert (await proxy.client.ask(model)).text() == (await direct.ask(model)).text()


async def test_each_upstream_has_its_own_mode_and_trailer(simulator: Simulator, spare: Simulator) -> None:
    upstreams = {
        "main": upstream_of(simulator, stutter={"trailer": True}),
        "spare": upstream_of(spare, stutter={"mode": "off"}),
    }
    routes = [RouteSettings(model="stutter-a1", upstreams=("main",)), RouteSettings(model="*", upstreams=("spare",))]
    settings = settings_for(upstreams, routes=routes, stutter=StutterSettings(mode="repair"))
    async with running_proxy(settings, simulator, spare) as proxy:
        repaired = await proxy.client.ask("stutter-a1")
        *_, trailer, done = repaired.blocks
        assert done == b"data: [DONE]\n\n"
        assert trailer.startswith(b": evenflow repaired A1=")
        assert not trailer.startswith(b": evenflow repaired A1=0")
        passed = await proxy.client.ask("stutter-a2")
        assert len(passed.text()) > 3 * len(repaired.text())
        assert passed.comments == []
        assert (await learned(proxy, "spare"))["streams"] == 0


async def test_a_stream_that_its_client_left_counts(proxy: RunningProxy) -> None:
    async with proxy.client.open("stutter-a1:pace=50") as stream:
        await stream.read_until(b"river")
    await proxy.until_quiet()
    assert (await learned(proxy))["streams"] == 1

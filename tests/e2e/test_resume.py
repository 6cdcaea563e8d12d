"""FAULTS rows 16, 17, 19, 20, 37 to 39 where a route resumes: output was sent, the upstream breaks, and the client gets the rest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from server.settings import RouteSettings, UpstreamRef

from .running_proxy import eventually, running_proxy, settings_for, upstream_of

if TYPE_CHECKING:
    from trio.testing import MockClock

    from server.settings import Settings
    from server.simulator import Simulator

    from .raw_client import Answer
    from .running_proxy import LogTap

#: How a stream breaks in its middle, and what the comment then names. `stall` needs an idle timer to be noticed.
BREAKS = {
    "row_10 error-mid": ("error-mid", "in_band_error"),
    "row_10 error-field": ("error-field", "in_band_error"),
    "row_15 torn-chunk": ("torn-chunk", "bad_chunk"),
    "row_16 truncated-json": ("truncated-json", "truncated"),
    "row_17 truncated": ("truncated", "truncated"),
    "row_19 reset": ("reset", "disconnected"),
    "row_20 bad-chunk-size": ("bad-chunk-size", "protocol"),
    "row_20 short-chunk": ("short-chunk", "disconnected"),
    "cut": ("cut", "disconnected"),
    "cut-in-event": ("cut-in-event", "disconnected"),
    "stall": ("stall", "idle_timeout"),
}


def resuming(upstreams: Any, *models: str, resume: str = "align", **others: Any) -> Settings:
    """One route over `upstreams` in order, each asked for its own model where `models` names one."""
    refs = tuple(UpstreamRef(name, model) for name, model in zip(upstreams, models or [None] * len(upstreams), strict=True))
    route = RouteSettings(model="*", upstreams=refs, resume=resume)  # type: ignore[arg-type]
    return settings_for(upstreams, routes=[route], **others)


def assert_is_one_answer(answer: Answer, whole: Answer) -> None:
    assert answer.done
    assert answer.text() == whole.text()
    assert len({(event["id"], event["created"], event["model"]) for event in answer.events}) == 1
    roles = [choice["delta"]["role"] for event in answer.events for choice in event["choices"] if "role" in choice["delta"]]
    assert roles == ["assistant"]
    assert answer.finish_reasons == ["stop"]


@pytest.mark.parametrize(("model", "cause"), BREAKS.values(), ids=BREAKS)
async def test_an_answer_that_breaks_is_taken_up_by_the_same_upstream(model: str, cause: str, simulator: Simulator, log: LogTap) -> None:
    # Only what stalls has a short deadline; half a second, since the answer that takes it up has the same.
    timers = {"idle": 0.5} if model.startswith("stall") else {}
    async with running_proxy(resuming({"main": simulator}, timers=timers), simulator) as proxy:
        whole = await proxy.client.ask("ok")
        answer = await proxy.client.ask(f"{model}:times=1")
        assert_is_one_answer(answer, whole)
        assert f": evenflow resumed after {cause} on upstream 'main' (align)\n\n".encode() in answer.comments
        first, second = simulator.observer.of(f"{model}:times=1")
        assert (first.attempt, second.attempt) == ("1", "2")
        await proxy.until_quiet()
        line = log.requests()[-1]
        assert (line["outcome"], line["attempts"], line["resumes"]) == ("done", 2, {"align joined": 1})
        metrics = (await proxy.admin.get("/metrics")).body.decode()
        assert 'evenflow_resumes_total{result="joined",strategy="align"} 1.0' in metrics


async def test_the_next_upstream_takes_it_up_in_its_own_chunks(simulator: Simulator, spare: Simulator) -> None:
    async with running_proxy(
        resuming({"first": simulator, "spare": spare}, "cut:after=20", "byte-by-byte", retry={"retries": 0}), spare
    ) as proxy:
        whole = await proxy.client.ask("anything")
        assert_is_one_answer(whole, whole)
        assert b": evenflow resumed after disconnected on upstream 'spare' (align)\n\n" in whole.comments
        assert whole.header("x-evenflow-upstream") == "first"  # who began it; the comment says who went on


async def test_row_37_thoughts_and_answer_are_taken_up_together(simulator: Simulator) -> None:
    """40 events are beyond the thoughts, so that both lanes are compared."""
    async with running_proxy(resuming({"main": simulator}), simulator) as proxy:
        whole = await proxy.client.ask("reasoning")
        answer = await proxy.client.ask("reasoning-cut:after=40,cuts=1")
        assert_is_one_answer(answer, whole)
        assert answer.text("reasoning_content") == whole.text("reasoning_content")
        assert any(b"(align)" in comment for comment in answer.comments)


async def test_a_legacy_completion_is_asked_for_again(simulator: Simulator) -> None:
    async with running_proxy(resuming({"main": simulator}), simulator) as proxy:
        whole = await proxy.client.ask("ok", path="/completions", prompt="hello")
        answer = await proxy.client.ask("cut:times=1", path="/completions", prompt="hello")
        assert answer.done
        assert answer.text("text") == whole.text("text")
        assert whole.text("text")


async def test_row_38_true_repetitions_survive_a_resume(simulator: Simulator, spare: Simulator) -> None:
    async with running_proxy(
        resuming({"first": simulator, "spare": spare}, "cut:after=9,text=ha ha ha ha ha ha ha ha ha ha", "repeat:count=10"), spare
    ) as proxy:
        answer = await proxy.client.ask("anything")
        assert answer.done
        assert answer.text() == "ha " * 10


@pytest.mark.parametrize("echo", [0, 1])
@pytest.mark.parametrize("continuation", ["prefix", "partial", "continue_final_message"])
async def test_an_upstream_that_can_continue_is_given_the_beginning(
    continuation: str, echo: int, simulator: Simulator, spare: Simulator
) -> None:
    upstreams = {"first": upstream_of(simulator), "spare": upstream_of(spare, continuation=continuation)}
    settings = resuming(upstreams, "cut:after=20", f"continues:{echo}", resume="prefix")
    async with running_proxy(settings, simulator, spare) as proxy:
        answer = await proxy.client.ask("anything")
        (seen,) = spare.observer.seen
        asked = json.loads(seen.body)
        *_, begun = asked["messages"]
        assert begun["role"] == "assistant"
        assert answer.text().startswith(begun["content"])
        flags = begun if continuation != "continue_final_message" else asked
        assert flags[continuation] is True
        assert asked.get("add_generation_prompt", "absent") == (False if continuation == "continue_final_message" else "absent")
        assert b": evenflow resumed after disconnected on upstream 'spare' (prefix)\n\n" in answer.comments
        assert len(simulator.observer.seen) == 1  # it cannot continue, so it is not asked again
        whole = await proxy.client.ask("anything")
        assert_is_one_answer(answer, whole)


async def test_a_fallback_that_rejects_a_prefix_is_asked_without_it(simulator: Simulator, spare: Simulator, log: LogTap) -> None:
    upstreams = {"first": upstream_of(simulator), "spare": upstream_of(spare, continuation="prefix")}
    async with running_proxy(resuming(upstreams, "cut:after=20", "no-prefix", retry={"retries": 0}), simulator, spare) as proxy:
        answer = await proxy.client.ask("anything")
        assert answer.done
        assert [json.loads(seen.body)["messages"][-1]["role"] for seen in spare.observer.seen] == ["assistant", "user"]
        await proxy.until_quiet()
        assert log.requests()[-1]["resumes"] == {"prefix rejected": 1, "align joined": 1}
        assert proxy.circuit("spare").failures == 0


async def test_a_rejected_prefix_does_not_mask_what_broke_the_answer(simulator: Simulator, spare: Simulator) -> None:
    upstreams = {"first": upstream_of(simulator), "spare": upstream_of(spare, continuation="prefix")}
    settings = resuming(upstreams, "cut:after=20", "no-prefix", resume="prefix", retry={"retries": 0})
    async with running_proxy(settings, simulator, spare) as proxy:
        answer = await proxy.client.ask("anything")
        assert answer.error["code"] == "upstream_disconnected"
        assert "'first'" in answer.error["message"]
        assert len(spare.observer.seen) == 1
        # A deterministic request may be asked again without being told so.
        answer = await proxy.client.ask("anything", temperature=0)
        assert answer.done


async def test_another_answer_is_never_spliced(simulator: Simulator, spare: Simulator, log: LogTap) -> None:
    settings = resuming(
        {"first": simulator, "spare": spare}, "cut:after=20", "ok:text=Once upon a time there was a mill.", retry={"retries": 0}
    )
    async with running_proxy(settings, simulator, spare) as proxy:
        answer = await proxy.client.ask("anything")
        assert answer.error["code"] == "upstream_disconnected"
        assert "Once" not in answer.text()
        await proxy.until_quiet()
        line = log.requests()[-1]
        assert (line["outcome"], line["fault"], line["resumes"]) == ("error", "disconnected", {"align differed": 1})
        assert (proxy.circuit("first").failures, proxy.circuit("spare").failures) == (1, 0)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("tools-cut", {}),
        ("cut", {"n": 2}),
        ("cut", {"response_format": {"type": "json_object"}}),
    ],
)
async def test_row_39_what_cannot_be_taken_up_ends_with_the_error(model: str, fields: dict[str, Any], simulator: Simulator) -> None:
    async with running_proxy(resuming({"main": simulator}), simulator) as proxy:
        answer = await proxy.client.ask(f"{model}:times=1", **fields)
        assert answer.error["code"] == "upstream_disconnected"
        assert len(simulator.observer.seen) == 1


@pytest.mark.parametrize(
    ("resume", "fields", "asked"),
    [("off", {"temperature": 0}, 1), ("prefix", {}, 1), ("prefix", {"temperature": 0}, 2), ("prefix", {"seed": 1}, 2), ("align", {}, 2)],
)
async def test_the_prompt_is_paid_again_only_where_that_was_chosen(
    resume: str, fields: dict[str, Any], asked: int, simulator: Simulator
) -> None:
    async with running_proxy(resuming({"main": simulator}, resume=resume), simulator) as proxy:
        answer = await proxy.client.ask("cut:times=1", **fields)
        assert answer.done is (asked == 2)
        assert len(simulator.observer.seen) == asked


async def test_the_retry_budget_and_the_retries_bound_it(simulator: Simulator) -> None:
    async with running_proxy(resuming({"main": simulator}), simulator) as proxy:
        answer = await proxy.client.ask("cut:after=20")
        assert answer.error["code"] == "upstream_disconnected"
        assert len(simulator.observer.seen) == 3
    async with running_proxy(resuming({"main": simulator}, retry={"budget_ratio": 0.0, "budget_floor": 0}), simulator) as proxy:
        simulator.observer.reset()
        answer = await proxy.client.ask("cut:after=20")
        assert answer.error["code"] == "upstream_disconnected"
        assert len(simulator.observer.seen) == 1


async def test_a_client_that_leaves_while_it_is_taken_up_frees_everything(simulator: Simulator, spare: Simulator) -> None:
    settings = resuming({"first": simulator, "spare": spare}, "cut:after=20", "stall:after=3", retry={"retries": 0})
    async with running_proxy(settings, simulator, spare) as proxy, proxy.client.open("anything") as exchange:
        await exchange.read_until(b"data: ")
        await spare.observer.wait_for(lambda observer: observer.active == 1)
        await exchange.leave()
        await spare.observer.wait_for(lambda observer: observer.active == 0)


# ---- delivery = "whole" -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["cut", "stall", "truncated", "torn-chunk", "tools-cut"])
async def test_a_whole_answer_survives_any_break_of_its_upstream(model: str, simulator: Simulator) -> None:
    timers = {"idle": 0.5} if model == "stall" else {}
    async with running_proxy(settings_for({"main": simulator}, timers=timers), simulator) as proxy:
        answer = await proxy.client.ask(f"{model}:times=1", headers={"x-evenflow-delivery": "whole"})
        whole = await proxy.client.ask("ok")
        assert answer.done
        assert answer.text() == whole.text()
        assert answer.header("x-evenflow-attempts") == "2"
        assert not answer.comments
        assert "x-evenflow-delivery" not in simulator.observer.seen[0].headers


async def test_a_whole_answer_is_kept_until_it_is_complete_while_keep_alives_go_out(simulator: Simulator, clock: MockClock) -> None:
    route = RouteSettings(model="*", upstreams=("main",), delivery="whole")
    settings = settings_for({"main": simulator}, timers={"keepalive_after": 5.0, "keepalive_interval": 5.0}, routes=[route])
    async with running_proxy(settings, simulator) as proxy:
        async with proxy.client.open("stall:after=6,seconds=20") as exchange:
            await eventually(lambda: any(seen.events == 6 for seen in simulator.observer.seen))
            clock.jump(5.0)
            early = await exchange.read_until(b": keep-alive\n\n")
            assert b"data: " not in early
            clock.jump(15.0)
            answer = await exchange.rest()
        assert answer.done
        assert answer.text()
        streamed = await proxy.client.ask("ok", headers={"x-evenflow-delivery": "stream"})
        assert streamed.text() == answer.text()


async def test_a_whole_answer_that_never_comes_is_a_status(simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}), simulator) as proxy:
        answer = await proxy.client.ask("cut", headers={"x-evenflow-delivery": "whole"})
        assert answer.status == 502
        assert answer.error["code"] == "upstream_disconnected"
        refused = await proxy.client.ask("ok", headers={"x-evenflow-delivery": "later"})
        assert refused.status == 400

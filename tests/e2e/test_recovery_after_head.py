"""Retry, failover and replay when the client already has a 200: it sees one stream, whoever it was that told it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio.testing import wait_all_tasks_blocked

from server.settings import RouteSettings, UpstreamRef

from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from trio.testing import MockClock

    from server.simulator import Simulator

    from .raw_client import Exchange
    from .running_proxy import LogTap, RunningProxy

#: The head goes out after 5 s, and the first attempt is given up after 14 s, by a clock that `early_head` moves.
EARLY_HEAD = {"keepalive_after": 5.0, "keepalive_interval": 5.0, "first_token": 14.0}


async def early_head(exchange: Exchange, simulator: Simulator, clock: MockClock, asked: int = 1) -> bytes:
    """Let the time of the head, of one more comment and of the silent attempt pass, which is the simulator's `asked`th request."""
    await simulator.observer.wait_for(lambda observer: observer.requests == asked and observer.active == 1)
    clock.jump(5.0)
    head = await exchange.read_until(b": keep-alive\n\n")
    assert simulator.observer.requests == asked
    for _ in range(2):
        clock.jump(5.0)
        await wait_all_tasks_blocked(0.01)
    return head


async def test_a_retry_after_the_head_is_one_stream_for_the_client(simulator: Simulator, log: LogTap, clock: MockClock) -> None:
    settings = settings_for({"main": simulator}, timers=EARLY_HEAD, recovery={"first_token_timeout": "retry"})
    async with running_proxy(settings, simulator) as proxy:
        good = await proxy.client.ask("ok")
        async with proxy.client.open("role-then-silence:times=1") as exchange:
            head = await early_head(exchange, simulator, clock, asked=2)
            assert head.startswith(b"HTTP/1.1 200")
            answer = await exchange.rest()
        assert answer.done
        assert answer.text() == good.text()
        assert len(answer.comments) >= 2
        assert {event["id"] for event in answer.events} == {answer.events[0]["id"]}
        assert len(simulator.observer.seen) == 3
        await proxy.until_quiet()
        line = log.requests()[-1]
        assert (line["outcome"], line["status"], line["attempts"]) == ("done", 200, 2)


async def test_a_failover_after_the_head_is_one_stream_for_the_client(
    simulator: Simulator, spare: Simulator, log: LogTap, clock: MockClock
) -> None:
    route = RouteSettings(model="*", upstreams=(UpstreamRef("first", "silence"), UpstreamRef("spare", "ok")))
    async with running_proxy(
        settings_for({"first": simulator, "spare": spare}, timers=EARLY_HEAD, routes=[route]), simulator, spare
    ) as proxy:
        async with proxy.client.open("anything") as exchange:
            await early_head(exchange, simulator, clock)
            answer = await exchange.rest()
        assert answer.status == 200
        assert answer.done
        assert answer.comments
        await proxy.until_quiet()
        assert log.requests()[-1]["upstream"] == "spare"
        assert proxy.circuit("first").failures == 1


async def test_a_failure_after_the_head_is_a_frame_instead_of_a_status(simulator: Simulator, log: LogTap, clock: MockClock) -> None:
    async with running_proxy(settings_for({"main": simulator}, timers=EARLY_HEAD), simulator) as proxy:
        async with proxy.client.open("silence") as exchange:
            await early_head(exchange, simulator, clock)
            answer = await exchange.rest()
        assert answer.status == 200
        assert answer.whole
        assert answer.comments
        assert answer.error["code"] == "upstream_timeout"
        assert "timers.first_token" in answer.error["message"]
        await proxy.until_quiet()
        (line,) = log.requests()
        assert (line["outcome"], line["termination"]) == ("error", "uH")


async def test_row_37_a_stream_that_was_cut_while_it_reasoned_goes_on_under_its_first_id(
    proxy: RunningProxy, simulator: Simulator, log: LogTap
) -> None:
    whole = await proxy.client.ask("reasoning")
    answer = await proxy.client.ask("reasoning-cut")
    assert answer.done
    assert answer.text() == whole.text()
    # The reasoning of the first attempt stays, the second one's is swallowed: it is told once, as far as it came.
    thoughts = answer.text("reasoning_content")
    assert thoughts
    assert whole.text("reasoning_content").startswith(thoughts)
    assert len({(event["id"], event["created"], event["model"]) for event in answer.events}) == 1
    roles = [choice["delta"]["role"] for event in answer.events for choice in event["choices"] if "role" in choice["delta"]]
    assert roles == ["assistant"]
    assert [seen.attempt for seen in simulator.observer.of("reasoning-cut")] == ["1", "2"]
    await proxy.until_quiet()
    assert log.requests()[-1]["replayed"] == 1


async def test_a_replay_that_is_cut_again_is_tried_again_and_then_given_up(proxy: RunningProxy, simulator: Simulator) -> None:
    whole = await proxy.client.ask("reasoning")
    answer = await proxy.client.ask("reasoning-cut:cuts=9")
    assert answer.status == 200
    assert answer.error["code"] == "upstream_disconnected"
    assert len(simulator.observer.of("reasoning-cut:cuts=9")) == 3
    assert whole.text("reasoning_content").startswith(answer.text("reasoning_content"))


async def test_output_that_was_sent_is_never_asked_for_again(proxy: RunningProxy, simulator: Simulator) -> None:
    answer = await proxy.client.ask("cut:times=1")
    assert answer.error["code"] == "upstream_disconnected"
    assert len(simulator.observer.seen) == 1

"""The sixteen classical faults against docs/examples/failover.toml as it is shipped, but for its upstreams' addresses and its clock.

Every duration is a fiftieth of what the file, the defaults and the faults say, so that half a minute takes 0.6 s.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import pytest
import trio

from actors.routes import Secret
from server.settings_sources import Flags, load
from server.simulator import Scenario, ScenarioStep, open_simulator

from .raw_client import CLIENT_KEY
from .running_proxy import running_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from server.settings import Settings
    from server.simulator import Simulator

    from .running_proxy import LogTap, RunningProxy

    Route: TypeAlias = tuple[RunningProxy, Simulator, Simulator]

EXAMPLE: Final = Path(__file__).parents[2] / "docs" / "examples" / "failover.toml"
PACE: Final = 50.0


def scaled(local: str, hosted: str, pace: float) -> Settings:
    settings = load(Flags(config=str(EXAMPLE)), {"OPENROUTER_API_KEY": "sk-example"}).settings
    replace = msgspec.structs.replace
    urls = {"local": local, "hosted": hosted}
    (route,) = settings.configured_routes
    durations = ("window", "open_base", "open_max", "alone_open_max", "pause")
    return replace(
        settings,
        bind="127.0.0.1:0",
        admin_bind="127.0.0.1:0",
        drain=0.0,
        client_keys=(Secret(CLIENT_KEY),),
        configured_upstreams={name: replace(table, base_url=urls[name]) for name, table in settings.configured_upstreams.items()},
        configured_routes=(
            replace(route, hedge_after=route.hedge_after / pace, timers={name: seconds / pace for name, seconds in route.timers.items()}),
        ),
        retry=replace(settings.retry, backoff_base=settings.retry.backoff_base / PACE, backoff_cap=settings.retry.backoff_cap / PACE),
        breaker=replace(settings.breaker, **{name: getattr(settings.breaker, name) / pace for name in durations}),
    )


@asynccontextmanager
async def route(first: str, then: str = "ok", fallback: str = "ok", *, times: int = 1, pace: float = PACE) -> AsyncIterator[Route]:
    """The example's proxy; `local` answers `first` so many times (0: always) and `then` afterwards, `hosted` always `fallback`."""
    steps = (ScenarioStep(first, times=times), ScenarioStep(then))
    async with (
        open_simulator(pace=0.0, scenario=Scenario(steps)) as local,
        open_simulator(pace=0.0, scenario=Scenario((ScenarioStep(fallback),))) as hosted,
        running_proxy(scaled(local.base_url, hosted.base_url, pace), local, hosted) as proxy,
    ):
        yield proxy, local, hosted


COMPLETE: Final = {
    "429": ("http-429", 1),
    "429 with Retry-After": ("http-429:retry_after=0", 1),
    "500 once": ("http-500", 1),
    "503 always": ("http-503", 0),
    "reset before headers": ("reset-before-headers", 0),
    "silence": ("silence", 0),
    "slow first token of 20 s": ("slow-first-token:seconds=0.4", 0),
    "cut mid-answer, once": ("cut:after=20", 1),
    "cut mid-answer, always": ("cut:after=20", 0),
    "stall of 30 s": ("stall:after=20,seconds=0.65", 0),
    "malformed chunk": ("torn-chunk:after=20", 0),
    "missing [DONE]": ("no-done", 0),
    "context length": ("context-length", 0),
}


@pytest.mark.parametrize(("fault", "times"), COMPLETE.values(), ids=COMPLETE)
async def test_the_answer_is_complete_and_right(fault: str, times: int) -> None:
    async with route("ok") as (proxy, _, _):
        whole = await proxy.client.ask("coder")
    async with route(fault, times=times) as (proxy, local, _):
        answer = await proxy.client.ask("coder")
        assert answer.status == 200
        assert answer.done
        assert answer.text() == whole.text()
        assert answer.finish_reasons == ["stop"]
        if fault == "silence":
            assert len(local.observer.seen) == 1


async def test_a_fallback_without_prefix_support() -> None:
    async with route("cut:after=20", times=0, fallback="no-prefix") as (proxy, _, hosted):
        answer = await proxy.client.ask("coder")
        assert answer.done
        assert b"(align)" in b"".join(answer.comments)
        assert len(hosted.observer.seen) == 1  # it was not given one


async def test_a_content_filter_is_the_upstreams_own_error() -> None:
    async with route("content-filter", times=0) as (proxy, _, hosted):
        answer = await proxy.client.ask("coder")
        assert (answer.status, answer.error["code"]) == (400, "content_filter")
        assert not hosted.observer.seen


async def test_accounting_after_a_failover(log: LogTap) -> None:
    async with route("http-503", times=0) as (proxy, local, hosted):
        answer = await proxy.client.ask("coder", stream_options={"include_usage": True})
        assert answer.events[-1]["usage"]["completion_tokens"] > 0
        assert answer.header("x-evenflow-upstream") == "hosted"
        assert answer.header("x-evenflow-attempts") == "4"
        await proxy.until_quiet()
        line = log.requests()[-1]
        assert (line["upstream"], line["attempts"], line["outcome"]) == ("hosted", 4, "done")
        assert (len(local.observer.seen), len(hosted.observer.seen)) == (3, 1)


async def test_after_a_flap_the_primary_is_used_again_within_30_s(clock: MockClock) -> None:
    """Up for 25 s, down for 25 s, up again; somebody asks every second of a moved clock, and always gets an answer."""
    async with route("flap:period=25", times=0, pace=1.0) as (proxy, _, _):
        began = trio.current_time()
        served = set()
        while trio.current_time() < began + 50.0:
            answer = await proxy.client.ask("coder")
            assert answer.done
            served.add(answer.header("x-evenflow-upstream"))
            clock.jump(1.0)
        assert served == {"local", "hosted"}
        while (await proxy.client.ask("coder")).header("x-evenflow-upstream") != "local":
            clock.jump(1.0)
            assert trio.current_time() < began + 50.0 + 30.0

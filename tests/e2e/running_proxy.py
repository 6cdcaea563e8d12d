"""A proxy on real sockets for the length of a block, and the proof afterwards that nothing of it is left over.

Whatever a test does, when it is through there is no stream, permit, task or half-read upstream connection left, and every finished
request has written its one line into the log.
"""

from __future__ import annotations

import io
import json
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import trio
import trio.testing

from actors.routes import Secret
from server.log import flush_logging
from server.main import Proxy, open_proxy
from server.settings import BreakerSettings, RetrySettings, RouteSettings, Settings, StreamingSettings, TimersSettings, UpstreamSettings
from server.simulator import Simulator

from .raw_client import CLIENT_KEY, PATIENCE, UPSTREAM_KEY, RawClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from actors.sansio.breaker_state import CircuitStatistics
    from server.log_sink import LineSink

#: Short enough for a suite, long enough to be told from no wait at all.
_RETRY: Final = RetrySettings(backoff_base=0.01, backoff_cap=0.02)

Upstreams: TypeAlias = "Mapping[str, Simulator] | Mapping[str, UpstreamSettings] | Mapping[str, Simulator | UpstreamSettings | str]"


def settings_for(
    upstreams: Upstreams,
    *,
    engine: str = "actors",
    timers: Mapping[str, float] | None = None,
    retry: Mapping[str, float] | None = None,
    breaker: Mapping[str, object] | None = None,
    routes: Sequence[RouteSettings] = (),
    **others: Any,
) -> Settings:
    """Settings for `upstreams` by name: simulators, URLs, or whole tables. Everything else as shipped, but for short back-offs."""
    return msgspec.structs.replace(
        Settings(bind="127.0.0.1:0", admin_bind="127.0.0.1:0", client_keys=(Secret(CLIENT_KEY),), drain=0.0, backlog=256),
        configured_upstreams={name: _table(upstream) for name, upstream in upstreams.items()},
        configured_routes=tuple(routes),
        streaming=msgspec.convert({"engine": engine}, StreamingSettings),
        timers=msgspec.structs.replace(TimersSettings(), **dict(timers or {})),
        retry=msgspec.structs.replace(_RETRY, **dict(retry or {})),
        breaker=msgspec.structs.replace(BreakerSettings(pause=0.05), **dict(breaker or {})),
        **others,
    )


def upstream_of(simulator: Simulator, **fields: Any) -> UpstreamSettings:
    """A simulator as a configured upstream, with the canary for its key."""
    return UpstreamSettings(**{"base_url": simulator.base_url, "key": Secret(UPSTREAM_KEY), **fields})


def _table(upstream: Simulator | UpstreamSettings | str) -> UpstreamSettings:
    match upstream:
        case Simulator():
            return upstream_of(upstream)
        case str():
            return UpstreamSettings(base_url=upstream, key=Secret(UPSTREAM_KEY))
        case _:
            return upstream


async def eventually(holds: Callable[[], bool], told: Callable[[], object] = lambda: None) -> None:
    """Wait for what nobody signals: the end of a task of others, the passing of an open time. The only polling of these tests.

    Args:
      told: shown if it does not come to pass.
    """
    with trio.move_on_after(PATIENCE):
        while not holds():  # noqa: ASYNC110
            await trio.sleep(0.002)
    assert holds(), told()


class LogTap(io.StringIO):
    """Everything this process logged, as the JSON lines of its standard error."""

    sink: LineSink
    _taken = 0

    @property
    def lines(self) -> list[dict[str, Any]]:
        flush_logging(PATIENCE)  # what the clerk has not written yet is asked for first
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def take_crashes(self) -> list[dict[str, Any]]:
        """What was logged with a traceback and not yet asked for; whatever is left at a test's end fails it."""
        crashes = [line for line in self.lines if "exception" in line]
        taken, self._taken = self._taken, len(crashes)
        return crashes[taken:]

    def requests(self) -> list[dict[str, Any]]:
        """The canonical lines, oldest first."""
        return [line for line in self.lines if line["event"] in ("stream", "request")]


class RunningProxy:
    """A proxy under test.

    Args:
      client: asks its main listener with a good key.
      admin: asks its admin listener.
    """

    def __init__(self, proxy: Proxy, simulators: Sequence[Simulator]) -> None:
        self.proxy = proxy
        self.base_url = proxy.base_url
        self.client = RawClient(proxy.base_url)
        self.root = RawClient(proxy.base_url.removesuffix("/v1"))
        self.admin = RawClient(proxy.admin_url, None)
        self._simulators = simulators
        self._opener = trio.lowlevel.current_task()
        self._tasks_before = self._tasks()

    def circuit(self, upstream: str) -> CircuitStatistics:
        return self.proxy.services.breaker.statistics().upstreams[upstream]

    @property
    def upstream_connections(self) -> int:
        return sum(self.proxy.services.client.open_connections().values())

    def leftovers(self) -> dict[str, int]:
        """What still runs, by what it is; empty when all is quiet. What has ended is written down."""
        self.proxy.services.clerk.finish()
        statistics = self.proxy.services.breaker.statistics()
        admission = self.proxy.services.admission.statistics()
        counted = {
            "streams": self.proxy.services.metrics.streams_active,
            "permits": sum(circuit.permits_out for circuit in statistics.upstreams.values()),
            "places": admission.streams + admission.waiting + sum(admission.slots_in_use.values()),
            "bytes of bodies": admission.body_bytes,
            "requests upstream": sum(simulator.observer.active for simulator in self._simulators),
            "tasks": self._tasks() - self._tasks_before,
        }
        return {name: count for name, count in counted.items() if count}

    async def until_quiet(self) -> None:
        """Wait until nothing is left."""
        await eventually(lambda: not self.leftovers(), self.leftovers)

    def _tasks(self) -> int:
        """Tasks below the one that opened the proxy, but for a simulator's, which has one for every idle connection."""
        below, count = list(self._opener.child_nurseries), 0
        while below:
            for task in below.pop().child_tasks:
                below += task.child_nurseries
                count += not task.name.startswith("server.simulator.")
        return count


#: Whether the proxies here answer requests in plain form without h11. The fixture `way` has a test walk both ways.
PLAIN = ContextVar("PLAIN", default=True)


@asynccontextmanager
async def running_proxy(settings: Settings, *simulators: Simulator, randomly: float = 0.5) -> AsyncIterator[RunningProxy]:
    """Run a proxy; on leaving, nothing may be left over.

    Args:
      simulators: those that its requests may reach.
      randomly: what its random numbers are.
    """
    async with open_proxy(settings, random=lambda: randomly, plain=PLAIN.get()) as proxy:
        await trio.testing.wait_all_tasks_blocked()  # the listeners' own tasks, which are no leftovers, start a moment later
        running = RunningProxy(proxy, simulators)
        yield running
        await running.until_quiet()

"""The simulator as a whole: its socket, its endpoints, its observer, and the two ways to run it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from .endpoints import Endpoints, Reply, Request
from .envelopes import encode
from .http_server import accept_connections, listen
from .observer import Observer
from .scenario import Scenario
from .wire import whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from .recordings import Recording
    from .wire import Headers

#: How vLLM tells how many requests it serves; `evenflow doctor` looks there whether an answer ends when its client leaves.
_RUNNING: Final = b'# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name="simulator"} %d\n'
_METRICS: Final[Headers] = (("content-type", "text/plain; version=0.0.4"),)


class Simulator:
    """A running simulator.

    Args:
      host, port: where it listens.
      observer: what it saw.
    """

    def __init__(self, host: str, port: int, endpoints: Endpoints) -> None:
        self.host = host
        self.port = port
        self.observer = Observer()
        self._endpoints = endpoints

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base_url."""
        return f"{self.url}/v1"

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def reset(self) -> None:
        """Forget what was seen and asked; answers that still run go on."""
        self.observer.reset()
        self._endpoints.reset(trio.current_time())

    def respond(self, request: Request) -> tuple[Reply, bool]:
        """The reply to one request, and whether it belongs into the record: the simulator's own endpoints do not."""
        if (request.method, request.path) == ("GET", "/metrics"):
            return Reply(whole(200, _RUNNING % self.observer.active, _METRICS)), False
        if not request.path.startswith("/_simulator/"):
            return self._endpoints.reply(request, trio.current_time()), True
        match request.method, request.path:
            case "GET", "/_simulator/report":
                return Reply(whole(200, encode(self.observer.report()))), False
            case "POST", "/_simulator/reset":
                self.reset()
                return Reply(whole(200, b"{}")), False
        return Reply(whole(404, b"{}")), False


async def serve_simulator(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    pace: float = 0.02,
    seed: int = 0,
    scenario: Scenario | None = None,
    recordings: Mapping[str, Recording] | None = None,
    task_status: trio.TaskStatus[Simulator] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a simulator until cancelled; `task_status` gets it as soon as it listens.

    Args:
      port: 0 takes a free one.
      pace: seconds between the events of a stream.
      seed: of everything random in its answers.
      recordings: bodies for `recording:NAME`, by name.

    Raises:
      OSError: it cannot listen there.
    """
    with listen(host, port) as listener:
        endpoints = Endpoints(pace=pace, seed=seed, scenario=scenario or Scenario(), recordings=recordings or {}, now=trio.current_time())
        simulator = Simulator(host, listener.getsockname()[1], endpoints)
        task_status.started(simulator)
        await accept_connections(listener, simulator, simulator.observer)


@asynccontextmanager
async def open_simulator(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    pace: float = 0.02,
    seed: int = 0,
    scenario: Scenario | None = None,
    recordings: Mapping[str, Recording] | None = None,
) -> AsyncIterator[Simulator]:
    """A simulator for the length of a block; leaving it closes its sockets and ends its tasks. Arguments as serve_simulator's.

    Raises:
      OSError: it cannot listen there.
    """
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(serve_simulator, host, port, pace=pace, seed=seed, scenario=scenario, recordings=recordings))
        nursery.cancel_scope.cancel()

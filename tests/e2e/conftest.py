"""Fixtures of the end-to-end tests: a simulator, a proxy in front of it, and the log, with nothing in between but sockets."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from trio.testing import MockClock

from server.log import close_logging, configure_logging
from server.simulator import Simulator, open_simulator

from ..free_ports import free_port
from .raw_client import CLIENT_KEY, UPSTREAM_KEY, RawClient
from .running_proxy import PLAIN, LogTap, RunningProxy, running_proxy, settings_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(autouse=True)
def log() -> Iterator[LogTap]:
    """What was logged. No test may end with a key in it, nor with a crash that nobody looked at."""
    tap = LogTap()
    tap.sink = configure_logging("json", "debug", tap)
    try:
        yield tap
        crashes = tap.take_crashes()
    finally:
        close_logging()
    for key in (UPSTREAM_KEY, CLIENT_KEY):
        assert key not in tap.getvalue()
    assert crashes == []


@pytest.fixture
def engine() -> str:
    """The engine of `proxy`; `BOTH_ENGINES` runs a test on each."""
    return "actors"


@pytest.fixture(params=["plain", "no pump", "asgi"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All ways of a request through the server: past h11 and ASGI's `send`, watched by the pump or by a task, and through them."""
    if request.param == "no pump":
        monkeypatch.setattr("server.edge_connection.pump", lambda: None)
    token = PLAIN.set(request.param != "asgi")
    yield
    PLAIN.reset(token)


@pytest.fixture
def clock() -> MockClock:
    """Real time, until a test says `clock.jump(seconds)`: for deadlines so long that only what is silent can miss them."""
    return MockClock(rate=1.0)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with open_simulator(pace=0.0) as running:
        yield running


@pytest.fixture
async def spare() -> AsyncIterator[Simulator]:
    """A second upstream."""
    async with open_simulator(pace=0.0) as running:
        yield running


@pytest.fixture
async def proxy(simulator: Simulator, engine: str) -> AsyncIterator[RunningProxy]:
    """A proxy with one upstream, `main`."""
    async with running_proxy(settings_for({"main": simulator}, engine=engine), simulator) as running:
        yield running


@pytest.fixture
def direct(simulator: Simulator) -> RawClient:
    """Asks the simulator itself."""
    return RawClient(simulator.base_url, None)


@pytest.fixture
def unused_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    return free_port()


@pytest.fixture
def full_backlog() -> Iterator[int]:
    """The port of a listener whose queue is full: whoever connects is never answered."""
    with socket.socket() as listener, socket.socket() as one, socket.socket() as other:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for waiting in (one, other):
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]

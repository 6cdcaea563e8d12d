"""One request, cut off at its first step, its second, its third, until it is through before the cut: nothing of it is ever left over.

A step is what a task does between two waits; all tasks that the request has in evenflow are counted together. The cut is made in between,
so every await of every stage is one at which the request was cut off once: by its client, by whoever runs it, and by the process's end.
"""

from __future__ import annotations

import json
import socket
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
import pytest
import trio
import trio.testing

from server.settings import AdmissionSettings, RecorderSettings, RouteSettings, StreamingSettings, UpstreamRef

from .http2_front import Http2Front, http2_front
from .raw_client import CLIENT_KEY, Answer
from .running_proxy import PLAIN, eventually, running_proxy, settings_for, upstream_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from server.settings import Settings
    from server.simulator import Simulator

    from .running_proxy import LogTap, RunningProxy

#: How a request is cut off. `stop` is the end of the process, which tells the client; `cancel` what comes when that took too long.
Cut = Literal["fin", "rst", "half-close", "cancel", "stop"]
#: Tasks of these are not the request's: they beat by the clock.
_CLOCKWORK: Final = ("server.simulator.", "server.watchdogs.", "server.proxy.")
#: No request here has so many steps; beyond it one would never end.
_MOST: Final = 2000


class Steps(trio.abc.Instrument):
    """Counts the steps of evenflow's tasks, and acts at one of them."""

    def __init__(self) -> None:
        self.count = 0
        self._at = 0
        self._act: Callable[[], None] | None = None

    def arm(self, at: int, act: Callable[[], None]) -> None:
        self.count, self._at, self._act = 0, at, act

    @property
    def has_acted(self) -> bool:
        return self._act is None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if not task.name.startswith(("server.", "actors.")) or task.name.startswith(_CLOCKWORK):
            return
        self.count += 1
        if self.count == self._at and self._act is not None:
            act, self._act = self._act, None
            act()


@dataclass
class Way:
    """What a request goes through.

    Args:
      model: asked for.
      second: of a second upstream, which there is only then.
      ends: how the log says it ends if nobody cuts it off.
      held: it waits for a place among the streams, or for the upstream's slot, which it gets as soon as everything waits.
      given: it gets that in the very moment in which it is cut off.
    """

    model: str = "ok:text=one two"
    stream: bool = True
    path: str = "/chat/completions"
    headers: Mapping[str, str] = field(default_factory=dict)
    engine: str = "actors"
    second: str = ""
    ends: str = "done"
    held: Literal["", "place", "slot"] = ""
    given: bool = False
    trickles: bool = False
    route: Mapping[str, Any] = field(default_factory=dict)
    upstream: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def configured(self, simulator: Simulator, folder: Path) -> Settings:
        upstreams = {"main": upstream_of(simulator, **self.upstream)}
        refs = [UpstreamRef("main", self.model)]
        if self.second:
            upstreams["spare"] = upstream_of(simulator)
            refs.append(UpstreamRef("spare", self.second))
        settings = settings_for(
            upstreams,
            routes=[RouteSettings(model="*", upstreams=tuple(refs), **self.route)],
            retry={"backoff_base": 0.0005, "backoff_cap": 0.001, "budget_floor": 10_000, "retries": 2},
            breaker={"mode": "metrics_only"},
            recorder=RecorderSettings(directory=str(folder), streams=1, max_bytes=10_000),
            admission=AdmissionSettings(max_streams=1, max_wait=5.0),
            **self.settings,
        )
        streaming = StreamingSettings(engine="relay", shadow=self.engine == "shadow") if self.engine != "actors" else StreamingSettings()
        return msgspec.structs.replace(settings, streaming=streaming)

    def request(self) -> tuple[bytes, bytes]:
        """Head and body."""
        asked = {"model": "any", "stream": self.stream, "messages": [{"role": "user", "content": "hello"}], "input": "hello"}
        body = json.dumps(asked).encode()
        told = {
            "host": "localhost",
            "connection": "close",
            "authorization": f"Bearer {CLIENT_KEY}",
            "content-type": "application/json",
            "content-length": str(len(body)),
            **self.headers,
        }
        lines = [f"POST /v1{self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode(), body


_SHORT: Final = "ok:text=one two"
WAYS: Final = {
    "actors": Way(),
    "whole": Way(headers={"x-evenflow-delivery": "whole"}),
    "stutter": Way("stutter-b1:text=one two three"),
    "error first": Way("http-400", ends="error"),
    "error in the middle": Way("error-mid:after=2", ends="error"),
    "retries in vain": Way("http-503", ends="error"),
    "retry": Way("http-503", second=_SHORT),
    "hedge": Way("silence", second=_SHORT, route={"hedge_after": 0.001}),
    "resumed": Way("cut:after=2,text=one two three", second="ok:text=one two three", route={"resume": "align"}),
    "keep-alives": Way("slow-first-token:0.01,text=one", settings={"timers": {"keepalive_after": 0.001, "keepalive_interval": 0.002}}),
    "httpx": Way(upstream={"transport": "httpx"}),
    "place": Way(held="place"),
    "place, just given": Way(held="place", given=True),
    "slot": Way(held="slot", upstream={"slots": 1}),
    "slot, just given": Way(held="slot", given=True, upstream={"slots": 1}),
    "trickling body": Way(trickles=True),
    "relay": Way(engine="relay"),
    "relay, hedge": Way("silence", engine="relay", second=_SHORT, route={"hedge_after": 0.001}),
    "relay, broken": Way("cut:after=3", engine="relay", ends="error"),
    "relay, place": Way(engine="relay", held="place"),
    "shadow": Way("stutter-b1:text=one two three", engine="shadow"),
    "JSON": Way("http-503", second=_SHORT, stream=False),
    "embeddings": Way(stream=False, path="/embeddings"),
}
#: What is no other behind h11, or where a task reads, is cut off only in the usual way.
BEHIND_H11: Final = ("actors", "whole", "hedge", "trickling body", "shadow", "JSON")
CASES: Final = [
    *(pytest.param(way, cut, "plain", id=f"{name}-{cut}") for name, way in WAYS.items() for cut in ("fin", "cancel", "stop")),
    *(
        pytest.param(WAYS[name], cut, through, id=f"{through}-{name}-{cut}")
        for through in ("h11", "no pump")
        for name in BEHIND_H11
        for cut in ("rst", "half-close", "cancel", "stop")
    ),
]


class Cutter:
    """Sends one request after the other and cuts each off at a step."""

    def __init__(self, proxy: RunningProxy, way: Way, cut: Cut, log: LogTap, simulator: Simulator) -> None:
        self._proxy = proxy
        self._services = proxy.proxy.services
        self._way = way
        self._cut = cut
        self._log = log
        self._simulator = simulator
        self._scope = trio.CancelScope()
        parts = urlsplit(proxy.base_url)
        self._address = (parts.hostname, parts.port)
        app = proxy.proxy.main.app

        async def cancellable(scope: Any, receive: Any, send: Any) -> None:
            with self._scope:
                await app(scope, receive, send)

        proxy.proxy.main.app = cancellable

    async def once(self, steps: Steps, at: int) -> bool:
        """Cut a request off at this step; False if it was through before."""
        logged, asked = len(self._log.requests()), len(self._simulator.observer.seen)
        self._scope = trio.CancelScope()
        raw, whole = b"", False
        with socket.socket() as sock, ExitStack() as held:
            self._hold(held)
            sock.connect(self._address)
            sock.setblocking(False)
            steps.arm(at, lambda: self._act(sock, held))
            head, body = self._way.request()
            sock.sendall(head + (b"" if self._way.trickles else body))
            if self._way.trickles:
                for i in range(0, len(body), 50):
                    await trio.testing.wait_all_tasks_blocked()
                    try:
                        sock.sendall(body[i : i + 50])
                    except OSError:
                        break
            if self._way.held:
                await trio.testing.wait_all_tasks_blocked()
                held.close()
            try:
                while sock.fileno() >= 0:  # else it was we who left
                    await trio.lowlevel.wait_readable(sock)
                    data = sock.recv(65_536)
                    raw += data
                    if not data:
                        whole = True
                        break
            except (OSError, trio.ClosedResourceError):
                pass
        cut_off = steps.has_acted
        await self._proxy.until_quiet()
        await eventually(lambda: not self._left_over(), self._left_over)
        lines = self._log.requests()[logged:]
        told = "\nTOLD " + repr((self._cut, at, [(line["outcome"], line["termination"]) for line in lines], raw))
        reached = len(self._simulator.observer.seen) > asked
        assert len(lines) <= 1, told
        assert lines or not reached, told
        # Before all of it was read it was no request; a reset takes back what was sent, and whoever cancels wants no accounts.
        if not (self._way.trickles or self._cut in ("rst", "cancel")):
            assert len(lines) == 1, told
        if lines:
            outcome = lines[0]["outcome"]
            possible = {self._way.ends}
            if cut_off:
                possible |= {"cancelled", "error"} if self._cut == "stop" else {"cancelled"}
            assert outcome in possible, told
            if whole and raw:
                answer = Answer(raw)
                complete = answer.whole and answer.status == 200 and (not self._way.stream or answer.done)
                assert complete >= (outcome == "done"), told
                if PLAIN.get() and self._cut != "half-close":
                    assert complete == (outcome == "done"), told
        return cut_off

    def _act(self, sock: socket.socket, held: ExitStack) -> None:
        if sock.fileno() < 0:
            return  # it has its answer
        if self._way.given:
            held.close()
        match self._cut:
            case "rst":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                trio.lowlevel.notify_closing(sock)
                sock.close()
            case "fin":
                trio.lowlevel.notify_closing(sock)
                sock.close()
            case "half-close":
                sock.shutdown(socket.SHUT_WR)
            case "cancel":
                self._scope.cancel()
            case "stop":
                for processor in tuple(self._services.readiness.running):
                    processor.shut_down()

    def _hold(self, held: ExitStack) -> None:
        if self._way.held:
            visit = held.enter_context(self._services.admission.visit())
            if self._way.held == "place":
                assert visit.knock() is None
            else:
                slot = visit.free_slot("main")
                assert slot is not None
                held.enter_context(slot)

    def counted(self) -> float:
        """Requests that the metrics know of."""
        text = self._services.metrics.render()[0].decode()
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("evenflow_requests_total{"))

    def _left_over(self) -> dict[str, object]:
        services = self._services
        assert services.recorder is not None
        pools = [transport.statistics() for _, transport in services.client._every if hasattr(transport, "statistics")]
        found: dict[str, object] = {
            "running": len(services.readiness.running),
            "on the dashboard": services.board.live(trio.current_time())["streams_active"],
            "recorded": services.recorder.statistics().held,
            "half-read connections": sum(pool.open - pool.idle for pool in pools),
        }
        return {name: count for name, count in found.items() if count}


async def cut_off_at_every_step(settings: Settings, way: Way, cut: Cut, simulator: Simulator, log: LogTap) -> None:
    steps = Steps()
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(running_proxy(settings, simulator))
        cutter = Cutter(proxy, way, cut, log, simulator)
        trio.lowlevel.add_instrument(steps)
        stack.callback(trio.lowlevel.remove_instrument, steps)
        at = 1
        while await cutter.once(steps, at):
            at += 1
            assert at < _MOST
        assert at > 3
        assert len(log.requests()) <= cutter.counted() <= at
        if not way.trickles:  # a client that left before all of its request was there is counted all the same
            assert len(log.requests()) == cutter.counted()


@pytest.mark.parametrize(("way", "cut", "through"), CASES)
async def test_whatever_step_it_is_cut_off_at_nothing_is_left_over(
    way: Way, cut: Cut, through: str, simulator: Simulator, tmp_path: Path, log: LogTap, monkeypatch: pytest.MonkeyPatch
) -> None:
    PLAIN.set(through != "h11")
    if through == "no pump":
        monkeypatch.setattr("server.edge_connection.pump", lambda: None)
    await cut_off_at_every_step(way.configured(simulator, tmp_path), way, cut, simulator, log)


@pytest.fixture
async def front(simulator: Simulator, tmp_path: Path) -> AsyncIterator[Http2Front]:
    async with http2_front(simulator.base_url, tmp_path, ("h2", "http/1.1")) as running:
        yield running


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("cut", ["fin", "cancel"])
async def test_the_same_over_tls(cut: Cut, http2: bool, front: Http2Front, simulator: Simulator, tmp_path: Path, log: LogTap) -> None:
    way = Way(upstream={"base_url": front.base_url, "ca_file": front.ca_file, "http2": http2})
    await cut_off_at_every_step(way.configured(simulator, tmp_path), way, cut, simulator, log)

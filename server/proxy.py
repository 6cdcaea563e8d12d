"""The supervision tree of one proxy, nested in start order; it stops in the reverse order.

open_proxy
|- listening sockets
|- circuit breaker
|- upstream connections
|- loop watch
|- clerk
|- admin listener
`- main listener -> one nursery per request

Owns as well what another configuration changes while it runs: requests that have begun keep the `Services` they began with, new ones
get others. Refuses to know signals and files (main.py, reload.py).
"""

from __future__ import annotations

import random as random_module
import time
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from actors import Admission, open_alarms, open_circuit_breaker, open_upstream_client

from .acceptor import accept
from .admin.app import create_admin_app
from .admin.board import Board, look_every_second
from .admin.snapshot import Snapshot, circuit_rows
from .app import create_app
from .asgi import Edge, Replaceable
from .buffers import Buffers
from .clerk import open_clerk
from .client_keys import KeyRing
from .edge_listener import open_edge
from .edge_origins import Visitors
from .flights import FlightRecorder
from .health_door import HealthDoor
from .listeners import BindError, connection_limit, open_listener, set_write_timeout
from .log import configure_logging, dropped_lines, log_breaker_transition, register_secrets
from .memory import memory_of_this_process
from .metrics import Metrics
from .rollout import Rollout
from .services import Services
from .settings import Address
from .tracing import LAST_SPANS, open_tracing
from .v1 import V1
from .version import VERSION
from .watchdogs import LoopWatch

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from actors import Upstream, UpstreamClient

    from .asgi import AsgiApp
    from .edge_guard import Refusal
    from .edge_listener import Accept
    from .memory import Memory
    from .settings import Settings
    from .tracing import Tracing

__all__ = ["LAST_WORDS", "BindError", "Proxy", "open_proxy", "secrets_of"]

#: Seconds that what still runs after `drain` has to tell its client. All they take is one write; who does not read gets none.
LAST_WORDS: Final = 0.5
#: Seconds that requests of the admin listener have at the end.
_ADMIN_GRACE: Final = 0.25
#: Connections that the admin listener serves at once.
_ADMIN_CONNECTIONS: Final = 64


@dataclass(slots=True)
class Reloads:
    """What became of the configurations that were read while it ran."""

    accepted: int = 0
    refused: int = 0
    last_refusal: str = ""


class Proxy:
    """A running proxy. Made by `open_proxy`.

    Args:
      base_url: what an OpenAI client is pointed at.
      admin_url: root of the admin listener, "" where it has none of its own.
      services: those that the next request gets.
    """

    def __init__(self, services: Services, admin_url: str, listeners: Sequence[socket.socket], memory: Memory) -> None:
        self.services = services
        self.base_url = services.base_url
        self.admin_url = admin_url
        self.reloads = Reloads()
        self._listeners = listeners
        self._memory = memory
        self._started = trio.current_time()
        self.main = Replaceable(self._main_app())
        self.admin = Replaceable(self._admin_app())
        services.metrics.watch(
            breaker=services.breaker.statistics,
            admission=services.admission.statistics,
            rollout=services.rollout.statistics,
            memory=memory.share,
            tasks=lambda: trio.lowlevel.current_statistics().tasks_living,
            open_connections=lambda: sum(self.services.client.open_connections().values()),
        )

    async def reconfigure(self, settings: Settings) -> None:
        """Go on with other settings. Requests that run are not touched.

        Args:
          settings: what belongs to the listeners (addresses, backlog, limits of the edge) has no effect.

        Raises:
          OSError: a certificate file cannot be read. Nothing has changed.
          BreakerGone: the circuit breaker does not answer. Nothing has changed.
        """
        before = self.services
        upstreams = settings.upstreams()
        client = before.client.prepare(upstreams)
        known = {upstream.name: upstream for upstream in before.settings.upstreams()}
        anew = [upstream.name for upstream in upstreams if upstream.name in known and _is_another(known[upstream.name], upstream)]
        services = replace(
            before,
            settings=settings,
            routes=settings.route_table(),
            client=client,
            keys=KeyRing(settings.client_keys),
            buffers=Buffers(settings, before.buffers),
        )
        register_secrets(secrets_of(settings))
        await before.breaker.reconfigure(settings.breaker_policies(), anew=anew, budget=settings.retry_budget())
        before.metrics.know(upstream.name for upstream in upstreams)
        before.rollout.reconfigure(settings.streaming)
        before.admission.reconfigure(settings.admission_policy(), _slots(upstreams))
        self.services = services
        self.main.app = self._main_app()
        self.admin.app = self._admin_app()
        for listener in self._listeners:
            set_write_timeout(listener, settings.timers.client_stall)
        if settings.log != before.settings.log:
            configure_logging(settings.log.format, settings.log.level)
        await client.take_over()

    def count_refusal(self, refusal: Refusal) -> None:
        """A request was refused before the application saw it."""
        self.services.metrics.request_answered(endpoint="", status=refusal.status)

    def _main_app(self) -> AsgiApp:
        return Edge(Visitors.of(self.services.settings, self.count_refusal), V1(self.services), create_app(self.services))

    def _admin_app(self) -> AsgiApp:
        settings = self.services.settings
        return create_admin_app(
            metrics=self.services.metrics,
            status=self._status,
            learned=lambda: self.services.buffers.learned(trio.current_time()),
            breaker=self.services.breaker,
            rollout=self.services.rollout,
            ready=lambda: self.services.ready,
            feed=lambda after: self.snapshot(after).alone(),
            catch_up=self.services.clerk.catch_up,
            keys=settings.admin_keys,
            allowed_hosts=settings.edge.allowed_hosts,
        )

    def snapshot(self, after: int) -> Snapshot:
        """What a dashboard is told of: what came after a serial number, and how everything is now. The clerk has caught up before."""
        services, now = self.services, trio.current_time()
        return Snapshot(
            **services.board.news(after),
            **services.board.live(now),
            version=VERSION,
            uptime=round(now - self._started, 1),
            base_url=self.base_url,
            ready=services.readiness.ready,
            engine=services.settings.streaming.engine,
            fallback=services.rollout.fallback,
            waiting=services.admission.statistics().waiting,
            circuits=circuit_rows(services.breaker.statistics().upstreams, now),
        )

    def _status(self) -> dict[str, object]:
        settings = self.services.settings
        return {
            "version": VERSION,
            "uptime_seconds": round(trio.current_time() - self._started, 1),
            "base_url": self.base_url,
            "ready": self.services.ready,
            "engine": settings.streaming.engine,
            "rollout": self.services.rollout.report(),
            "streams_active": self.services.metrics.streams_active,
            "admission": asdict(self.services.admission.statistics()),
            "memory": {
                "limit_bytes": self._memory.limit,
                "share": round(self._memory.share(), 4),
                "short": self.services.admission.short_of_memory,
            },
            "routes": [
                {"model": route.pattern, "upstreams": [{"upstream": c.upstream.name, "model": c.model} for c in route.candidates]}
                for route in self.services.routes.routes
            ],
            "recorder": asdict(self.services.recorder.statistics()) if self.services.recorder is not None else None,
            "client_keys": len(settings.client_keys),
            "config_reloads": asdict(self.reloads),
        }


@asynccontextmanager
async def open_proxy(
    settings: Settings,
    *,
    random: Callable[[], float] = random_module.random,
    listener: socket.socket | None = None,
    worker: int | None = None,
    plain: bool = True,
) -> AsyncIterator[Proxy]:
    """Run a proxy as long as the block lasts.

    Args:
      listener: the main listener's socket, closed at the end. Without it both listeners are opened here; with it there is no admin
        listener, for whoever opened this one speaks to `Proxy.admin`.
      worker: which of `settings.workers` processes this is, None where there is but one.
      plain: requests in plain form are answered without h11; turned off by tests of the other way.

    At its end new requests are unwelcome (`/readyz`), `drain_notice` seconds later nobody is let in, running streams get `drain` seconds
    to finish, and those that are left tell their client.

    Raises:
      BindError: a listener's address cannot be had.
      BreakerFailed: the circuit breaker failed again and again; in an exception group.
    """
    upstreams = settings.upstreams()
    memory = memory_of_this_process(1 if worker is None else settings.workers)
    metrics = Metrics([upstream.name for upstream in upstreams], dropped_lines=dropped_lines)

    board = Board(time.time)

    def on_transition(upstream: str, before: str, after: str, reason: str) -> None:
        board.circuit_changed(upstream, before, after, reason)
        metrics.breaker_transition(upstream, before, after, reason)
        log_breaker_transition(upstream, before, after, reason)

    with _listening(settings, listener) as (main_socket, admin_socket), _recording(settings, worker) as recorder:
        async with (
            open_circuit_breaker(
                settings.breaker_policies(), random=random, budget=settings.retry_budget(), on_transition=on_transition
            ) as breaker,
            open_upstream_client(upstreams) as client,
            _running_beside(client, metrics, board) as watch,
            _tracing(settings) as tracing,
            open_alarms() as alarms,
            open_clerk() as clerk,
        ):
            services = Services(
                settings,
                settings.route_table(),
                client,
                breaker,
                alarms,
                clerk,
                KeyRing(settings.client_keys),
                Buffers(settings),
                metrics,
                f"{url_of(main_socket)}/v1",
                random,
                Admission(settings.admission_policy(), _slots(upstreams), random=random, beyond=memory.beyond),
                Rollout(settings.streaming),
                board,
                recorder,
                tracing,
            )
            listeners = [one for one in (main_socket, admin_socket) if one]
            proxy = Proxy(services, url_of(admin_socket) if admin_socket else "", listeners, memory)
            readiness = services.readiness
            let_in = HealthDoor(watch.since_turn).accept
            async with (
                open_admin_edge(proxy.admin, admin_socket, settings, let_in) if admin_socket else nullcontext(),
                open_edge(
                    proxy.main,
                    main_socket,
                    settings.edge,
                    patience=lambda: proxy.services.settings.drain,
                    last_words=readiness.shut_down,
                    grace=LAST_WORDS,
                    most=connection_limit(),
                    refused=proxy.count_refusal,
                    plain=plain,
                ),
            ):
                try:
                    yield proxy
                finally:
                    readiness.ready = False
                await trio.sleep(proxy.services.settings.drain_notice)


def open_admin_edge(
    app: AsgiApp, listener: socket.socket, settings: Settings, let_in: Accept = accept
) -> AbstractAsyncContextManager[None]:
    """Serve an application on the admin listener for the length of a block."""
    return open_edge(app, listener, settings.edge, grace=_ADMIN_GRACE, most=_ADMIN_CONNECTIONS, let_in=let_in)


@contextmanager
def _listening(settings: Settings, listener: socket.socket | None) -> Iterator[tuple[socket.socket, socket.socket | None]]:
    """The sockets of both listeners, closed at the end, whatever happened in between."""
    if listener is not None:
        with listener:
            yield listener, None
        return
    open_one = partial(open_listener, backlog=settings.backlog, write_timeout=settings.timers.client_stall)
    with open_one(Address.parse(settings.bind), "bind") as main, open_one(Address.parse(settings.admin_bind), "admin_bind") as admin:
        yield main, admin


@contextmanager
def _recording(settings: Settings, worker: int | None) -> Iterator[FlightRecorder | None]:
    """The flight recorder, if one is wanted; what waits is written at the end."""
    wanted = settings.recorder
    if not wanted.directory:
        yield None
        return
    directory = Path(wanted.directory).expanduser()
    if worker is not None:
        directory /= f"worker-{worker}"  # a ring of files has one owner
    recorder = FlightRecorder(directory, streams=wanted.streams, most=wanted.max_bytes, redact=wanted.text == "redacted")
    try:
        yield recorder
    finally:
        recorder.close()


@asynccontextmanager
async def _tracing(settings: Settings) -> AsyncIterator[Tracing | None]:
    """Whoever writes spans, if they are wanted; what waits is exported at the end."""
    tracing = open_tracing(settings)
    try:
        yield tracing
    finally:
        if tracing is not None:
            # On a thread, since it blocks; a collector that is away gets so long.
            with trio.move_on_after(LAST_SPANS, shield=True):
                await trio.to_thread.run_sync(tracing.close, abandon_on_cancel=True)


@asynccontextmanager
async def _running_beside(client: UpstreamClient, metrics: Metrics, board: Board) -> AsyncIterator[LoopWatch]:
    watch = LoopWatch(metrics.loop_lag)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        nursery.start_soon(look_every_second, board)
        nursery.start_soon(client.keep_sweeping)
        yield watch
        nursery.cancel_scope.cancel()


def _slots(upstreams: Iterable[Upstream]) -> dict[str, int]:
    return {upstream.name: upstream.slots for upstream in upstreams}


def _is_another(one: Upstream, other: Upstream) -> bool:
    """What was learned about the one says nothing about the other: another server, another credential."""
    return replace(one, breaker=other.breaker, slots=other.slots, own_circuits=other.own_circuits) != other


def url_of(listener: socket.socket) -> str:
    """Where a listener of this machine is reached."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def secrets_of(settings: Settings) -> list[str]:
    """Everything configured that must not be seen: keys of clients and of the admin listener, credentials, header values, proxy URLs."""
    secrets = [*settings.client_keys, *settings.admin_keys, *settings.tracing.headers.values()]
    for upstream in settings.configured_upstreams.values():
        secrets += [secret for secret in (upstream.key, upstream.proxy, *upstream.headers.values()) if secret is not None]
    return [secret.reveal() for secret in secrets]

"""The supervision tree of one process, nested in start order; it stops in the reverse order.

serve
|- circuit breaker
|- upstream connections
|- admin listener
`- main listener -> one nursery per request
"""

from __future__ import annotations

import gc
import random as random_module
import signal
import textwrap
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from actors import open_circuit_breaker, open_upstream_client

from .admin.app import create_admin_app
from .app import create_app
from .asgi import Edge
from .client_keys import KeyRing
from .edge_connection import open_edge
from .edge_origins import Visitors
from .listeners import BindError, open_listener, raise_descriptor_limit
from .log import configure_logging, dropped_lines, log_breaker_transition, register_secrets
from .metrics import Metrics
from .services import Services
from .settings import Address, UpstreamSettings
from .simulator import FAULTS, open_simulator
from .v1 import V1
from .version import VERSION

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable

    from .edge_guard import Refusal
    from .settings import Settings
    from .simulator import Simulator

__all__ = ["BindError", "Proxy", "open_proxy", "serve", "serve_dev"]


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy.

    Args:
      base_url: what an OpenAI client is pointed at.
      admin_url: root of the admin listener.
    """

    base_url: str
    admin_url: str
    services: Services


@asynccontextmanager
async def open_proxy(settings: Settings, *, random: Callable[[], float] = random_module.random) -> AsyncIterator[Proxy]:
    """Run a proxy as long as the block lasts; on leaving, running streams get `drain` seconds to finish.

    Raises:
      BindError: a listener's address cannot be had.
    """
    write_timeout = settings.timers.client_stall
    open_one = partial(open_listener, backlog=settings.backlog, write_timeout=write_timeout)
    main_socket = open_one(Address.parse(settings.bind), "--bind")
    try:
        admin_socket = open_one(Address.parse(settings.admin_bind), "--admin-bind")
    except BindError:
        main_socket.close()
        raise
    started = trio.current_time()
    upstreams = settings.upstreams()
    metrics = Metrics([upstream.name for upstream in upstreams], dropped_lines=dropped_lines)

    def on_transition(upstream: str, before: str, after: str, reason: str) -> None:
        metrics.breaker_transition(upstream, before, after, reason)
        log_breaker_transition(upstream, before, after, reason)

    async with (
        open_circuit_breaker(
            settings.breaker_policies(), random=random, budget=settings.retry_budget(), on_transition=on_transition
        ) as breaker,
        open_upstream_client(upstreams) as client,
    ):
        metrics.watch(breaker=breaker.statistics, open_connections=lambda: sum(client.open_connections().values()))
        services = Services(
            settings, settings.route_table(), client, breaker, KeyRing(settings.client_keys), metrics, f"{_url(main_socket)}/v1", random
        )
        admin = create_admin_app(
            metrics=metrics,
            status=lambda: _status(services, trio.current_time() - started),
            breaker=breaker,
            ready=lambda: services.readiness.ready,
            keys=settings.client_keys if not Address.parse(settings.admin_bind).is_loopback else (),
        )
        proxy = Proxy(services.base_url, _url(admin_socket), services)
        count_refusal = partial(_count_refusal, metrics)
        edge = Edge(Visitors.of(settings, count_refusal), V1(services), create_app(services))
        async with (
            open_edge(admin, admin_socket, settings.edge, grace=1.0),
            open_edge(edge, main_socket, settings.edge, grace=settings.drain, refused=count_refusal),
        ):
            try:
                yield proxy
            finally:
                services.readiness.ready = False


def _count_refusal(metrics: Metrics, refusal: Refusal) -> None:
    metrics.request_answered(endpoint="", status=refusal.status)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _status(services: Services, uptime: float) -> dict[str, object]:
    settings = services.settings
    return {
        "version": VERSION,
        "uptime_seconds": round(uptime, 1),
        "base_url": services.base_url,
        "engine": settings.streaming.engine,
        "rollout_percent": settings.streaming.rollout_percent,
        "streams_active": services.metrics.streams_active,
        "routes": [
            {"model": route.pattern, "upstreams": [{"upstream": c.upstream.name, "model": c.model} for c in route.candidates]}
            for route in services.routes.routes
        ],
        "client_keys": len(settings.client_keys),
    }


async def serve(settings: Settings, *, task_status: trio.TaskStatus[Proxy] = trio.TASK_STATUS_IGNORED) -> None:
    """Run the proxy until SIGINT or SIGTERM; running streams get `drain` seconds, a second signal none.

    Raises:
      BindError: a listener's address cannot be had.
    """
    prepare_process(settings)
    await _until_signalled(settings, _announce, task_status)


async def _until_signalled(settings: Settings, announce: Callable[[Proxy], None], task_status: trio.TaskStatus[Proxy]) -> None:
    stop = trio.Event()
    with trio.open_signal_receiver(*_signals()) as signals, trio.CancelScope() as at_once:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey, signals, stop, at_once)
            async with open_proxy(settings) as proxy:
                announce(proxy)
                task_status.started(proxy)
                await stop.wait()
            nursery.cancel_scope.cancel()


def _signals() -> list[signal.Signals]:
    return [getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name)]


async def _obey(signals: AsyncIterator[int], stop: trio.Event, at_once: trio.CancelScope) -> None:
    async for _ in signals:
        if stop.is_set():
            at_once.cancel()
        stop.set()


def prepare_process(settings: Settings) -> None:
    """Logging, secrets that must never be written, the limit of open files, and a garbage collector that rarely runs."""
    configure_logging(settings.log.format, settings.log.level)
    register_secrets(_secrets(settings))
    raise_descriptor_limit()
    # What is loaded by now lives as long as the process. Streams make few cycles, so rare collections cost little memory; with the default
    # thresholds 1,000 streams spent a third of their time in collections (`make load`: 26 s, then 16 s).
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


def _secrets(settings: Settings) -> list[str]:
    """Everything configured that must not be seen: client keys, credentials, header values, proxy URLs."""
    secrets = list(settings.client_keys)
    for upstream in settings.configured_upstreams.values():
        secrets += [secret for secret in (upstream.key, upstream.proxy, *upstream.headers.values()) if secret is not None]
    return [secret.reveal() for secret in secrets]


def _announce(proxy: Proxy) -> None:
    settings = proxy.services.settings
    routes = ", ".join(f"{r.pattern} -> {' then '.join(c.upstream.name for c in r.candidates)}" for r in proxy.services.routes.routes)
    print(f"evenflow {VERSION} listens on {proxy.base_url}", flush=True)
    print(f"  routes  {routes}", flush=True)
    print(f"  engine  {settings.streaming.engine}; stutter: {settings.stutter.mode}", flush=True)
    print(f"  admin   {proxy.admin_url}/status  {proxy.admin_url}/metrics", flush=True)


async def serve_dev(settings: Settings, *, task_status: trio.TaskStatus[Proxy] = trio.TASK_STATUS_IGNORED) -> None:
    """Run a misbehaving upstream and the proxy in front of it until Ctrl-C.

    Args:
      settings: the effective ones; their upstreams and routes are replaced by the simulator.

    Raises:
      BindError: a listener's address cannot be had.
    """
    prepare_process(settings)
    async with open_simulator() as simulator:
        upstreams = {"simulator": UpstreamSettings(base_url=simulator.base_url)}
        # Nobody waits for a stream to finish when a development server is told to stop.
        settings = msgspec.structs.replace(settings, configured_upstreams=upstreams, configured_routes=(), drain=0.0)
        await _until_signalled(settings, lambda proxy: _announce_dev(proxy, simulator), task_status)


def _announce_dev(proxy: Proxy, simulator: Simulator) -> None:
    names = textwrap.fill(", ".join(FAULTS), 100, initial_indent="  ", subsequent_indent="  ")
    body = '{"model": "stutter-b1:envelope=nonce", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
    print(
        f"evenflow {VERSION} listens on {proxy.base_url}, in front of a simulated upstream on {simulator.base_url}\n\n"
        f"The model's name chooses what goes wrong (`evenflow simulate --list` explains each):\n{names}\n\n"
        f"Try:\n  curl -N {proxy.base_url}/chat/completions -H 'content-type: application/json' \\\n    -d '{body}'\n\n"
        f"Status: {proxy.admin_url}/status   Metrics: {proxy.admin_url}/metrics   Ctrl-C ends it.",
        flush=True,
    )

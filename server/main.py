"""One process: what is prepared before it serves, the signals it obeys, and what it prints.

SIGTERM and SIGINT end it in order (proxy.py says which), a second one at once; SIGHUP reads the configuration anew (reload.py).
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING

import msgspec
import trio

from .endings import Ending
from .listeners import BindError, raise_descriptor_limit
from .log import configure_logging, register_secrets
from .proxy import Proxy, open_proxy, secrets_of
from .reload import Reloader
from .sd_notify import Notifier
from .settings import BreakerSettings, UpstreamSettings
from .simulator import open_simulator
from .summary import dev_summary, serve_summary
from .terminal import Style, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from .settings import Settings
    from .settings_loaded import Loaded
    from .simulator import Simulator

__all__ = ["BindError", "Proxy", "open_proxy", "serve", "serve_dev"]


async def serve(
    settings: Settings, load: Callable[[], Loaded] | None = None, *, task_status: trio.TaskStatus[Proxy] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run the proxy until SIGINT or SIGTERM; running streams get `drain` seconds, a second signal none.

    Args:
      load: reads the configuration anew at SIGHUP; without it, SIGHUP does what it does to any program.

    Raises:
      BindError: a listener's address cannot be had.
    """
    prepare_process(settings)
    await _until_signalled(settings, lambda proxy: announce(settings, proxy.base_url, proxy.admin_url), load, task_status)


async def _until_signalled(
    settings: Settings, announce: Callable[[Proxy], None], load: Callable[[], Loaded] | None, task_status: trio.TaskStatus[Proxy]
) -> None:
    ending, notifier = Ending(), Notifier.from_environment(os.environ)
    with trio.open_signal_receiver(*signals_obeyed(reload=load is not None)) as signals, ending.at_once:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notifier.feed_watchdog)
            async with open_proxy(settings) as proxy:
                nursery.start_soon(_obey, signals, proxy, load, ending, notifier)
                freeze_what_stays()
                announce(proxy)
                notifier.ready(f"listens on {proxy.base_url}")
                task_status.started(proxy)
                await ending.asked.wait()
            nursery.cancel_scope.cancel()


def signals_obeyed(*, reload: bool) -> list[signal.Signals]:
    """Those of this platform that end a process in order, and with `reload` the one that reads the configuration anew."""
    names = ("SIGINT", "SIGTERM", "SIGHUP") if reload else ("SIGINT", "SIGTERM")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


async def _obey(signals: AsyncIterator[int], proxy: Proxy, load: Callable[[], Loaded] | None, ending: Ending, notifier: Notifier) -> None:
    reloader = Reloader(proxy)
    async with trio.open_nursery() as nursery:
        async for number in signals:
            name = signal.Signals(number).name
            if name == "SIGHUP":
                if load is not None and not ending.asked.is_set():
                    nursery.start_soon(_reload, reloader, load, notifier, proxy.base_url)
            elif ending.asked.is_set():
                ending.abort()
            else:
                notifier.stopping(f"gives running streams up to {proxy.services.settings.drain:g} s")
                ending.stop(name, proxy)


async def _reload(reloader: Reloader, load: Callable[[], Loaded], notifier: Notifier, base_url: str) -> None:
    notifier.reloading()
    await reloader.reload(load)
    notifier.ready(f"listens on {base_url}")


def prepare_process(settings: Settings) -> None:
    """Logging, secrets that must never be written, the limit of open files, and a garbage collector that rarely runs."""
    configure_logging(settings.log.format, settings.log.level)
    register_secrets(secrets_of(settings))
    raise_descriptor_limit()
    # Streams make few cycles, so rare collections cost little memory; with the default thresholds 1,000 streams spent a third of their time
    # in collections (`make load`: 26 s, then 16 s).
    gc.set_threshold(50_000, 50, 100)


def freeze_what_stays() -> None:
    """To be called once all is open: what is there by now lives as long as the process, and no collection need look at it again."""
    gc.collect()
    gc.freeze()


def announce(settings: Settings, base_url: str, admin_url: str) -> None:
    """Print where it listens and what it serves."""
    say(serve_summary(settings, base_url, admin_url, Style.of(sys.stdout)))


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
        # Nobody waits for a stream to finish when a development server is told to stop. And whoever tries one fault after the other wants
        # to see each of them: a circuit that three faults have opened would answer all that follow. One that is configured does.
        breaker = (
            msgspec.structs.replace(settings.breaker, mode="metrics_only") if settings.breaker == BreakerSettings() else settings.breaker
        )
        settings = msgspec.structs.replace(settings, configured_upstreams=upstreams, configured_routes=(), drain=0.0, breaker=breaker)
        await _until_signalled(settings, lambda proxy: _announce_dev(proxy, simulator), None, task_status)


def _announce_dev(proxy: Proxy, simulator: Simulator) -> None:
    say(dev_summary(proxy.base_url, proxy.admin_url, simulator.base_url, Style.of(sys.stdout)))

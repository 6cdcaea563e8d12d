"""`evenflow serve --workers N`: one process that serves nothing itself and keeps N alive that do.

serve_with_workers
|- listening sockets     one per worker on the same address, kept here: what waits in a worker's queue outlives the worker
|- admin listener        asks all workers and merges what they answer (admin/fan_out.py)
`- Workers               one task per worker: start it, wait for its end, start it again

Owns the processes: when one is started again and when that is given up, how all are stopped, and that all have the same configuration.
Signals are obeyed here alone, and passed on over the workers' channels (worker_channel.py). Refuses to know what a worker does.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from .admin.fan_out import FanOut, WorkerStatistics
from .endings import longest_end
from .listeners import open_listener, open_listeners, raise_descriptor_limit
from .log import configure_logging, log_stopping, log_worker_ended, register_secrets
from .main import announce, signals_obeyed
from .proxy import open_admin_edge, secrets_of, url_of
from .reload import keep_what_needs_a_restart
from .restarts import MOST, WINDOW, Restarts
from .sd_notify import Notifier
from .settings import Address
from .settings_checks import SettingsError
from .watchdogs import ExitWatchdog
from .worker_channel import Abort, Answer, Ask, Begin, Look, Reload, Reloaded, Seen, Serving, Stop, ToSupervisor, ToWorker, WorkerChannel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from .settings import Settings
    from .settings_loaded import Loaded

#: Seconds that a worker has for the answer to a request of the admin listener. One that needs longer is blocked.
_ANSWER: Final = 2.0
#: Seconds that a worker has to take another configuration.
_RELOAD: Final = 10.0
#: Seconds beyond a worker's own watchdog until it is killed.
_MARGIN: Final = 1.0
#: Run by a worker's interpreter. The path of this package comes last, and the current directory not at all (-P): a folder `server` of
#: the user's must not be taken for ours.
_PROGRAM: Final = "import sys; sys.path.append(sys.argv[1]); from server.worker import main; main(*map(int, sys.argv[2:5]))"
_PACKAGES: Final = str(Path(__file__).resolve().parents[1])


class WorkersFailed(Exception):
    """The workers cannot be kept alive. Its text is one line."""


class Worker:
    """The place of one worker, whatever process holds it.

    Args:
      number: from 1.
      listener: its own, on the address of all.
    """

    def __init__(self, number: int, listener: socket.socket) -> None:
        self.number = number
        self.listener = listener
        self.pid: int | None = None
        self.serving = False
        self.restarts = 0
        self.channel: WorkerChannel[ToWorker, ToSupervisor] | None = None
        self.asked: dict[int, trio.MemorySendChannel[Answer | Reloaded | Seen]] = {}


class Workers:
    """All workers of a process.

    Args:
      settings: those that a worker is started with; changes at a reload.
      listeners: one per worker, closed when the end begins.
    """

    def __init__(self, settings: Settings, listeners: list[socket.socket]) -> None:
        self.settings = settings
        self.workers = tuple(Worker(number, listener) for number, listener in enumerate(listeners, 1))
        self.base_url = ""  # the same for all
        self.started = trio.Event()  # every worker has served
        self.stopping = trio.Event()
        self.failure = ""  # why it could not go on
        self._served: set[int] = set()
        self._questions = 0
        self._one_reload = trio.Lock()

    async def run(self) -> bool:
        """Keep them alive until they were told to stop and have.

        Returns:
          Whether each that was stopped ended as it should.

        Raises:
          WorkersFailed: one could not be kept alive. The others were stopped in order.
        """
        codes: list[int] = []

        async def keep(worker: Worker) -> None:
            codes.append(await self._keep(worker))

        async with trio.open_nursery() as nursery:
            for worker in self.workers:
                nursery.start_soon(keep, worker)
        if self.failure:
            raise WorkersFailed(self.failure)
        return not any(codes)

    def stop(self, name: str) -> None:
        """End all in order. Idempotent."""
        if not self.stopping.is_set():
            log_stopping(name, self.settings.drain, workers=len(self.workers))
            self.stopping.set()
            for worker in self.workers:
                worker.listener.close()  # the worker's own is open as long as it takes requests
                if worker.channel is not None:
                    worker.channel.tell(Stop(name))

    def abort(self) -> None:
        """End all at once."""
        for worker in self.workers:
            if worker.channel is not None:
                worker.channel.tell(Abort())

    def statistics(self) -> dict[int, WorkerStatistics]:
        return {w.number: WorkerStatistics(w.pid, w.serving, w.restarts) for w in self.workers}

    async def reload(self, load: Callable[[], Loaded]) -> None:
        """Read the configuration once and hand it to all; never raises. A bad one is told to all, who count it and keep theirs."""
        async with self._one_reload:
            before = self.settings
            try:
                loaded = await trio.to_thread.run_sync(load)
            except (SettingsError, OSError) as exc:
                order = Reload(0, None, str(exc))
            else:
                order = Reload(0, loaded.settings, "", loaded.warnings)
                register_secrets(secrets_of(loaded.settings))
                # At once, for a worker that is started meanwhile.
                self.settings, _ = keep_what_needs_a_restart(before, loaded.settings)
            replies = await self._ask_all(order, _RELOAD)
            if any(isinstance(reply, Reloaded) and not reply.accepted for reply in replies.values()):
                self.settings = before

    async def ask(self, request: Ask) -> dict[int, Answer | None]:
        """What each worker answers to a request of the admin listener; None for one that does not."""
        replies = await self._ask_all(request, _ANSWER)
        return {number: reply if isinstance(reply, Answer) else None for number, reply in replies.items()}

    async def first_answer(self, request: Ask) -> Answer | None:
        """What the first worker answers that does; None if none does."""
        replies = await self._ask_all(request, _ANSWER, first=True)
        return next((reply for reply in replies.values() if isinstance(reply, Answer)), None)

    async def snapshot(self, number: int, after: int) -> bytes | None:
        """What a worker has to show since a serial number; None if it is not there. Waits as long as the worker lives."""
        reply = await self._ask(self.workers[number - 1], Look(0, after), math.inf)
        return reply.snapshot if isinstance(reply, Seen) else None

    async def _ask_all(self, question: Ask | Reload, seconds: float, *, first: bool = False) -> dict[int, Answer | Reloaded | Seen | None]:
        """Ask every worker the same and wait for what they say, or for the first; None of those that say nothing, or do not serve."""
        replies: dict[int, Answer | Reloaded | Seen | None] = {worker.number: None for worker in self.workers}

        async def ask(worker: Worker) -> None:
            replies[worker.number] = reply = await self._ask(worker, question, seconds)
            if first and reply is not None:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for worker in self.workers:
                nursery.start_soon(ask, worker)
        return replies

    async def _ask(self, worker: Worker, question: Ask | Reload | Look, seconds: float) -> Answer | Reloaded | Seen | None:
        if worker.channel is None or not worker.serving:
            return None
        self._questions += 1
        number = self._questions
        worker.asked[number], reply = trio.open_memory_channel[Answer | Reloaded | Seen](1)
        try:
            if worker.channel.tell(msgspec.structs.replace(question, id=number)):
                with trio.move_on_after(seconds), suppress(trio.EndOfChannel):
                    return await reply.receive()
            return None
        finally:
            worker.asked.pop(number, None)

    async def _keep(self, worker: Worker) -> int:
        """Run one process after the other in a worker's place; returns what the last one ended with."""
        restarts = Restarts()
        while True:
            try:
                process, channel = await _start(worker)
            except OSError as exc:  # no descriptor or no memory is left; that passes, and the other workers serve meanwhile
                code, reason = 1, f"no process: {exc.strerror}"
            else:
                code = await self._run_one(worker, process, channel)
                reason = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            if self.stopping.is_set():
                return code
            delay = restarts.ended(trio.current_time()) if worker.number in self._served else None
            log_worker_ended(worker.number, worker.pid or 0, reason, delay)
            if delay is None:
                often = f"ended {MOST} times within {WINDOW:g} s" if worker.number in self._served else "could not start"
                self.failure = f"worker {worker.number} {often}, at last with {reason}; what it wrote before says why"
                self.stop(f"worker {worker.number} failed")
                return code
            worker.restarts += 1
            with trio.move_on_after(delay):
                await self.stopping.wait()
            if self.stopping.is_set():
                return 0

    async def _run_one(self, worker: Worker, process: trio.Process, channel: WorkerChannel[ToWorker, ToSupervisor]) -> int:
        """Listen to a process and wait for its end; returns its exit code."""
        worker.pid, worker.channel = process.pid, channel
        channel.tell(Begin(self.settings))
        if self.stopping.is_set():
            channel.tell(Stop("stopping"))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.send_all)
                nursery.start_soon(self._listen, worker, channel)
                nursery.start_soon(self._kill_late, process)
                code = await process.wait()
                nursery.cancel_scope.cancel()
            return code
        finally:
            # The channel's end is what tells a worker that outlives this (a defect here) to end.
            channel.close()
            worker.channel, worker.serving = None, False
            for reply in worker.asked.values():
                reply.close()

    async def _listen(self, worker: Worker, channel: WorkerChannel[ToWorker, ToSupervisor]) -> None:
        while True:
            try:
                message = await channel.receive()
            except trio.EndOfChannel:
                return
            match message:
                case Serving(base_url):
                    self.base_url, worker.serving = base_url, True
                    self._served.add(worker.number)
                    if len(self._served) == len(self.workers):
                        self.started.set()
                case Answer() | Reloaded() | Seen():
                    if (reply := worker.asked.get(message.id)) is not None:
                        reply.send_nowait(message)

    async def _kill_late(self, process: trio.Process) -> None:
        """Workers end by themselves, and by force if they must; unless they are stopped or starved."""
        await self.stopping.wait()
        await trio.sleep(longest_end(self.settings) + _MARGIN)
        process.kill()


async def _start(worker: Worker) -> tuple[trio.Process, WorkerChannel[ToWorker, ToSupervisor]]:
    """Start a process in a worker's place.

    Raises:
      OSError: the system gives none.
    """
    ours, theirs = socket.socketpair()
    try:
        with theirs, worker.listener.dup() as listener:  # a copy, since stop() may close the other meanwhile
            given = (worker.number, theirs.fileno(), listener.fileno())
            process = await trio.lowlevel.open_process(
                [sys.executable, "-P", "-c", _PROGRAM, _PACKAGES, *map(str, given), f"evenflow-worker-{worker.number}"],
                stdin=subprocess.DEVNULL,
                pass_fds=given[1:],
                # A group of its own: Ctrl-C in a terminal reaches the supervisor alone.
                process_group=0,
            )
        return process, WorkerChannel[ToWorker, ToSupervisor](ours, ToSupervisor)
    except BaseException:
        ours.close()
        raise


async def serve_with_workers(settings: Settings, load: Callable[[], Loaded]) -> int:
    """Run several workers until SIGINT or SIGTERM; each ends as one process alone would.

    Args:
      load: reads the configuration anew at SIGHUP.

    Returns:
      The exit code: 1 if a worker had to be ended by force.

    Raises:
      BindError: a listener's address cannot be had.
      WorkersFailed: a worker could not start, or ended again and again.
    """
    configure_logging(settings.log.format, settings.log.level)
    register_secrets(secrets_of(settings))
    raise_descriptor_limit()  # the workers inherit it
    with trio.open_signal_receiver(*signals_obeyed(reload=True)) as signals, _listening(settings) as (listeners, admin):
        workers = Workers(settings, listeners)
        notifier = Notifier.from_environment(os.environ)
        async with trio.open_nursery() as nursery, open_admin_edge(FanOut(workers), admin, settings):
            nursery.start_soon(notifier.feed_watchdog)
            nursery.start_soon(_obey, signals, workers, load, notifier)
            nursery.start_soon(_announce, workers, url_of(admin), notifier)
            well = await workers.run()
            nursery.cancel_scope.cancel()
    return 0 if well else 1


async def _announce(workers: Workers, admin_url: str, notifier: Notifier) -> None:
    """All serve: whoever waits for that is told here."""
    await workers.started.wait()
    announce(workers.settings, workers.base_url, admin_url)
    notifier.ready(f"listens on {workers.base_url}")


async def _obey(signals: AsyncIterator[int], workers: Workers, load: Callable[[], Loaded], notifier: Notifier) -> None:
    watchdog = ExitWatchdog()
    async with trio.open_nursery() as nursery:
        async for number in signals:
            name = signal.Signals(number).name
            if name == "SIGHUP":
                if not workers.stopping.is_set():
                    nursery.start_soon(_reload, workers, load, notifier)
            elif workers.stopping.is_set():
                workers.abort()
            else:
                watchdog.arm(longest_end(workers.settings) + 2 * _MARGIN)
                notifier.stopping(f"gives running streams up to {workers.settings.drain:g} s")
                workers.stop(name)


async def _reload(workers: Workers, load: Callable[[], Loaded], notifier: Notifier) -> None:
    notifier.reloading()
    await workers.reload(load)
    notifier.ready(f"listens on {workers.base_url}")


@contextmanager
def _listening(settings: Settings) -> Iterator[tuple[list[socket.socket], socket.socket]]:
    """The sockets of all workers and that of the admin listener, closed at the end."""
    address, write_timeout = Address.parse(settings.bind), settings.timers.client_stall
    with ExitStack() as stack:
        listeners = open_listeners(address, "bind", settings.workers, backlog=settings.backlog, write_timeout=write_timeout)
        for listener in listeners:
            stack.enter_context(listener)
        admin_address = Address.parse(settings.admin_bind)
        admin = open_listener(admin_address, "admin_bind", backlog=settings.backlog, write_timeout=write_timeout)
        yield listeners, stack.enter_context(admin)

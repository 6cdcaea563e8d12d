"""One worker of several: a proxy whose listening socket and settings come from a supervisor, which also tells it when to end.

Owns the worker's side of the channel. It obeys no signals: those are for the supervisor (supervisor.py), which passes on what they
mean. Otherwise a terminal or a service manager that signals every process of a group would say everything twice. It ends in order, as
at SIGTERM, when the supervisor is gone.
"""

from __future__ import annotations

import functools
import logging
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

import trio

from .endings import Ending
from .log import flush_logging, set_worker
from .main import freeze_what_stays, prepare_process
from .proxy import open_proxy
from .reload import Reloader
from .settings_loaded import Loaded
from .worker_channel import Abort, Answer, Ask, Begin, Look, Reload, Reloaded, Seen, Serving, Stop, ToSupervisor, ToWorker, WorkerChannel

if TYPE_CHECKING:
    from .proxy import Proxy

#: EX_SOFTWARE of sysexits.h.
_DEFECT: Final = 70
#: What the supervisor answers for.
_NOT_OURS: Final = ("SIGINT", "SIGTERM", "SIGHUP")


async def work(number: int, control: socket.socket, listener: socket.socket) -> None:
    """Serve until told to end.

    Args:
      number: of the worker, from 1; stands in its log lines.
      control: the channel's end.
      listener: bound and listening; owned from now on.
    """
    for name in _NOT_OURS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    set_worker(number)
    channel = WorkerChannel[ToSupervisor, ToWorker](control, ToWorker)
    try:
        first = await channel.receive()
    except trio.EndOfChannel:
        return  # the supervisor was gone before it could say what to do
    assert isinstance(first, Begin)
    prepare_process(first.settings)
    ending = Ending()
    with ending.at_once:
        async with trio.open_nursery() as nursery:
            async with open_proxy(first.settings, listener=listener, worker=number) as proxy:
                nursery.start_soon(channel.send_all)
                nursery.start_soon(_obey, channel, proxy, ending)
                freeze_what_stays()
                channel.tell(Serving(proxy.base_url))
                await ending.asked.wait()
            nursery.cancel_scope.cancel()
    channel.close()


async def _obey(channel: WorkerChannel[ToSupervisor, ToWorker], proxy: Proxy, ending: Ending) -> None:
    reloader = Reloader(proxy)
    async with trio.open_nursery() as nursery:
        while True:
            try:
                message = await channel.receive()
            except trio.EndOfChannel:
                ending.stop("supervisor gone", proxy)
                break
            match message:
                case Ask():
                    nursery.start_soon(_answer, channel, proxy, message)
                case Look(id, after):
                    await proxy.services.clerk.catch_up()
                    channel.tell(Seen(id, proxy.snapshot(after).encoded()))
                case Reload():
                    if not ending.asked.is_set():
                        nursery.start_soon(_reload, channel, reloader, message)
                case Stop(name):
                    ending.stop(name, proxy)
                case Abort():
                    ending.stop("abort", proxy)
                    ending.abort()
                case Begin():
                    raise AssertionError("it has begun already")


async def _reload(channel: WorkerChannel[ToSupervisor, ToWorker], reloader: Reloader, order: Reload) -> None:
    if order.settings is None:
        reloader.refuse(order.refusal)
        accepted = False
    else:
        loaded = Loaded(order.settings, order.warnings, {})
        accepted = await reloader.reload(lambda: loaded)
    channel.tell(Reloaded(order.id, accepted))


async def _answer(channel: WorkerChannel[ToSupervisor, ToWorker], proxy: Proxy, ask: Ask) -> None:
    """Give a request to the admin application, as its own listener would."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": ask.method,
        "scheme": "http",
        "path": ask.path,
        "raw_path": ask.path.encode(),
        "query_string": ask.query,
        "root_path": "",
        "headers": list(ask.headers),
        "client": None,
        "server": None,
        "extensions": {},
    }
    unread = [{"type": "http.request", "body": ask.body, "more_body": False}]
    status, body = 500, b""
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def receive() -> Any:
        if not unread:
            await trio.sleep_forever()  # nobody disconnects
        return unread.pop()

    async def send(message: Any) -> None:
        nonlocal status, headers, body
        if message["type"] == "http.response.start":
            status, headers = message["status"], tuple((bytes(name), bytes(value)) for name, value in message["headers"])
        else:
            body += message.get("body", b"")

    await proxy.admin(scope, receive, send)
    channel.tell(Answer(ask.id, status, headers, body))


def main(number: int, control: int, listener: int) -> None:
    """The process of a worker.

    Args:
      control, listener: descriptors.
    """
    # Its name in a list of processes would be Python's, were there not a last argument that says it (supervisor.py).
    try:
        trio.run(functools.partial(work, number, socket.socket(fileno=control), socket.socket(fileno=listener)))
    except* Exception as group:
        logging.getLogger("evenflow").critical("the worker ends, for it cannot go on", exc_info=group)
        flush_logging(0.5)
        sys.exit(_DEFECT)

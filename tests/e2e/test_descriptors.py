"""Descriptors run out: those who are served are served well, the others get a clean 503, and afterwards all is as before."""

from __future__ import annotations

import os
import resource
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import trio
import trio.testing

from server.acceptor import Doorkeeper, accept
from server.listeners import connection_limit

from .raw_client import PATIENCE, Answer
from .running_command import serving
from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from server.simulator import Simulator

    from .raw_client import RawClient
    from .running_proxy import LogTap

#: `evenflow` with so many descriptors and no way to get more.
FEW = """if True:
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))
    from server.cli import main
    main()
"""


async def ask_at_once(client: RawClient, count: int, model: str) -> list[Answer]:
    answers = []

    async def ask() -> None:
        answers.append(await client.ask(model))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(ask)
    return answers


async def test_row_56_a_process_with_few_descriptors_serves_what_it_can_and_recovers(simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path, program=FEW) as (running, client):
        answers = await ask_at_once(client, 150, "count:20,pace=20")
        served = [answer for answer in answers if answer.status == 200]
        turned_away = [answer for answer in answers if answer.status == 503]
        assert len(served) + len(turned_away) == 150
        assert len(served) >= 8
        assert all(answer.done for answer in served)
        for answer in turned_away:
            assert answer.error["code"] == "too_many_connections"
            assert answer.header("retry-after") == "1"
        for answer in await ask_at_once(client, 8, "ok"):
            assert answer.done
        running.process.terminate()
        assert await running.ended() == 0
        assert running.err.count("turned away") == 1


async def test_row_56_a_crowd_that_is_turned_away_takes_no_descriptors_from_streams() -> None:
    pairs = [socket.socketpair() for _ in range(16)]  # accepted in one pass of the loop, before any task has its turn
    with socket.socket() as listener:
        doorkeeper = Doorkeeper(listener, lambda: None)
        async with trio.open_nursery() as nursery:
            for ours, theirs in pairs:
                theirs.sendall(b"POST / HTTP/1.1\r\n\r\n")
                doorkeeper.turn_away(ours, "full", nursery)
            assert sum(ours.fileno() != -1 for ours, _ in pairs) <= 8
            for _, theirs in pairs:
                theirs.shutdown(socket.SHUT_WR)
        doorkeeper.close()
    for _, theirs in pairs:
        with theirs:
            answer = Answer(_read_all(theirs))
            assert (answer.status, answer.whole) == (503, True)


async def test_row_56_idle_clients_do_not_shut_it_for_good(simulator: Simulator, tmp_path: Path) -> None:
    more = "[edge]\nheader_timeout = 0.5"
    async with serving(simulator, tmp_path, more=more, program=FEW) as (running, client), AsyncExitStack() as idle:
        for _ in range(150):
            await idle.enter_async_context(await trio.open_tcp_stream(*client.address))
        with trio.fail_after(PATIENCE):
            while (await client.ask("ok")).status != 200:  # noqa: ASYNC110
                await trio.sleep(0.05)
        running.process.terminate()
        assert await running.ended() == 0


async def test_row_56_without_any_descriptor_whoever_waits_is_answered() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        clients = [socket.create_connection(listener.getsockname()) for _ in range(5)]
        for client in clients:
            client.settimeout(5)  # a test that hangs fails instead
            client.sendall(b"POST / HTTP/1.1\r\n\r\n")
        turned_away = []
        doorkeeper = Doorkeeper(listener, lambda: turned_away.append(1))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        async with trio.open_nursery() as nursery:
            accepted: list[socket.socket] = []

            # From here on this process may open nothing that it does not close before.
            resource.setrlimit(resource.RLIMIT_NOFILE, (_highest() + 1, hard))
            held = list(_fill())
            try:
                nursery.start_soon(accept, listener, doorkeeper, lambda sock, _: accepted.append(sock))
                await trio.testing.wait_all_tasks_blocked()
                for client in clients:
                    answer = Answer(_read_all(client))
                    assert (answer.status, answer.header("retry-after"), answer.whole) == (503, "1", True)
                assert len(turned_away) == 5
                assert accepted == []
            finally:
                for descriptor in held:
                    os.close(descriptor)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            with socket.create_connection(listener.getsockname()), trio.fail_after(PATIENCE):
                while not accepted:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            accepted[0].close()
            nursery.cancel_scope.cancel()
        for client in clients:
            client.close()
        doorkeeper.close()


def _read_all(sock: socket.socket) -> bytes:
    raw = b""
    while data := sock.recv(65_536):
        raw += data
    return raw


def _highest() -> int:
    return max(map(int, os.listdir("/proc/self/fd")))


def _fill() -> Iterator[int]:
    """Take every descriptor that is left."""
    while True:
        try:
            yield os.open(os.devnull, os.O_RDONLY)
        except OSError:
            return


async def test_row_56_our_own_shortage_is_not_the_upstreams_fault(
    simulator: Simulator, log: LogTap, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_proxy(settings_for({"main": simulator}), simulator) as proxy:

        async def nothing_left(address: object) -> None:
            raise OSError(24, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr("actors.dialer.connect", nothing_left)
            answer = await proxy.client.ask("ok")
        assert (answer.status, answer.header("retry-after")) == (503, "1")
        assert proxy.circuit("main").failures == 0
        assert (await proxy.client.ask("ok")).done
    assert [line["attempts"] for line in log.requests()] == [1, 1]


def test_row_56_every_connection_has_a_descriptor_for_its_upstream() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 2 * connection_limit() <= soft


async def test_row_54_five_hundred_clients_at_once_all_finish(simulator: Simulator, tmp_path: Path) -> None:
    """A tenth of the crowd; `python -m bench.crowd` sends all of it."""
    async with serving(simulator, tmp_path) as (running, client):
        answers = await ask_at_once(client, 500, "count:5")
        statuses = {answer.status for answer in answers}
        assert statuses <= {200, 503}
        for answer in answers:
            assert answer.done if answer.status == 200 else answer.header("retry-after")
        assert sum(answer.status == 200 for answer in answers) >= 250
        running.process.terminate()
        assert await running.ended() == 0

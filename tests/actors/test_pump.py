"""The pump: what a connection pours, who is woken when, and that nothing of one stream reaches another."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import socket
import struct
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

import actors.connection
from actors.body_reader import Reader
from actors.connection import Connection
from actors.connection_pool import ConnectionPool, PoolLimits
from actors.errors import UpstreamDisconnected
from actors.http1 import ResponseParser
from actors.pump import pump
from tests.e2e.raw_client import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has epoll, and without it there is no pump")


@contextmanager
def connected() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection and its peer."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = Connection(ours)
    with theirs:
        try:
            yield connection, theirs
        finally:
            connection.close()


class Takes:
    """Collects what it is handed; wants no more after so many."""

    def __init__(self, wanted: int = 1_000_000) -> None:
        self.data: list[bytes] = []
        self.wanted = wanted

    def __call__(self, data: bytes) -> bool:
        with pytest.raises(RuntimeError):
            trio.lowlevel.current_task()
        self.data.append(data)
        return bool(data) and len(self.data) < self.wanted


async def test_what_comes_is_handed_over_outside_any_task_until_it_is_enough() -> None:
    with connected() as (connection, peer):
        takes = Takes(wanted=2)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def pour() -> None:
                assert await connection.pour(takes) is False

            await wait_all_tasks_blocked()
            peer.sendall(b"one")
            await wait_all_tasks_blocked()
            assert takes.data == [b"one"]
            peer.sendall(b"two")
        assert takes.data == [b"one", b"two"]
        peer.sendall(b"three")
        assert await connection.receive() == b"three"


async def test_the_peers_end_is_handed_over_and_a_reset_is_raised() -> None:
    with connected() as (connection, peer):
        peer.sendall(b"last")
        peer.close()
        takes = Takes()
        await connection.pour(takes)
        assert takes.data == [b"last", b""]

    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        ours.setblocking(False)
        theirs, _ = listener.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        with pytest.raises(UpstreamDisconnected, match="reset"):
            await Connection(ours).pour(Takes())


async def test_what_take_raises_is_raised_where_it_belongs_and_the_others_go_on() -> None:
    class BugError(Exception):
        pass

    def fails(data: bytes) -> bool:
        raise BugError

    with connected() as (broken, first), connected() as (sound, second):
        takes = Takes(wanted=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sound.pour, takes)
            await wait_all_tasks_blocked()
            first.sendall(b"x")
            second.sendall(b"one")
            with pytest.raises(BugError):
                await broken.pour(fails)
            await wait_all_tasks_blocked()
            second.sendall(b"two")
        assert takes.data == [b"one", b"two"]


async def test_cancelled_it_has_handed_over_all_that_it_read() -> None:
    with connected() as (connection, peer):
        takes = Takes()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.pour, takes)
            await wait_all_tasks_blocked()
            peer.sendall(b"one")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            peer.sendall(b"two")
        assert takes.data == [b"one"]
        assert await connection.receive() == b"two"
        peer.sendall(b"three")
        await connection.pour(takes := Takes(wanted=1))  # and it can begin again
        assert takes.data == [b"three"]


@pytest.mark.parametrize("wants_more", [True, False])
async def test_what_it_hands_over_may_cancel_it(wants_more: bool) -> None:
    with connected() as (connection, peer):
        peer.sendall(b"one")
        with trio.CancelScope() as scope:

            def take(data: bytes) -> bool:
                scope.cancel()
                return wants_more

            await connection.pour(take)
        assert scope.cancelled_caught
        peer.sendall(b"two")
        assert await connection.receive() == b"two"


async def test_a_connection_that_is_closed_meanwhile_breaks() -> None:
    with connected() as (connection, _):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def pour() -> None:
                with pytest.raises(UpstreamDisconnected, match="closed on this side"):
                    await connection.pour(Takes())

            await wait_all_tasks_blocked()
            connection.close()
        with pytest.raises(UpstreamDisconnected, match="closed on this side"):
            await connection.pour(Takes())


async def test_one_may_end_another_that_is_ready_in_the_same_turn() -> None:
    with connected() as (first, first_peer), connected() as (second, second_peer):
        taken: list[str] = []

        async def pour(name: str, own: Connection, other: Connection) -> None:
            def take(data: bytes) -> bool:
                taken.append(name)
                other.close()
                return False

            try:
                await own.pour(take)
            except UpstreamDisconnected:
                taken.append(f"{name} was closed")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour, "first", first, second)
            nursery.start_soon(pour, "second", second, first)
            await wait_all_tasks_blocked()
            first_peer.sendall(b"x")
            second_peer.sendall(b"x")
        assert taken in (["first", "second was closed"], ["second", "first was closed"])


async def test_without_a_descriptor_for_it_everybody_reads_by_himself() -> None:
    with connected() as (connection, peer):
        peer.sendall(b"one")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        held: list[int] = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.dup(0))
            takes = Takes()
            assert await connection.pour(takes) is True
            assert await connection.receive() == b"one"
            assert takes.data == []
        finally:
            for descriptor in held:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        peer.sendall(b"two")
        assert await connection.pour(takes := Takes(wanted=1)) is False
        assert takes.data == [b"two"]


def test_each_run_of_trio_has_its_own() -> None:
    async def once() -> object:
        with connected() as (connection, peer):
            peer.sendall(b"x")
            await connection.pour(Takes(wanted=1))
        assert pump() is pump()
        return pump()

    assert trio.run(once) is not trio.run(once)


async def test_whom_it_wakes_runs_at_once_and_not_when_something_else_happens() -> None:
    ours, theirs = socket.socketpair()
    found, woken = pump(), trio.Event()
    assert found is not None
    with ours, theirs:

        def call() -> None:
            ours.recv(10)
            woken.set()

        found.add(ours.fileno(), call)
        with trio.fail_after(PATIENCE):
            await trio.to_thread.run_sync(theirs.sendall, b"x")  # while trio's loop is in its wait
            await woken.wait()
        found.remove(ours.fileno())


async def test_a_call_that_fails_is_told_and_ends_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = socket.socketpair()
    found = pump()
    assert found is not None

    def call() -> None:
        raise LookupError("a bug")

    with ours, theirs, connected() as (connection, peer):
        found.add(ours.fileno(), call)
        theirs.sendall(b"x")
        await wait_all_tasks_blocked()
        peer.sendall(b"y")
        assert await connection.receive() == b"y"
    assert [record.exc_text.splitlines()[-1] for record in caplog.records if record.exc_text] == ["LookupError: a bug"]


async def test_deadlines_threads_and_trios_own_sockets_are_served_beside_it(autojump_clock: MockClock) -> None:
    ours, theirs = socket.socketpair()
    own, peer = trio.socket.socketpair()
    calls: list[bytes] = []
    found = pump()
    assert found is not None
    with ours, theirs, own, peer:
        found.add(ours.fileno(), lambda: calls.append(ours.recv(1)))
        assert await trio.to_thread.run_sync(threading.get_ident) != threading.get_ident()
        theirs.sendall(b"ab")
        with trio.move_on_after(30) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await peer.send(b"c")
                assert await own.recv(1) == b"c"
        assert scope.cancelled_caught
        assert calls == [b"a", b"b"]
        found.remove(ours.fileno())


async def test_a_socket_may_be_waited_for_by_a_task_that_wants_to_write_meanwhile() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    found, heard = pump(), trio.Event()
    assert found is not None
    with ours, theirs:
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(bytes(65_536))

        def call() -> None:
            ours.recv(10)
            heard.set()

        found.add(ours.fileno(), call)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.wait_writable, ours)
            await wait_all_tasks_blocked()
            theirs.sendall(b"x")
            await heard.wait()
            heard = trio.Event()
            theirs.recv(10_000_000)
        theirs.sendall(b"x")  # and still it is watched
        await heard.wait()
        found.remove(ours.fileno())


class Turns(trio.abc.Instrument):
    """Cancels a scope after so many turns of trio's loop."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope
        self._left = 1000

    def before_io_wait(self, timeout: float) -> None:
        self._left -= 1
        if not self._left:
            self._scope.cancel()


async def test_what_nobody_reads_keeps_nobody_awake_and_tells_that_the_connection_is_stale(autojump_clock: MockClock) -> None:
    with connected() as (connection, peer), trio.CancelScope() as scope:
        trio.lowlevel.add_instrument(Turns(scope))
        peer.sendall(b"answer")
        assert await connection.receive() == b"answer"
        assert not connection.is_stale()
        peer.sendall(b"more")
        await trio.sleep(1)  # the clock only jumps when nothing happens
        assert connection.is_stale()
        assert await connection.receive() == b"more"  # and it is watched again
        peer.close()
        await trio.sleep(1)
        assert connection.is_stale()
    assert not scope.cancelled_caught


async def test_what_came_since_the_loops_last_turn_makes_a_connection_stale_too() -> None:
    with connected() as (connection, peer):
        peer.sendall(b"answer")
        assert await connection.receive() == b"answer"
        peer.sendall(b"more")
        assert connection.is_stale()


async def test_one_who_reads_may_be_cancelled_and_closed_like_one_who_is_called() -> None:
    with connected() as (connection, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.receive)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        peer.sendall(b"x")
        assert await connection.receive() == b"x"
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                with pytest.raises(UpstreamDisconnected, match="closed on this side"):
                    await connection.receive()

            await wait_all_tasks_blocked()
            connection.close()


def test_there_is_none_where_trio_waits_in_a_way_we_do_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    class Another(trio._core._io_epoll.EpollIOManager):
        pass

    async def find() -> None:
        assert pump() is None
        with connected() as (connection, peer):
            peer.sendall(b"x")
            assert await connection.pour(Takes()) is True
            assert await connection.receive() == b"x"

    monkeypatch.setattr(trio._core._run, "TheIOManager", Another)
    trio.run(find)


BODY = st.lists(st.binary(min_size=1, max_size=200), max_size=12)


@given(
    pieces=BODY, cuts=st.lists(st.integers(0, 5000), max_size=12), refusals=st.lists(st.integers(1, 3), max_size=8), with_pump=st.booleans()
)
def test_a_body_is_the_same_poured_or_read_however_it_is_cut(
    pieces: list[bytes], cuts: list[int], refusals: list[int], with_pump: bool
) -> None:
    wire = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    edges = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    parts = [wire[a:b] for a, b in itertools.pairwise(edges)]

    async def read() -> bytes:
        with connected() as (connection, peer):
            parser, pool = ResponseParser("POST"), ConnectionPool(PoolLimits())
            parser.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            pool.add(connection)
            reader = Reader(connection, parser, pool, sent=True)
            got, patience = bytearray(), list(refusals)

            def take(data: bytes) -> bool:
                got.extend(data)
                if not patience:
                    return True
                patience[0] -= 1
                if patience[0]:
                    return True
                del patience[0]
                return False

            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def send() -> None:
                    for part in parts:
                        peer.sendall(part)
                        await trio.lowlevel.checkpoint()

                while data := await reader.read():
                    got += data
                    while not await reader.pour(take):
                        pass
            assert reader.complete
            assert pool.statistics().idle == 1
            return bytes(got)

    with pytest.MonkeyPatch.context() as patch:
        if not with_pump:
            patch.setattr(actors.connection, "pump", lambda: None)
        assert trio.run(read) == b"".join(pieces)

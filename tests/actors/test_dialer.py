"""Dialing: names and their lifetime, and the race between several addresses."""

from __future__ import annotations

import gc
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from actors import dialer
from actors.dialer import ADDRESS_LIFETIME, Dialer
from actors.errors import UpstreamConnectError, UpstreamDnsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.connection import Connection


class Resolver(trio.abc.HostnameResolver):
    """Answers with a list that can be changed, an error if it is empty, and counts the questions."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self.asked = 0
        self.answer = trio.Event()
        self.answer.set()

    async def getaddrinfo(self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
        self.asked += 1
        await self.answer.wait()
        if not self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6, type, 6, "", (ip, port, 0, 0)) if ":" in ip else (socket.AF_INET, type, 6, "", (ip, port))
            for ip in self.hosts
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise AssertionError("nobody asks for names")


@contextmanager
def resolving(*hosts: str) -> Iterator[Resolver]:
    resolver = Resolver(*hosts)
    before = trio.socket.set_custom_hostname_resolver(resolver)
    try:
        yield resolver
    finally:
        trio.socket.set_custom_hostname_resolver(before)
        gc.collect()  # a socket that was left open is reported here, as an error


@contextmanager
def listening(*hosts: str, backlog: int = 16) -> Iterator[int]:
    """Listeners at one port of several addresses; the kernel accepts."""
    with ExitStack() as stack:
        port = 0
        for host in hosts:
            listener = stack.enter_context(socket.socket())
            listener.bind((host, port))
            listener.listen(backlog)
            port = listener.getsockname()[1]
        yield port


@contextmanager
def mute(host: str, port: int) -> Iterator[None]:
    """An address where nobody answers: its queue is full, and Linux lets whoever comes then wait.

    Args:
      host: not 127.0.0.1, where the port may be some client's.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((host, port))
        yield


def peer_of(connection: Connection) -> str:
    """Where it leads to; closes it."""
    host: str = connection._sock.getpeername()[0]  # what the kernel says, which nothing of ours repeats
    connection.close()
    return host


async def test_an_address_is_not_resolved_in_vain() -> None:
    with listening("127.0.0.1") as port:
        assert peer_of(await Dialer("127.0.0.1", port, None).dial()) == "127.0.0.1"


async def test_a_name_is_asked_for_once_in_its_lifetime_and_then_followed(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05
    with listening("127.0.0.1", "127.0.0.2") as port, resolving("127.0.0.1") as resolver:
        dialed = Dialer("some.name", port, None)
        assert peer_of(await dialed.dial()) == "127.0.0.1"
        resolver.hosts = ("127.0.0.2",)
        await trio.sleep(ADDRESS_LIFETIME - 0.1)
        assert (peer_of(await dialed.dial()), resolver.asked) == ("127.0.0.1", 1)
        await trio.sleep(0.2)
        assert (peer_of(await dialed.dial()), resolver.asked) == ("127.0.0.2", 2)


async def test_an_address_that_fails_is_believed_no_longer() -> None:
    with listening("127.0.0.2") as port, resolving("127.0.0.1") as resolver:
        dialed = Dialer("some.name", port, None)
        with pytest.raises(UpstreamConnectError, match=f"some.name:{port}: Connection refused"):
            await dialed.dial()
        resolver.hosts = ("127.0.0.2",)
        assert (peer_of(await dialed.dial()), resolver.asked) == ("127.0.0.2", 2)


@pytest.mark.parametrize("name", ["some.name", "a" * 64])
async def test_a_name_that_does_not_resolve(name: str) -> None:
    dialed = Dialer(name, 1, None)
    with ExitStack() as stack:
        if name == "some.name":
            stack.enter_context(resolving())
        with pytest.raises(UpstreamDnsError, match="does not resolve"):
            await dialed.dial()


async def test_many_who_start_at_once_ask_once() -> None:
    with listening("127.0.0.1", backlog=64) as port, resolving("127.0.0.1") as resolver:
        dialed = Dialer("some.name", port, None)
        resolver.answer = trio.Event()

        async def dial() -> None:
            peer_of(await dialed.dial())

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(dial)
            await wait_all_tasks_blocked()
            resolver.answer.set()
        assert resolver.asked == 1


async def test_many_who_start_at_once_go_on_at_once() -> None:
    """And not one by one: a loop that is busy takes its time for each pass."""
    with listening("127.0.0.1", backlog=256) as port, resolving("127.0.0.1") as resolver:
        dialed = Dialer("a.name", port, None)
        resolver.answer = trio.Event()
        connected = 0

        async def dial() -> None:
            nonlocal connected
            peer_of(await dialed.dial())
            connected += 1

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(dial)
            await wait_all_tasks_blocked()
            resolver.answer.set()
            for _ in range(10):
                await trio.lowlevel.checkpoint()
            assert connected == 200


async def test_many_who_start_at_once_hear_of_a_failure_at_once() -> None:
    with resolving() as resolver:
        dialed = Dialer("a.name", 1, None)
        resolver.answer = trio.Event()
        failed = 0

        async def dial() -> None:
            nonlocal failed
            with pytest.raises(UpstreamDnsError, match="does not resolve"):
                await dialed.dial()
            failed += 1

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(dial)
            await wait_all_tasks_blocked()
            resolver.answer.set()
        assert (failed, resolver.asked) == (20, 1)


async def test_when_whoever_asked_is_cancelled_somebody_else_asks() -> None:
    with listening("127.0.0.1", backlog=64) as port, resolving("127.0.0.1") as resolver:
        dialed = Dialer("a.name", port, None)
        resolver.answer = trio.Event()
        async with trio.open_nursery() as nursery:
            asking = trio.CancelScope()

            async def ask() -> None:
                with asking:
                    await dialed.dial()

            async def dial() -> None:
                peer_of(await dialed.dial())

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            for _ in range(5):
                nursery.start_soon(dial)
            await wait_all_tasks_blocked()
            asking.cancel()
            await wait_all_tasks_blocked()
            resolver.answer.set()
        assert resolver.asked == 2


async def test_the_next_address_is_tried_when_one_refuses_and_stays_the_first(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05
    with listening("127.0.0.3") as port, resolving("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        dialed = Dialer("some.name", port, None)
        began = trio.current_time()
        assert peer_of(await dialed.dial()) == "127.0.0.3"
        assert trio.current_time() - began < dialer.ATTEMPT_DELAY  # a refusal is not waited out
        assert [host for _, (host, _port) in dialed._addresses] == ["127.0.0.3", "127.0.0.1", "127.0.0.2"]
        assert peer_of(await dialed.dial()) == "127.0.0.3"


async def test_an_address_that_does_not_answer_holds_nobody_up(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05
    with listening("127.0.0.2") as port, mute("127.0.0.5", port), resolving("127.0.0.5", "127.0.0.2"):
        began = trio.current_time()
        assert peer_of(await Dialer("some.name", port, None).dial()) == "127.0.0.2"
        assert dialer.ATTEMPT_DELAY * 0.9 < trio.current_time() - began < 1.0  # Linux would ask the first again after 1 s


async def test_all_addresses_refuse() -> None:
    with listening("127.0.0.9") as port, resolving("127.0.0.1", "127.0.0.2"):
        with pytest.raises(UpstreamConnectError, match="Connection refused"):
            await Dialer("some.name", port, None).dial()


@pytest.mark.parametrize("hosts", [("127.0.0.5",), ("127.0.0.5", "127.0.0.6")])
async def test_cancelled_while_nobody_answers(hosts: tuple[str, ...]) -> None:
    with listening("127.0.0.9") as port, ExitStack() as stack:
        for host in hosts:
            stack.enter_context(mute(host, port))
        with resolving(*hosts), trio.move_on_after(dialer.ATTEMPT_DELAY * 1.2) as scope:
            await Dialer("some.name", port, None).dial()
        assert scope.cancelled_caught


async def test_the_second_address_is_of_the_other_family(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05
    with listening("127.0.0.1") as port, resolving("::1", "fe80::1", "127.0.0.1"):
        dialed = Dialer("some.name", port, None)
        began = trio.current_time()
        assert peer_of(await dialed.dial()) == "127.0.0.1"
        assert trio.current_time() - began < dialer.ATTEMPT_DELAY

"""Listening sockets that share an address."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from server.listeners import BindError, open_listener, open_listeners
from server.settings import Address

ANY = Address("127.0.0.1", 0)


def test_all_of_them_get_one_port_and_each_its_share_of_connections() -> None:
    with ExitStack() as stack:
        listeners = [stack.enter_context(one) for one in open_listeners(ANY, "bind", 3, backlog=64, write_timeout=30.0)]
        (place,) = {one.getsockname() for one in listeners}
        for _ in range(60):
            stack.enter_context(socket.create_connection(place))
        taken = []
        for one in listeners:
            one.setblocking(False)
            taken.append(0)
            while True:
                try:
                    stack.enter_context(one.accept()[0])
                except BlockingIOError:
                    break
                taken[-1] += 1
        assert sum(taken) == 60
        assert all(taken)


@pytest.mark.parametrize("shared", [True, False])
def test_nobody_joins_the_listeners_of_another(shared: bool) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(open_listener(ANY, "bind", backlog=1, write_timeout=0.0, shared=shared))
        address = Address("127.0.0.1", first.getsockname()[1])
        with pytest.raises(BindError, match="in use"):
            open_listeners(address, "bind", 2, backlog=1, write_timeout=0.0)
        with pytest.raises(BindError, match="in use"):
            open_listener(address, "bind", backlog=1, write_timeout=0.0)


def test_where_the_system_cannot_do_it_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(BindError, match="workers to 1"):
        open_listeners(ANY, "bind", 2, backlog=1, write_timeout=0.0)

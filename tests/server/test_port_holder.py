"""Who has the port is said, where the system tells."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from server.listeners import BindError, open_listener
from server.port_holder import holder_of
from server.settings import Address

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc/net")


@linux
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_process_that_listens_is_named(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        taken = socket.create_server((host, 0), family=family)
    except OSError as exc:
        pytest.skip(f"no {host} here: {exc}")
    with taken:
        assert holder_of(taken.getsockname()[1]).endswith(f"(pid {os.getpid()})")


def test_nobody_is_named_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert holder_of(port) == ""


@linux
def test_a_port_in_use_names_the_holder_and_the_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(BindError) as caught:
            open_listener(address, "admin_bind", backlog=1, write_timeout=1.0)
    text = str(caught.value)
    assert text.startswith(f"cannot listen on {address}: the port is in use by ")
    assert text.endswith(f"(pid {os.getpid()}); stop that process or choose another port with --admin-bind")
    assert caught.value.setting == "admin_bind"


@pytest.mark.parametrize("host", ["192.0.2.7", "no-such-name.invalid"])
def test_an_address_that_is_not_ours_names_the_flag(host: str) -> None:
    with pytest.raises(BindError, match="--bind"):
        open_listener(Address(host, 0), "bind", backlog=1, write_timeout=1.0)

"""The listening sockets.

Owns a clear error where an address cannot be had, a backlog that survives a thousand clients at once, and TCP_USER_TIMEOUT, by which
the kernel ends a connection whose client takes no byte even where nobody waits for a write. Accepted sockets inherit these options on
Linux; elsewhere what does not exist is left out.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from .port_holder import holder_of

if TYPE_CHECKING:
    from .settings import Address

#: Descriptors that are left to connections of the admin listener, idle upstream connections and files. Guessed.
_OTHER_DESCRIPTORS: Final = 24
#: Bytes per connection that the kernel takes beyond what the client's window lets it send: what a slow client keeps here instead of at
#: its upstream. trio's own streams have the same limit.
_UNSENT: Final = 16_384


class BindError(Exception):
    """An address cannot be listened on. The text is one line with the remedy.

    Args:
      setting: the name of the setting that holds the address.
    """

    def __init__(self, text: str, setting: str = "") -> None:
        super().__init__(text)
        self.setting = setting


def open_listener(address: Address, setting: str, *, backlog: int, write_timeout: float, shared: bool = False) -> socket.socket:
    """Bind and listen.

    Args:
      address: port 0 takes a free one.
      setting: name of the setting that holds it, `bind` or `admin_bind`, for the error.
      backlog: connections that the kernel may queue.
      write_timeout: seconds that sent bytes may stay unacknowledged before the kernel drops the connection.
      shared: others that are shared as well may listen on the same address; the kernel then deals connections out to all of them.

    Raises:
      BindError: the address is taken, not ours, or not allowed.
    """
    flag = f"--{setting.replace('_', '-')}"
    try:
        family, kind, _, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as exc:
        raise BindError(f"cannot listen on {address}: {exc.strerror}; give {flag} an address of this machine", setting) from exc
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        set_write_timeout(listener, write_timeout)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(place)
        listener.listen(backlog)
    except OSError as exc:
        listener.close()
        raise BindError(f"cannot listen on {address}: {_why(exc, address, flag)}", setting) from exc
    return listener


def open_listeners(address: Address, setting: str, count: int, *, backlog: int, write_timeout: float) -> list[socket.socket]:
    """Several listening sockets on one address, each with a queue of its own, among which the kernel deals out connections.

    Args:
      address: port 0 takes a free one, the same for all.
      backlog: of each.

    Raises:
      BindError: as for `open_listener`, or the system cannot do this.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise BindError("this system has no SO_REUSEPORT, so that only one process can listen on an address; set workers to 1")
    one = partial(open_listener, setting=setting, backlog=backlog, write_timeout=write_timeout)
    if address.port:
        # Not shared and closed at once: any other listener is noticed by it, another evenflow with workers included. A shared one
        # would join in, and get a part of the other's connections.
        one(address).close()
    listeners = [one(address, shared=True)]
    try:
        address = replace(address, port=listeners[0].getsockname()[1])
        listeners += [one(address, shared=True) for _ in range(count - 1)]
    except BindError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def set_write_timeout(listener: socket.socket, seconds: float) -> None:
    """Have the kernel drop connections, accepted from now on, whose sent bytes stay unacknowledged for so long; 0 is off."""
    if hasattr(socket, "TCP_USER_TIMEOUT") and seconds < 86_400:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def _why(exc: OSError, address: Address, flag: str) -> str:
    match exc.errno:
        case errno.EADDRINUSE:
            holder = holder_of(address.port)
            return f"the port is in use{f' by {holder}' if holder else ''}; stop that process or choose another port with {flag}"
        case errno.EACCES:
            return f"ports below 1024 need a privilege; choose another with {flag}"
        case errno.EADDRNOTAVAIL:
            return f"this machine has no such address; correct {flag}"
        case _:
            return os.strerror(exc.errno) if exc.errno else str(exc)


def raise_descriptor_limit() -> int:
    """Raise the limit of open files as far as the system allows without a privilege: each stream needs two.

    Returns:
      The limit now in force, 0 where the system does not tell.
    """
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems name a hard limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft


def connection_limit() -> float:
    """Client connections that can be served at once: each may need a second descriptor for its upstream, some are for other things.

    Returns:
      `math.inf` where the system does not tell how many descriptors there are.
    """
    try:
        import resource
    except ImportError:
        return math.inf
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return math.inf
    return max(1, (soft - _open_descriptors() - _OTHER_DESCRIPTORS) // 2)


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 32  # a guess, where there is no /proc: what a Python process with a few sockets has

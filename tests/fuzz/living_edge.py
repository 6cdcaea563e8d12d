"""One evenflow with a simulated upstream in a thread of its own, for as many examples as a test wants to try on it.

Examples come by the thousand, so a proxy for each would take hours, and what one example leaves behind would never meet the next. Talks
to it by blocking sockets. At the end it must be as it was: no task, permit, connection or descriptor more, and no traceback in its log.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from server.app import create_app
from server.log import close_logging, configure_logging
from server.settings import AdmissionSettings, EdgeSettings
from server.simulator import Simulator, open_simulator

from ..e2e.raw_client import CLIENT_KEY, UPSTREAM_KEY
from ..e2e.raw_connection import asking, request
from ..e2e.running_proxy import LogTap, RunningProxy, running_proxy, settings_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from server.settings import Settings
    from server.simulator.observer import Seen

#: Deadlines of the edge, so short that an example which waits for one costs little.
SHORT: Final = EdgeSettings(header_timeout=0.15, body_timeout=0.15, keepalive_timeout=0.15)
#: Far beyond all of them; an example that hangs fails instead.
PATIENCE: Final = 60.0
CANARY: Final = "ok:text=canary"


class LivingEdge:
    """A running proxy, seen from another thread.

    Args:
      running: belongs to the proxy's thread.
      token: of the event loop there.
    """

    def __init__(self, running: RunningProxy, simulator: Simulator, token: trio.lowlevel.TrioToken) -> None:
        self._running = running
        self._simulator = simulator
        self._token = token
        self._ended = trio.Event()
        self.main = _address(running.base_url)
        self.admin = _address(running.proxy.admin_url)

    async def until_ended(self) -> None:
        """Wait for `end()`; called in the proxy's thread."""
        await self._ended.wait()

    def end(self) -> None:
        """Let the proxy end."""
        with contextlib.suppress(trio.RunFinishedError):  # it ended by a failure of its own, which is told
            self._token.run_sync_soon(self._ended.set)

    def talk(self, *connections: Sequence[bytes], address: tuple[str, int] | None = None) -> list[bytes]:
        """Send each sequence of pieces on a connection of its own, all at the same time, and read what comes until each one ends."""
        open_ones = [socket.create_connection(address or self.main, PATIENCE) for _ in connections]
        try:
            for sock, pieces in zip(open_ones, connections, strict=True):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in pieces:
                    try:
                        sock.sendall(piece)
                    except OSError:
                        break  # it has had enough; its answer says why
            return [read_to_end(sock) for sock in open_ones]
        finally:
            for sock in open_ones:
                sock.close()

    def canary(self) -> None:
        """A good request on a new connection is answered well."""
        for _ in range(5):  # a machine that stood still makes us miss the short deadlines ourselves, and is told 408; not five times
            (answer,) = self.talk([request(asking(CANARY), b"Connection: close")])
            if not answer.startswith(b"HTTP/1.1 408 "):
                break
        assert answer.startswith(b"HTTP/1.1 200 "), answer[:300]
        assert b"canary" in answer

    def take_seen(self) -> list[tuple[str, bytes]]:
        """Path and body of the requests that reached the upstream since it was asked last, without canaries."""

        def take() -> list[Seen]:
            seen = self._simulator.observer.seen
            return [seen.popleft() for _ in range(len(seen))]

        return [(one.path, one.body) for one in trio.from_thread.run_sync(take, trio_token=self._token) if one.model != CANARY]

    def routes(self) -> set[str]:
        """The paths that the applications of both listeners know by themselves, as Werkzeug spells them."""
        apps = create_app(self._running.proxy.services), self._running.proxy.admin.app
        return {rule.rule for app in apps for rule in app.url_map.iter_rules()}  # type: ignore[union-attr]  # both are Quart's

    def failures(self) -> int:
        """Calls that count as failures of the upstream, within the breaker's window."""
        return trio.from_thread.run_sync(self._running.circuit, "main", trio_token=self._token).failures


def read_to_end(sock: socket.socket) -> bytes:
    """What comes until the connection ends, by a reset too."""
    received = b""
    try:
        while data := sock.recv(65_536):
            received += data
    except ConnectionResetError:
        pass
    return received


def fuzz_settings(simulator: Simulator) -> Settings:
    """As shipped, but for deadlines, and without a limit that a crowd of examples could reach."""
    return settings_for({"main": simulator}, edge=SHORT, admission=AdmissionSettings(max_streams=0, max_body_bytes=0))


@contextmanager
def living_edge() -> Iterator[LivingEdge]:
    """Run it in a thread for the length of a block."""
    born, failures = threading.Event(), list[BaseException]()
    held: list[LivingEdge] = []
    tap = LogTap()
    tap.sink = configure_logging("json", "info", tap)
    before = descriptors()

    async def live() -> None:
        async with open_simulator(pace=0.0) as simulator, running_proxy(fuzz_settings(simulator), simulator) as running:
            held.append(LivingEdge(running, simulator, trio.lowlevel.current_trio_token()))
            born.set()
            await held[0].until_ended()

    def run() -> None:
        try:
            trio.run(live)
        except BaseException as failure:
            failures.append(failure)
        finally:
            born.set()

    thread = threading.Thread(target=run, name="living edge")
    thread.start()
    born.wait(PATIENCE)
    try:
        if held:
            yield held[0]
    finally:
        for edge in held:
            edge.end()
        thread.join(PATIENCE)
        crashes = tap.take_crashes()
        logged = tap.getvalue()
        close_logging()
    if failures:
        raise failures[0]
    assert not thread.is_alive()
    assert not crashes
    assert not [key for key in (UPSTREAM_KEY, CLIENT_KEY) if key in logged]
    assert descriptors() <= before


def descriptors() -> int:
    """Open descriptors of this process, 0 where the system does not tell.."""
    if not os.path.isdir("/proc/self/fd"):
        return 0
    return len(os.listdir("/proc/self/fd"))


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port

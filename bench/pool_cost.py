"""What a request to an upstream costs while many others are open: our pool and dialer, and httpx's own transport beside them.

    python -m bench.pool_cost [--open 10 500 5000] [--stock] [--rounds N] [--json FILE]

A server in a process of its own answers everything at once; so many streams are opened to it and stay open, silent. Then requests go out
one after the other: on a connection that is kept, and each on a new one. What is told is processor time of this process per request, the
least of several rounds, and its ratio to that with the fewest open. Flat is what is wanted: a pool that looks at every connection it
has for each request is not (httpcore 1.0.9: with `--stock`).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import selectors
import signal
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import trio

from actors.stock_transport import StockTransport
from actors.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.upstream import AnyTransport

_REQUESTS: Final = 100  # in each round
_HELD: Final = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n"
_KEPT: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"
_CLOSED: Final = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx"


def serve(listener: socket.socket) -> None:
    """Answer until killed: by the path, a stream that never ends, a response that keeps the connection, one that closes it."""
    selector = selectors.DefaultSelector()
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                try:
                    sock, _ = listener.accept()
                except BlockingIOError:
                    continue
                selector.register(sock, selectors.EVENT_READ, bytearray())
                continue
            sock = key.fileobj  # type: ignore[assignment]
            try:
                request = sock.recv(4096)
                key.data.extend(request)  # httpx sends head and body apart
                if key.data.endswith(b"{}"):
                    sock.sendall(_HELD if b" /held" in key.data else _KEPT if b" /kept" in key.data else _CLOSED)
                    key.data.clear()
            except OSError:
                request = b""
            if not request:
                selector.unregister(sock)
                sock.close()


async def ask(transport: AnyTransport, url: str) -> httpx.Response:
    """Send a request; its body's first byte has come on return."""
    extensions = {"timeout": {"connect": 30.0}, "connected": lambda: None}
    request = httpx.Request(
        "POST", url, stream=httpx.ByteStream(b"{}"), headers={"host": "a", "content-length": "2"}, extensions=extensions
    )
    response = await transport.handle_async_request(request)
    assert await response.extensions["reader"].read() == b"x"
    return response


async def cost(transport: AnyTransport, url: str, most: int) -> float:
    """Microseconds of processor time per request, the least of all rounds."""
    rounds = []
    for _ in range(most):
        began = time.process_time()
        for _ in range(_REQUESTS):
            reader = (await ask(transport, url)).extensions["reader"]
            assert await reader.read() == b""
            await reader.aclose()
        rounds.append((time.process_time() - began) / _REQUESTS)
    return min(rounds) * 1e6


async def measure(transport: AnyTransport, root: str, counts: Sequence[int], most: int) -> list[dict[str, Any]]:
    """One row for each count of open streams, in rising order."""
    rows: list[dict[str, Any]] = []
    held: list[httpx.Response] = []

    async def hold() -> None:
        held.append(await ask(transport, f"{root}/held"))

    for count in sorted(counts):
        while len(held) < count:
            async with trio.open_nursery() as nursery:
                for _ in range(min(50, count - len(held))):
                    nursery.start_soon(hold)
        assert transport.open_connections() >= count
        rows.append(
            {"open": count, "kept_us": await cost(transport, f"{root}/kept", most), "new_us": await cost(transport, f"{root}/new", most)}
        )
    for response in held:
        await response.extensions["reader"].aclose()
    await transport.aclose()
    return rows


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--open", type=int, nargs="+", default=[10, 100, 1000, 5000], help="streams that are open meanwhile")
    arguments.add_argument("--stock", action="store_true", help="httpx's own transport as well, up to 1,000")
    arguments.add_argument("--rounds", type=int, default=12, help="of 100 requests; the fastest counts")
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < max(options.open) + 100:
        print(f"{hard} open files are not enough for {max(options.open)} connections", file=sys.stderr)
        return 2
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        root = f"http://127.0.0.1:{listener.getsockname()[1]}"
        child = os.fork()
        if not child:
            try:
                serve(listener)
            finally:
                os._exit(1)  # without the parent's clean-up
        try:
            gc.freeze()
            gc.set_threshold(50_000, 50, 100)  # as `evenflow serve` has it
            tls = ssl.create_default_context()
            results = {"own": trio.run(measure, Transport(tls), root, options.open, options.rounds)}
            if options.stock:
                few = [count for count in options.open if count <= 1000]
                results["httpx"] = trio.run(measure, StockTransport(tls, None), root, few, options.rounds)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    print(f"{'':8}{'open':>6}{'kept, us':>11}{'new, us':>11}{'ratio kept':>12}{'ratio new':>11}")
    for name, rows in results.items():
        for row in rows:
            row |= {f"{kind}_ratio": row[f"{kind}_us"] / rows[0][f"{kind}_us"] for kind in ("kept", "new")}
            print(
                f"{name:8}{row['open']:>6}{row['kept_us']:>11.0f}{row['new_us']:>11.0f}{row['kept_ratio']:>12.2f}{row['new_ratio']:>11.2f}"
            )
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Many clients at the same moment: every one gets its whole answer or a clean 503 with Retry-After, and none a reset (FAULTS row 54).

    python -m bench.crowd [--clients 5000] [--chunks 20] [--pace 50]

Three processes, as in bench.load. The answer of `/healthz` is timed all the while, and the proxy's memory is read at the end.
Exit codes: 0 as promised, 1 not so, 2 it could not be run, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import math
import re
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from server.listeners import raise_descriptor_limit

from .processes import PROXY, SIMULATOR, Failure, run_load, running

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The defaults, but that nothing drains.
_SETTINGS: Final = """\
bind = "127.0.0.1:0"
admin_bind = "127.0.0.1:0"
drain = 0.0
[upstreams.simulator]
base_url = "http://{simulator}/v1"
"""
#: Seconds: longer than any client's patience, shorter than for ever.
_PATIENCE: Final = 300.0
#: Seconds within which `/healthz` has to answer, whatever goes on (FAULTS row 54).
_HEALTHY: Final = 1.0


def _request(address: str, chunks: int, pace: float) -> bytes:
    body = b'{"model":"count:%d,pace=%g","stream":true,"messages":[]}' % (chunks, pace)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\nconnection: close\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


async def _ask(address: str, request: bytes, endings: Counter[str]) -> None:
    host, port = address.rsplit(":", 1)
    raw = b""
    try:
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(request)
            while data := await stream.receive_some(65_536):
                raw += data
    except OSError as exc:
        endings[f"not connected: {exc.strerror}"] += 1
        return
    except trio.BrokenResourceError:
        endings["reset" if not raw else "reset after some of the answer"] += 1
        return
    status, head = raw[9:12].decode(), raw.partition(b"\r\n\r\n")[0].lower()
    if status == "200":
        endings["200, whole" if b"data: [DONE]" in raw and raw.endswith(b"0\r\n\r\n") else "200, cut"] += 1
    elif status == "503":
        endings["503, Retry-After" if b"\r\nretry-after: " in head else "503, bare"] += 1
    else:
        said = re.search(rb'"message": "([^"]*)', raw)
        endings[f"{status or 'nothing'}: {said[1].decode('utf-8', 'replace')[:120] if said else ''}"] += 1


def _watch_health(address: str, worst: list[float], over: threading.Event) -> None:
    """In a thread: the event loop of this process has thousands of clients to serve, and would time itself."""
    host, port = address.rsplit(":", 1)
    request = f"GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n".encode()
    while not over.wait(0.25):
        began = time.monotonic()
        with socket.create_connection((host, int(port)), timeout=_PATIENCE) as sock:
            sock.sendall(request)
            healthy = sock.recv(65_536).startswith(b"HTTP/1.1 200")
        worst[0] = max(worst[0], time.monotonic() - began if healthy else math.inf)


async def _run(clients: int, chunks: int, pace: float) -> int:
    endings, worst, over = Counter[str](), [0.0], threading.Event()
    with tempfile.TemporaryDirectory(prefix="evenflow-crowd-") as folder:
        place = Path(folder)
        async with running(["simulate", "--bind", "127.0.0.1:0"], place / "simulator.log", SIMULATOR) as (simulator,):
            (place / "evenflow.toml").write_text(_SETTINGS.format(simulator=simulator), "utf-8")
            async with running(["serve", "--config", str(place / "evenflow.toml")], place / "proxy.log", PROXY) as (address, admin):
                request = _request(address, chunks, pace)
                began = time.monotonic()
                with trio.move_on_after(_PATIENCE):
                    async with trio.open_nursery() as watch:
                        watch.start_soon(trio.to_thread.run_sync, _watch_health, admin, worst, over)
                        try:
                            async with trio.open_nursery() as nursery:
                                for _ in range(clients):
                                    nursery.start_soon(_ask, address, request, endings)
                        finally:
                            over.set()
                seconds = time.monotonic() - began
                memory = await _memory(admin)
    clean = endings["200, whole"] + endings["503, Retry-After"]
    for ending, count in endings.most_common():
        print(f"{count:6} {ending}")
    print(f"{seconds:.1f} s; slowest /healthz {worst[0]:.2f} s; the proxy's memory at the end {memory / 1e6:.0f} MB")
    return 0 if clean == clients and worst[0] < _HEALTHY else 1


async def _memory(admin: str) -> float:
    """Resident bytes, as the proxy reports them, near the peak since Python gives little back; 0 where its system does not tell."""
    host, port = admin.rsplit(":", 1)
    raw = b""
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(f"GET /metrics HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n".encode())
        while data := await stream.receive_some(65_536):
            raw += data
    found = re.search(rb"^process_resident_memory_bytes (\S+)", raw, re.MULTILINE)
    return float(found[1]) if found else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.crowd", description="Many clients at the same moment.")
    parser.add_argument("--clients", type=int, default=5000, help="at the same moment [%(default)s]")
    parser.add_argument("--chunks", type=int, default=20, help="tokens of each answer [%(default)s]")
    parser.add_argument("--pace", type=float, default=50.0, metavar="MS", help="time between two chunks [%(default)g]")
    options = parser.parse_args(arguments)
    raise_descriptor_limit()
    code = run_load(partial(_run, options.clients, options.chunks, options.pace))
    if isinstance(code, Failure):
        print(f"crowd: {code.why}", file=sys.stderr)
        return code.code
    return code


if __name__ == "__main__":
    sys.exit(main())

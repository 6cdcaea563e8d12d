"""What an upstream costs over HTTP/2 beside HTTP/1.1, both over TLS: a request on a kept connection, on a new one, one event of a stream.

    python -m bench.version_cost [--rounds N] [--json FILE]

A server in a process of its own answers whichever version is agreed on. What is told is processor time of this process, the least of
several rounds that take turns, and how long it takes from leaving a silent stream until the server has noticed. Needs the tests' packages.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import ssl
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import h2.config
import h2.connection
import h2.events
import httpx
import trio
import trustme

from actors.transport import Transport

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_REQUESTS: Final = 100  # in each round
_STREAMS: Final = 10
_EVENTS: Final = 200  # of each stream; each is a TLS record, and so a read, of its own
_EVENT: Final = b"data: " + b"x" * 230 + b"\n\n"
_VERSIONS: Final = ("HTTP/1.1", "HTTP/2")


async def serve(parent: Connection, certificate: str) -> None:
    """Answer until killed. Tells the parent its port, and the time whenever a client has left a silent stream."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.load_cert_chain(certificate)

    async def handle(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.do_handshake()
            await (speak_two if stream.selected_alpn_protocol() == "h2" else speak_one)(stream, parent)
        except trio.BrokenResourceError:
            pass
        await trio.aclose_forcefully(stream)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    parent.send(listener.socket.getsockname()[1])
    await trio.serve_listeners(handle, [trio.SSLListener(listener, context, https_compatible=True)])


async def speak_one(stream: trio.SSLStream[trio.SocketStream], parent: Connection) -> None:
    request = b""
    while data := await stream.receive_some(4096):
        request += data
        if not request.endswith(b"{}"):
            continue
        if b" /events" in request or b" /silence" in request:
            await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            if b" /silence" in request:
                await until_left(stream, parent)
                return
            for _ in range(_EVENTS):
                await stream.send_all(b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT))
            await stream.send_all(b"0\r\n\r\n")
        else:
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx")
        request = b""


async def speak_two(stream: trio.SSLStream[trio.SocketStream], parent: Connection) -> None:
    speaker = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    speaker.initiate_connection()
    path = b""
    while True:
        await stream.send_all(speaker.data_to_send())
        if not (data := await stream.receive_some(4096)):
            return
        for event in speaker.receive_data(bytes(data)):
            if isinstance(event, h2.events.RequestReceived):
                path = bytes(dict(event.headers)[b":path"])
            elif isinstance(event, h2.events.StreamEnded):
                speaker.send_headers(event.stream_id, [(b":status", b"200")])
                if path == b"/silence":
                    await stream.send_all(speaker.data_to_send())
                    await until_left(stream, parent)
                    return
                frames = []  # made first, so that both servers send equally fast
                for _ in range(_EVENTS if path == b"/events" else 0):
                    speaker.send_data(event.stream_id, _EVENT)
                    frames.append(speaker.data_to_send())
                for frame in frames:
                    await stream.send_all(frame)
                speaker.send_data(event.stream_id, b"x", end_stream=True)


async def until_left(stream: trio.SSLStream[trio.SocketStream], parent: Connection) -> None:
    try:
        while await stream.receive_some(4096):
            pass
    except trio.BrokenResourceError:
        pass
    parent.send(time.monotonic())


async def ask(transport: Transport, url: str) -> httpx.Response:
    headers = {"host": "a", "accept": "text/event-stream", "user-agent": "bench"}
    return await transport.handle_async_request(httpx.Request("POST", url, headers=headers, stream=httpx.ByteStream(b"{}")))


async def read_whole(transport: Transport, url: str) -> int:
    """Read an answer to its end; the number of reads that brought something."""
    reader, reads = (await ask(transport, url)).extensions["reader"], 0
    while await reader.read():
        reads += 1
    await reader.aclose()
    return reads


async def kept(transport: Transport, root: str) -> float:
    await read_whole(transport, f"{root}/")
    began = time.process_time()
    for _ in range(_REQUESTS):
        await read_whole(transport, f"{root}/")
    return (time.process_time() - began) / _REQUESTS * 1e6


async def new(transport: Transport, root: str) -> float:
    began = time.process_time()
    for _ in range(_REQUESTS):
        await read_whole(transport, f"{root}/")
        await transport.aclose()
        await transport.retire()
    return (time.process_time() - began) / _REQUESTS * 1e6


async def events(transport: Transport, root: str) -> float:
    reads = 0

    async def one() -> None:
        nonlocal reads
        brought = await read_whole(transport, f"{root}/events")
        reads += brought

    began = time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(_STREAMS):
            nursery.start_soon(one)
    return (time.process_time() - began) / reads * 1e6


async def measure(root: str, ca_file: str, server: Connection, rounds: int) -> dict[str, dict[str, float]]:
    """Per version: microseconds of each kind, and milliseconds of leaving."""
    results: dict[str, dict[str, list[float]]] = {version: {} for version in _VERSIONS}
    for _ in range(rounds):
        for version in _VERSIONS:
            for kind in (kept, new, events):
                transport = Transport(ssl.create_default_context(cafile=ca_file), http2=version == "HTTP/2")
                results[version].setdefault(f"{kind.__name__}_us", []).append(await kind(transport, root))
                await transport.aclose()
            transport = Transport(ssl.create_default_context(cafile=ca_file), http2=version == "HTTP/2")
            for _ in range(10):
                response = await ask(transport, f"{root}/silence")
                assert response.extensions["http_version"].decode() == version
                left = time.monotonic()
                await response.aclose()
                noticed: float = await trio.to_thread.run_sync(server.recv)
                results[version].setdefault("left_ms", []).append((noticed - left) * 1e3)
            await transport.aclose()
    return {version: {name: min(values) for name, values in found.items()} for version, found in results.items()}


def _run_server(parent: Connection, certificate: str) -> None:
    trio.run(serve, parent, certificate)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=7, help="the fastest counts")
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    authority = trustme.CA()
    with TemporaryDirectory() as folder:
        ca_file, certificate = f"{folder}/ca.pem", f"{folder}/server.pem"
        authority.cert_pem.write_to_path(ca_file)
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_run_server, args=(there, certificate), daemon=True)
        process.start()
        try:
            root = f"https://127.0.0.1:{here.recv()}"
            gc.freeze()
            gc.set_threshold(50_000, 50, 100)  # as `evenflow serve` has it
            results = trio.run(measure, root, ca_file, here, options.rounds)
        finally:
            process.kill()
            process.join()
    print(f"{'':10}{'kept, us':>10}{'new, us':>10}{'read, us':>10}{'left, ms':>10}")
    for version, found in results.items():
        print(f"{version:10}{found['kept_us']:>10.0f}{found['new_us']:>10.0f}{found['events_us']:>10.0f}{found['left_ms']:>10.2f}")
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

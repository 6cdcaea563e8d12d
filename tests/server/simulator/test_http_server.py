"""The simulator's sockets: leaving clients, requests no one should send, connections, and a clean end."""

from __future__ import annotations

import json
import time
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from server.simulator import Ending, open_simulator, serve_simulator

from .raw_client import connect, read_to_end, read_until, request_bytes, reset, send, soon

PHASES = {
    "before the head": ("silence", 0),
    "before the first token": ("slow-first-token:60", 0),
    "in the middle, silent": ("stall:3", 3),
    "in the middle, talking": ("endless:pace=1", 3),
    "in the middle, as fast as it goes": ("endless:pace=0", 3),
    "in the middle of a write that blocks": ("big:events=1000,size=100000", 3),
    "byte by byte": ("trickle:0.001", 1),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("leave", ["fin", "rst", "half-close"])
@pytest.mark.parametrize("phase", PHASES)
async def test_a_client_that_leaves_is_seen_at_once(phase: str, leave: str, stream: bool) -> None:
    spec, events = PHASES[phase]
    if not stream:
        spec, events = ("slow-headers:60", 0) if "big" in spec else (spec, 0)
    async with open_simulator(pace=0.0) as simulator:
        observer = simulator.observer
        client = await connect(simulator)
        await client.send_all(request_bytes(spec, stream=stream, close=False))
        await soon(observer, lambda observer: observer.requests == 1 and observer.seen[0].events >= events)
        assert observer.active == 1
        left, left_ns = trio.current_time(), time.monotonic_ns()
        match leave:
            case "fin":
                await client.aclose()
            case "rst":
                await reset(client)
            case "half-close":
                await client.send_eof()
        await soon(observer, lambda observer: observer.closes == 1 and observer.connections == 0)
        [seen] = observer.seen
        assert seen.ending is Ending.CLIENT_CLOSED
        assert seen.ended is not None
        assert seen.ended_ns is not None
        assert 0 <= seen.ended - left < 20  # far beyond what it takes; the exact time is for benchmarks
        assert 0 <= seen.ended_ns - left_ns < 20_000_000_000
        assert observer.active == 0
        await client.aclose()


async def test_a_slow_reader_holds_the_stream_back_and_gets_all_of_it() -> None:
    async with open_simulator(pace=0.0) as simulator, await connect(simulator) as client:
        await client.send_all(request_bytes("big:events=1000,size=20000"))
        await read_until(client, b"data: ")
        [seen] = simulator.observer.seen
        await wait_all_tasks_blocked(0.01)  # the kernel's buffers are full, and the simulator waits
        assert seen.events < 1000
        wire = await read_to_end(client)
        assert wire.raw.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert seen.events == 1002


async def test_the_end_of_the_simulator_ends_everything() -> None:
    async with open_simulator(pace=0.0) as simulator:
        clients = [await connect(simulator) for _ in range(4)]
        for client, model in zip(clients, ("silence", "endless", "stall:1", "idle-close:60"), strict=True):
            await client.send_all(request_bytes(model, close=False))
        await soon(simulator.observer, lambda observer: observer.requests == 4 and observer.seen[3].ending is not None)
    observer = simulator.observer
    assert (observer.connections, observer.active) == (0, 0)
    assert [seen.ending for seen in observer.seen] == [Ending.SHUTDOWN] * 3 + [Ending.COMPLETED]
    for client in clients:
        await read_to_end(client)
        await client.aclose()
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream(simulator.host, simulator.port)


async def test_it_can_be_served_in_another_nursery() -> None:
    async with trio.open_nursery() as nursery:
        simulator = await nursery.start(partial(serve_simulator, pace=0.0))
        assert simulator.base_url == f"http://127.0.0.1:{simulator.port}/v1"
        assert (await send(simulator, request_bytes("ok"))).ended
        with pytest.RaisesGroup(OSError):
            async with open_simulator(port=simulator.port):
                pass
        nursery.cancel_scope.cancel()


async def test_requests_that_come_together_are_answered_in_order() -> None:
    async with open_simulator(pace=0.0) as simulator:
        wire = await send(simulator, request_bytes("count:1", close=False) + request_bytes("http-503", close=False) + request_bytes("ok"))
        statuses = [part[:3] for part in wire.raw.split(b"HTTP/1.1 ")[1:]]
        assert statuses == [b"200", b"503", b"200"]
        assert simulator.observer.completed == 3


async def test_the_next_request_may_come_while_the_answer_is_told() -> None:
    async with open_simulator(pace=0.001) as simulator, await connect(simulator) as client:
        await client.send_all(request_bytes("ok", close=False))
        await read_until(client, b"data: ")
        await client.send_all(request_bytes("http:418"))
        wire = await read_to_end(client)
        assert b"HTTP/1.1 418 " in wire.raw
        assert [seen.ending for seen in simulator.observer.seen] == [Ending.COMPLETED] * 2


async def test_a_body_waits_for_100_continue() -> None:
    async with open_simulator(pace=0.0) as simulator, await connect(simulator) as client:
        whole = request_bytes("ok")
        head, _, body = whole.partition(b"\r\n\r\n")
        await client.send_all(head + b"\r\nexpect: 100-continue\r\n\r\n")
        assert await read_until(client, b"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n"
        await client.send_all(body)
        assert (await read_to_end(client)).ended


async def test_a_status_while_the_body_is_still_being_sent() -> None:
    async with open_simulator() as simulator, await connect(simulator) as client:
        await client.send_all(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-simulator-early-status: 413\r\ncontent-length: 1000000\r\n\r\n{"
        )
        wire = await read_to_end(client)
        assert (wire.status, wire.ended, wire.end) == (413, True, "fin")
        assert simulator.observer.requests == 0


BAD_BYTES = {
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "binary": bytes(range(256)) * 4,
    "two lengths": b"POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\nhost: x\r\n\r\n",
    "HTTP/9.9": b"GET / HTTP/9.9\r\nhost: x\r\n\r\n",
    "endless header": b"GET / HTTP/1.1\r\nx: " + b"x" * 300_000,
    "bad chunk": b"POST /v1/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "early status no number": b"POST /v1/x HTTP/1.1\r\nhost: x\r\nx-simulator-early-status: soon\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_BYTES)
async def test_bytes_that_are_no_request_get_an_error_and_the_end(name: str) -> None:
    async with open_simulator() as simulator:
        wire = await send(simulator, BAD_BYTES[name])
        assert 400 <= wire.status <= 505
        assert "error" in wire.json
        assert (await send(simulator, request_bytes("http-404"))).status == 404  # it lives


@pytest.mark.parametrize("cut", [0, 1, 20, -1])
async def test_a_client_may_leave_in_the_middle_of_its_request(cut: int) -> None:
    async with open_simulator() as simulator:
        async with await connect(simulator) as client:
            if part := request_bytes("ok")[:cut]:
                await client.send_all(part)
            await soon(simulator.observer, lambda observer: observer.connections == 1)
        await soon(simulator.observer, lambda observer: observer.connections == 0)
        assert simulator.observer.requests == 0


async def test_many_streams_at_once_are_complete_and_in_order() -> None:
    async with open_simulator(pace=0.002) as simulator:
        expected = [str(i) if i == 1 else f" {i}" for i in range(1, 21)]

        async def one() -> None:
            wire = await send(simulator, request_bytes("count:20"))
            assert wire.texts() == expected

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(one)
        assert simulator.observer.completed == 100


async def test_the_report_says_what_was_seen_and_no_credential() -> None:
    async with open_simulator(pace=0.0) as simulator:
        asked = request_bytes("count:3").replace(b"host:", b"authorization: Bearer sk-canary-1234\r\nx-evenflow-attempt: 2\r\nhost:")
        await send(simulator, asked)
        wire = await send(simulator, b"GET /_simulator/report HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        report = wire.json
        assert (report["requests"], report["completed"], report["active"]) == (1, 1, 0)
        [seen] = report["seen"]
        assert (seen["model"], seen["answer"], seen["ending"], seen["attempt"]) == ("count:3", "count:3", "completed", "2")
        assert seen["events"] == 6
        assert seen["arrived"] <= seen["began"] <= seen["ended"]
        assert seen["body_bytes"] == len(asked.partition(b"\r\n\r\n")[2])
        assert seen["headers"]["authorization"] == "...1234"
        assert b"canary" not in wire.raw
        assert b"canary" not in repr(simulator.observer.seen[0]).encode()
        reset_told = await send(simulator, b"POST /_simulator/reset HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        assert json.loads(reset_told.body) == {}
        assert (simulator.observer.requests, list(simulator.observer.seen)) == (0, [])
        assert (await send(simulator, b"GET /_simulator/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).status == 404


async def test_ipv6() -> None:
    async with open_simulator(host="::1", pace=0.0) as simulator:
        assert simulator.base_url.startswith("http://[::1]:")
        assert (await send(simulator, request_bytes("ok"))).ended

"""Connections: how long a client may take, when it is noticed that it has left, and that each stays in step with its requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from server.main import open_proxy
from server.settings import EdgeSettings

from .raw_client import PATIENCE, RawClient
from .raw_connection import asking, connected, request
from .running_proxy import eventually, running_proxy, settings_for

if TYPE_CHECKING:
    from trio.testing import MockClock

    from server.simulator import Simulator

    from .running_proxy import LogTap, RunningProxy

pytestmark = pytest.mark.usefixtures("way")

OK = asking("ok")
GET = request(line=b"GET /healthz HTTP/1.1")
LEAVING = pytest.mark.parametrize("how", ["fin", "rst"])


# ---- deadlines ------------------------------------------------------------------------------------------------------


async def test_row_52_headers_that_trickle_are_cut_off(simulator: Simulator, log: LogTap) -> None:
    edge = EdgeSettings(header_timeout=0.3, keepalive_timeout=60.0)
    async with running_proxy(settings_for({"main": simulator}, edge=edge), simulator) as proxy:
        async with connected(proxy.base_url) as connection, trio.open_nursery() as nursery:

            async def trickle() -> None:
                await connection.send(b"GET /healthz HTTP/1.1\r\n")
                while True:
                    await connection.send(b"X-A: b\r\n")
                    await trio.sleep(0.02)  # a client that is slow on purpose

            nursery.start_soon(trickle)
            response = await connection.response()
            assert (response.status, response.error["code"]) == (408, "request_timeout")
            assert "edge.header_timeout" in response.error["message"]
            assert await connection.closed() == b""
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("chunked", [False, True])
async def test_row_52_a_body_that_trickles_is_cut_off(chunked: bool, simulator: Simulator) -> None:
    edge = EdgeSettings(body_timeout=0.3, body_min_rate=10_000)
    async with running_proxy(settings_for({"main": simulator}, edge=edge), simulator) as proxy:
        async with connected(proxy.base_url) as connection, trio.open_nursery() as nursery:

            async def trickle() -> None:
                await connection.send(request(None, b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 100000"))
                while True:
                    await connection.send(b"2\r\n{ \r\n" if chunked else b"{ ")
                    await trio.sleep(0.02)

            nursery.start_soon(trickle)
            response = await connection.response()
            assert (response.status, response.error["code"]) == (408, "request_timeout")
            assert "edge.body_timeout" in response.error["message"]
            assert await connection.closed() == b""
            nursery.cancel_scope.cancel()
        assert simulator.observer.requests == 0


async def test_a_body_that_is_slow_but_fast_enough_is_taken(simulator: Simulator, clock: MockClock) -> None:
    edge = EdgeSettings(body_timeout=20.0, body_min_rate=1)
    async with running_proxy(settings_for({"main": simulator}, edge=edge), simulator) as proxy, connected(proxy.base_url) as connection:
        body = b" " * 30 + OK
        await connection.send(request(None, b"Content-Length: %d" % len(body)))
        for index in range(30):  # 45 s, twice the time in which a silent one is given up
            await connection.send(body[index : index + 1])
            await trio.testing.wait_all_tasks_blocked(0.005)
            clock.jump(1.5)
        await connection.send(body[30:])
        assert (await connection.response()).status == 200


async def test_an_idle_connection_is_closed_without_a_word(simulator: Simulator) -> None:
    edge = EdgeSettings(header_timeout=60.0, keepalive_timeout=0.2)
    async with running_proxy(settings_for({"main": simulator}, edge=edge), simulator) as proxy, connected(proxy.base_url) as connection:
        await connection.send(request(OK))
        assert (await connection.response()).status == 200
        assert await connection.closed() == b""


async def test_no_deadline_of_the_edge_ends_a_silent_stream(simulator: Simulator, clock: MockClock) -> None:
    edge = EdgeSettings(header_timeout=10.0, body_timeout=10.0, keepalive_timeout=10.0)
    async with running_proxy(settings_for({"main": simulator}, edge=edge), simulator) as proxy:
        async with proxy.client.open("slow-first-token:60") as exchange:
            await simulator.observer.wait_for(lambda observer: observer.active == 1)
            for _ in range(2):
                clock.jump(30.0)
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert (await exchange.rest()).done


# ---- who has left ---------------------------------------------------------------------------------------------------


@LEAVING
@pytest.mark.parametrize("ahead", [GET, request(OK), b"G", b"x" * 300_000], ids=["a request", "with a body", "a byte", "300 kB"])
@pytest.mark.parametrize("model", ["silence", "stall", "endless:pace=5"])
async def test_row_55_a_client_that_sent_something_ahead_and_left_is_noticed(
    model: str, ahead: bytes, how: str, proxy: RunningProxy, simulator: Simulator, log: LogTap
) -> None:
    async with connected(proxy.base_url) as connection:
        await connection.send(request(asking(model, stream=True)))
        await simulator.observer.wait_for(lambda observer: observer.active == 1)
        await connection.send(ahead)
        if how == "rst":
            connection.reset()
    with trio.fail_after(PATIENCE):
        await simulator.observer.wait_for(lambda observer: observer.closes == 1)
    await proxy.until_quiet()
    assert [line["outcome"] for line in log.requests()] == ["cancelled"]
    assert simulator.observer.requests == 1  # what it sent ahead was never begun
    await eventually(lambda: connections(proxy) == 0)


async def test_row_55_a_client_that_sends_without_end_ahead_of_its_turn_is_given_up(proxy: RunningProxy, simulator: Simulator) -> None:
    async with connected(proxy.base_url) as connection:
        await connection.send(request(asking("silence", stream=True)) + b"x" * 3_000_000)
        assert await connection.is_closed()
        with trio.fail_after(PATIENCE):
            await simulator.observer.wait_for(lambda observer: observer.closes == 1)


def connections(proxy: RunningProxy) -> int:
    """Client connections that the proxy holds: tasks that trio starts for each of them."""
    below, count = list(proxy._opener.child_nurseries), 0
    while below:
        for task in below.pop().child_tasks:
            below += task.child_nurseries
            count += task.name.endswith("open_edge.<locals>.serve")
    return count


async def test_row_44_the_connection_of_a_client_that_stops_reading_is_closed_by_ourselves(simulator: Simulator, log: LogTap) -> None:
    """Not only by the kernel, which does it on Linux alone, and not while its client still acknowledges."""
    async with running_proxy(settings_for({"main": simulator}, timers={"client_stall": 0.2}), simulator) as proxy:
        async with proxy.client.open("big:events=5000,size=50000", receive_buffer=8192) as stalled:
            await stalled.read_until(b"data: ")
            await eventually(lambda: connections(proxy) == 0)


async def test_row_68_a_client_that_never_reads_does_not_hold_up_the_end(simulator: Simulator) -> None:
    settings = settings_for({"main": simulator}, timers={"client_stall": 60.0}, drain=0.2)
    async with trio.open_nursery() as nursery:
        stalled_now, ended = trio.Event(), trio.Event()

        async def stall(client: RawClient) -> None:
            async with client.open("big:events=5000,size=50000", receive_buffer=8192) as stalled:
                await stalled.read_until(b"data: ")
                stalled_now.set()
                await ended.wait()

        with trio.fail_after(PATIENCE):
            async with open_proxy(settings) as proxy:
                nursery.start_soon(stall, RawClient(proxy.base_url))
                await stalled_now.wait()
        ended.set()


# ---- staying in step ------------------------------------------------------------------------------------------------


async def test_row_55_ten_thousand_requests_on_one_connection(proxy: RunningProxy, log: LogTap) -> None:
    async with connected(proxy.base_url) as connection:
        for _ in range(100):
            # A hundred at once, so that the time goes into framing and not into waiting.
            await connection.send(GET * 100)
            for _ in range(100):
                response = await connection.response()
                assert (response.status, response.body, response.closes) == (200, b"ok\n", False)
        await connection.send(request(OK))
        assert (await connection.response()).status == 200


async def test_row_55_two_hundred_completions_on_one_connection(proxy: RunningProxy, simulator: Simulator) -> None:
    async with connected(proxy.base_url) as connection:
        for index in range(200):
            stream = index % 2 == 0
            await connection.send(request(asking(f"ok:text=n{index}", stream=stream)))
            response = await connection.response()
            assert response.status == 200
            assert b"n%d" % index in response.body
            assert response.body.endswith(b"data: [DONE]\n\n") == stream


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (request(b"{"), 400),
        (request(b"[]"), 400),
        (request(asking("no-such")), 404),
        (request(OK).replace(b"application/json", b"text/plain"), 415),
        (request(OK).replace(b"Bearer", b"Basic"), 401),
        (request(OK, line=b"PUT /v1/chat/completions HTTP/1.1"), 405),
        (request(line=b"GET /nowhere HTTP/1.1"), 404),
        (request(asking("http-500")), 500),
        (request(asking("http-429")), 429),
        (request(asking("error-first", stream=True)), 503),
    ],
)
async def test_row_55_after_an_error_the_connection_is_used_on(wrong: bytes, status: int, simulator: Simulator) -> None:
    settings = settings_for({"main": simulator}, retry={"retries": 0}, breaker={"mode": "metrics_only"})
    async with running_proxy(settings, simulator) as proxy, connected(proxy.base_url) as connection:
        for _ in range(3):
            await connection.send(wrong)
            response = await connection.response()
            assert response.status == status
            assert not response.closes
        await connection.send(request(OK))
        assert (await connection.response()).status == 200


async def test_row_55_pipelined_requests_are_answered_in_their_order(proxy: RunningProxy) -> None:
    names = [f"n{index}" for index in range(20)]
    async with connected(proxy.base_url) as connection:
        await connection.send(b"".join(request(asking(f"ok:text={name}", stream=index % 2 == 0)) for index, name in enumerate(names)))
        for name in names:
            assert name.encode() in (await connection.response()).body


async def test_row_55_a_large_request_sent_ahead_waits_for_its_turn(proxy: RunningProxy) -> None:
    padding = b" " * 1_000_000
    async with connected(proxy.base_url) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(connection.send, request(asking("slow-first-token:0.2", stream=True)) + request(padding + OK) + GET)
        assert (await connection.response()).body.endswith(b"data: [DONE]\n\n")
        assert (await connection.response()).status == 200
        assert (await connection.response()).body == b"ok\n"


# ---- answers that arrive --------------------------------------------------------------------------------------------


async def test_row_45_the_refusal_of_a_large_body_arrives_while_it_is_still_being_sent(simulator: Simulator, log: LogTap) -> None:
    """Closing at once would reset the connection, and the client would see that instead of the answer."""
    async with running_proxy(settings_for({"main": simulator}, max_request_body=1_000_000), simulator) as proxy:
        for framing in (b"Content-Length: 30000000", b"Transfer-Encoding: chunked"):
            async with connected(proxy.base_url) as connection, trio.open_nursery() as nursery:
                body = (b"10000\r\n" + b" " * 65_536 + b"\r\n") * 100 if framing.startswith(b"T") else b" " * 6_000_000
                nursery.start_soon(connection.send, request(None, framing) + body)
                await trio.testing.wait_all_tasks_blocked()
                response = await connection.response()
                assert (response.status, response.closes) == (413, True)
                assert "max_request_body" in response.error["message"]
            await eventually(lambda: connections(proxy) == 0)


async def test_row_51_a_body_that_nobody_wants_blocks_nobody(proxy: RunningProxy) -> None:
    """The key is wrong, so the body is not read; neither the connection's task nor the application's may wait for it."""
    async with connected(proxy.base_url) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(connection.send, request(b" " * 5_000_000).replace(b"Bearer", b"Basic"))
        response = await connection.response()
        assert (response.status, response.closes) == (401, True)
    await eventually(lambda: connections(proxy) == 0)


async def test_a_server_that_stops_says_so_and_closes_what_is_idle(simulator: Simulator, clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        begun = trio.Event()
        seen: list[bytes | tuple[int, bool]] = []

        async def idle(url: str) -> None:
            async with connected(url) as connection:
                await connection.send(GET)
                await connection.response()
                begun.set()
                seen.append(await connection.closed())
                clock.jump(20.0)  # only now the other may end

        async def busy(url: str) -> None:
            async with connected(url) as connection:
                await connection.send(request(asking("slow-first-token:20")))
                response = await connection.response()
                seen.append((response.status, response.closes))

        async with open_proxy(settings_for({"main": simulator}, drain=60.0)) as proxy:
            nursery.start_soon(idle, proxy.base_url)
            nursery.start_soon(busy, proxy.base_url)
            await begun.wait()
            await simulator.observer.wait_for(lambda observer: observer.active == 1)
    assert seen == [b"", (200, True)]

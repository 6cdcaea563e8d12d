"""The end of a process: who may finish, what the others are told, and that nobody holds it up."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from server.main import open_proxy
from server.settings import AdmissionSettings, Settings, UpstreamSettings

from .raw_client import PATIENCE, Answer, RawClient
from .raw_connection import asking, connected, request
from .running_command import ROOT, admin_of, command, serving
from .running_proxy import eventually, running_proxy, settings_for

if TYPE_CHECKING:
    from pathlib import Path

    from server.simulator import Simulator

    from .running_proxy import LogTap

SIGNALS = pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
BOTH_ENGINES = pytest.mark.parametrize("engine", ["actors", "relay"])


# ---- a real process -------------------------------------------------------------------------------------------------


@SIGNALS
async def test_row_72_a_signal_ends_it_with_0(signum: signal.Signals, simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path) as (running, client):
        assert (await client.ask("ok")).done
        running.process.send_signal(signum)
        assert await running.ended() == 0


async def test_row_72_sigpipe_is_ignored(simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path) as (running, client):
        running.process.send_signal(signal.SIGPIPE)
        assert (await client.ask("ok")).done
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == 0


@SIGNALS
async def test_row_68_a_running_stream_may_finish_within_the_drain(signum: signal.Signals, simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path, drain=10.0) as (running, client):
        async with client.open("count:50,pace=10") as exchange:
            await exchange.read_until(b"data: ")
            running.process.send_signal(signum)
            answer = await exchange.rest()
        assert answer.done
        assert await running.ended() == 0


@SIGNALS
async def test_row_68_a_stream_that_outlasts_the_drain_is_told(signum: signal.Signals, simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path, drain=0.2) as (running, client):
        async with client.open("endless:pace=10") as exchange:
            await exchange.read_until(b"data: ")
            running.process.send_signal(signum)
            answer = await exchange.rest()
        assert answer.whole
        assert answer.error["code"] == "server_shutdown"
        assert answer.error["type"] == "server_error"
        assert not answer.finish_reasons
        await simulator.observer.wait_for(lambda observer: observer.closes == 1)
        assert await running.ended() == 0
        stopping = json.loads((await running.until_logged('.*"stopping".*'))[0])
        assert (stopping["signal"], stopping["streams"], stopping["drain"]) == (signum.name, 1, 0.2)


async def test_row_68_a_client_that_never_reads_does_not_hold_up_the_process(simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path, drain=0.5) as (running, client):
        async with client.open("big:events=5000,size=50000", receive_buffer=8192) as stalled:
            await stalled.read_until(b"data: ")
            began = trio.current_time()
            running.process.send_signal(signal.SIGTERM)
            assert await running.ended() == 0
            assert trio.current_time() - began < 20.0  # and not timers.client_stall = 30 s


async def test_row_68_a_second_signal_ends_it_at_once(simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path, drain=600.0) as (running, client):
        async with client.open("endless:pace=10") as exchange:
            await exchange.read_until(b"data: ")
            running.process.send_signal(signal.SIGTERM)
            await running.until_logged('"stopping"')  # signals of one kind that come together are one
            running.process.send_signal(signal.SIGTERM)
            await exchange.rest()
        assert await running.ended() == 0


async def test_row_68_the_notice_comes_before_the_listener_closes(simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path, more="drain_notice = 600.0") as (running, client):
        root, admin = RawClient(client.root, None), admin_of(running)
        assert (await root.get("/readyz")).status == 200
        running.process.send_signal(signal.SIGTERM)
        await running.until_logged('"stopping"')
        assert (await root.get("/readyz")).status == (await admin.get("/readyz")).status == 503
        assert (await root.get("/healthz")).status == 200
        assert (await client.ask("ok")).done  # who has not heard of it yet is served
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == 0


async def test_row_71_after_a_kill_clients_see_a_cut_and_the_next_process_serves_within_two_seconds(
    simulator: Simulator, tmp_path: Path, unused_port: int
) -> None:
    address = f"127.0.0.1:{unused_port}"
    flags = ("serve", "--upstream", simulator.base_url, "--bind", address, "--admin-bind", "127.0.0.1:0")
    client = RawClient(f"http://{address}/v1", None)
    async with command(*flags, cwd=tmp_path) as first:
        began = trio.current_time()
        await first.until_said("listens on")
        start = trio.current_time() - began
        async with client.open("endless:pace=10") as exchange:
            await exchange.read_until(b"data: ")
            first.process.kill()
            assert not (await exchange.rest()).whole
        await first.process.wait()
    async with command(*flags, cwd=tmp_path) as second:
        began = trio.current_time()
        await second.until_said("listens on")
        assert (await client.ask("ok")).done
        assert trio.current_time() - began < 2.0 + 2 * start  # as soon as the first, however long a start takes here
        second.process.terminate()
        assert await second.ended() == 0


def test_row_68_a_process_that_will_not_end_is_ended_by_force() -> None:
    """Its main thread never comes back to the event loop."""
    program = """if True:
        import time
        from server.log import configure_logging
        from server.watchdogs import ExitWatchdog
        configure_logging("json")
        ExitWatchdog().arm(0.2)
        def never_ends():
            time.sleep(600)
        never_ends()
    """
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    line = json.loads(ended.stderr)
    assert (line["event"], line["level"]) == ("hard_exit", "critical")
    assert "never_ends" in line["stack"]


# ---- inside one ------------------------------------------------------------------------------------------------------


@BOTH_ENGINES
async def test_row_68_before_the_head_a_request_gets_a_503(engine: str, simulator: Simulator, log: LogTap) -> None:
    answers = []
    async with trio.open_nursery() as nursery:
        async with open_proxy(settings_for({"main": simulator}, engine=engine)) as proxy:
            client = RawClient(proxy.base_url)

            async def ask(stream: bool) -> None:
                answers.append(await client.ask("silence", stream=stream))

            nursery.start_soon(ask, True)
            nursery.start_soon(ask, False)
            await simulator.observer.wait_for(lambda observer: observer.active == 2)
    assert [answer.status for answer in answers] == [503, 503]
    assert [answer.error["code"] for answer in answers] == ["server_shutdown"] * 2
    assert [answer.header("retry-after") for answer in answers] == ["1", "1"]
    assert [(line["fault"], line["termination"]) for line in log.requests()] == [("shutdown", "PH")] * 2


@BOTH_ENGINES
async def test_row_68_a_request_that_waits_for_its_turn_gets_a_503(engine: str, simulator: Simulator) -> None:
    answers: list[Answer] = []
    settings = settings_for({"main": simulator}, engine=engine, admission=AdmissionSettings(max_streams=1))
    async with trio.open_nursery() as nursery:
        async with open_proxy(settings) as proxy:
            client = RawClient(proxy.base_url)

            async def ask() -> None:
                answers.append(await client.ask("silence"))

            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await eventually(lambda: proxy.services.admission.statistics().waiting == 1)
    assert [(answer.status, answer.error["code"]) for answer in answers] == [(503, "server_shutdown")] * 2
    assert simulator.observer.requests == 1


async def test_row_68_a_relayed_stream_is_broken_off(simulator: Simulator, log: LogTap) -> None:
    """The relay does not know where an event ends, so only the broken connection tells."""
    async with AsyncExitStack() as clients:
        async with open_proxy(settings_for({"main": simulator}, engine="relay")) as proxy:
            stream = await clients.enter_async_context(RawClient(proxy.base_url).open("endless:pace=5"))
            await stream.read_until(b"data: ")
        assert not (await stream.rest()).whole
    assert [(line["fault"], line["termination"]) for line in log.requests()] == [("shutdown", "PD")]


async def test_row_68_idle_connections_are_closed_at_once(simulator: Simulator) -> None:
    async with AsyncExitStack() as clients:
        with trio.fail_after(PATIENCE):
            async with open_proxy(settings_for({"main": simulator}, drain=60.0)) as proxy:
                connection = await clients.enter_async_context(connected(proxy.base_url))
                await connection.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await connection.response()).status == 200
        assert await connection.closed() == b""


async def test_row_68_a_connection_that_would_be_kept_ends_with_its_stream(simulator: Simulator) -> None:
    """And nobody waits for the rest of the drain."""
    async with AsyncExitStack() as clients:
        with trio.fail_after(PATIENCE):
            async with open_proxy(settings_for({"main": simulator}, drain=60.0)) as proxy:
                connection = await clients.enter_async_context(connected(proxy.base_url))
                await connection.send(request(asking("count:30,pace=10", stream=True)))
                await simulator.observer.wait_for(lambda observer: observer.active == 1)
        assert (await connection.response()).body.endswith(b"data: [DONE]\n\n")
        assert await connection.closed() == b""


async def test_row_74_the_sockets_are_closed_when_the_start_fails(unused_port: int) -> None:
    """What is wrong is found between binding and serving."""
    wrong = UpstreamSettings(base_url="http://127.0.0.1:9/v1", ca_file="/no/such/file.pem")
    settings = Settings(bind=f"127.0.0.1:{unused_port}", admin_bind="127.0.0.1:0", configured_upstreams={"main": wrong})
    with pytest.RaisesGroup(FileNotFoundError, flatten_subgroups=True):
        async with open_proxy(settings):
            raise AssertionError("it must not start")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", unused_port))


async def test_a_proxy_without_requests_ends_without_waiting(simulator: Simulator) -> None:
    with trio.fail_after(PATIENCE):
        async with running_proxy(settings_for({"main": simulator}, drain=60.0), simulator):
            pass


async def test_row_68_a_connection_that_nobody_had_accepted_yet_is_served_all_the_same(simulator: Simulator) -> None:
    """For its client it stands: the kernel has said so."""
    with trio.fail_after(PATIENCE):
        async with open_proxy(settings_for({"main": simulator}, drain=60.0)) as proxy:
            host, port = proxy.base_url.removeprefix("http://").removesuffix("/v1").split(":")
            sockets = [socket.create_connection((host, int(port))) for _ in range(40)]
            for sock in sockets:
                sock.sendall(request(asking("count:3", stream=True)))
            # From here to the end of the block nothing waits, so nobody can have accepted them.
    for sock in sockets:
        with sock:
            answer = sock.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer.lower()
        assert b"[DONE]" in answer

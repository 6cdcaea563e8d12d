"""Upstreams over HTTP/2, behind a real server of it: streams are what they are over HTTP/1.1, and so is leaving them."""

from __future__ import annotations

import statistics
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio
from h2.errors import ErrorCodes

from actors import Secret, Upstream, open_upstream_client
from server.doctor.findings import diagnose
from server.doctor.probes import Doctor, server_root
from server.settings import UpstreamSettings
from tests.actors.http2_server import over_http2
from tests.actors.scripted_server import AUTHORITY, serving

from .http2_front import Http2Front, http2_front
from .raw_client import PATIENCE, UPSTREAM_KEY
from .running_proxy import eventually, running_proxy, settings_for, upstream_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from server.settings import Settings
    from server.simulator import Simulator
    from tests.actors.http2_server import Http2Peer, Http2Script
    from tests.actors.scripted_server import Peer, Script

    from .running_proxy import LogTap

BOTH_ENGINES = pytest.mark.parametrize("engine", ["actors", "relay"])


@pytest.fixture
async def front(simulator: Simulator, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Http2Front]:
    """It offers HTTP/2 and HTTP/1.1, or what a test gives as parameter."""
    async with http2_front(simulator.base_url, tmp_path, getattr(request, "param", ("h2", "http/1.1"))) as running:
        yield running


def settings_of(simulator: Simulator, front: Http2Front, engine: str, **others: object) -> Settings:
    upstream = upstream_of(simulator, base_url=front.base_url, ca_file=front.ca_file, http2=True)
    return settings_for({"main": upstream}, engine=engine, **others)  # type: ignore[arg-type]  # passed on as they are


@BOTH_ENGINES
async def test_streams_over_http2_are_whole_and_one_connection_serves_them(engine: str, simulator: Simulator, front: Http2Front) -> None:
    async with running_proxy(settings_of(simulator, front, engine), simulator) as proxy:
        for stream in (True, True, False, True):
            answer = await proxy.client.ask("count:50", stream=stream)
            assert answer.status == 200
            text = answer.text() if stream else answer.json["choices"][0]["message"]["content"]
            assert [int(word) for word in text.split()] == list(range(1, 51))
        assert proxy.upstream_connections == 1
    assert front.versions == ["2"] * 4
    assert len(set(front.clients)) == 1


@BOTH_ENGINES
async def test_what_stutters_over_http2_is_repaired_as_over_http1(engine: str, simulator: Simulator, front: Http2Front) -> None:
    model = "stutter-b1:envelope=nonce"
    async with running_proxy(settings_of(simulator, front, engine), simulator) as proxy:
        async with running_proxy(settings_for({"main": simulator}, engine=engine), simulator) as beside:
            over_http2, over_http1 = await proxy.client.ask(model), await beside.client.ask(model)
    assert over_http2.done
    assert over_http2.text() == over_http1.text()


# ---- leaving --------------------------------------------------------------------------------------------------------------

CLIENTS = 5
#: Seconds from the clients' leaving until most of their streams have ended behind the server; ten times that for the last of them.
WORST = 0.5


@BOTH_ENGINES
@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize(("model", "seen"), [("silence", ""), ("stall", "data: "), ("endless:pace=5", "on and ")])
async def test_rows_41_42_and_43_a_client_that_leaves_takes_its_stream_along_and_no_other(
    model: str, seen: str, how: str, engine: str, simulator: Simulator, front: Http2Front, log: LogTap
) -> None:
    async with running_proxy(settings_of(simulator, front, engine), simulator) as proxy, proxy.client.open("endless:pace=20") as stays:
        await stays.read_until(b"on and ")
        async with AsyncExitStack() as stack:
            exchanges = [await stack.enter_async_context(proxy.client.open(model)) for _ in range(CLIENTS)]
            for exchange in exchanges:
                if seen:
                    await exchange.read_until(seen.encode())
            await simulator.observer.wait_for(lambda observer: observer.active == CLIENTS + 1)
            left = trio.current_time()
            for exchange in exchanges:
                await (exchange.leave() if how == "fin" else exchange.reset())
            with trio.fail_after(PATIENCE):
                await simulator.observer.wait_for(lambda observer: observer.closes == CLIENTS)
        ended = [seen.ended for seen in simulator.observer.seen if seen.ended is not None]
        assert len(ended) == CLIENTS
        assert statistics.median(ended) - left < WORST
        assert max(ended) - left < 10 * WORST
        await eventually(lambda: proxy.circuit("main").permits_out == 1)
        assert proxy.upstream_connections == 1
        assert proxy.circuit("main").failures == 0
        await stays.read_until(b"on and ")
        await stays.leave()
    assert [line["outcome"] for line in log.requests()] == ["cancelled"] * (CLIENTS + 1)
    assert set(front.versions) == {"2"}


# ---- faults ---------------------------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"id":"a","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
GREETING = HEAD + b"%x\r\n%b\r\n" % (len(EVENT), EVENT)


def says(*pieces: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)

    return script


async def greet(peer: Http2Peer) -> None:
    await peer.request()
    await peer.answer(1, EVENT, [(b"content-type", b"text/event-stream")], end=False)


async def breaks_without_an_answer(peer: Http2Peer) -> None:
    await peer.request()


async def breaks_in_the_middle(peer: Http2Peer) -> None:
    await greet(peer)
    await peer.close_side()


async def ends_in_the_middle_with_an_error(peer: Http2Peer) -> None:
    await greet(peer)
    await peer.reset(1, ErrorCodes.INTERNAL_ERROR)
    await peer.left()


async def speaks_nonsense(peer: Http2Peer) -> None:
    await peer.request()
    await peer.stream.send_all(b"I speak no HTTP\r\n")
    await peer.left()


@BOTH_ENGINES
@pytest.mark.parametrize(
    ("over_one", "over_two"),
    [
        (says(), breaks_without_an_answer),
        (says(GREETING), breaks_in_the_middle),
        (says(GREETING), ends_in_the_middle_with_an_error),
        (says(b"I speak no HTTP\r\n"), speaks_nonsense),
    ],
    ids=["no answer", "cut", "reset", "nonsense"],
)
async def test_a_fault_is_the_same_over_both_versions(
    over_one: Script, over_two: Http2Script, engine: str, tmp_path: Path, log: LogTap
) -> None:
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for script, http2 in ((over_one, False), (over_http2(over_two), True)):
        async with serving(script, scheme="https") as server:
            base_url = server.url.removesuffix("?a=1")
            upstream = UpstreamSettings(base_url=base_url, key=Secret(UPSTREAM_KEY), ca_file=str(tmp_path / "ca.pem"), http2=http2)
            async with running_proxy(settings_for({"main": upstream}, engine=engine, retry={"retries": 0})) as proxy:
                await proxy.client.ask("any")
                await proxy.until_quiet()
                assert (proxy.circuit("main").permits_out, proxy.upstream_connections) == (0, 0)
    one, two = log.requests()
    for field in ("outcome", "fault", "termination", "attempts"):
        assert one[field] == two[field], field
    assert one["fault"]


@pytest.mark.parametrize("front", [("http/1.1",)], indirect=True)
async def test_a_server_without_http2_serves_and_that_is_said_once(simulator: Simulator, front: Http2Front, log: LogTap) -> None:
    async with running_proxy(settings_of(simulator, front, "actors"), simulator) as proxy:
        for _ in range(2):
            assert (await proxy.client.ask("ok")).done
    assert front.versions == ["1.1", "1.1"]
    assert [line["event"] for line in log.lines if "HTTP/2" in line["event"]] == [
        "upstream 'main' was asked for HTTP/2 and speaks HTTP/1.1; it is used so, this is said once"
    ]


@pytest.mark.parametrize(("front", "told"), [(("h2",), []), (("http/1.1",), ["does not speak HTTP/2"])], indirect=["front"])
async def test_the_doctor_says_which_version_is_spoken(front: Http2Front, told: list[str]) -> None:
    upstream = Upstream("main", front.base_url, ca_file=front.ca_file, http2=True)
    async with open_upstream_client((upstream, server_root(upstream))) as client:
        doctor = Doctor(client, upstream, patience=5.0)
        await doctor.look()
    diagnosis = diagnose(doctor.examination, {})
    (reach,) = [finding.what for finding in diagnosis.findings if finding.topic == "reach"]
    assert reach.endswith("over HTTP/1.1" if told else "over HTTP/2")
    assert [finding.what.partition(",")[0] for finding in diagnosis.findings if finding.topic == "http2"] == told
    assert "http2 = true" in diagnosis.toml()

"""`shut_down()` of both processors: in every phase the client is told what can still be told, and nothing is left open."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors import End, Fault, FaultKind, Party, StreamPolicy

from ..fakes import DONE, FakeOutlet, FakeResponse, Silence, content, finish, role
from .test_relay import Relay
from .test_stream_processor import Stream, stream_of

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSED = Fault(FaultKind.CONNECT, "upstream 'a': refused", upstream="a")
HELLO = role() + content("Hello")
QUIET = StreamPolicy(keepalive_after=math.inf, keepalive_interval=math.inf)

PHASES: dict[str, tuple[Callable[[], list[Any]], str, int]] = {
    "searching": (lambda: [Silence()], "PC", 503),
    "after a failed try": (lambda: [REFUSED, Silence()], "PC", 503),
    "before the first frame": (lambda: [FakeResponse(Silence())], "PH", 503),
    "mid-stream": (lambda: [FakeResponse(HELLO, Silence())], "PD", 200),
    "something held": (lambda: [FakeResponse(HELLO, content("Hello"), Silence())], "PD", 200),
}


async def shut_down(running: Stream | Relay) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        await wait_all_tasks_blocked()
        running.processor.shut_down()
        running.processor.shut_down()  # twice is once
    running.processor.shut_down()


@pytest.mark.parametrize(("script", "termination", "status"), PHASES.values(), ids=PHASES)
async def test_row_68_a_stream_is_told_in_every_phase(script: Callable[[], list[Any]], termination: str, status: int) -> None:
    stream = stream_of(*script(), policy=QUIET)
    with trio.fail_after(60):
        await shut_down(stream)
    outcome = stream.ended
    assert (outcome.end, outcome.party, outcome.termination, outcome.status) == (End.ERROR, Party.PROXY, termination, status)
    assert stream.error["code"] == "server_shutdown"
    assert stream.outlet.finished
    assert stream.attempts.verdicts in ([], ["excluded"])


async def test_row_68_before_it_runs() -> None:
    stream = stream_of(FakeResponse(HELLO, finish(), DONE), policy=QUIET)
    stream.processor.shut_down()
    await stream.run()
    assert stream.error["code"] == "server_shutdown"


async def test_row_68_a_client_that_takes_nothing_is_not_told_and_stays_to_be_broken_off() -> None:
    stream = stream_of(FakeResponse(*[content(f"{number}") for number in range(50)], Silence()), outlet=FakeOutlet(room=1000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run)
        await wait_all_tasks_blocked()
        stream.processor.shut_down()
        await wait_all_tasks_blocked()
        assert stream.outcome is None
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("script", "termination", "status"),
    [((Silence(),), "PC", 503), ((FakeResponse(Silence()),), "PH", 503), ((FakeResponse(b"data: x\n\n", Silence()),), "PD", 200)],
    ids=["searching", "silent", "mid-answer"],
)
async def test_row_68_a_relayed_request_is_told_before_its_head_and_broken_off_after_it(
    script: tuple[Any, ...], termination: str, status: int
) -> None:
    relay = Relay(*script)
    await shut_down(relay)
    assert (relay.ended.end, relay.ended.termination, relay.ended.status) == (End.ERROR, termination, status)
    assert relay.ended.fault is not None
    assert relay.ended.fault.kind is FaultKind.SHUTDOWN
    assert relay.outlet.finished == (status == 503)
    if status == 503:
        assert relay.error == "server_shutdown"


async def test_row_68_a_relayed_request_that_is_done_stays_done() -> None:
    relay = Relay(FakeResponse(b"data: x\n\n"))
    await shut_down(relay)
    assert relay.ended.end is End.DONE

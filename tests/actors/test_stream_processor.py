"""StreamProcessor: one stream's stages together, from a scripted upstream to a client that may leave at any moment."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors import (
    Alarms,
    End,
    Fault,
    FaultKind,
    Outcome,
    Party,
    Phase,
    ResponseHeaders,
    SmartBuffer,
    StreamMachine,
    StreamPolicy,
    StreamProcessor,
    Tally,
    UpstreamError,
)
from actors.errors import UpstreamDisconnected
from actors.orders import DRAIN_SECONDS
from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import InBandError
from actors.sansio.delivery import KEEP_ALIVE

from ..fakes import DONE, FakeAttempts, FakeOutlet, FakeResponse, Gate, Silence, Wait, content, finish, plain_buffer, reasoning, role

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSED = Fault(FaultKind.CONNECT, "upstream 'a': refused", upstream="a")
RESET = UpstreamDisconnected("the connection was reset")
HELLO = role() + content("Hello")


@dataclass
class Stream:
    """A processor with scripted attempts."""

    script: tuple[FakeResponse | Fault | Silence | Exception, ...]
    policy: StreamPolicy = field(default_factory=StreamPolicy)
    outlet: FakeOutlet = field(default_factory=FakeOutlet)
    idle: float = math.inf
    open_buffer: Callable[[str], SmartBuffer] = plain_buffer

    def __post_init__(self) -> None:
        now = trio.current_time()
        self.tally = Tally(started=now)
        self.attempts = FakeAttempts(self.tally, *self.script, idle=self.idle)
        machine = StreamMachine(self.policy, self.open_buffer, self.tally, now)
        headers = ResponseHeaders("req-1", "actors")
        self.alarms = Alarms()
        self.processor = StreamProcessor(
            self.attempts.as_attempts, machine, headers, max_event=1 << 20, tally=self.tally, alarms=self.alarms
        )
        self.outcome: Outcome | None = None

    async def run(self) -> Outcome:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.alarms.keep)
            self.outcome = await self.processor.run(self.outlet)
            nursery.cancel_scope.cancel()
        assert self.outcome is not None
        # Whatever happened: nothing is open any more, and the client can tell an end from a break.
        assert self.attempts.all_given_back()
        assert self.outlet.finished != self.outlet.aborted
        assert (self.outcome.end is End.CANCELLED) <= self.outlet.aborted
        assert self.tally.ended is not None
        return self.outcome

    @property
    def ended(self) -> Outcome:
        assert self.outcome is not None
        return self.outcome

    @property
    def error(self) -> dict[str, Any]:
        """The error that the client was told, as a body or as the last frame."""
        if self.outlet.status != 200:
            return dict(json.loads(self.outlet.body)["error"])
        last = ChunkParser().feed(self.outlet.body)[-1]
        assert isinstance(last, InBandError)
        return {"message": last.message, "type": last.type, "code": last.code}


def stream_of(*script: FakeResponse | Fault | Silence | Exception, **options: Any) -> Stream:
    return Stream(script, **options)


# ---- done ---------------------------------------------------------------------------------------------------------------


async def test_a_stream_is_done() -> None:
    stream = stream_of(FakeResponse(role(), content("Hello"), finish(), DONE))
    outcome = await stream.run()
    assert stream.outlet.body == role() + content("Hello") + finish() + DONE
    assert stream.outlet.headers["x-evenflow-attempts"] == "1"
    assert (outcome.end, outcome.termination, outcome.status, outcome.fault, outcome.upstream) == (End.DONE, "--", 200, None, "a")
    assert outcome.cancel_latency is None
    assert stream.attempts.verdicts == ["success"]


async def test_it_ends_with_the_body_not_a_quarter_second_later(autojump_clock: MockClock) -> None:
    for body in ([content("Hello"), finish(), DONE], [content("Hello"), finish()], [content("Hello"), finish() + DONE]):
        stream = stream_of(FakeResponse(*body))
        began = trio.current_time()
        assert (await stream.run()).end is End.DONE
        assert trio.current_time() == began


async def test_a_first_token_does_not_wait_for_anything() -> None:
    gate = Gate()
    stream = stream_of(FakeResponse(HELLO, gate, finish(), DONE))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run)
        await wait_all_tasks_blocked()
        assert stream.outlet.body == HELLO
        gate.opened.set()


async def test_a_stream_that_fails_before_output_is_tried_again_and_nobody_notices() -> None:
    stream = stream_of(REFUSED, FakeResponse(role(), RESET), FakeResponse(role(), content("Hello"), finish(), DONE))
    outcome = await stream.run()
    assert outcome.end is End.DONE
    assert stream.outlet.body == role() + content("Hello") + finish() + DONE
    assert stream.attempts.verdicts == ["failure", "success"]


async def test_reasoning_is_replayed_in_one_stream() -> None:
    first = FakeResponse(role(id="c1") + reasoning("Let me think", id="c1"), RESET)
    second = FakeResponse(role(id="c2") + reasoning("Anew", id="c2") + content("Hello", id="c2"), finish(id="c2"), DONE)
    stream = stream_of(first, second)
    assert (await stream.run()).end is End.DONE
    assert b"Anew" not in stream.outlet.body
    assert b"c2" not in stream.outlet.body
    assert stream.outlet.body.endswith(DONE)
    assert stream.tally.replayed == 1


# ---- error --------------------------------------------------------------------------------------------------------------


async def test_an_error_before_the_head_is_a_status_with_json() -> None:
    stream = stream_of(REFUSED)
    outcome = await stream.run()
    assert stream.outlet.status == outcome.status == 502
    assert stream.error["code"] == "upstream_connect_error"
    assert (outcome.end, outcome.termination, outcome.fault) == (End.ERROR, "UC", REFUSED)


async def test_an_error_after_the_head_is_a_frame() -> None:
    stream = stream_of(FakeResponse(HELLO, RESET))
    outcome = await stream.run()
    assert (outcome.status, outcome.end, outcome.termination) == (200, End.ERROR, "UD")
    assert stream.outlet.body.startswith(HELLO)
    assert stream.error["code"] == "upstream_disconnected"
    assert DONE not in stream.outlet.body
    assert stream.attempts.verdicts == ["failure"]


async def test_an_error_after_a_bare_head_is_a_frame_too(autojump_clock: MockClock) -> None:
    stream = stream_of(FakeResponse(Wait(20.0), RESET), policy=StreamPolicy(keepalive_after=15.0))
    outcome = await stream.run()
    assert stream.outlet.writes[0] == KEEP_ALIVE
    assert (outcome.status, outcome.termination) == (200, "UH")
    assert stream.error["code"] == "upstream_disconnected"


async def test_silence_in_mid_stream(autojump_clock: MockClock) -> None:
    stream = stream_of(FakeResponse(HELLO, Silence()), idle=120.0)
    outcome = await stream.run()
    assert outcome.termination == "uD"
    assert "timers.idle = 120 s" in stream.error["message"]
    assert stream.attempts.verdicts == ["failure"]


@pytest.mark.parametrize(
    ("script", "termination", "status"),
    [((Silence(),), "PC", 504), ((FakeResponse(Silence()),), "PH", 504), ((FakeResponse(HELLO, Silence()),), "PD", 200)],
    ids=["searching", "silent", "mid-stream"],
)
async def test_the_total_deadline_ends_every_phase(
    script: tuple[Any, ...], termination: str, status: int, autojump_clock: MockClock
) -> None:
    policy = StreamPolicy(total=60.0, keepalive_after=math.inf, keepalive_interval=math.inf)
    stream = stream_of(*script, policy=policy)
    began = trio.current_time()
    outcome = await stream.run()
    assert trio.current_time() - began == pytest.approx(60.0)
    assert (outcome.end, outcome.termination, outcome.status) == (End.ERROR, termination, status)
    assert stream.error["code"] == "stream_too_long"
    assert stream.attempts.verdicts in ([], ["excluded"])


# ---- the client leaves --------------------------------------------------------------------------------------------------

PHASES: dict[str, tuple[Callable[[], list[Any]], str, int]] = {
    "searching": (lambda: [Silence()], "CC", 0),
    "after a failed try": (lambda: [REFUSED, Silence()], "CC", 0),
    "before the first frame": (lambda: [FakeResponse(Silence())], "CH", 0),
    "after the role": (lambda: [FakeResponse(role(), Silence())], "CH", 200),
    "mid-stream": (lambda: [FakeResponse(HELLO, Silence())], "CD", 200),
    "something held": (lambda: [FakeResponse(HELLO, content("Hello"), Silence())], "CD", 200),
}


@pytest.mark.parametrize(("script", "termination", "status"), PHASES.values(), ids=PHASES)
async def test_the_client_leaves_in_every_phase(script: Callable[[], list[Any]], termination: str, status: int) -> None:
    stream = stream_of(*script())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run)
        await wait_all_tasks_blocked()
        stream.processor.client_left()
        stream.processor.client_left()  # twice is once
    outcome = stream.ended
    assert (outcome.end, outcome.party, outcome.termination, outcome.status) == (End.CANCELLED, Party.CLIENT, termination, status)
    assert outcome.fault is None
    assert outcome.cancel_latency is None or 0 <= outcome.cancel_latency < 1.0
    assert (outcome.cancel_latency is None) == (not stream.attempts.permits)
    assert stream.attempts.verdicts in ([], ["given back"])


async def test_the_client_leaves_while_it_takes_nothing() -> None:
    stream = stream_of(FakeResponse(*[content(f"{number}") for number in range(50)], Silence()), outlet=FakeOutlet(room=1000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run)
        await wait_all_tasks_blocked()
        stream.processor.client_left()
    assert stream.ended.termination == "CD"


async def test_a_client_that_leaves_after_the_end_has_had_its_answer() -> None:
    stream = stream_of(FakeResponse(HELLO, finish() + DONE, Silence()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run)
        await wait_all_tasks_blocked()  # the reader still waits for the end of the body
        assert stream.outlet.finished
        stream.processor.client_left()
    assert (stream.ended.end, stream.ended.termination) == (End.DONE, "--")
    stream.processor.client_left()
    assert stream.processor.outcome().end is End.DONE


async def test_a_write_finds_the_client_gone() -> None:
    stream = stream_of(FakeResponse(HELLO, content(" world"), Silence()), outlet=FakeOutlet(gone_after=len(HELLO)))
    outcome = await stream.run()
    assert (outcome.end, outcome.termination) == (End.CANCELLED, "CD")
    assert stream.attempts.verdicts == ["given back"]


async def test_a_client_that_takes_nothing_is_given_up(autojump_clock: MockClock) -> None:
    stream = stream_of(FakeResponse(HELLO, content(" world"), Silence()), outlet=FakeOutlet(room=len(HELLO), stall=30.0))
    outcome = await stream.run()
    assert (outcome.end, outcome.termination) == (End.CANCELLED, "cD")
    assert stream.attempts.verdicts == ["given back"]


async def test_a_slow_client_holds_the_upstream_back_and_gets_everything(autojump_clock: MockClock) -> None:
    words = [content(f"{number} ") for number in range(200)]
    response = FakeResponse(*words, finish() + DONE)
    stream = stream_of(response, outlet=FakeOutlet(room=len(words[0]) * 3), idle=10.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run)
        await trio.sleep(100.0)  # far beyond idle: the upstream is not to blame
        assert len(response._steps) > 180
        stream.outlet.read_on()
    assert stream.ended.end is End.DONE
    assert stream.outlet.body == b"".join(words) + finish() + DONE


@pytest.mark.parametrize("steps", range(0, 70, 3))
@pytest.mark.parametrize("from_outside", [False, True], ids=["client", "outside"])
async def test_leaving_at_any_moment_is_never_an_error(steps: int, from_outside: bool, caplog: pytest.LogCaptureFixture) -> None:
    """All stages are busy; the cancellation falls between any two of their steps."""
    words = [content(f"{number} ") for number in range(6)]
    for _ in range(5):  # trio shuffles the order in which tasks run
        stream = stream_of(REFUSED, FakeResponse(*words, finish(), DONE))
        with trio.CancelScope() as outside:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.run)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                if from_outside:
                    outside.cancel()
                else:
                    stream.processor.client_left()
        outcome = stream.outcome or stream.processor.outcome()
        assert outcome.end is (End.DONE if stream.outlet.finished else End.CANCELLED)
        assert outcome.fault is None
        assert stream.attempts.all_given_back()
        assert stream.outlet.finished != stream.outlet.aborted
    assert not caplog.records


# ---- cancelled from outside ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("script", "termination", "status"), PHASES.values(), ids=PHASES)
async def test_it_is_cancelled_from_outside(script: Callable[[], list[Any]], termination: str, status: int) -> None:
    stream = stream_of(*script())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert stream.outcome is None  # it was cancelled: that goes on, and whoever wants the outcome asks for it
    outcome = stream.processor.outcome()
    assert (outcome.end, outcome.termination, outcome.status) == (End.CANCELLED, "P" + termination[1], status)
    assert outcome.cancel_latency is None
    assert stream.outlet.aborted
    assert stream.attempts.all_given_back()


# ---- a bug --------------------------------------------------------------------------------------------------------------


def broken_buffer(_: str) -> SmartBuffer:
    raise RuntimeError("a bug in the machine")


async def test_a_crash_before_the_head_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    for script, options in (
        ((RuntimeError("a bug in the reader"),), {}),
        ((FakeResponse(HELLO),), {"open_buffer": broken_buffer}),
    ):
        stream = stream_of(*script, **options)
        outcome = await stream.run()
        assert (outcome.end, outcome.party, outcome.status) == (End.ERROR, Party.PROXY, 500)
        assert stream.error["code"] == "internal_error"
        assert "a bug" not in stream.error["message"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "a bug in the reader" in caplog.text


async def test_a_crash_after_the_head_is_a_frame_and_ends_only_its_own_stream(caplog: pytest.LogCaptureFixture) -> None:
    crash, gate = Gate(), Gate()
    broken = stream_of(FakeResponse(HELLO, crash, ValueError("a bug in the client")))
    sound = stream_of(FakeResponse(HELLO, gate, finish(), DONE))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sound.run)
        nursery.start_soon(broken.run)
        await wait_all_tasks_blocked()
        crash.opened.set()
        await wait_all_tasks_blocked()
        assert (broken.ended.end, broken.ended.termination) == (End.ERROR, "PD")
        gate.opened.set()
    assert broken.outlet.body.startswith(HELLO)
    assert broken.error["code"] == "internal_error"
    assert DONE not in broken.outlet.body
    assert sound.ended.end is End.DONE
    assert len(caplog.records) == 1


async def test_a_crash_inside_a_write_leaves_no_frame_boundary_to_say_it_at(caplog: pytest.LogCaptureFixture) -> None:
    stream = stream_of(FakeResponse(HELLO, Silence()), outlet=FakeOutlet(crash=RuntimeError("a bug in the outlet")))
    outcome = await stream.run()
    assert outcome.end is End.ERROR
    assert (stream.outlet.body, stream.outlet.aborted) == (b"", True)
    assert len(caplog.records) == 1


async def test_a_client_that_is_gone_need_not_be_told_of_a_crash(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    stream = stream_of(FakeResponse(HELLO, gate, ValueError("a bug")), outlet=FakeOutlet(gone_after=len(HELLO)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run)
        await wait_all_tasks_blocked()
        gate.opened.set()
    outcome = stream.ended
    assert (outcome.end, outcome.party, outcome.phase) == (End.ERROR, Party.PROXY, Phase.DATA)
    assert stream.outlet.aborted


# ---- the upstream after the end -----------------------------------------------------------------------------------------


async def test_the_client_is_finished_before_the_upstream_is(autojump_clock: MockClock) -> None:
    response = FakeResponse(HELLO, finish() + DONE, Silence())
    stream = stream_of(response)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run)
        await wait_all_tasks_blocked()
        assert stream.outlet.finished
        assert not response.closed
        await trio.sleep(DRAIN_SECONDS + 0.01)
        assert response.closed


@pytest.mark.parametrize("error", [UpstreamDisconnected("reset"), UpstreamError("other")])
async def test_an_upstream_that_breaks_after_done_is_none_of_the_clients_business(error: UpstreamError) -> None:
    stream = stream_of(FakeResponse(HELLO, finish() + DONE, error))
    assert (await stream.run()).end is End.DONE
    assert stream.attempts.verdicts == ["success"]

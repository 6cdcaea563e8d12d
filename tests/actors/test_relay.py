"""RelayProcessor: bytes through, and a client that may leave at any moment."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors import End, Fault, FaultKind, Outcome, Party, RelayProcessor, ResponseHeaders, Tally, Timers
from actors.errors import UpstreamDisconnected

from ..fakes import FakeAttempts, FakeOutlet, FakeResponse, Gate, Silence, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSED = Fault(FaultKind.CONNECT, "upstream 'a': refused", upstream="a")
RESET = UpstreamDisconnected("the connection was reset")


class Relay:
    """A processor with scripted attempts."""

    def __init__(
        self, *script: Any, outlet: FakeOutlet | None = None, total: float = math.inf, idle: float = math.inf, stream: bool = True
    ) -> None:
        self.outlet = outlet or FakeOutlet()
        self.tally = Tally(started=trio.current_time())
        self.attempts = FakeAttempts(self.tally, *script, idle=idle)
        headers = ResponseHeaders("req-1", "relay")
        self.processor = RelayProcessor(self.attempts.as_attempts, headers, Timers(total=total), stream=stream, tally=self.tally)
        self.outcome: Outcome | None = None

    async def run(self) -> Outcome:
        self.outcome = await self.processor.run(self.outlet)
        assert self.attempts.all_given_back()
        assert self.outlet.finished != self.outlet.aborted
        return self.outcome

    @property
    def ended(self) -> Outcome:
        assert self.outcome is not None
        return self.outcome

    @property
    def error(self) -> str:
        return str(json.loads(self.outlet.body)["error"]["code"])


# ---- it works -----------------------------------------------------------------------------------------------------------


async def test_every_byte_goes_through_under_the_upstreams_head() -> None:
    headers = [(b"content-type", b"audio/mpeg"), (b"content-length", b"6"), (b"set-cookie", b"x=1"), (b"x-request-id", b"theirs")]
    relay = Relay(FakeResponse(b"\x00\xff\r", b"\n\n\x00", status=201, headers=headers), stream=False)
    outcome = await relay.run()
    assert relay.outlet.writes == [b"\x00\xff\r", b"\n\n\x00"]
    assert relay.outlet.status == outcome.status == 201
    assert relay.outlet.headers == {
        "content-type": "audio/mpeg",
        "content-length": "6",
        "x-evenflow-upstream-request-id": "theirs",
        "x-request-id": "req-1",
        "x-evenflow-engine": "relay",
        "x-evenflow-upstream": "a",
        "x-evenflow-attempts": "1",
    }
    assert (outcome.end, outcome.termination) == (End.DONE, "--")
    assert relay.tally.bytes_out == 6
    assert relay.attempts.verdicts == ["success"]


async def test_a_stream_is_not_to_be_collected_on_the_way() -> None:
    relay = Relay(FakeResponse(b"data: x\n\n"))
    await relay.run()
    assert relay.outlet.headers["x-accel-buffering"] == "no"


async def test_a_body_may_be_empty() -> None:
    relay = Relay(FakeResponse(status=204))
    assert (await relay.run()).end is End.DONE
    assert (relay.outlet.status, relay.outlet.body) == (204, b"")


async def test_a_failed_try_is_followed_by_the_next() -> None:
    relay = Relay(REFUSED, FakeResponse(b"answer"))
    assert (await relay.run()).end is End.DONE
    assert relay.outlet.body == b"answer"


async def test_an_answer_that_breaks_before_its_first_byte_is_asked_for_again() -> None:
    relay = Relay(FakeResponse(RESET), FakeResponse(b"answer"))
    assert (await relay.run()).end is End.DONE
    assert relay.outlet.body == b"answer"
    assert relay.attempts.verdicts == ["failure", "success"]


# ---- error --------------------------------------------------------------------------------------------------------------


async def test_an_error_before_the_head_is_a_status_with_json() -> None:
    for relay in (Relay(REFUSED), Relay(FakeResponse(RESET))):
        outcome = await relay.run()
        assert (relay.outlet.status, outcome.end, outcome.party) == (502, End.ERROR, Party.UPSTREAM)
        assert relay.error in ("upstream_connect_error", "upstream_disconnected")
        assert relay.tally.bytes_out == len(relay.outlet.body)


async def test_after_the_head_only_a_broken_connection_tells_it() -> None:
    relay = Relay(FakeResponse(b"half", RESET))
    outcome = await relay.run()
    assert (relay.outlet.body, relay.outlet.aborted) == (b"half", True)
    assert (outcome.end, outcome.termination, outcome.status) == (End.ERROR, "UD", 200)
    assert relay.attempts.verdicts == ["failure"]


@pytest.mark.parametrize(("script", "status"), [([Silence()], 504), ([b"half", Silence()], 200)], ids=["before the head", "after it"])
async def test_a_stream_may_not_be_silent_for_ever(script: list[Any], status: int, autojump_clock: MockClock) -> None:
    relay = Relay(FakeResponse(*script), idle=120.0)
    outcome = await relay.run()
    assert (outcome.end, outcome.party, outcome.status) == (End.ERROR, Party.UPSTREAM_SILENT, status)
    assert outcome.fault is not None
    assert outcome.fault.setting == "timers.idle"


async def test_each_piece_ends_a_silence(autojump_clock: MockClock) -> None:
    relay = Relay(FakeResponse(b"a", Wait(100.0), b"b", Wait(100.0), b"c", Silence()), idle=120.0)
    began = trio.current_time()
    outcome = await relay.run()
    assert outcome.party is Party.UPSTREAM_SILENT
    assert trio.current_time() - began == pytest.approx(320.0)
    assert relay.outlet.body == b"abc"


async def test_an_answer_that_is_not_streamed_may_be_silent_until_the_total(autojump_clock: MockClock) -> None:
    relay = Relay(FakeResponse(Wait(1000.0), b"answer"), idle=120.0, stream=False)
    assert (await relay.run()).end is End.DONE


@pytest.mark.parametrize(
    ("script", "termination", "status"),
    [([Silence()], "PC", 504), ([FakeResponse(Silence())], "PH", 504), ([FakeResponse(b"half", Silence())], "PD", 200)],
    ids=["searching", "silent", "mid-body"],
)
async def test_the_total_deadline_ends_every_phase(script: list[Any], termination: str, status: int, autojump_clock: MockClock) -> None:
    relay = Relay(*script, total=60.0)
    outcome = await relay.run()
    assert (outcome.end, outcome.termination, outcome.status) == (End.ERROR, termination, status)
    assert relay.attempts.verdicts in ([], ["given back"])


async def test_a_head_that_was_cut_off_by_the_total_is_not_followed_by_another(autojump_clock: MockClock) -> None:
    relay = Relay(FakeResponse(b"answer"), outlet=FakeOutlet(room=-1), total=60.0)  # the client takes not even the head
    outcome = await relay.run()
    assert (outcome.end, outcome.status) == (End.ERROR, 0)
    assert relay.outlet.aborted


# ---- the client leaves, or takes nothing ----------------------------------------------------------------------------------

PHASES: dict[str, tuple[Callable[[], list[Any]], str]] = {
    "searching": (lambda: [Silence()], "C"),
    "before the first byte": (lambda: [FakeResponse(Silence())], "H"),
    "mid-body": (lambda: [FakeResponse(b"half", Silence())], "D"),
}


@pytest.mark.parametrize(("script", "phase"), PHASES.values(), ids=PHASES)
@pytest.mark.parametrize("party", ["C", "P"], ids=["client", "outside"])
async def test_it_is_left_in_every_phase(script: Callable[[], list[Any]], phase: str, party: str) -> None:
    relay = Relay(*script())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        await wait_all_tasks_blocked()
        if party == "C":
            relay.processor.client_left()
            relay.processor.client_left()
        else:
            nursery.cancel_scope.cancel()
    outcome = relay.outcome or relay.processor.outcome()
    assert (outcome.end, outcome.termination) == (End.CANCELLED, party + phase)
    assert outcome.fault is None
    assert relay.outlet.aborted
    assert relay.attempts.all_given_back()
    assert relay.attempts.verdicts in ([], ["given back"])
    assert (outcome.cancel_latency is not None) == (party == "C" and phase != "C")


async def test_a_client_that_leaves_after_the_end_has_had_its_answer() -> None:
    relay = Relay(FakeResponse(b"answer"))
    await relay.run()
    relay.processor.client_left()
    assert relay.processor.outcome().end is End.DONE


async def test_a_write_finds_the_client_gone() -> None:
    relay = Relay(FakeResponse(b"half", b"more", Silence()), outlet=FakeOutlet(gone_after=4))
    assert (await relay.run()).termination == "CD"
    assert relay.attempts.verdicts == ["given back"]


async def test_a_client_that_takes_nothing_is_given_up(autojump_clock: MockClock) -> None:
    relay = Relay(FakeResponse(b"half", b"more", Silence()), outlet=FakeOutlet(room=4, stall=30.0))
    assert (await relay.run()).termination == "cD"
    assert relay.attempts.verdicts == ["given back"]


@pytest.mark.parametrize("steps", range(24))
async def test_leaving_at_any_moment_is_never_an_error(steps: int, caplog: pytest.LogCaptureFixture) -> None:
    relay = Relay(REFUSED, FakeResponse(b"a", b"b", b"c"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        relay.processor.client_left()
    assert relay.ended.end is (End.DONE if relay.outlet.finished else End.CANCELLED)
    assert not caplog.records


# ---- a bug --------------------------------------------------------------------------------------------------------------


async def test_a_crash_before_the_head_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    for relay in (Relay(RuntimeError("a bug")), Relay(FakeResponse(RuntimeError("a bug")))):
        outcome = await relay.run()
        assert (outcome.end, outcome.party, outcome.status, relay.error) == (End.ERROR, Party.PROXY, 500, "internal_error")
    assert len(caplog.records) == 2


async def test_a_crash_after_the_head_ends_only_its_own_answer(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    sound = Relay(FakeResponse(b"half", gate, b"whole"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sound.run)
        for broken in (
            Relay(FakeResponse(b"half", RuntimeError("a bug"))),
            Relay(FakeResponse(b"x"), outlet=FakeOutlet(crash=ValueError())),
        ):
            outcome = await broken.run()
            assert (outcome.end, outcome.party) == (End.ERROR, Party.PROXY)
            assert broken.outlet.aborted
        gate.opened.set()
    assert sound.outlet.body == b"halfwhole"
    assert len(caplog.records) == 2

"""Faults that show only over time: silence and slowness, faults that pass, connections used again, copies and their envelopes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest
import trio
import trio.testing

from server.simulator import open_simulator
from server.simulator.envelopes import STYLES

from .raw_client import Wire, ask, connect, read_to_end, read_until, request_bytes, soon
from .wire_checks import TEXT, WORDS, check_reasoning, good

if TYPE_CHECKING:
    from server.simulator import Simulator

#: Models that never end by themselves: how many events come before they are silent, None for those that go on for ever.
UNENDING: Final[dict[str, int | None]] = {
    "silence": 0,
    "role-then-silence": 1,
    "stall:3": 3,
    "endless": None,
    "comments-for-ever:3": None,
}


@pytest.mark.parametrize("spec", UNENDING)
async def test_the_end_that_only_the_client_makes(spec: str) -> None:
    events = UNENDING[spec]
    async with open_simulator(pace=0.0) as simulator:
        observer = simulator.observer
        async with await connect(simulator) as stream:
            await stream.send_all(request_bytes(f"{spec},text={TEXT}" if ":" in spec else f"{spec}:text={TEXT}"))
            if events is None:
                await soon(observer, lambda observer: observer.requests == 1 and observer.seen[0].events >= 3)
            else:
                await soon(observer, lambda observer: observer.requests == 1 and observer.seen[0].events == events)
            assert observer.active == 1
        await soon(observer, lambda observer: observer.closes == 1)
        if events is not None:
            assert observer.seen[0].events == events
            assert (observer.seen[0].began is None) is (events == 0)


@pytest.mark.parametrize(
    ("spec", "silent_after"), [("slow-headers:5", b""), ("slow-first-token:5", b"\r\n\r\n"), ("stall:3,seconds=5", b" b")]
)
async def test_slowness_is_where_it_says(spec: str, silent_after: bytes, autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with open_simulator(pace=0.0) as simulator, await connect(simulator) as stream:
        await stream.send_all(request_bytes(f"{spec},text={TEXT}"))
        before = await read_until(stream, silent_after)
        at = trio.current_time()
        first = await stream.receive_some(65_536)
        assert trio.current_time() - at == pytest.approx(5.0)
        good(WORDS)(Wire(before + first + (await read_to_end(stream)).raw, "fin"))


async def test_a_flaky_model_fails_the_first_of_each_request() -> None:
    async with open_simulator(pace=0.0) as simulator:
        told = [(await ask(simulator, "flaky:2", user=user)).status for user in "aaabbba"]
        assert told == [503, 503, 200, 503, 503, 200, 200]
        simulator.reset()
        assert (await ask(simulator, "flaky:2", user="a")).status == 503


async def test_any_fault_passes_after_some_times() -> None:
    async with open_simulator(pace=0.0) as simulator:
        assert not (await ask(simulator, "cut:after=3,times=1")).ended
        assert (await ask(simulator, "cut:after=3,times=1")).ended


async def test_reasoning_is_cut_once_and_then_replayed_whole() -> None:
    async with open_simulator(pace=0.0) as simulator:
        first, second = [await ask(simulator, f"reasoning-cut:text={TEXT}") for _ in range(2)]
        assert first.texts() == []
        assert len(first.texts("reasoning_content")) == 5
        assert not first.ended
        check_reasoning(second)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("shape", ["stutter-a1", "stutter-b1", "stutter-c1", "stutter-f1"])
async def test_a_duplicate_is_told_as_the_transport_tells_it(shape: str, style: str) -> None:
    """A copy keeps its envelope byte for byte; new text does not keep the nonce or the count."""
    async with open_simulator(pace=0.0) as simulator:
        wire = await ask(simulator, f"{shape}:envelope={style},text={TEXT}")
        events = [block for block in wire.body.split(b"\n\n") if b'"content":"' in block and b'"content":""' not in block]
        copies = len(events) - len(set(events))
        assert copies == {"stutter-a1": 0, "stutter-b1": 1, "stutter-c1": 8, "stutter-f1": 0}[shape]
        if style == "nonce":
            assert len({json.loads(event[6:])["obfuscation"] for event in events}) == len(set(events))
        if style == "dashscope":
            heads = [b'[{"finish_reason":null,"logprobs":null,"delta"' in event for event in events]
            assert heads.count(True) == {"stutter-a1": 1, "stutter-b1": 2, "stutter-c1": 2, "stutter-f1": 2}[shape]


async def _talk(simulator: Simulator, *specs: str) -> list[bytes]:
    """Several requests on one connection; b"" for one that got no answer."""
    told = []
    async with await connect(simulator) as stream:
        for spec in specs:
            await stream.send_all(request_bytes(spec, close=False))
            try:
                told.append(await read_until(stream, b"0\r\n\r\n"))
            except (AssertionError, trio.BrokenResourceError):
                told.append(b"")
                break
    return told


async def test_a_connection_is_dropped_when_it_is_used_again() -> None:
    async with open_simulator(pace=0.0) as simulator:
        first, second = await _talk(simulator, "drop-next", "ok")
        assert first
        assert not second
        assert simulator.observer.requests == 1


async def test_an_idle_connection_is_closed() -> None:
    async with open_simulator(pace=0.0) as simulator, await connect(simulator) as stream:
        await stream.send_all(request_bytes("idle-close:0.01", close=False))
        assert (await read_to_end(stream)).ended
        await soon(simulator.observer, lambda observer: observer.connections == 0)


async def test_good_answers_keep_their_connection() -> None:
    async with open_simulator(pace=0.0) as simulator:
        assert all(await _talk(simulator, "ok", "count:3", "crlf"))
        assert [seen.connection for seen in simulator.observer.seen] == [1, 1, 1]

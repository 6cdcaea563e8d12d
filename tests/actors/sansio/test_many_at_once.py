"""Thousands of choices and calls at once cost what their bytes cost: the upstream that sends them must not stop the others' streams."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Event
from actors.sansio.smart_buffer import SmartBuffer
from actors.sansio.stuttering_detector import LANES, StutteringDetector

if TYPE_CHECKING:
    from collections.abc import Callable

Blocks = list[bytes]


def block(choices: list[dict[str, Any]], **fields: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c1", **fields, "choices": choices}).encode() + b"\n\n"


def say(numbers: range, text: str = "hello ", **more: Any) -> list[dict[str, Any]]:
    return [{"index": number, "delta": {"content": f"{text}{number}"}, **more} for number in numbers]


def finish(numbers: range) -> list[dict[str, Any]]:
    return [{"index": number, "delta": {}, "finish_reason": "stop"} for number in numbers]


def call(number: int, arguments: str = '{"a":1}') -> dict[str, Any]:
    return {"index": number, "id": f"call_{number}", "function": {"name": "f", "arguments": arguments}}


def calls(*told: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": {"tool_calls": list(told)}}]


def rate(value: float) -> dict[str, Any]:
    return {"content": [{"token": "x", "logprob": value}]}


SHAPES: Final[dict[str, Callable[[int], Blocks]]] = {
    "calls in one event": lambda n: [block(calls(*map(call, range(n))))],
    "an event per call": lambda n: [block(calls(call(number))) for number in range(n)],
    "calls that each hold": lambda n: [
        block(calls({"index": number, "function": {"arguments": "{" * 8}})) for number in range(n) for _ in range(2)
    ],
    "a finish for each choice": lambda n: [block(say(range(n))), *(block(finish(range(number, number + 1))) for number in range(n))],
    "all finishes at once, twice": lambda n: [block(say(range(n))), block(finish(range(n))), block(finish(range(n)))],
    "choices that finish again and again": lambda n: [block(say(range(n), finish_reason="stop"))] * 3,
    "calls of finished choices": lambda n: [
        block([{"index": number, "delta": {"tool_calls": [call(number)]}, "finish_reason": "stop"} for number in range(n)])
    ],
    "usage after each event": lambda n: [block(say(range(n))), *[block([], usage={"completion_tokens": 5})] * n],
    "texts that come twice": lambda n: [block(say(range(n)))] * 2,
    "with log-probabilities": lambda n: [
        block(say(range(n), text, logprobs=rate(value))) for text, value in (("a", -1.234567), ("b", -2.345678), ("b", -2.345678))
    ],
    "with a nonce": lambda n: [
        block(say(range(n), text), obfuscation=nonce) for text, nonce in (("a", "k1Q"), ("b", "x9R"), ("b", "x9R"), ("c", "t5W"))
    ],
    "with a counter": lambda n: [
        block(say(range(n), text), usage={"completion_tokens": count}) for text, count in (("a", 1), ("b", 2), ("b", 2), ("c", 3), ("d", 4))
    ],
    "after two events that take turns": lambda n: [
        block(say(range(0, n, 2), logprobs=rate(-0.5))),
        block(say(range(1, n, 2), logprobs=rate(-0.5))),
        block(say(range(n), logprobs=rate(-0.5))),
    ],
    "each after the event of all": lambda n: [block(say(range(n))), *(block(say(range(number, number + 1))) for number in range(n))],
    "fragments of one call that are dropped": lambda n: [block(calls(*[{"index": 0, "function": {"arguments": "{}"}}] * n))],
    "fragments that name their call again": lambda n: [block(calls(*[call(0)] * n))] * 2,
    "told again under a new id": lambda n: [
        *[block(say(range(n), text)) for text in "abcde"],
        *[block(say(range(n), text), id="c2") for text in "abxyz"],
    ],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_time_is_linear_in_what_comes_at_once(shape: str) -> None:
    """Eight times as much may cost up to 32 times as much; what looks at all for each would need 64 times."""

    def seconds(size: int) -> float:
        blocks = SHAPES[shape](size)
        best = float("inf")
        for _ in range(3):
            parser, buffer = ChunkParser(), SmartBuffer(StutteringDetector())
            events = [event for raw in blocks for event in parser.feed(raw) if isinstance(event, Event)]
            assert len(events) == len(blocks)
            start = time.process_time()
            for place, event in enumerate(events):
                buffer.add(event, 0.001 * place)
            buffer.flush(1.0)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(800) < 32 * max(seconds(100), 0.0003)


def sent(blocks: Blocks) -> list[bytes]:
    """What leaves, in order; "" for what was repaired away."""
    parser, buffer = ChunkParser(), SmartBuffer(StutteringDetector())
    events = [event for raw in blocks for event in parser.feed(raw) if isinstance(event, Event)]
    released = [one for place, event in enumerate(events) for one in buffer.add(event, 0.02 * place)] + buffer.flush(9.0)
    return [one.frame for one in released]


def test_a_choice_that_only_finished_may_speak() -> None:
    blocks = [block(finish(range(2))), block(say(range(1)))]
    assert sent(blocks) == blocks


@pytest.mark.parametrize(("others", "repaired"), [(LANES - 1, True), (LANES, False)])
def test_so_many_lanes_are_watched_and_no_more(others: int, repaired: bool) -> None:
    words = ["The quick brown fox jumps over the dog"[:end] for end in (9, 19, 30, 38)]
    snapshots = [block([{"index": others, "delta": {"content": word}}]) for word in words]
    blocks = [block(say(range(others))), *snapshots]
    assert (sent(blocks) != blocks) == repaired


def test_calls_that_have_ended_make_room() -> None:
    """Gemini gives each call the same index."""
    blocks = [block([{"index": 0, "delta": {"tool_calls": [call(number) | {"index": 0}]}}]) for number in range(LANES + 2)]
    again = block(calls({"index": 0, "function": {"arguments": '{"a":1}'}}))
    assert sent([*blocks, again])[:-1] == blocks
    assert sent([*blocks, again])[-1] != again

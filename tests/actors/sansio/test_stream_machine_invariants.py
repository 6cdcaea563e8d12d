"""What is true of every stream, whatever an upstream sends: see also the assertions in machine_script.py."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as hs

from actors import Complete, Fault, StreamPolicy
from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Done, Event
from actors.sansio.effects import Effects

from ...fakes import DONE, choice, content, event, finish, reasoning, role
from .machine_script import CUT, Stream

WORDS = ["Hel", "Hello", "Hello wor", "Hello world", " and", " so", "x", "7", "\u00e9\u6f22"]
BLOCKS = hs.one_of(
    hs.builds(content, hs.sampled_from(WORDS), id=hs.sampled_from(["c1", "c2", ""])),
    hs.builds(reasoning, hs.sampled_from(WORDS), id=hs.sampled_from(["c1", "c2", ""])),
    hs.builds(finish, hs.sampled_from(["stop", "length"]), hs.integers(0, 1)),
    hs.builds(lambda index, text: event(choice(index, content=text)), hs.integers(0, 1), hs.sampled_from(WORDS)),
    hs.builds(
        lambda index, text: event(choice(tool_calls=[{"index": index, "function": {"arguments": text}}])),
        hs.integers(0, 1),
        hs.sampled_from(WORDS),
    ),
    hs.sampled_from(
        [
            role(),
            DONE,
            b": ping\n\n",
            b"data: ping\n\n",
            b"event: x\n\n",
            b'data: {"choices":[{"delta"\n\n',
            b'data: {"type":"unknown"}\n\n',
            b'data: {"choices":[null,{"delta":null}]}\n\n',
            b'data: {"error":{"message":"no","code":500}}\n\n',
            event(usage={"completion_tokens": 3}),
        ]
    ),
)
WAITS = hs.sampled_from([0.0, 0.01, 0.3, 0.5, 3.0, 20.0])
ATTEMPTS = hs.tuples(
    hs.booleans(),  # whether the try opens at all
    hs.lists(hs.tuples(WAITS, hs.lists(BLOCKS, min_size=1, max_size=4)), max_size=8),
    hs.sampled_from([None, CUT]),
)
POLICIES = hs.builds(
    StreamPolicy,
    choices=hs.sampled_from([1, 2]),
    replay_reasoning=hs.booleans(),
    skip_bad_chunks=hs.booleans(),
    keepalive_after=hs.sampled_from([2.0, math.inf]),
    keepalive_interval=hs.sampled_from([2.0, math.inf]),
    total=hs.sampled_from([40.0, math.inf]),
)


def texts_of(data: bytes) -> list[str]:
    """The texts of every delta, in order."""
    return [delta.text for chunk in ChunkParser().feed(data) if isinstance(chunk, Event) for delta in chunk.deltas]


@given(POLICIES, hs.lists(ATTEMPTS, min_size=1, max_size=3), hs.sampled_from([5.0, math.inf]))
def test_whatever_comes_the_stream_ends_once_and_properly(policy: StreamPolicy, attempts: list[Any], idle: float) -> None:
    """Stream asserts the rest: nothing after the end, whole events only, one order per attempt, [DONE] exactly if it is done."""
    stream = Stream(policy)
    now = 0.0
    for opens, reads, ending in attempts:
        if stream.end is not None:
            break
        if not opens:
            stream.failed(now=now)
            continue
        stream.start(now, idle=idle)
        orders = len(stream.orders)
        for wait, blocks in reads:
            now += wait
            while stream.machine.deadline <= now:
                stream.wake(stream.machine.deadline)
            stream.data(*blocks, now=now)
        stream.over(ending, now)
        assert stream.machine.ended or len(stream.orders) == orders + 1, "an attempt without its order"
    stream.exhausted(now=now)
    assert stream.machine.ended
    assert stream.start() == stream.data(content("late")) == stream.over() == stream.wake(now + 1e6) == Effects()


@given(hs.lists(hs.sampled_from(WORDS), min_size=1, max_size=12), hs.sampled_from([None, CUT]), WAITS)
def test_no_text_of_the_first_attempt_is_lost(words: list[str], ending: Fault | None, wait: float) -> None:
    """A repair may take away what was said before, and nothing else: what the client has is what an honest reading leaves."""
    stream = Stream()
    stream.start()
    for number, word in enumerate(words):
        while stream.machine.deadline <= number * wait:
            stream.wake(stream.machine.deadline)
        stream.data(content(word), now=number * wait)
    stream.over(ending, now=len(words) * wait)
    if not stream.tally.repairs:
        assert texts_of(stream.written) == words
    else:
        came, kept = "".join(words), "".join(texts_of(stream.written))
        rest = iter(came)
        assert all(character in rest for character in kept)  # in order, nothing invented
        assert kept.endswith(words[-1][-1])


@given(hs.lists(BLOCKS, max_size=12))
def test_what_needs_no_repair_leaves_byte_for_byte_and_in_order(blocks: list[bytes]) -> None:
    stream = Stream(StreamPolicy(skip_bad_chunks=True))
    stream.start()
    stream.data(*blocks)
    stream.data(DONE)
    if isinstance(stream.end, Complete) and not stream.tally.repairs:
        parsed = ChunkParser().feed(b"".join((*blocks, DONE)))
        first = next(number for number, chunk in enumerate(parsed) if isinstance(chunk, Done))
        passed = [chunk.raw for chunk in parsed[: first + 1] if isinstance(chunk, Event | Done)]
        assert [chunk.raw for chunk in ChunkParser().feed(stream.written) if isinstance(chunk, Event | Done)] == passed

"""The parser's task: bytes of one attempt become chunks, everything else passes in its place."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors import Fault, FaultKind
from actors.parser import parse_chunks
from actors.reader import RawItem
from actors.sansio.chunks import AttemptEnded, AttemptFailed, AttemptsExhausted, AttemptStarted, Done, Event, Malformed
from actors.sansio.stream_machine import Item

from ..fakes import DONE, content

CUT = Fault(FaultKind.DISCONNECTED, "reset")
START = AttemptStarted(1, "a", (), math.inf)


async def parsed(*items: RawItem, max_event: int = 1 << 20) -> list[Item]:
    to_parser, raw = trio.open_memory_channel[RawItem](math.inf)
    chunks, from_parser = trio.open_memory_channel[Item](math.inf)
    for item in items:
        to_parser.send_nowait(item)
    to_parser.close()
    await parse_chunks(max_event, raw, chunks)
    return [item async for item in from_parser]  # ends: the parser has closed its end


async def test_one_read_becomes_one_batch_in_its_place() -> None:
    failed = AttemptFailed(0, CUT)
    items = await parsed(failed, START, content("a") + content("b"), content("c"), AttemptEnded(1, None))
    first, start, batch, last, end = items
    assert (first, start, end) == (failed, START, AttemptEnded(1, None))
    assert isinstance(batch, list)
    assert isinstance(last, list)
    assert [chunk.raw for chunk in (*batch, *last)] == [content("a"), content("b"), content("c")]


async def test_bytes_that_complete_nothing_send_nothing() -> None:
    items = await parsed(START, content("a")[:30], content("a")[30:])
    assert len(items) == 2


async def test_a_clean_end_completes_the_last_event_and_a_cut_drops_it() -> None:
    whole = await parsed(START, b"data: [DONE]", AttemptEnded(1, None))
    assert isinstance(whole[1], list)
    assert isinstance(whole[1][0], Done)
    assert await parsed(START, b"data: [DONE]", AttemptEnded(1, CUT)) == [START, AttemptEnded(1, CUT)]


async def test_each_attempt_starts_afresh() -> None:
    again = AttemptStarted(2, "b", (), math.inf)
    items = await parsed(START, content("torn")[:40], AttemptEnded(1, CUT), again, content("whole"))
    assert items[:3] == [START, AttemptEnded(1, CUT), again]
    assert isinstance(items[3], list)
    (event,) = items[3]
    assert isinstance(event, Event)
    assert event.raw == content("whole")


async def test_an_event_beyond_the_limit_is_reported() -> None:
    items = await parsed(START, content("x" * 500), max_event=100)
    assert isinstance(items[1], list)
    assert isinstance(items[1][0], Malformed)


async def test_its_input_closes() -> None:
    assert await parsed() == []
    assert await parsed(AttemptsExhausted(CUT)) == [AttemptsExhausted(CUT)]


async def test_its_consumer_leaves() -> None:
    to_parser, raw = trio.open_memory_channel[RawItem](1)
    chunks, from_parser = trio.open_memory_channel[Item](0)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            with pytest.raises(trio.BrokenResourceError):  # a bug in the consumer, or cancellation: no ordinary end
                await parse_chunks(100, raw, chunks)

        await to_parser.send(DONE)
        await wait_all_tasks_blocked()
        from_parser.close()
    with pytest.raises(trio.BrokenResourceError):
        to_parser.send_nowait(DONE)


async def test_it_is_cancelled_while_nobody_takes_what_it_has() -> None:
    to_parser, raw = trio.open_memory_channel[RawItem](1)
    chunks, from_parser = trio.open_memory_channel[Item](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parse_chunks, 100, raw, chunks)
        await to_parser.send(DONE)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with pytest.raises(trio.EndOfChannel):
        from_parser.receive_nowait()
    with pytest.raises(trio.BrokenResourceError):
        to_parser.send_nowait(DONE)

"""The parser: bytes of one attempt become chunks, everything else passes in its place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors import Fault, FaultKind
from actors.parser import Parser
from actors.sansio.chunks import AttemptEnded, AttemptFailed, AttemptsExhausted, AttemptStarted, Done, Event, Malformed
from actors.sansio.stream_machine import Item

from ..fakes import DONE, ChannelOutbox, content

if TYPE_CHECKING:
    from actors.reader import RawItem

CUT = Fault(FaultKind.DISCONNECTED, "reset")
START = AttemptStarted(1, "a", (), math.inf)


async def parsed(*items: RawItem, max_event: int = 1 << 20) -> list[Item]:
    chunks, from_parser = trio.open_memory_channel[Item](math.inf)
    parser = Parser(max_event, ChannelOutbox(chunks))
    for item in items:
        assert parser.put(item)
    chunks.close()
    return [item async for item in from_parser]


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


async def test_what_is_no_chunk_passes() -> None:
    assert await parsed() == []
    assert await parsed(AttemptsExhausted(CUT)) == [AttemptsExhausted(CUT)]


async def test_a_bug_in_the_next_stage_is_the_senders() -> None:
    chunks, from_parser = trio.open_memory_channel[Item](0)
    from_parser.close()
    with pytest.raises(trio.BrokenResourceError):
        Parser(100, ChannelOutbox(chunks)).put(DONE)


async def test_it_tells_that_the_next_stage_has_no_room_and_loses_nothing_when_the_wait_is_cancelled() -> None:
    chunks, from_parser = trio.open_memory_channel[Item](0)
    parser = Parser(1000, ChannelOutbox(chunks))
    assert not parser.put(content("a") + content("b")[:30])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parser.room)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not parser.put(content("b")[30:])
    taken: list[bytes] = []
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parser.room)
            for _ in range(2):
                batch = await from_parser.receive()
                assert isinstance(batch, list)
                taken += [chunk.raw for chunk in batch]
    assert taken == [content("a"), content("b")]

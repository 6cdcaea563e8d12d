"""The parser: drives a ChunkParser, a fresh one per attempt.

It has no reason of its own to wait; being sans-io the parser could be folded into the reader. It is a task so that parsing one
read overlaps with waiting for the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .sansio.chunk_parser import ChunkParser
from .sansio.chunks import AttemptEnded, AttemptStarted

if TYPE_CHECKING:
    from trio import MemoryReceiveChannel, MemorySendChannel

    from .reader import RawItem
    from .sansio.stream_machine import Item


async def parse_chunks(max_event: int, inbox: MemoryReceiveChannel[RawItem], outbox: MemorySendChannel[Item]) -> None:
    """Turn the bytes of each attempt into batches of chunks, one batch per network read; pass everything else on.

    Args:
      max_event: bytes; a larger event is reported as Malformed(oversize).

    Closing: closes both channels when its input ends. Cancellation: at any point.
    """
    with inbox, outbox:
        parser = ChunkParser(max_event)
        async for item in inbox:
            if isinstance(item, bytes):
                if chunks := parser.feed(item):
                    await outbox.send(chunks)
                continue
            if isinstance(item, AttemptStarted):
                parser = ChunkParser(max_event)
            elif isinstance(item, AttemptEnded) and (chunks := parser.close(clean=item.fault is None)):
                await outbox.send(chunks)
            await outbox.send(item)

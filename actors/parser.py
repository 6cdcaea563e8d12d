"""The parser: drives a ChunkParser, a fresh one per attempt.

It has no reason of its own to wait, so it has no task: it runs in that of whoever sends it something, which is the reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .sansio.chunk_parser import ChunkParser
from .sansio.chunks import AttemptEnded, AttemptStarted

if TYPE_CHECKING:
    from .outbox import Outbox
    from .reader import RawItem
    from .sansio.stream_machine import Item


class Parser:
    """Turns the bytes of each attempt into batches of chunks, one batch per network read; passes everything else on. An Outbox.

    Args:
      max_event: bytes; a larger event is reported as Malformed(oversize).
      outbox: the next stage.
    """

    def __init__(self, max_event: int, outbox: Outbox[Item]) -> None:
        self._max_event = max_event
        self._outbox = outbox
        self._parser = ChunkParser(max_event)

    async def send(self, item: RawItem) -> None:
        if type(item) is bytes:
            if chunks := self._parser.feed(item):
                await self._outbox.send(chunks)
            return
        if isinstance(item, AttemptStarted):
            self._parser = ChunkParser(self._max_event)
        elif isinstance(item, AttemptEnded) and (chunks := self._parser.close(clean=item.fault is None)):
            await self._outbox.send(chunks)
        assert not isinstance(item, bytes)
        await self._outbox.send(item)

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
        self._parser: ChunkParser | None = None  # of the attempt, made for its first bytes

    def put(self, item: RawItem) -> bool:
        if type(item) is bytes:
            parser = self._parser
            if parser is None:
                parser = self._parser = ChunkParser(self._max_event)
            chunks = parser.feed(item)
            return self._outbox.put(chunks) if chunks else True
        if isinstance(item, AttemptStarted):
            self._parser = None
        elif isinstance(item, AttemptEnded) and self._parser is not None and (chunks := self._parser.close(clean=item.fault is None)):
            self._outbox.put(chunks)  # whether it has room is told again below
        assert not isinstance(item, bytes)
        return self._outbox.put(item)

    async def room(self) -> None:
        await self._outbox.room()

"""What one streamed answer tells of its server's habits.

Takes the bytes as they came, with their times, and runs them through the parts that a client's stream runs through: the parser and the
stutter detector. Owns no words: what a habit means for the operator is findings.py's business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from actors import SmartBuffer, StutteringDetector
from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Comment, Done, Event, Field, InBandError, Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.sansio.chunks import Chunk
    from actors.sansio.smart_buffer import Released

_REASONING = frozenset({Field.REASONING, Field.REASONING_CONTENT})


@dataclass(slots=True)
class Habits:
    """One answer, judged.

    Args:
      status: HTTP status.
      content_type, encoding: of the response, "" without one; identity was asked for.
      first_token, last_token: seconds from the request to the first and the last text; inf if none came.
      reads: network reads that brought text; one for many events means that somebody collects them.
      text_events: events that brought text, `counted` those of them that told the tokens so far.
      completion_tokens: the last count that was told.
      ids: different ids of events.
      comments: blocks that are no event; keep-alives as a rule.
      error: of an error object inside the stream.
      repairs: what the stutter detector removed, by shape.
      text: of the first choice, repaired; `reasoning` how many characters came before or beside it.
      complete: the body ended as HTTP says it should.
    """

    status: int
    content_type: str = ""
    encoding: str = ""
    first_token: float = math.inf
    last_token: float = math.inf
    reads: int = 0
    text_events: int = 0
    counted: int = 0
    completion_tokens: int | None = None
    ids: set[str] = field(default_factory=set)
    comments: int = 0
    carriage_returns: bool = False
    malformed: str = ""
    error: str = ""
    done: bool = False
    finished: bool = False
    repairs: dict[str, int] = field(default_factory=dict)
    text: str = ""
    reasoning: int = 0
    complete: bool = False


class Observation:
    """Reads one answer whose status was 200.

    Args:
      content_type, encoding: as in `Habits`.
    """

    def __init__(self, content_type: str = "", encoding: str = "") -> None:
        self.habits = Habits(200, content_type, encoding)
        self._parser = ChunkParser()
        self._buffer = SmartBuffer(StutteringDetector())

    def feed(self, data: bytes, seconds: float) -> None:
        """Take one network read, so many seconds after the request was sent."""
        habits = self.habits
        habits.carriage_returns |= b"\r" in data
        before = habits.text_events
        self._take(self._parser.feed(data), seconds)
        if habits.text_events > before:
            habits.reads += 1
            habits.first_token = min(habits.first_token, seconds)
            habits.last_token = seconds

    def close(self, seconds: float, *, clean: bool) -> Habits:
        """The body is over; `clean` if it ended as HTTP says it should."""
        self._take(self._parser.close(clean=clean), seconds)
        self._keep(self._buffer.flush(seconds))
        self.habits.repairs = dict(self._buffer.repairs)
        self.habits.complete = clean
        return self.habits

    def _take(self, chunks: list[Chunk], seconds: float) -> None:
        habits = self.habits
        for chunk in chunks:
            match chunk:
                case Event():
                    if chunk.id:
                        habits.ids.add(chunk.id)
                    if chunk.completion_tokens is not None:
                        habits.completion_tokens = chunk.completion_tokens
                    if any(delta.text for delta in chunk.deltas):
                        habits.text_events += 1
                        habits.counted += chunk.completion_tokens is not None
                    habits.finished |= bool(chunk.finished)
                    self._keep(self._buffer.expire(seconds))
                    self._keep(self._buffer.add(chunk, seconds))
                case Comment(raw=raw):
                    habits.comments += bool(raw.strip())
                case Done():
                    habits.done = True
                case InBandError():
                    habits.error = chunk.message or chunk.code or chunk.type or "no text"
                case Malformed():
                    habits.malformed = chunk.reason

    def _keep(self, released: Iterable[Released]) -> None:
        """Gather the text that a client would have got."""
        for one in released:
            if not one.frame or not isinstance(one.chunk, Event):
                continue
            events = [one.chunk] if one.frame is one.chunk.raw else ChunkParser().feed(one.frame)
            for delta in (delta for event in events if isinstance(event, Event) for delta in event.deltas):
                if delta.field in _REASONING:
                    self.habits.reasoning += len(delta.text)
                elif delta.field is Field.CONTENT and delta.choice == 0:
                    self.habits.text += delta.text

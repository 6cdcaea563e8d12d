"""Bytes in, typed chunks out: an incremental parser for streamed answers that never raises, whatever comes.

It joins two things: how the bytes are framed (sse_blocks.py) and what the JSON inside says (event_json.py). It keeps no memory of
earlier events and decides nothing about repeats.

`raw` of a chunk is its block as it came, with these exceptions: a byte order mark and overlong comments are gone; invalid UTF-8 was
replaced by U+FFFD (openai-python decodes strictly and would raise); blank lines were added where the upstream left them out; and a block
that dispatches nothing for us, but for which openai-python would try to parse empty data as JSON (a lone `id:`, `event:`, `retry:` or
empty `data:`), is reduced to its comments, possibly to nothing.
"""

from __future__ import annotations

from typing import Final

from .chunks import Chunk, Comment, Done, Event, InBandError, Malformed
from .event_form import EventForm
from .event_json import make_error, read_event, read_json
from .sse_blocks import MOST_LINES, BlockSplitter, Oversize, read_fields

#: Bytes of one event. Specified: FAULTS row 22; the largest legitimate events are images in base64.
MAX_EVENT: Final = 10 * 1024 * 1024

#: Bytes from which on an event's data is not copied out of its block. Guessed: a copy of less costs less than to do without.
_LARGE: Final = 64 * 1024
_USUAL: Final = (b"data: {", b"data:{")
_DONE: Final = b"data: [DONE]\n\n"


class ChunkParser:
    """The parser of one attempt's body.

    Args:
      max_event: most bytes of one event; a larger one becomes one `Malformed` and is skipped.
    """

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max_event = max_event
        self._small = min(_LARGE, max_event + 2)
        self._splitter = BlockSplitter(max_event)
        self._form: EventForm | None = EventForm(self._small)

    def feed(self, data: bytes) -> list[Chunk]:
        """The chunks that `data` completes, in order."""
        # The usual read is one usual block (see below) and nothing else; between two blocks the splitter would hand it back as it is.
        form, idle = self._form, self._splitter.idle
        if idle and form is not None and (event := form.read(data)) is not None:
            return [event]
        if (
            idle
            and data.startswith(_USUAL)
            and data.endswith(b"\n\n")
            and data.find(b"\n") == len(data) - 2
            and b"\r" not in data
            and len(data) < self._small
            and (data.isascii() or _is_utf8(data))
        ):
            return [self._read_usual(data)]
        chunks: list[Chunk] = []
        for block in self._splitter.feed(data):
            if isinstance(block, Oversize):
                told = f"event of more than {self._max_event} bytes or {MOST_LINES} lines"
                chunks.append(Malformed(block.head, told, may_carry_output=True, oversize=True))
            elif form is not None and (event := form.read(block)) is not None:
                chunks.append(event)
            # The usual block: one line of JSON, valid UTF-8. The first byte of the data tells it from [DONE].
            elif block.startswith(_USUAL) and block.find(b"\n") == len(block) - 2 and b"\r" not in block and _is_utf8(block):
                chunks.append(self._read_usual(block))
            elif block == _DONE:
                chunks.append(Done(block))
            elif block.startswith(b":") and block.find(b"\n") == len(block) - 2 and b"\r" not in block and _is_utf8(block):
                chunks.append(Comment(block))  # an upstream may send a hundred thousand a second
            else:
                chunks += _read_block(block)
        return chunks

    def _read_usual(self, block: bytes) -> Chunk:
        begin, form = block.find(b"{"), self._form
        chunk = read_event(block, block[begin:-2] if len(block) < _LARGE else memoryview(block)[begin:-2])
        if form is not None and isinstance(chunk, Event):
            form.learn(chunk)
            if form.given_up:
                self._form = None
        return chunk

    def close(self, clean: bool) -> list[Chunk]:
        """The chunks that the end of the body completes. Call it once, last.

        Args:
          clean: the body ended as HTTP says it should. Then an event whose blank line is missing is accepted, if it can be read: the last
            chunk and [DONE] often arrive so. After a cut such a tail is dropped, as the specification wants.
        """
        if not clean:
            return []
        chunks = [chunk for block in self._splitter.close() if isinstance(block, bytes) for chunk in _read_block(block)]
        return [chunk for chunk in chunks if isinstance(chunk, Event | Done | InBandError)]


def _is_utf8(block: bytes) -> bool:
    if block.isascii():
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_block(raw: bytes) -> list[Chunk]:
    """Reads any block. Two chunks come of one only where it holds both data and llama.cpp's `error` field."""
    if not _is_utf8(raw):
        raw = raw.decode("utf-8", "replace").encode()
    fields = read_fields(raw)
    data = fields.data
    error = _read_error_field(fields.error, raw)
    chunks: list[Chunk] = []
    if data is not None and (text := data.strip()):
        if error:  # the data goes ahead in a block of its own
            raw = b"".join(b"data: %b\n" % line for line in data.split(b"\n")) + b"\n"
        if text == b"[DONE]":
            chunks.append(Done(raw))
        elif fields.event == b"error":
            chunks.append(_read_error_event(text, raw))
        else:
            chunks.append(read_event(raw, data))
    elif not error:
        chunks.append(Comment(raw if not fields.dispatches else fields.comments and fields.comments + b"\n"))
    if error:
        chunks.append(error)
    return chunks


def _read_error_field(value: bytes | None, raw: bytes) -> InBandError | None:
    """llama.cpp reports an error as a line `error: {...}`; the same name with anything but an object or a text is an unknown field."""
    if not value:
        return None
    try:
        error = read_json(value)
    except ValueError:
        return None
    return make_error(error, raw) if error and isinstance(error, dict | str) else None


def _read_error_event(text: bytes, raw: bytes) -> InBandError:
    """`event: error` is an error whatever its data is."""
    try:
        return make_error(read_json(text), raw)
    except ValueError:
        return make_error(text.decode(), raw)

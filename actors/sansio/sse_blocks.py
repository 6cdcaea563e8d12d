"""Server-sent events, the framing alone: bytes come in as the network cuts them, whole blocks come out as they were sent.

A block is every byte up to and including the blank line that ends it. This module knows the WHATWG rules for lines, comments and
the byte order mark; it knows nothing of JSON but one fact (see *Bare lines*), and nothing of OpenAI.

Theory of operation
===================
Nearly every block is one `data:` line (or, in a flood of them, one comment) that ends in two line feeds, and it arrives whole:
`_take_whole` slices those out; a read between two blocks (`idle`) that is just one of them need not even come here. Everything else
goes through the line machine (`_take_lines`), which looks at each byte once, whatever the cuts: what is kept of an unfinished block
lies in one bytearray.

Line ends are LF, CR and CRLF, mixed at will. A CR that is the last byte of a read ends its line at once; a following LF is then part of
that line end and no line of its own. Where the line before ended in CRLF the missing LF is put in early, so that `raw` is still what was
sent.

*Comments* do not count towards the size of an event and are not part of its meaning: those of a block are kept up to `COMMENTS_KEPT`
bytes, what exceeds that is thrown away as it arrives.

*Oversize.* A block whose other lines exceed the limit, or are too many, is reported once, at once, and then skipped up to its blank line.

*Bare lines.* Some upstreams (iFlytek Spark) part their events by one line end instead of two. To the letter all their lines are one
event; but a line feed between `}` and `{` is valid nowhere in JSON, neither inside a string nor outside, so two `data:` lines that meet so
cannot be one value. They are two events. Once an upstream has shown this, each line that is a whole `{...}` or `[DONE]` ends its event at
once, else every token would wait for the next one. The missing blank line is added, because clients follow the letter.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

import msgspec

_LINE_END: Final = re.compile(rb"\r\n?|\n")
_BLANKS: Final = re.compile(rb"\s*")
_WHITE: Final = b" \t\n\r\x0b\f"
_COLON: Final = ord(":")
_LETTER_D: Final = ord("d")

#: The byte order mark, which means nothing at the start of a stream.
BOM: Final = b"\xef\xbb\xbf"
#: Bytes of comments kept per block: room for any keep-alive seen in the wild (OpenRouter sends 23), nothing to fill a memory with.
COMMENTS_KEPT: Final = 4096
#: Lines of one block, comments not counted. No server known writes a hundred; to take ten megabytes of empty lines apart takes seconds, and
#: so many, in which every other stream stands still, 20 ms (measured).
MOST_LINES: Final = 16_384
#: Bytes kept of an event that was too large; only for the log.
HEAD_KEPT: Final = 2048


class Oversize(msgspec.Struct, frozen=True, gc=False):
    """A block beyond the limit; `head` is how it began."""

    head: bytes


Block: TypeAlias = bytes | Oversize


class Fields(msgspec.Struct, frozen=True, gc=False):
    """What a block says.

    Args:
      data: the `data` lines joined by a line feed, None without any.
      event: the last `event` field.
      error: the last `error` field, which no specification knows but llama.cpp sends; None where absent.
      comments: the block's comment lines with their line ends.
      dispatches: True if some client would dispatch an event for it, data or none (openai-python does for a lone `id` line).
    """

    data: bytes | None
    event: bytes
    error: bytes | None
    comments: bytes
    dispatches: bool


def read_fields(block: bytes) -> Fields:
    """The fields of one whole block. The first colon ends a name, one blank after it belongs to the framing."""
    data: list[bytes] = []
    event, error, comments, dispatches = b"", None, b"", False
    for line in _LINE_END.split(block):
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        match name:
            case b"data":
                data.append(value)
            case b"event":
                event = value
            case b"error":
                error = value
            case b"" if line:
                comments += line + b"\n"
        dispatches = dispatches or name in (b"data", b"event", b"id", b"retry")
    return Fields(b"\n".join(data) if data else None, event, error, comments, dispatches)


def replace_data(block: bytes, data: bytes) -> bytes:
    """The same block with other data; its comments and other fields stay where they are.

    Args:
      data: may hold line feeds (each begins a new `data` line), no carriage return.
    """
    if block.startswith(b"data: ") and block.find(b"\n") == len(block) - 2 and b"\n" not in data:
        return b"data: %b\n\n" % data
    lines: list[bytes] = []
    placed = False
    for line in _LINE_END.split(block)[:-2]:  # the last two pieces are what stands before and behind the blank line's end: nothing
        if line.partition(b":")[0] != b"data":
            lines.append(line)
        elif not placed:
            placed = True
            prefix = b"data: " if line.startswith(b"data: ") else b"data:"
            lines += [prefix + piece for piece in data.split(b"\n")]
    return b"\n".join(lines) + b"\n\n"


class BlockSplitter:
    """Cuts a byte stream into blocks. Linear in time, bounded in memory, total over all bytes.

    Args:
      max_event: most bytes of a block, line ends included, comments and the blank line not.

    Attributes:
      idle: the next byte begins a block, and nothing is known of the stream for which a whole one is not just taken as it is.
    """

    def __init__(self, max_event: int) -> None:
        self._max_event = max_event
        self.idle = False
        self._start: bytes | None = b""  # what came so far of a possible byte order mark; None once that is settled
        self._busy = False  # between a block's first byte and its end
        self._block = bytearray()  # what is kept of the unfinished block
        self._line_start = 0  # where the unfinished line begins in it
        self._line_length = 0  # bytes seen of the unfinished line, kept or not
        self._lines = 0  # finished lines in the block, comments not counted
        self._comments = 0  # bytes of finished comment lines in the block
        self._skipping_line = False  # the unfinished line is a comment beyond COMMENTS_KEPT
        self._oversize = False  # the block was reported as too large
        self._crlf = False  # how the last line ended
        self._held_cr = False  # the last byte was a CR behind a line with content
        self._skip_lf = False  # the last byte was a CR that ended a block
        self._bare = False  # events are parted by single line ends
        self._skip_blank = False  # the blank line of the last event was added already
        self._value_end = 0  # where the block's last data line ended, if it may have ended a JSON value
        self._value_comments = 0  # `_comments` at that point

    def feed(self, data: bytes) -> list[Block]:
        """The blocks that `data` completes."""
        if self._start is not None:
            data = self._strip_bom(data)
        if self._held_cr and data:
            self._held_cr = False
            data = b"\r" + data
        position = 0
        if self._skip_lf and data:
            self._skip_lf = False
            position = data.startswith(b"\n")
        blocks: list[Block] = []
        plain = b"\r" not in data
        while position < len(data):
            if plain and not self._busy and not self._bare:
                position = self._take_whole(data, position, blocks)
                if position == len(data):
                    break
            position = self._take_lines(data, position, blocks)
        self.idle = not (self._busy or self._bare or self._held_cr or self._skip_lf or self._start is not None)
        return blocks

    def close(self) -> list[Block]:
        """What the end of the input leaves: the unterminated block, its line end and blank line added. Call it once, last."""
        blocks: list[Block] = []
        line_end = b"\r\n" if self._crlf else b"\n"
        if self._line_length:
            self._end_line(line_end, blocks)
        if self._block:
            self._end_block(line_end, blocks)
        return blocks

    def _strip_bom(self, data: bytes) -> bytes:
        assert self._start is not None
        data = self._start + data
        if len(data) < len(BOM) and BOM.startswith(data):
            self._start = data
            return b""
        self._start = None
        return data.removeprefix(BOM)

    def _take_whole(self, data: bytes, position: int, blocks: list[Block]) -> int:
        """Slices out whole blocks of one line that begins with a `d`, or is a comment; stops at the first that is anything else."""
        size, most = len(data), self._max_event
        while position < size and ((first := data[position]) == _LETTER_D or first == _COLON):
            end = data.find(b"\n", position)
            if end < 0 or not data.startswith(b"\n", end + 1) or end - position >= (most if first == _LETTER_D else COMMENTS_KEPT):
                break
            blocks.append(data[position : end + 2])
            position = end + 2
        return position

    def _take_lines(self, data: bytes, position: int, blocks: list[Block]) -> int:
        """Reads lines until a block is complete or the data is over."""
        start = position
        for match in _LINE_END.finditer(data, position):
            end, line_end = match.start(), match[0]
            blank = end == start and not self._line_length
            if line_end == b"\r" and match.end() == len(data):
                if not blank:
                    self._held_cr = True
                    break
                self._skip_lf = True
                line_end = b"\r\n" if self._crlf else b"\r"
            else:
                self._crlf = line_end == b"\r\n"
            if blank:
                self._end_block(line_end, blocks)
                return match.end()
            self._grow_line(data[start:end], blocks)
            self._end_line(line_end, blocks)
            start = match.end()
        self._grow_line(data[start : len(data) - self._held_cr], blocks)
        return len(data)

    def _grow_line(self, fragment: bytes, blocks: list[Block]) -> None:
        if not fragment:
            return
        self._busy = True
        self._skip_blank = False
        self._line_length += len(fragment)
        if self._oversize or self._skipping_line:
            return
        self._block += fragment
        if self._block[self._line_start] != _COLON:
            self._check_size(blocks)
        elif self._comments + len(self._block) - self._line_start > COMMENTS_KEPT:
            del self._block[self._line_start :]
            self._skipping_line = True

    def _check_size(self, blocks: list[Block]) -> None:
        if len(self._block) - self._comments > self._max_event or self._lines > MOST_LINES:
            # The head must not depend on how much of the line had arrived.
            blocks.append(Oversize(bytes(self._block[: min(HEAD_KEPT, self._comments + self._max_event)])))
            self._clear_block()
            self._oversize = self._busy = True

    def _end_line(self, line_end: bytes, blocks: list[Block]) -> None:
        self._line_length = 0
        if self._oversize or self._skipping_line:
            self._skipping_line = False
            return
        start = self._line_start
        self._block += line_end
        self._line_start = len(self._block)
        if self._block[start] == _COLON:
            self._comments += self._line_start - start
            return
        self._lines += 1
        self._check_size(blocks)
        if self._block.startswith(b"data:", start):  # of one that was too large nothing is left
            self._look_for_bare_lines(start + 5, line_end, blocks)

    def _look_for_bare_lines(self, start: int, line_end: bytes, blocks: list[Block]) -> None:
        """Args: start: where the last line's value begins. A line may have megabytes, so that only its ends are looked at in place."""
        first = _BLANKS.match(self._block, start).end()  # type: ignore[union-attr]  # it always matches
        last = len(self._block) - 1
        while last >= first and self._block[last] in _WHITE:
            last -= 1
        done = last - first == 5 and self._block.startswith(b"[DONE]", first)
        begins, ends = done or self._block.startswith(b"{", first), done or self._block.endswith(b"}", first, last + 1)
        if self._value_end and begins:
            self._bare = True
            blocks.append(bytes(self._block[: self._value_end]) + line_end)
            del self._block[: self._value_end]
            self._line_start = len(self._block)
            self._comments -= self._value_comments
            self._lines = 1
        self._value_end = len(self._block) if ends else 0
        self._value_comments = self._comments
        if self._bare and begins and ends:
            blocks.append(bytes(self._block) + line_end)
            self._clear_block()
            self._skip_blank = True

    def _end_block(self, line_end: bytes, blocks: list[Block]) -> None:
        if not (self._oversize or self._skip_blank):
            self._block += line_end
            blocks.append(bytes(self._block))
        self._skip_blank = False
        self._clear_block()
        self._oversize = False

    def _clear_block(self) -> None:
        self._block = bytearray()
        self._busy = False
        self._line_start = self._lines = self._comments = self._value_end = self._value_comments = 0

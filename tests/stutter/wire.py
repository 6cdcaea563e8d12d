"""Streams as providers write them: a list of pieces, in one of four envelopes, to real SSE bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Done, Event
from actors.sansio.smart_buffer import BufferPolicy, SmartBuffer
from actors.sansio.stuttering_detector import StutteringDetector, StutterPolicy

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

Envelope = Literal["nonce", "dashscope", "constant", "usage"]
ENVELOPES: Final[tuple[Envelope, ...]] = ("nonce", "dashscope", "constant", "usage")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@dataclass(frozen=True, slots=True)
class Piece:
    """One event of a stream before it is written.

    Args:
      text: the delta's text; "" in the role chunk and in the finish chunk.
      gap: seconds after the piece before it.
      nonce, tokens, head_order: what the envelope says, where its style has it.
      call: id and name of the tool call that this fragment tells.
    """

    text: str
    gap: float
    kind: Literal["role", "text", "finish"] = "text"
    id: str = "chatcmpl-0"
    nonce: str = ""
    tokens: int = 0
    head_order: bool = False
    field: str = "content"
    call: tuple[str, str] | None = None

    def raw(self, style: Envelope) -> bytes:
        """The SSE block."""
        delta: dict[str, Any] = {"role": "assistant", "content": ""} if self.kind == "role" else {}
        if self.field == "arguments":
            if self.kind == "text":
                call: dict[str, Any] = {"index": 0, "function": {"arguments": self.text}}
                if self.call is not None:
                    call |= {"id": self.call[0], "function": {"name": self.call[1], "arguments": self.text}}
                delta = {"tool_calls": [call]}
        elif self.kind == "text":
            delta = {self.field: self.text}
        finish = "stop" if self.kind == "finish" else None
        if style == "dashscope" and self.kind == "text" and self.head_order:
            choice: dict[str, Any] = {"finish_reason": finish, "logprobs": None, "delta": delta, "index": 0}
        elif style == "dashscope":
            choice = {"delta": delta, "finish_reason": finish, "index": 0, "logprobs": None}
        else:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        body: dict[str, Any] = {"id": self.id, "object": "chat.completion.chunk", "created": 1756618477, "model": "m", "choices": [choice]}
        if style == "nonce":
            body["obfuscation"] = self.nonce
        if style == "usage":
            body["usage"] = {"prompt_tokens": 9, "completion_tokens": self.tokens, "total_tokens": 9 + self.tokens}
        return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def draw_nonce(rng: random.Random) -> str:
    return "".join(rng.choices(_LETTERS, k=rng.randint(6, 14)))


def build(deltas: Sequence[str], rng: random.Random, *, gap: float, field: str = "content") -> list[Piece]:
    """A clean stream: role chunk, one piece per delta, finish chunk."""
    pieces, tokens = [Piece("", 0.0, "role", nonce=draw_nonce(rng), field=field)], 0
    for place, text in enumerate(deltas):
        tokens += max(1, len(text) // 4)
        pieces.append(Piece(text, gap, nonce=draw_nonce(rng), tokens=tokens, head_order=place == 0, field=field))
    pieces.append(Piece("", gap, "finish", nonce=draw_nonce(rng), tokens=tokens, field=field))
    return pieces


def text_of(pieces: Iterable[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def write(pieces: Iterable[Piece], style: Envelope) -> list[tuple[float, bytes]]:
    """Arrival times in seconds, and blocks."""
    blocks, now = [], 0.0
    for piece in pieces:
        now += piece.gap
        blocks.append((now, piece.raw(style)))
    blocks.append((now, b"data: [DONE]\n\n"))
    return blocks


@dataclass(slots=True)
class Result:
    """What a client got.

    Attributes:
      text: by lane (choice, field, call index), read from the bytes that left.
      raw: all bytes that left.
      shapes: of the events repaired.
      held: seconds that each held event waited.
      late_first: whether any lane's first event did not leave at once.
      calls: what a client that joins fragments has for the id and the name of each call.
      finishes: finishes told, of all choices.
    """

    text: dict[tuple[int, str, int], str]
    raw: bytes
    shapes: list[str]
    held: list[float]
    late_first: bool
    buffer: SmartBuffer
    calls: dict[tuple[int, int], tuple[str, str]]
    finishes: int = 0

    @property
    def only(self) -> str:
        return "".join(self.text.values())


def play(
    blocks: Iterable[tuple[float, bytes]],
    policy: StutterPolicy | None = None,
    bounds: BufferPolicy | None = None,
    buffer: SmartBuffer | None = None,
    *,
    ends: bool = True,
) -> Result:
    """Sends blocks through parser, buffer and rewriter, firing the buffer's deadline on time.

    Args:
      buffer: one that is there already; it has its own policies.
      ends: the body is over behind the last block; else more may come, and what is held stays.
    """
    parser, reader = ChunkParser(), ChunkParser()
    buffer = buffer or SmartBuffer(StutteringDetector(policy or StutterPolicy()), bounds or BufferPolicy())
    result = Result({}, b"", [], [], False, buffer, {})
    seen: set[tuple[int, str, int]] = set()
    frames: list[bytes] = []

    def leave(released: Iterable[Any]) -> None:
        for one in released:
            frames.append(one.frame)
            if one.shape:
                result.shapes.append(one.shape)
            if one.held_for > 0:
                result.held.append(one.held_for)

    now = 0.0
    for now, raw in blocks:
        while buffer.deadline <= now:
            leave(buffer.expire(buffer.deadline))
        for chunk in parser.feed(raw):
            if isinstance(chunk, Event):
                released = buffer.add(chunk, now)
                lanes = {(delta.choice, str(delta.field), delta.call_index) for delta in chunk.deltas}
                # A lane's first event may wait behind another lane's, but never for itself.
                if lanes - seen and len(released) == 0 and len(seen) == 0:
                    result.late_first = True
                seen |= lanes
                leave(released)
            elif isinstance(chunk, Done):
                leave(buffer.flush(now))
                frames.append(chunk.raw)
            else:
                leave(buffer.add_other(chunk, now))
    for chunk in parser.close(True) if ends else ():
        leave(buffer.add(chunk, now) if isinstance(chunk, Event) else buffer.flush(now))
        if not isinstance(chunk, Event):
            frames.append(chunk.raw)
    if ends:
        leave(buffer.flush(now))
    result.raw = b"".join(frames)
    parts: dict[tuple[int, str, int], list[str]] = {}
    for chunk in [*reader.feed(result.raw), *reader.close(True)]:
        if isinstance(chunk, Event):
            for delta in chunk.deltas:
                parts.setdefault((delta.choice, str(delta.field), delta.call_index), []).append(delta.text)
            for call in chunk.calls:
                known = result.calls.get((call.choice, call.index), ("", ""))
                result.calls[call.choice, call.index] = (known[0] + call.id, known[1] + call.name)
            result.finishes += len(chunk.finished)
    result.text = {lane: "".join(texts) for lane, texts in parts.items()}
    return result


def copy_of(piece: Piece, gap: float = 0.0005) -> Piece:
    """The same bytes again, as a transport duplicates them: within a millisecond."""
    return replace(piece, gap=gap)


def is_subsequence(needle: str, haystack: str) -> bool:
    rest = iter(haystack)
    return all(character in rest for character in needle)

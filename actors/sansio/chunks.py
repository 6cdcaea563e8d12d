"""What travels through a stream's pipeline: the typed chunks and the items that mark an attempt's start and end.

    bytes --(ChunkParser)--> Chunk = Event | Comment | Done | InBandError | Malformed

One chunk is one SSE block: every byte up to and including the blank line that ends it. `raw` is that block exactly as it
came, so that a chunk which needs no repair can leave byte for byte as it arrived. The parser knows JSON and the shape of
OpenAI's chunks; it keeps no memory of earlier events and decides nothing about repeats.

Everything per chunk is a frozen msgspec.Struct with gc=False: none of them can be part of a reference cycle.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import TypeAlias

import msgspec

from .faults import Fault


class Field(StrEnum):
    """The fields of a choice whose text grows from chunk to chunk."""

    CONTENT = "content"
    REASONING_CONTENT = "reasoning_content"
    REASONING = "reasoning"
    REFUSAL = "refusal"
    TEXT = "text"  # legacy /v1/completions
    FUNCTION_ARGUMENTS = "function_call.arguments"
    TOOL_ARGUMENTS = "tool_calls.arguments"


class Weight(IntEnum):
    """How much of an answer an event carries; decides what may still be thrown away when an attempt fails."""

    NOTHING = 0  # role-only or empty deltas, usage without choices
    REASONING = 1  # reasoning text only: an attempt may still be replayed
    OUTPUT = 2  # content, refusal, tool call, finish_reason, or anything we cannot judge


class Delta(msgspec.Struct, frozen=True, gc=False):
    """One non-empty string that one event adds to one lane.

    Args:
      choice: the choice's `index` (0 where it is missing).
      position: the choice's position in the event's `choices` array; with `field` (and `call_position`) it addresses the value.
      call_index: `tool_calls[].index` for tool arguments (its array position where the field is missing), else -1.
      call_position: position in the `tool_calls` array, else -1.
      call_id: the call's id when this very fragment names a non-empty one, else None.
    """

    choice: int
    field: Field
    text: str
    position: int = 0
    call_index: int = -1
    call_position: int = -1
    call_id: str | None = None


class Call(msgspec.Struct, frozen=True, gc=False):
    """What one entry of a `tool_calls` array tells of the call itself: its id, its name, or both.

    Args:
      choice, position, index, call_position: as `choice`, `position`, `call_index` and `call_position` of a Delta.
      id, name: "" where the entry has none.
      arguments: the entry's own arguments, "" where it has none.
    """

    choice: int
    position: int
    index: int
    call_position: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class Event(msgspec.Struct, frozen=True, gc=False):
    """A dispatched event whose data is JSON (or anything harmless that passes as it is).

    Args:
      raw: the block's bytes, its blank line included.
      own_data: `data`, if it is kept apart from `raw`; None for a large event of one line, of which there shall be no second copy.
      deltas: every non-empty lane string, in document order.
      choices: indexes of the choices present.
      finished: indexes of the choices that carry a non-null finish_reason.
      weight: how much of an answer it carries.
      id: the completion's id, "" where absent or empty.
      completion_tokens: `usage.completion_tokens` of this very event, None where absent.
      calls: entries of `tool_calls` that tell an id or a name, in document order.
    """

    raw: bytes
    own_data: bytes | None
    deltas: tuple[Delta, ...] = ()
    choices: tuple[int, ...] = ()
    finished: tuple[int, ...] = ()
    weight: Weight = Weight.NOTHING
    id: str = ""
    completion_tokens: int | None = None
    calls: tuple[Call, ...] = ()

    @property
    def data(self) -> bytes:
        """The event's data, `data:` lines joined by a line feed."""
        return self.own_data if self.own_data is not None else bytes(self.view)

    @property
    def view(self) -> bytes | memoryview:
        """The same without a copy, for whoever decodes it at once."""
        return self.own_data if self.own_data is not None else memoryview(self.raw)[self.raw.find(b"{") : -2]


class Comment(msgspec.Struct, frozen=True, gc=False):
    """A block that dispatches nothing: comments, stray blank lines, fields without data."""

    raw: bytes


class Done(msgspec.Struct, frozen=True, gc=False):
    """`data: [DONE]`."""

    raw: bytes


class InBandError(msgspec.Struct, frozen=True, gc=False):
    """An error object inside a stream that began with HTTP 200.

    Args:
      message: the error's own text, "" where it has none.
      type: OpenAI's `error.type`, "" where absent.
      code: `error.code` as text, "" where absent.
      status: an HTTP status if the error names one (integer code 400 to 599), else 0.
    """

    raw: bytes
    message: str
    type: str = ""
    code: str = ""
    status: int = 0


class Malformed(msgspec.Struct, frozen=True, gc=False):
    """An event no client could read, or one larger than the limit.

    Args:
      raw: what came (cut to 2 KiB).
      reason: one line for the log.
      may_carry_output: True if part of the answer may be in it, so that skipping it could lose text.
      oversize: True if the event was larger than the parser's limit.
    """

    raw: bytes
    reason: str
    may_carry_output: bool
    oversize: bool = False


Chunk: TypeAlias = Event | Comment | Done | InBandError | Malformed


class AttemptFailed(msgspec.Struct, frozen=True):
    """A try that never reached its first meaningful frame; another one follows, or `AttemptsExhausted`."""

    number: int
    fault: Fault


class AttemptStarted(msgspec.Struct, frozen=True):
    """An upstream answered: its first meaningful frame is in the bytes that follow.

    Args:
      number: counts the stream's attempts from 1.
      upstream: the upstream's configured name.
      headers: response headers for the client, already filtered.
      idle: seconds without a token after which this attempt counts as stalled (`math.inf` is off).
      resumes: "prefix" or "align": how it was asked to take up what was sent, "" if nothing was.
    """

    number: int
    upstream: str
    headers: tuple[tuple[bytes, bytes], ...]
    idle: float
    resumes: str = ""


class AttemptEnded(msgspec.Struct, frozen=True):
    """The attempt's bytes are over. `fault` is None if its HTTP body ended cleanly."""

    number: int
    fault: Fault | None


class AttemptsExhausted(msgspec.Struct, frozen=True):
    """There is no further attempt: the fault that decides what the client is told."""

    fault: Fault

"""The first bytes of an answer: is it a stream worth committing to, a whole answer, or a failure in disguise?

An upstream that says 200 has not answered yet. Servers send an error object inside a 200, a JSON body although a stream was asked for,
an HTML page of a proxy in between, or nothing at all. The sniffer reads as far as the first frame that means something and says which
it is. It keeps a copy of its own of what it read, no more than `limit` bytes and one read; the caller keeps the bytes that travel on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from .chunk_parser import ChunkParser
from .chunks import Chunk, Done, Event, InBandError, Malformed, Weight
from .classifier import classify_in_band, classify_response
from .event_json import find_error, read_json
from .faults import Fault, FaultKind
from .sse_blocks import BOM

#: Bytes read before we commit without having understood anything. Specified: DESIGN section 3.
HEAD_LIMIT: Final = 64 * 1024

#: How a body begins that is no stream of events: JSON, or a page.
_NO_STREAM: Final = (b"{", b"[", b"<")
#: How a stream of events begins, whatever its content type says.
_STREAM: Final = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")


@dataclass(frozen=True, slots=True)
class StreamHead:
    """The answer has begun: from here on the bytes go to the client.

    Args:
      sse: True for a stream of events; False for one whole JSON answer, which is relayed as it is.
      mislabelled: True if its content type says something else.
    """

    sse: bool
    mislabelled: bool = False


class HeadSniffer:
    """Judges the beginning of one attempt's body, whose status was 200.

    Args:
      content_type: as the upstream sent it, "" if it sent none.
      upstream: configured name, for the fault.
      limit: bytes after which the sniffer commits to what looks like a stream.
    """

    def __init__(self, content_type: str, upstream: str, limit: int = HEAD_LIMIT) -> None:
        self._content_type = content_type.lower()
        self._upstream = upstream
        self._limit = limit
        self._parser = ChunkParser()
        self._head = bytearray()
        self._labelled = self._content_type.partition(";")[0].strip() == "text/event-stream"
        self._no_stream: bool | None = None  # None until the first byte that is no white space
        self._saw_event = False

    def feed(self, data: bytes) -> StreamHead | Fault | None:
        """What the body is, None while that is open."""
        self._head += data
        if self._no_stream is None and (begin := self._begin()) and not BOM.startswith(begin):
            self._no_stream = begin.startswith(_NO_STREAM)
        if self._no_stream:
            return self._judge_body(complete=False) if len(self._head) > self._limit else None
        if verdict := self._judge(self._parser.feed(data)):
            return verdict
        if len(self._head) <= self._limit:
            return None
        return self._stream() if self._labelled or self._looks_like_stream() else self._bad_response()

    def close(self) -> StreamHead | Fault:
        """What the body was, now that it ended cleanly."""
        if self._no_stream:
            return self._judge_body(complete=True)
        if verdict := self._judge(self._parser.close(clean=True)):
            return verdict
        if self._looks_like_stream() or (self._labelled and not self._head.strip()):
            return self._truncated("the stream ended before it said anything")
        return self._bad_response()

    def _begin(self) -> bytes:
        return bytes(self._head[:256]).removeprefix(BOM).lstrip()

    def _looks_like_stream(self) -> bool:
        return self._saw_event or self._begin().startswith(_STREAM)

    def _judge(self, chunks: list[Chunk]) -> StreamHead | Fault | None:
        for chunk in chunks:
            match chunk:
                case Event(weight=weight):
                    self._saw_event = True
                    if weight is not Weight.NOTHING:
                        return self._stream()
                case InBandError():
                    return classify_in_band(chunk, self._upstream)
                case Done():
                    return self._stream() if self._saw_event else self._truncated("empty answer: [DONE] came first")
                case Malformed(may_carry_output=True):
                    return self._stream()  # what follows from a torn chunk is decided where all of them are seen
                case _:
                    pass  # a comment, or a frame that carries nothing
        return None

    def _judge_body(self, *, complete: bool) -> StreamHead | Fault:
        body = bytes(self._head)
        if not complete:
            # A whole answer longer than the limit cannot be judged by its end; an error never has choices.
            return StreamHead(sse=False, mislabelled=self._labelled) if b'"choices"' in body else self._bad_response()
        try:
            value = read_json(body.removeprefix(BOM))
        except ValueError:
            return self._bad_response()
        if error := find_error(value, b""):
            return classify_in_band(error, self._upstream)
        choices = value.get("choices") if isinstance(value, dict) else None
        if isinstance(choices, list) and any(_is_answer(choice) for choice in choices):
            return StreamHead(sse=False, mislabelled=self._labelled)
        return self._bad_response()

    def _stream(self) -> StreamHead:
        return StreamHead(sse=True, mislabelled=not self._labelled)

    def _truncated(self, text: str) -> Fault:
        return Fault(FaultKind.TRUNCATED, f"upstream '{self._upstream}': {text}", upstream=self._upstream)

    def _bad_response(self) -> Fault:
        # The text is drawn from the body as from that of any other bad answer: at most 200 characters, no tags, no control characters.
        body = bytes(self._head[: self._limit])
        fault = classify_response(200, {"content-type": self._content_type}, body, self._upstream, now_wall=0.0)
        note = "" if body.strip() else " with an empty body"
        return replace(fault, kind=FaultKind.BAD_RESPONSE, message=fault.message + note, status=0, upstream_code="", body=None)


def _is_answer(choice: object) -> bool:
    return isinstance(choice, dict) and (isinstance(choice.get("message"), dict) or isinstance(choice.get("text"), str))

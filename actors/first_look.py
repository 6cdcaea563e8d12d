"""The first look at an answer: it is read as far as it takes to know that it is one.

What the bytes mean is decided in sansio/; this is where they are awaited.
"""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING, Final

import trio

from .errors import UpstreamError
from .sansio.classifier import classify_response, classify_whole
from .sansio.faults import Fault, FaultKind
from .sansio.stream_head import HEAD_LIMIT, HeadSniffer, StreamHead
from .sansio.whole_answer import to_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from .outcome import Tally
    from .routes import Upstream
    from .upstream import UpstreamResponse

#: Of an error body we read so much; more says nothing more.
_ERROR_BODY: Final = 64 * 1024
#: An error body that takes longer is not waited for: the retry is worth more than its text. Guessed.
_ERROR_BODY_SECONDS: Final = 5.0
#: A whole answer is kept up to this size, so that a cut can still be retried; beyond it the answer is passed on as it comes.
_WHOLE_ANSWER: Final = 8 * 1024 * 1024


class FirstLook(Enum):
    """How much of an answer is read before an attempt counts as open."""

    MEANINGFUL_FRAME = "meaningful frame"  # the pipeline: up to the first frame that says something
    FIRST_BYTE = "first byte"  # the relay engine on streams
    HEAD = "head"  # relayed endpoints: the HTTP status decides alone
    WHOLE = "whole"  # a chat completion that is not streamed: a cut body can still be retried

    @property
    def streamed(self) -> bool:
        """A first token is expected, so that its timer runs."""
        return self in (FirstLook.MEANINGFUL_FRAME, FirstLook.FIRST_BYTE)

    async def take(
        self, response: UpstreamResponse, upstream: Upstream, tally: Tally, mislabelled: Callable[[str, str, bool], None]
    ) -> bytes | Fault:
        """Look at an answer.

        Args:
          mislabelled: told the upstream, its content type and whether the answer is a stream, where the two differ.

        Returns:
          The bytes that were read, or why it is no answer.

        Raises:
          UpstreamError: the connection broke.
        """
        name = upstream.name
        if response.status >= 300:
            return await _read_error(response, upstream)
        if (coding := response.header("content-encoding")) not in ("", "identity"):
            text = f"upstream '{name}' answered with content-encoding '{coding[:40]}' though identity was asked for"
            return Fault(FaultKind.BAD_RESPONSE, text, upstream=name)
        match self:
            case FirstLook.HEAD:
                return b""
            case FirstLook.FIRST_BYTE:
                return await _first_bytes(response, name, tally)
            case FirstLook.WHOLE:
                body = await response.read_all(_WHOLE_ANSWER)
                tally.bytes_in += len(body)
                return classify_whole(body, name) or body
            case FirstLook.MEANINGFUL_FRAME:
                return await _sniff(response, name, tally, mislabelled)


async def _read_error(response: UpstreamResponse, upstream: Upstream) -> Fault:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
    body = b""  # the status says enough
    try:
        with trio.move_on_after(_ERROR_BODY_SECONDS):
            body = await response.read_all(_ERROR_BODY)
    except UpstreamError:
        pass
    own_key = upstream.auth == "client"
    return classify_response(response.status, headers, body, upstream.name, now_wall=time.time(), client_credential=own_key)


async def _first_bytes(response: UpstreamResponse, name: str, tally: Tally) -> bytes | Fault:
    """What is relayed first. No stream begins like JSON or a page: such a body is read on, and told if it is an error or nothing."""
    body = await _counted(response, tally)
    if body and not body.lstrip().startswith((b"{", b"<")):
        return body
    while len(body) < HEAD_LIMIT and (data := await _counted(response, tally)):
        body += data
    return classify_whole(body, name) or body


async def _sniff(response: UpstreamResponse, name: str, tally: Tally, mislabelled: Callable[[str, str, bool], None]) -> bytes | Fault:
    content_type = response.header("content-type")
    sniffer = HeadSniffer(content_type, name)
    parts: list[bytes] = []
    head: StreamHead | Fault | None = None
    while head is None:
        data = await _counted(response, tally)
        parts.append(data)
        head = sniffer.feed(data) if data else sniffer.close()
    if isinstance(head, Fault):
        return head
    if head.mislabelled:
        mislabelled(name, content_type, head.sse)
    if head.sse:
        return b"".join(parts)
    parts.append(rest := await response.read_all(_WHOLE_ANSWER))
    tally.bytes_in += len(rest)
    return to_stream(b"".join(parts), name)


async def _counted(response: UpstreamResponse, tally: Tally) -> bytes:
    data = await response.read()
    tally.bytes_in += len(data)
    return data

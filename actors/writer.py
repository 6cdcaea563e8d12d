"""The writer: puts the machine's effects into the outlet, and says so when the client is lost.

It owns the response's shape: the head and its headers, an error as a status with a JSON body before the head, as a frame after
it. It refuses to know why.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from .errors import ClientGone, ClientStalled
from .outlet import ResponseHead
from .sansio.effects import Failed, Head

if TYPE_CHECKING:
    from trio import CancelScope, MemoryReceiveChannel

    from .outcome import Tally
    from .outlet import Outlet
    from .sansio.effects import Complete, Effects
    from .sansio.faults import Fault

#: Bytes per write. An answer that is delivered whole leaves at once, and a slow client is judged by each piece, not by the sum.
_PIECE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class ResponseHeaders:
    """The headers that evenflow itself puts on a response.

    Args:
      request_id: echoes or replaces the client's.
      engine: "actors" or "relay".
    """

    request_id: str
    engine: str

    def ours(self, upstream: str, attempts: int) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-request-id", self.request_id.encode()), (b"x-evenflow-engine", self.engine.encode())]
        if upstream:
            headers.append((b"x-evenflow-upstream", upstream.encode("ascii", "replace")))
        if attempts:
            headers.append((b"x-evenflow-attempts", str(attempts).encode()))
        return headers

    def stream(self, head: Head) -> ResponseHead:
        """A 200 that starts an event stream. `x-accel-buffering: no` keeps nginx from collecting it."""
        fixed = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        return ResponseHead(200, (*fixed, *self.ours(head.upstream, head.attempt), *head.headers))

    def error(self, fault: Fault, attempts: int) -> tuple[ResponseHead, bytes]:
        """The status and body that tell the client of a fault before any head was sent."""
        body = fault.to_json()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if fault.retry_after is not None:
            # Rounded up: a client that comes back a fraction too early is refused once more.
            headers.append((b"retry-after", str(int(-(-fault.retry_after // 1))).encode()))
        return ResponseHead(fault.http_status, (*headers, *self.ours(fault.upstream, attempts))), body


class Loss(Enum):
    """How a client was lost."""

    GONE = "gone"
    STALLED = "stalled"


@dataclass(slots=True)
class Written:
    """What the writer has done, for whoever supervises it.

    Args:
      status: the status that was sent, 0 while none was.
      busy: inside a write: if the task is cancelled now, the outlet is dead.
      loss: how the client was lost, None if it was not.
      end: the stream's end, once all of it was written.
    """

    status: int = 0
    busy: bool = False
    loss: Loss | None = None
    end: Complete | Failed | None = None


async def write_frames(
    inbox: MemoryReceiveChannel[Effects],
    outlet: Outlet,
    headers: ResponseHeaders,
    tally: Tally,
    written: Written,
    lose_client: CancelScope,
) -> None:
    """Write until the stream's end was written or the client is lost.

    Args:
      written: kept up to date.
      lose_client: cancelled when the client is lost; nothing upstream of a lost client has a purpose.

    Closing: closes its channel; aborts the outlet if it could not finish. Cancellation: at any point; the outlet is aborted.
    """
    with inbox:
        try:
            async for effects in inbox:
                written.busy = True
                await _write(effects, outlet, headers, tally, written)
                written.busy = False
                written.end = effects.end
        except ClientStalled:
            written.loss = Loss.STALLED
        except ClientGone:
            written.loss = Loss.GONE
        finally:
            if written.end is None and (written.busy or written.loss is not None):
                outlet.abort()
        if written.loss is not None:
            lose_client.cancel()


async def _write(effects: Effects, outlet: Outlet, headers: ResponseHeaders, tally: Tally, written: Written) -> None:
    head = headers.stream(effects.head) if effects.head is not None else None
    data = b"".join(effects.frames)
    if isinstance(effects.end, Failed):
        if written.status or head is not None:
            data += effects.end.fault.to_frame()
        else:
            head, data = headers.error(effects.end.fault, tally.attempts)
    pieces = [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]
    last = pieces.pop() if pieces and effects.end is not None else b""
    if head is not None:
        await _start(head, pieces.pop(0) if pieces else b"", outlet, tally, written)
    for piece in pieces:
        await outlet.write(piece)
        tally.bytes_out += len(piece)
    if effects.end is not None:
        await outlet.finish(last)
        tally.bytes_out += len(last)


async def _start(head: ResponseHead, data: bytes, outlet: Outlet, tally: Tally, written: Written) -> None:
    try:
        await outlet.start(head, data)
    except ClientStalled:
        written.status = head.status
        raise
    written.status = head.status
    tally.bytes_out += len(data)

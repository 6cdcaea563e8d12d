"""The writer: puts the machine's effects into the outlet, and says so when the client is lost.

It owns the response's shape: the head and its headers, an error as a status with a JSON body before the head, as a frame after
it. It refuses to know why.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

import trio

from .errors import ClientGone, ClientStalled
from .outlet import ResponseHead
from .sansio.effects import Effects, Failed, Head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio import CancelScope, Nursery

    from .outcome import Tally
    from .outlet import Outlet
    from .sansio.effects import Complete
    from .sansio.faults import Fault

#: Bytes per write. An answer that is delivered whole leaves at once, and a slow client is judged by each piece, not by the sum.
_PIECE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class ResponseHeaders:
    """The headers that evenflow itself puts on a response.

    Args:
      request_id: echoes or replaces the client's.
      engine: "actors" or "relay".
      trace: W3C's `traceresponse`, b"" where nothing is traced.
    """

    request_id: str
    engine: str
    trace: bytes = b""

    def ours(self, upstream: str, attempts: int) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-request-id", self.request_id.encode()), (b"x-evenflow-engine", self.engine.encode())]
        if self.trace:
            headers.append((b"traceresponse", self.trace))
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


class Writer:
    """Writes until the stream's end was written or the client is lost.

    What the outlet takes at once is written in the task of whoever puts it here. Whatever has to wait for the client, and an answer that is
    more than one piece, is written by a task of its own, which lives as long as there is such.

    Args:
      nursery: of the stream; that task runs there.
      written: kept up to date.
      lose_client: cancelled when the client is lost; nothing upstream of a lost client has a purpose.
    """

    def __init__(
        self,
        outlet: Outlet,
        headers: ResponseHeaders,
        tally: Tally,
        written: Written,
        *,
        nursery: Nursery,
        lose_client: CancelScope,
    ) -> None:
        self._outlet = outlet
        self._headers = headers
        self._tally = tally
        self._written = written
        self._nursery = nursery
        self._lose_client = lose_client
        self._queue: list[Effects] = []  # the first of them is being written; seldom more than one, and a deque takes 0.7 KB
        self._flushing = 0  # bytes of the write of which the outlet keeps a rest
        self._emptied: trio.Event | None = None

    @property
    def has_room(self) -> bool:
        """`put` need not wait for anything before it."""
        return len(self._queue) < 2

    def put(self, effects: Effects) -> bool:
        """Take what is to be written, at any time.

        Returns:
          False if `room()` has to be awaited before the next: the client is slower than the upstream.
        """
        frames, head, end = effects.frames, effects.head, effects.end
        size = len(frames[0]) if len(frames) == 1 else sum(map(len, frames))
        if self._queue or size > _PIECE or isinstance(end, Failed):
            if not self._queue:
                self._nursery.start_soon(self._write_queue)
            self._queue.append(effects)
            return self.has_room
        written = self._written
        if written.loss is not None:
            return True  # nobody is there to take it
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        written.busy = True
        try:
            if head is None and end is None:
                whole = not data or self._outlet.write_nowait(data)
            elif head is not None:
                whole = self._outlet.start_nowait(self._headers.stream(head), data, ends=end is not None)
                written.status = 200
            else:
                whole = self._outlet.finish_nowait(data)
        except ClientGone as loss:
            self._lose(loss)
            return True
        except BaseException:
            self._outlet.abort()
            raise
        if whole:
            self._tally.bytes_out += size
            written.busy = False
            written.end = end
        else:  # the rest of it is waited for in its place
            self._flushing = size
            self._nursery.start_soon(self._write_queue)
            self._queue.append(Effects(end=end))
        return True

    async def room(self) -> None:
        """Wait until everything was written."""
        if self._queue:
            if self._emptied is None:
                self._emptied = trio.Event()
            await self._emptied.wait()

    def _lose(self, loss: ClientGone) -> None:
        self._written.loss = Loss.STALLED if isinstance(loss, ClientStalled) else Loss.GONE
        self._outlet.abort()
        self._lose_client.cancel()

    async def _write_queue(self) -> None:
        """The task: write what lies there, in order.

        Cancellation: at any point; the outlet is aborted.
        """
        written = self._written
        try:
            while self._queue:
                effects = self._queue[0]
                if written.busy:  # the outlet has it, and keeps what is left of it
                    await self._outlet.flush()
                    self._tally.bytes_out += self._flushing
                else:
                    written.busy = True
                    await self._write(effects)
                written.busy = False
                written.end = effects.end
                del self._queue[0]
        except ClientGone as loss:
            self._lose(loss)
            return
        except BaseException:
            if written.busy:
                self._outlet.abort()
            raise
        if self._emptied is not None:
            self._emptied.set()
            self._emptied = None

    async def _write(self, effects: Effects) -> None:
        head = self._headers.stream(effects.head) if effects.head is not None else None
        frames = effects.frames
        if isinstance(effects.end, Failed):
            if self._written.status or head is not None:
                frames = [*frames, effects.end.fault.to_frame()]
            else:
                head, body = self._headers.error(effects.end.fault, self._tally.attempts)
                frames = [body]
        pieces = _pieces(frames)
        piece = next(pieces, b"")
        for following in pieces:
            await self._put(head, piece)
            head = None
            piece = following
        if effects.end is None:
            await self._put(head, piece)
            return
        if head is not None:
            await self._start(head, b"")
        await self._outlet.finish(piece)
        self._tally.bytes_out += len(piece)

    async def _put(self, head: ResponseHead | None, piece: bytes) -> None:
        """Write a piece that is not the last, with the head if it is the first."""
        if head is not None:
            await self._start(head, piece)
        elif piece:
            await self._outlet.write(piece)
            self._tally.bytes_out += len(piece)

    async def _start(self, head: ResponseHead, data: bytes) -> None:
        try:
            await self._outlet.start(head, data)
        except ClientStalled:
            self._written.status = head.status
            raise
        self._written.status = head.status
        self._tally.bytes_out += len(data)


def _pieces(frames: list[bytes]) -> Iterator[bytes]:
    """The frames' bytes in pieces of at most `_PIECE`: small ones joined; a large one cut bit by bit, so that there is no copy of it."""
    batch: list[bytes] = []
    size = 0
    for frame in frames:
        if batch and size + len(frame) > _PIECE:
            yield b"".join(batch)
            batch, size = [], 0
        start = 0
        while len(frame) - start > _PIECE:
            yield frame[start : start + _PIECE]
            start += _PIECE
        batch.append(frame[start:] if start else frame)
        size += len(frame) - start
    if size:
        yield b"".join(batch)

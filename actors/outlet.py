"""Outlet: where a stream's bytes leave evenflow. The protocol that server/ implements.

A cancelled or partial write makes an outlet dead: then only `abort()` is legal, which closes the connection without a final
send. Every failure of the client's side arrives as one exception, ClientGone. The outlet keeps the client-stall deadline, because
only it knows whether a write waits at all: a write that does not wait needs no timer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status and headers (names in lower case) of the response to the client."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]


class Outlet(Protocol):
    """One response. The calls come in this order: start, write any number of times, then finish or abort."""

    async def start(self, head: ResponseHead, data: bytes = b"") -> None:
        """Commit the response to a status; the first body bytes, if there are any already, leave with it.

        Raises:
          ClientGone: nothing more can be written.
          ClientStalled: the head is out, and the client did not take the rest for `timers.client_stall`.
        """

    async def write(self, data: bytes) -> None:
        """Write body bytes; waits while the client does not read.

        Raises:
          ClientGone: nothing more can be written.
          ClientStalled: the client took nothing for `timers.client_stall`.
        """

    def start_nowait(self, head: ResponseHead, data: bytes, *, ends: bool = False) -> bool:
        """`start` as far as that needs no waiting; with `ends` also `finish`, so that all of a short answer is one write.

        Returns:
          All of it is on its way. If not, the outlet keeps the rest, and `flush()` comes next.

        Raises:
          ClientGone: nothing more can be written.
        """

    def write_nowait(self, data: bytes) -> bool:
        """`write` as far as that needs no waiting; returns and raises as `start_nowait` does."""

    def finish_nowait(self, data: bytes) -> bool:
        """`finish` as far as that needs no waiting; returns and raises as `start_nowait` does."""

    async def flush(self) -> None:
        """Wait until what one of these three kept is on its way.

        Raises:
          ClientGone: nothing more can be written.
          ClientStalled: the client took nothing for `timers.client_stall`.
        """

    async def finish(self, data: bytes = b"") -> None:
        """Write the last body bytes, if there are any, end the body properly, and wait until that is on its way.

        Raises:
          ClientGone: nothing more can be written.
          ClientStalled: the client took nothing for `timers.client_stall`.
        """

    def abort(self) -> None:
        """Close without a proper end, so that no client can take what it has for the whole. Legal at any time, idempotent."""

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

    async def start(self, head: ResponseHead) -> None:
        """Commit the response to a status.

        Raises:
          ClientGone: nothing more can be written.
        """

    async def write(self, data: bytes) -> None:
        """Write body bytes; waits while the client does not read.

        Raises:
          ClientGone: nothing more can be written.
          ClientStalled: the client took nothing for `timers.client_stall`.
        """

    async def finish(self) -> None:
        """End the body properly, and wait until it is on its way.

        Raises:
          ClientGone: nothing more can be written.
        """

    def abort(self) -> None:
        """Close without a proper end, so that no client can take what it has for the whole. Legal at any time, idempotent."""

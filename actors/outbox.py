"""Outbox: where a stage puts what it has. Every stage is one, for the stage before it."""

from __future__ import annotations

from typing import Protocol, TypeVar

T_contra = TypeVar("T_contra", contravariant=True)


class Outbox(Protocol[T_contra]):
    """Takes items in order, one at a time."""

    def put(self, item: T_contra) -> bool:
        """Take an item, at any time.

        Returns:
          False if `room()` has to be awaited before the next: the client is slower than the upstream.
        """

    async def room(self) -> None:
        """Wait until the stages behind it have room for more. Cancellation: at any point; nothing is lost by it."""

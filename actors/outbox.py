"""Outbox: where a stage puts what it has. Every stage is one, for the stage before it."""

from __future__ import annotations

from typing import Protocol, TypeVar

T_contra = TypeVar("T_contra", contravariant=True)


class Outbox(Protocol[T_contra]):
    """Takes items in order, one at a time."""

    async def send(self, item: T_contra) -> None:
        """Take an item. Returns at once, without a checkpoint, as long as the stages behind it have room for more.

        Cancellation: the item was taken all the same; only the wait for room ends.
        """

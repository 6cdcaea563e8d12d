"""Recorded streams: reading them from files, and cutting them into the events a server sends one by one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK: Final = re.compile(rb"(?s).+?(?:\r\n\r\n|\n\n|\r\r|\Z)")


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded body.

    Args:
      blocks: its events, each with the blank line behind it; joined they are the body.
      waits: seconds before each of them, None if nobody knows: then they come at the simulator's pace.
    """

    blocks: tuple[bytes, ...]
    waits: tuple[float, ...] | None = None

    @classmethod
    def of(cls, body: bytes) -> Recording:
        """A body whose times are not known."""
        return cls(tuple(blocks_of(body)))


def read_recordings(folder: Path) -> dict[str, Recording]:
    """Every .sse file of `folder`, by its name without the ending.

    Raises:
      OSError: the folder or a file cannot be read.
    """
    return {path.stem: Recording.of(path.read_bytes()) for path in sorted(folder.iterdir()) if path.suffix == ".sse"}


def blocks_of(body: bytes) -> list[bytes]:
    """`body` cut behind every blank line; joined, the blocks are the body."""
    return _BLOCK.findall(body)

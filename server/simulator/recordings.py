"""Recorded streams: reading them from files, and cutting them into the events a server sends one by one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK: Final = re.compile(rb"(?s).+?(?:\r\n\r\n|\n\n|\r\r|\Z)")


def read_recordings(folder: Path) -> dict[str, bytes]:
    """Every .sse file of `folder`, by its name without the ending.

    Raises:
      OSError: the folder or a file cannot be read.
    """
    return {path.stem: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix == ".sse"}


def blocks_of(body: bytes) -> list[bytes]:
    """`body` cut behind every blank line; joined, the blocks are the body."""
    return _BLOCK.findall(body)

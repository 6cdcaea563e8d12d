"""How text looks where a person reads it, and that nothing of it reaches a file, a pipe or a script.

Owns three questions: may there be colours (a terminal that can, and no NO_COLOR, https://no-color.org), may there be a line that is
written over (progress), and what if nobody takes what is said. Refuses to know what is said.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TextIO, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_Step = TypeVar("_Step")

#: What clears a line: to its beginning, and everything behind (ECMA-48, 8.3.41).
_CLEAR: Final = "\r\x1b[K"


def is_live(stream: TextIO) -> bool:
    """Whether lines written there may be written over."""
    return stream.isatty() and os.environ.get("TERM", "") != "dumb"


def has_colours(stream: TextIO) -> bool:
    """Whether text written there may be coloured."""
    return is_live(stream) and not os.environ.get("NO_COLOR")


@dataclass(frozen=True, slots=True)
class Style:
    """Text with weight, or without."""

    coloured: bool = False

    @classmethod
    def of(cls, stream: TextIO) -> Style:
        """What suits a stream."""
        return cls(has_colours(stream))

    def bold(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if self.coloured else text

    def dim(self, text: str) -> str:
        return f"\x1b[2m{text}\x1b[0m" if self.coloured else text

    def warning(self, text: str) -> str:
        return f"\x1b[33m{text}\x1b[0m" if self.coloured else text


class Progress:
    """One line that says how far a long command is, gone when it is through.

    Args:
      stream: where to; where that is no terminal, or None, nothing is written.
      label: what is being done.
    """

    def __init__(self, stream: TextIO | None, label: str) -> None:
        self._stream = stream if stream is not None and is_live(stream) else None
        self._label = label

    def through(self, steps: Sequence[_Step]) -> Iterator[_Step]:
        """Go through `steps`, telling each by its number."""
        try:
            for number, step in enumerate(steps, 1):
                self._say(f"{self._label} {number}/{len(steps)}")
                yield step
        finally:
            self._say("")

    def _say(self, text: str) -> None:
        if self._stream is not None:
            self._stream.write(_CLEAR + text)
            self._stream.flush()


def say(text: str) -> None:
    """Print for whoever sits there. A full disk or a closed pipe in their place is no reason for a server to stop (FAULTS row 73)."""
    try:
        print(text, flush=True)
    except OSError:
        drop_output()


def drop_output() -> None:
    """Nobody takes standard output any more. What lies in its buffer would raise once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

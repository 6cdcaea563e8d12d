"""The picture: titles, and two columns that grow while bytes arrive.

Owns widths, wrapping, colours and cursor movements; knows nothing of what is shown. On a terminal the columns are redrawn in place
at each change; anywhere else each scene is printed once, when it is over.
"""

from __future__ import annotations

import shutil
import textwrap
from itertools import zip_longest
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from ..log import printable
from ..terminal import has_colours, is_live

if TYPE_CHECKING:
    from typing import TextIO

Style: TypeAlias = Literal["text", "good", "bad", "faint", "title"]

_CODES: Final[dict[Style, str]] = {"text": "", "good": "32", "bad": "31", "faint": "2", "title": "1"}
_BETWEEN: Final = " | "
_INDENT: Final = 2
_WIDEST: Final = 120  # longer lines are hard to compare
_NARROWEST: Final = 48
_LONGEST_TEXT: Final = 2_000
"""Characters of one paragraph: what is shown came over a socket, and a picture has an end."""


class Column:
    """One side: paragraphs in their styles."""

    def __init__(self) -> None:
        self._paragraphs: list[tuple[Style, str]] = []

    def show(self, *paragraphs: tuple[Style, str]) -> None:
        """Say this instead of what was said before."""
        self._paragraphs = list(paragraphs)

    def add(self, style: Style, text: str) -> None:
        """Say this below what was said before."""
        self._paragraphs.append((style, text))

    def lines(self, width: int) -> list[tuple[Style, str]]:
        """The paragraphs, wrapped. What could move the cursor is escaped."""
        return [
            (style, line)
            for style, text in self._paragraphs
            for line in textwrap.wrap(printable(text, _LONGEST_TEXT), width, break_on_hyphens=False)
        ]


class Screen:
    """Where the demo is shown.

    Args:
      out: a terminal or anything that takes text.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = is_live(out)
        self._colour = has_colours(out)
        width = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size().columns))
        # One column stays free: a full last column makes some terminals wrap.
        self._width = (width - 1 - _INDENT - len(_BETWEEN)) // 2
        self._drawn = 0
        self.left, self.right = Column(), Column()

    def say(self, text: str, style: Style = "text", *, indent: str = "") -> None:
        """A paragraph across both columns; `indent` goes before all lines but the first."""
        width = _INDENT + 2 * self._width + len(_BETWEEN)
        for line in textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False) or [""]:
            self._out.write(f"{self._styled(style, line)}\n")
        self._out.flush()

    def begin(self, title: str) -> None:
        """Start a scene with two empty columns."""
        self.say("")
        self.say(title, "title")
        self.left, self.right = Column(), Column()
        self._drawn = 0
        heading = f"{'straight from the upstream':<{self._width}}{_BETWEEN}through evenflow"
        self._out.write(f"{' ' * _INDENT}{self._styled('faint', heading)}\n")
        self.refresh()

    def refresh(self) -> None:
        """Draw both columns as they are now, if this is a terminal."""
        if self._live:
            self._draw()

    def end(self, style: Style, conclusion: str) -> None:
        """Draw the columns for the last time, and what was observed."""
        self._draw()
        self.say(f"  => {printable(conclusion, _LONGEST_TEXT)}", style, indent="     ")

    def _draw(self) -> None:
        empty: tuple[Style, str] = ("text", "")
        rows = list(zip_longest(self.left.lines(self._width), self.right.lines(self._width), fillvalue=empty))
        erase = "\x1b[K" if self._live else ""
        picture = [f"\x1b[{self._drawn}A"] if self._drawn else []
        for (style, text), (other_style, other) in rows:
            left = self._styled(style, text) + " " * (self._width - len(text))
            picture.append(f"{' ' * _INDENT}{left}{_BETWEEN}{self._styled(other_style, other)}".rstrip() + f"{erase}\n")
        # A column may have become shorter; what it showed below must not stay.
        picture += [f"{erase}\n"] * (self._drawn - len(rows))
        self._drawn = max(self._drawn, len(rows))
        self._out.write("".join(picture))
        self._out.flush()

    def _styled(self, style: Style, text: str) -> str:
        code = _CODES[style]
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and code and text else text

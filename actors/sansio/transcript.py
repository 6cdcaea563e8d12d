"""The text of one lane so far: cheap to append to, whole when somebody asks, bounded.

Owns the text and what JSON's grammar says of it. Judges nothing.
"""

from __future__ import annotations

from typing import Final

from .json_prefix import JsonPrefix

#: Characters that are kept to recognise snapshots and replays; a longer lane is no longer watched for them. Far beyond any
#: model's longest answer (128 Ki tokens are about 0.5 Mi characters), so it bounds only a runaway.
KEPT: Final = 1 << 20
#: Pieces joined into one string, so that a long lane does not hold a Python object per token.
_BLOCK: Final = 512


class Transcript:
    """A growing text.

    Attributes:
      length: its characters.
      first: its first piece.
    """

    __slots__ = ("_blocks", "_fed", "_grammar", "_parts", "first", "length")

    def __init__(self, text: str = "") -> None:
        self.first = text
        self.length = len(text)
        self._parts = [text] if text else []
        self._blocks: list[str] = []
        self._grammar: JsonPrefix | None = None
        self._fed = 0

    def append(self, text: str) -> None:
        parts = self._parts
        if not self.length:
            self.first = text
        parts.append(text)
        self.length += len(text)
        if len(parts) >= _BLOCK:
            if self.length <= KEPT:
                self._blocks.append("".join(parts))
            parts.clear()

    def whole(self) -> str:
        """All of it; meaningless once `length` is beyond `KEPT`."""
        if self._parts or len(self._blocks) > 1:
            self._blocks = ["".join([*self._blocks, *self._parts])]
            self._parts.clear()
        return self._blocks[0] if self._blocks else ""

    def grammar(self) -> JsonPrefix:
        """Its reading as the beginning of JSON; costs only what was appended since the last call. Copy before feeding it."""
        if self._grammar is None:
            self._grammar = JsonPrefix()
        whole = self.whole()
        self._grammar.feed(whole[self._fed :])
        self._fed = len(whole)
        return self._grammar

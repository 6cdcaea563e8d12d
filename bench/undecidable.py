"""Injected streams that no detector could tell from a clean one: by what, and the clean stream that has the same bytes.

A target that is missed only because of these is not missed. Each entry is as narrow as its reason; what merely was not recognised
is not here. The clean twins are in tests/stutter/hard_negatives/twins.py and quoted in docs/stutter.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from actors.sansio.evidence import Kind, is_run, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.stutter.wire import Envelope, Piece


class Undecidable(NamedTuple):
    """One reason.

    Args:
      shapes: of the faults that it is about.
      applies: whether it applies to an injected stream in this envelope.
    """

    name: str
    shapes: tuple[str, ...]
    why: str
    applies: Callable[[Sequence[str], Envelope], bool]


def _steps(texts: Sequence[str]) -> int:
    """How often the text grows from its head on."""
    head, steps = texts[0], 0
    for text in texts[1:]:
        if text != head:
            if not text.startswith(head):
                break
            head, steps = text, steps + 1
    return steps


def _blank_head(texts: Sequence[str], style: Envelope) -> bool:
    return not texts[0].strip() and style != "dashscope" and _steps(texts) <= 2


def _said_with_separators(texts: Sequence[str], style: Envelope) -> bool:
    head = texts[0]
    weak = head.strip().isdigit() or kind_of(head) is Kind.PUNCTUATION or is_run(head) or head != head.strip()
    return style == "constant" and weak and _steps(texts) == 1


UNDECIDABLE: Final = (
    Undecidable(
        "blank head",
        ("B2", "B3"),
        "an empty line sent again, then one more, is also an answer that begins with several empty lines; losing one would be a loss",
        _blank_head,
    ),
    Undecidable(
        "head with separators",
        ("B2",),
        "a head of digits, signs or a run, or one that brings its own blank, twice and then once more with an end ('very ', 'very ', "
        "'very good'): people write that, and nothing but the text says otherwise",
        _said_with_separators,
    ),
)


def reason(shape: str, stream: Sequence[Piece], style: Envelope) -> str:
    """Why an injected stream cannot be decided, "" if it can."""
    texts = [piece.text for piece in stream if piece.kind == "text"]
    return next((entry.name for entry in UNDECIDABLE if shape in entry.shapes and entry.applies(texts, style)), "")

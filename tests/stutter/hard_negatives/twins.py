"""Pairs of streams that no detector could tell apart: a clean one and an injected one with the very same bytes.

For each the incremental reading is what somebody may have asked a model for, and the other is a fault that was seen. The evidence that
would decide is in neither. So the collection holds the first only in envelopes that prove every text new, or not at all; and what a
detector does with these bytes is a choice of odds, not a defect.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Twins:
    """One sequence of deltas with two readings.

    Args:
      asked: what a user may have asked for so that a model writes exactly this.
      deltas: as they come.
      shape: of the fault that makes the same deltas.
      true: the deltas that the fault was applied to.
    """

    asked: str
    deltas: tuple[str, ...]
    shape: str
    true: tuple[str, ...]


def faulty(shape: str, true: Sequence[str]) -> list[str]:
    """The deltas that a server with this fault sends (STUTTER section 2)."""
    so_far = list(itertools.accumulate(true))
    match shape:
        case "A1":
            return so_far
        case "A3":
            return [*true[:-1], so_far[-1]]
        case "B1":
            return [true[0], *true]
        case "B2":
            return [true[0], *so_far]
        case "C1":
            return [text for text in true for _ in range(2)]
        case "C2":
            return [text for text in true for _ in range(3)]
        case "D1":
            return [*true[:-1], true[-2], true[-1]]
        case "D2":
            return [*true, true[-1]]
        case "E1":
            return [*true, so_far[-1]]
        case "F2":
            return [*true[: len(true) // 2], *true]
        case _:
            raise ValueError(shape)


_FOX: Final = ("The", " quick", " brown", " fox", " jumps", " over", " the", " lazy", " dog", ".\n")

TWINS: Final[tuple[Twins, ...]] = (
    Twins("count to 1234 by adding a digit, nothing between", ("1", "12", "123", "1234"), "A1", ("1", "2", "3", "4")),
    Twins("write the initials of ABC as a staircase in one line", (" A", " AB", " ABC"), "A1", (" A", "B", "C")),
    Twins("the sentence twice; a server that drafts tokens", (*_FOX, "".join(_FOX)), "E1", _FOX),
    Twins("the sentence twice and on; a server that drafts tokens", (*_FOX, "".join(_FOX) + "End"), "A3", (*_FOX, "End")),
    Twins("a dictation that says emphasised words twice", ("Never", " never", " never", " mind"), "D1", ("Never", " never", " mind")),
    Twins("begin with the title's sign doubled", ("**", "**", "Title"), "B1", ("**", "Title")),
    Twins("stammer at the start", (" I", " I", " I'll", " I'll try"), "B2", (" I", "'ll", " try")),
    Twins("say very three times", ("very ", "very ", "very good"), "B2", ("very ", "good")),
    Twins("leave two empty lines first", ("\n", "\n", "\nOkay"), "B2", ("\n", "Okay")),
    Twins("a heading of the sixth level", ("##", "##", "## Notes"), "B2", ("##", " Notes")),
    Twins("every word twice", (" it", " it", " is", " is", " so", " so"), "C1", (" it", " is", " so")),
    Twins(
        "Frère Jacques, longer",
        ("a\n", "a\n", "b\n", "b\n", "c\n", "c\n", "d\n", "d\n", "e\n", "e\n"),
        "C1",
        ("a\n", "b\n", "c\n", "d\n", "e\n"),
    ),
    Twins("three cheers for everybody", (" hip", " hip", " hip", " hey", " hey", " hey"), "C2", (" hip", " hey")),
    Twins("end with the last word repeated", ("good", " night", " night"), "D2", ("good", " night")),
    Twins("say the beginning again, then go on", ("Row", ",", "Row", ",", " row", "!"), "F2", ("Row", ",", " row", "!")),
    # As arguments: the model typed a brace too many, or the last fragment came twice.
    Twins("a model that closes once too often", ('{"a":{"b":1', "}", "}", "}"), "D2", ('{"a":{"b":1', "}", "}")),
    # As arguments: the same function twice from a server that gives no ids (Gemini), or the whole call again (G2).
    Twins("look at the same place twice", ('{"a":1}', '{"a":1}'), "D2", ('{"a":1}',)),
)

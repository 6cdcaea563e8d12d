"""The names of what is repaired, in the order in which STUTTER lists them."""

from __future__ import annotations

from typing import Final

SHAPES: Final = ("A1", "A2", "A3", "B1", "C1", "C2", "C3", "D1", "E1", "F1", "F3", "G1", "G2", "G3", "G4", "H1")
#: Those in which the head of a stream was told again.
HEAD_SHAPES: Final = frozenset({"A1", "A2", "B1"})
#: Tool-call arguments have names of their own for what happens to any text.
_OF_ARGUMENTS: Final = {"A1": "G1", "A2": "G1", "A3": "G1", "C1": "G4", "C2": "G4", "C3": "G4", "E1": "G2"}


def shape_of(shape: str, *, arguments: bool) -> str:
    """What a shape is called in a lane of text, or in one of tool-call arguments."""
    return _OF_ARGUMENTS.get(shape, shape) if arguments else shape

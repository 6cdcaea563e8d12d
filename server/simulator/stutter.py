"""The shapes of stutter (STUTTER section 2), applied to a good script.

Each shape takes a script and gives the script that a stuttering upstream would send; what a client should have been shown is the
good one's text. A copy keeps its original's envelope (nonce, tokens, key order), as a transport's duplicate does; text that an
upstream *writes* again gets a new nonce.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from .ask import Ask, Model
from .scripts import Call, Piece, Script, nonce, text_of, tool_calls
from .streams import CALLS, say, script_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from .wire import Answer

Shape: TypeAlias = "Callable[[Script, random.Random], Script]"


def _told(script: Script) -> list[int]:
    """Positions of the pieces that carry text."""
    return [i for i, piece in enumerate(script) if piece.text]


def _with_text(piece: Piece, text: str) -> Piece:
    return msgspec.structs.replace(piece, text=text)


def _renewed(piece: Piece, chance: random.Random) -> Piece:
    return msgspec.structs.replace(piece, nonce=nonce(chance))


def _snapshots(script: Script, first: int = 0, last: int | None = None) -> Script:
    """Texts number `first` to `last` tell everything so far instead of what is new. Lanes are kept apart."""
    chosen = set(_told(script)[first:last])
    so_far: dict[tuple[int, str], str] = {}
    told = list(script)
    for i, piece in enumerate(script):
        if piece.text:
            lane = (piece.choice, piece.field)
            so_far[lane] = so_far.get(lane, "") + piece.text
            if i in chosen:
                told[i] = _with_text(piece, so_far[lane])
    return told


def cumulative(script: Script, chance: random.Random) -> Script:
    return _snapshots(script)


def cumulative_repeated(script: Script, chance: random.Random) -> Script:
    return [
        copy
        for i, piece in enumerate(_snapshots(script))
        for copy in ([piece, _renewed(piece, chance)] if piece.text and i % 4 == 2 else [piece])
    ]


def late_cumulative(script: Script, chance: random.Random) -> Script:
    return _snapshots(script, len(_told(script)) // 3)


def first_twice(script: Script, chance: random.Random) -> Script:
    first = _told(script)[0]
    return [*script[: first + 1], script[first], *script[first + 1 :]]


def _head_chain(script: Script, length: int, twice: bool) -> Script:
    """The first `length` texts as growing snapshots, all in the head's key order, then normal deltas."""
    positions = _told(script)[:length]
    start, end = positions[0], positions[-1] + 1
    head = [msgspec.structs.replace(piece, turn="head") if piece.text else piece for piece in _snapshots(script, 0, length)[start:end]]
    return [*script[:start], *([head[0]] if twice else []), *head, *script[end:]]


def head_chain_twice(script: Script, chance: random.Random) -> Script:
    return _head_chain(script, 3, twice=True)


def head_chain(script: Script, chance: random.Random) -> Script:
    return _head_chain(script, 4, twice=False)


def _repeated(script: Script, times: int, first: int = 0) -> Script:
    chosen = set(_told(script)[first:])
    return [copy for i, piece in enumerate(script) for copy in [piece] * (times if i in chosen else 1)]


def every_twice(script: Script, chance: random.Random) -> Script:
    return _repeated(script, 2)


def every_thrice(script: Script, chance: random.Random) -> Script:
    return _repeated(script, 3)


def late_twice(script: Script, chance: random.Random) -> Script:
    return _repeated(script, 2, len(_told(script)) * 2 // 5)


def one_twice(script: Script, chance: random.Random) -> Script:
    positions = _told(script)
    at = positions[len(positions) // 2]
    return [*script[: at + 1], script[at], *script[at + 1 :]]


def last_twice(script: Script, chance: random.Random) -> Script:
    at = _told(script)[-1]
    return [*script[: at + 1], script[at], *script[at + 1 :]]


def full_copy(script: Script, chance: random.Random) -> Script:
    at = _told(script)[-1]
    last = script[at]
    return [*script[: at + 1], _renewed(_with_text(last, text_of(script, last.choice, last.field)), chance), *script[at + 1 :]]


def _restart(script: Script, chance: random.Random, at: int, marked: bool) -> Script:
    again = [msgspec.structs.replace(piece, nonce=nonce(chance), restarted=marked) for piece in script]
    return [*script[: _told(script)[at] + 1], *again]


def restarted(script: Script, chance: random.Random) -> Script:
    return _restart(script, chance, len(_told(script)) // 2, marked=True)


def restarted_unmarked(script: Script, chance: random.Random) -> Script:
    return _restart(script, chance, len(_told(script)) // 2, marked=False)


def restarted_otherwise(script: Script, chance: random.Random) -> Script:
    """The second telling leaves the first one's path after a fifth: no text is the right one."""
    told = _told(script)
    cut = told[len(told) // 2] + 1
    first, again = script[:cut], _restart(script, chance, len(told) // 2, marked=True)[cut:]
    other = set(_told(again)[len(told) // 5 :])
    return [*first, *(_with_text(piece, (piece.text or "")[::-1] + "~") if i in other else piece for i, piece in enumerate(again))]


def finished_twice(script: Script, chance: random.Random) -> Script:
    return [copy for piece in script for copy in ([piece, piece] if piece.finish else [piece])]


def revised(script: Script, chance: random.Random) -> Script:
    """Snapshots of which every third ends in an ellipsis that the next one takes back."""
    told = _snapshots(script)
    for i in _told(script)[3:-1:3]:
        told[i] = _with_text(told[i], f"{told[i].text}…")
    return told


# ---- tool arguments -------------------------------------------------------------------------------------------------


def _arguments(script: Script) -> list[int]:
    return [i for i, piece in enumerate(script) if piece.call is not None and piece.text]


def arguments_cumulative(script: Script, chance: random.Random) -> Script:
    told, so_far = list(script), ""
    for i in _arguments(script):
        so_far += script[i].text or ""
        told[i] = _with_text(script[i], so_far)
    return told


def _appended_arguments(script: Script, chance: random.Random, text: str) -> Script:
    at = _arguments(script)[-1]
    return [*script[: at + 1], _renewed(_with_text(script[at], text), chance), *script[at + 1 :]]


def arguments_full_copy(script: Script, chance: random.Random) -> Script:
    return _appended_arguments(script, chance, "".join(script[i].text or "" for i in _arguments(script)))


def arguments_braces(script: Script, chance: random.Random) -> Script:
    return _appended_arguments(script, chance, "{}")


def call_named_each_time(script: Script, chance: random.Random) -> Script:
    announced = next(piece.call for piece in script if piece.call is not None)
    return [msgspec.structs.replace(piece, call=Call(0, announced.id, announced.name)) if piece.call else piece for piece in script]


def arguments_twice(script: Script, chance: random.Random) -> Script:
    chosen = set(_arguments(script))
    return [copy for i, piece in enumerate(script) for copy in [piece] * (2 if i in chosen else 1)]


TEXT_SHAPES: Final[Mapping[str, tuple[str, Shape]]] = {
    "a1": ("every text tells everything so far", cumulative),
    "a2": ("the same, some snapshots twice", cumulative_repeated),
    "a3": ("normal at first, then everything so far", late_cumulative),
    "b1": ("the first text twice", first_twice),
    "b2": ("the first text twice, then growing snapshots, then normal", head_chain_twice),
    "b3": ("growing snapshots, then normal", head_chain),
    "c1": ("every text twice", every_twice),
    "c2": ("every text three times", every_thrice),
    "c3": ("every text twice from two fifths on", late_twice),
    "d1": ("one text in the middle twice", one_twice),
    "d2": ("the last text twice", last_twice),
    "e1": ("the whole text once more at the end", full_copy),
    "f1": ("a restart under a new id, from the beginning", restarted),
    "f2": ("a restart without any mark", restarted_unmarked),
    "f3": ("a restart under a new id that tells another text", restarted_otherwise),
    "h1": ("the finish twice", finished_twice),
    "k1": ("everything so far, its tail revised now and then", revised),
}

CALL_SHAPES: Final[Mapping[str, tuple[str, Shape]]] = {
    "g1": ("tool arguments: every fragment tells everything so far", arguments_cumulative),
    "g2": ("tool arguments: all of them once more at the end", arguments_full_copy),
    "g2-braces": ("tool arguments: {} once more at the end", arguments_braces),
    "g3": ("a tool call's id and name in every fragment", call_named_each_time),
    "g4": ("tool arguments: every fragment twice", arguments_twice),
}


def _text_model(description: str, shape: Shape) -> Model:
    def answer(ask: Ask) -> Answer:
        script = script_of(ask)
        # Without `stream` there is nothing to repeat; a script without text has nothing that could be.
        return say(ask, shape(script, ask.chance) if ask.stream and _told(script) else script)

    return Model(f"stutter: {description}", answer)


def _call_model(description: str, shape: Shape) -> Model:
    def answer(ask: Ask) -> Answer:
        if not ask.chat:
            return say(ask, script_of(ask))
        script = tool_calls(CALLS[:1], ask.chance)
        return say(ask, shape(script, ask.chance) if ask.stream else script)

    return Model(f"stutter: {description}", answer)


MODELS: Final[Mapping[str, Model]] = {
    **{f"stutter-{name}": _text_model(*row) for name, row in TEXT_SHAPES.items()},
    **{f"stutter-{name}": _call_model(*row) for name, row in CALL_SHAPES.items()},
}

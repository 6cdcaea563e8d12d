"""What is answered: the text, cut into tokens, as the list of pieces a stream is made of.

Knows what a model says and in which order, not how it is written down (envelopes) nor how it arrives (wire). A `Piece` carries
beside its text whatever an envelope may tell about it, so that a piece sent twice is told twice alike, as a transport's
duplicate is, while a new piece with the same text is not.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

PARAGRAPH: Final = (
    "The river bends twice before it reaches the mill, and each bend keeps a little of the morning. "
    "Children count the boats; the miller counts the sacks; nobody counts the hours. "
    "When the wind turns, the wheel turns with it, slowly at first, then evenly, as if it had never known another pace."
)
PARAGRAPH_ZH: Final = (
    "河水在磨坊前转了两个弯，每个弯都留住一点清晨。孩子们数船，磨坊主数麻袋，没有人数时间。风一转，水车也跟着转，起初很慢，然后平稳如常。"
)
THOUGHTS: Final = "The question asks for a picture, so a short scene will do. Three sentences, no names, one image that moves."

# Words with the blank before them, as English tokenizers cut; two characters at a time where no blanks are written.
_TOKEN: Final = re.compile(r"\s*(?:[\u3000-\u9fff\uff00-\uffef]{1,2}|[^\s\u3000-\u9fff\uff00-\uffef]+)|\s+")

#: DashScope writes the keys of a choice in another order depending on the piece's place in the stream (STUTTER section 4).
Turn: TypeAlias = Literal["role", "head", "body", "finish"]

USAGE_ONLY: Final = -1
"""`Piece.choice` of the event that carries usage and an empty `choices` array."""


class Call(msgspec.Struct, frozen=True, gc=False):
    """The tool call a fragment of arguments belongs to. `id` and `name` are told once, with the first fragment."""

    index: int
    id: str | None = None
    name: str | None = None


class Piece(msgspec.Struct, frozen=True, gc=False):
    """One event of a stream before it is written as JSON.

    Args:
      text: what it adds to `field`, or to the arguments of `call`; None adds nothing.
      field: the delta's field ("content", "reasoning_content", "reasoning", "refusal").
      choice: the choice's index, or USAGE_ONLY.
      finish: the choice's finish_reason.
      tokens: completion tokens generated so far, this piece included.
      nonce: what an envelope with a nonce carries; differs in every piece.
      restarted: it belongs to a second completion with another id.
    """

    text: str | None = None
    field: str = "content"
    choice: int = 0
    call: Call | None = None
    role: bool = False
    finish: str | None = None
    tokens: int = 0
    nonce: str = ""
    turn: Turn = "body"
    restarted: bool = False


Script: TypeAlias = list[Piece]


def tokens_of(text: str) -> list[str]:
    """Cut `text` as a model would emit it; joined, the tokens are the text."""
    return _TOKEN.findall(text)


def counted(number: int) -> list[str]:
    """The tokens "1", " 2", ... up to `number`: a load test sees at once what is missing and what is out of order."""
    return [str(i) if i == 1 else f" {i}" for i in range(1, number + 1)]


def speech(
    answers: Sequence[Sequence[str]], chance: random.Random, *, thoughts: Sequence[str] = (), thoughts_field: str = "reasoning_content"
) -> Script:
    """A complete script of text: role, thoughts, tokens and finish of every choice, the choices interleaved token by token.

    Args:
      answers: one token list per choice.
      chance: where the nonces come from.
    """
    turns: list[list[tuple[str, str]]] = [
        [*((thoughts_field, t) for t in thoughts), *(("content", t) for t in tokens)] for tokens in answers
    ]
    script: Script = [Piece("", choice=i, role=True, turn="role", nonce=nonce(chance)) for i in range(len(answers))]
    spoken = 0
    for position, row in enumerate(zip_longest(*turns)):
        for choice, told in enumerate(row):
            if told is not None:
                spoken += 1
                turn: Turn = "head" if position == 0 else "body"
                script.append(Piece(told[1], told[0], choice, tokens=spoken, nonce=nonce(chance), turn=turn))
    script += [Piece(choice=i, finish="stop", tokens=spoken, nonce=nonce(chance), turn="finish") for i in range(len(answers))]
    return script


def tool_calls(calls: Sequence[tuple[str, str]], chance: random.Random, *, fragment: int = 6) -> Script:
    """A script that calls tools: each call announced with its id and name, its arguments in fragments.

    Args:
      calls: function name and arguments as JSON text.
      fragment: characters of arguments per piece.
    """
    script: Script = [Piece(role=True, turn="role", nonce=nonce(chance))]
    spoken = 0
    for index, (name, arguments) in enumerate(calls):
        announced = Call(index, f"call_{index}_{chance.getrandbits(48):012x}", name)
        script.append(Piece("", call=announced, tokens=spoken, nonce=nonce(chance)))
        for start in range(0, len(arguments), fragment):
            spoken += 1
            script.append(Piece(arguments[start : start + fragment], call=Call(index), tokens=spoken, nonce=nonce(chance)))
    script.append(Piece(finish="tool_calls", tokens=spoken, nonce=nonce(chance), turn="finish"))
    return script


def nonce(chance: random.Random) -> str:
    """Padding as OpenAI's `obfuscation`: 4 to 14 characters, so that an event's length does not tell its token's."""
    return f"{chance.getrandbits(56):014x}"[: chance.randint(4, 14)] + "."


def text_of(script: Iterable[Piece], choice: int = 0, field: str = "content") -> str:
    """What a plain client would show: every piece's text joined."""
    return "".join(p.text or "" for p in script if p.choice == choice and p.field == field and p.call is None)

"""Every shape of stutter, put into a clean stream (STUTTER section 2); and the ways in which servers cut text into deltas."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from .wire import Piece, copy_of, draw_nonce, text_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

#: How servers cut, and the seconds between two deltas of each.
CHUNKINGS: Final[dict[str, float]] = {"tokens": 0.02, "digits": 0.02, "groups": 0.06, "bursts": 0.05, "big": 0.25, "lines": 0.12}


def cut(tokens: Sequence[str], chunking: str, rng: random.Random) -> list[str]:
    """Tokens to deltas.

    Args:
      chunking: "tokens" one by one; "digits" apart (Qwen, Gemma); "groups" one first, then up to four (DashScope); "bursts" of 1 to 8
        (speculative decoding); "big" pieces of 20 to 60 (Gemini); "lines" (some proxies).
    """
    if chunking == "tokens":
        return list(tokens)
    if chunking == "digits":
        return [part for token in tokens for part in (re.findall(r"\d|[^\d]+", token) if re.search(r"\d\d", token) else [token])]
    if chunking == "lines":
        return re.findall(r"[^\n]*\n|[^\n]+", "".join(tokens))
    deltas: list[str] = []
    at = 0
    while at < len(tokens):
        if chunking == "groups":
            size = (1, 2, 2, 2, 3)[len(deltas)] if len(deltas) < 5 else 4
        else:
            size = rng.randint(1, 8) if chunking == "bursts" else rng.randint(20, 60)
        deltas.append("".join(tokens[at : at + size]))
        at += size
    return deltas


def _places(stream: Sequence[Piece]) -> list[int]:
    return [place for place, piece in enumerate(stream) if piece.kind == "text"]


def _fresh(piece: Piece, rng: random.Random) -> Piece:
    return replace(piece, nonce=draw_nonce(rng))


def cumulative(stream: Sequence[Piece], rng: random.Random, *, repeats: float = 0.0, start: int = 0) -> list[Piece]:
    out, so_far = [], ""
    first = _places(stream)[start]
    for place, piece in enumerate(stream):
        if piece.kind != "text":
            out.append(piece)
            continue
        so_far += piece.text
        out.append(replace(piece, text=so_far) if place >= first else piece)
        while rng.random() < repeats:
            out.append(_fresh(out[-1], rng))
    return out


def late_cumulative(stream: Sequence[Piece], rng: random.Random) -> list[Piece]:
    return cumulative(stream, rng, start=len(_places(stream)) // 3)


def head_twice(stream: Sequence[Piece], rng: random.Random) -> list[Piece]:
    first = _places(stream)[0]
    return [*stream[: first + 1], copy_of(stream[first]), *stream[first + 1 :]]


def head_chain(stream: Sequence[Piece], rng: random.Random, *, twice: bool = True) -> list[Piece]:
    places = _places(stream)
    length = min(rng.randint(2, 4) if twice else rng.randint(3, 5), len(places) - 1)
    head, so_far = [], ""
    for number, place in enumerate(places[:length]):
        so_far += stream[place].text
        head.append(replace(stream[place], text=so_far, head_order=True))
        if twice and number == 0:
            head.append(copy_of(head[-1]))
    return [*stream[: places[0]], *head, *stream[places[length - 1] + 1 :]]


def each_again(stream: Sequence[Piece], rng: random.Random, *, times: int = 2, start: float = 0.0) -> list[Piece]:
    places = _places(stream)
    first = places[int(len(places) * start)]
    out = []
    for place, piece in enumerate(stream):
        out.append(piece)
        if piece.kind == "text" and place >= first:
            out += [copy_of(piece)] * (times - 1)
    return out


def one_again(stream: Sequence[Piece], rng: random.Random) -> list[Piece]:
    place = rng.choice(_places(stream)[3:])
    return [*stream[: place + 1], copy_of(stream[place]), *stream[place + 1 :]]


def last_again(stream: Sequence[Piece], rng: random.Random) -> list[Piece]:
    place = _places(stream)[-1]
    return [*stream[: place + 1], copy_of(stream[place]), *stream[place + 1 :]]


def full_copy(stream: Sequence[Piece], rng: random.Random) -> list[Piece]:
    place = _places(stream)[-1]
    return [*stream[: place + 1], replace(_fresh(stream[place], rng), text=text_of(stream)), *stream[place + 1 :]]


def restart(stream: Sequence[Piece], rng: random.Random, *, marker: bool = True) -> list[Piece]:
    places = _places(stream)
    place = places[rng.randrange(len(places) // 3, 2 * len(places) // 3)]
    return [*stream[: place + 1], *(replace(_fresh(piece, rng), id="chatcmpl-1" if marker else piece.id) for piece in stream)]


def revised_tail(stream: Sequence[Piece], rng: random.Random) -> list[Piece]:
    out = cumulative(stream, rng)
    for place in _places(stream)[3:-1:3]:
        out[place] = replace(out[place], text=out[place].text + "…")
    return out


def named_each_time(stream: Sequence[Piece], rng: random.Random) -> list[Piece]:
    return [replace(piece, call=("call_1", "get_weather")) if piece.kind == "text" else piece for piece in stream]


def finished_twice(stream: Sequence[Piece], rng: random.Random) -> list[Piece]:
    return [*stream, _fresh(stream[-1], rng)]


#: By id; the value injects the shape.
SHAPES: Final[dict[str, Callable[[Sequence[Piece], random.Random], list[Piece]]]] = {
    "A1": cumulative,
    "A2": lambda stream, rng: cumulative(stream, rng, repeats=0.25),
    "A3": late_cumulative,
    "B1": head_twice,
    "B2": head_chain,
    "B3": lambda stream, rng: head_chain(stream, rng, twice=False),
    "C1": each_again,
    "C2": lambda stream, rng: each_again(stream, rng, times=3),
    "C3": lambda stream, rng: each_again(stream, rng, start=0.4),
    "D1": one_again,
    "D2": last_again,
    "E1": full_copy,
    "F1": restart,
    "F2": lambda stream, rng: restart(stream, rng, marker=False),
    "K1": revised_tail,
    "H1": finished_twice,
}

#: Shapes of tool-call arguments: injected into a stream whose field is "arguments".
TOOL_SHAPES: Final[dict[str, Callable[[Sequence[Piece], random.Random], list[Piece]]]] = {
    "G1": cumulative,
    "G2": full_copy,
    "G2 {}": lambda stream, rng: [*stream[:-1], replace(_fresh(stream[-2], rng), text="{}"), stream[-1]],
    "G2 x3": lambda stream, rng: each_again(
        [stream[0], replace(stream[1], text=text_of(stream)), stream[-1]],
        rng,
        times=3,
    ),
    "G3": named_each_time,
    "G4": each_again,
    "G4 x3": lambda stream, rng: each_again(stream, rng, times=3),
}

#: The envelopes that prove a re-delivery, and the shapes that nothing else can prove.
PROVES: Final = {"B1": ("nonce", "dashscope", "usage"), "D1": ("nonce", "usage"), "D2": ("nonce", "usage"), "F2": ()}

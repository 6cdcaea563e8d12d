"""Texts that grow or come again: pyramids, memory games, drafts, quotations of all before, long chunks."""

from __future__ import annotations

import itertools
from typing import Final

from .stream import Event, Negative, Part, split, text

_FOX: Final = ("The", " quick", " brown", " fox", " jumps", " over", " the", " lazy", " dog", ".\n")
_PACKED: Final = "\nI packed my bag and in it I put an apple, a banana, a carrot, a doll"
_STANZA: Final = "Tyger Tyger, burning bright, in the forests of the night; what immortal hand or eye could frame thy fearful symmetry?\n"
_TERMS: Final = "These terms apply to every order placed with us on or after the first day of the month."


def _counted(*chunks: tuple[str, int]) -> tuple[Event, ...]:
    """Texts with the number of tokens of each; completion_tokens counts all of them."""
    sums = itertools.accumulate(tokens for _, tokens in chunks)
    return tuple(Event((Part(said),), usage=total) for (said, _), total in zip(chunks, sums, strict=True))


GROWTH: Final[tuple[Negative, ...]] = (
    split("pyramid of numbers, line ends apart", "equal to the delta before last", "1|\n|12|\n|123|\n|12|\n|1|\n"),
    split("pyramid of letters that stops", "cumulative from offset 0", "a|ab|c|abc"),
    split("pyramid of one unit", "cumulative from offset 0", "la |la la |la la la |la la la la |la la la la la "),
    split("dots grow", "cumulative from offset 0", ".|..|...|....| done"),
    split("dots after a word grow", "prefix extension", "Wait|.|..|...| now|.|.."),
    split("exclamation marks grow", "prefix extension", "Wow|!|!!|!!!| Wow|!"),
    split("hiss", "cumulative from offset 0", "s|ss|sss|ssss| said| the| snake|:| s|ss"),
    split("hmm", "cumulative from offset 0", "H|Hm|m|m|,| H|mm"),
    split("acrostic", "cumulative from offset 0", "L|Love\n|I|In\n|F|Fear\n|E|Ends\n|LIFE"),
    split("word ladder", "overlap", "cat|cat|s|cat|sup|cat|ch|cat"),
    text(
        "memory game, line end in front",
        "prefix extension",
        "Let us play.",
        *(_PACKED, _PACKED + ", an egg", _PACKED + ", an egg, a fan"),
        "\nNow you.",
    ),
    split(
        "twelve days", "older snapshot again", "a partridge.\n|two doves, |and |a partridge.\n|three hens, |two doves, |and |a partridge.\n"
    ),
    split("there was an old lady", "restart without marker", "She| ate| a| fly|.\n|She| ate| a| spider|,| she| ate| a| fly|.\n"),
    split(
        "outline, then the text that begins with it",
        "restart without marker",
        "Intro|,| body|,| end|.\n|Intro|:| hello|\n|Body|:| there|\n",
    ),
    split("title repeated over the text", "restart without marker", "The| Weight| of| Words|\n\n|The| Weight| of| Words| was| a|"),
    split("a thesis restated at the end", "restart without marker", "Cats| are| best|.| They| purr|.| So|,| Cats| are| best|."),
    split("first and last chunk alike, large", "delta begins the text so far", f"{_TERMS}|\n\nYou accept them by ordering.\n\n|{_TERMS}"),
    split("large chunk, again after a short one", "equal to the delta before last", f"{_STANZA}|\n|{_STANZA}|\n|And what shoulder"),
    split("large deltas alike, a sign between", "head sent twice", f"{_TERMS}|{_TERMS}|.|{_TERMS}|."),
    split("three small, then the same three in one", "size outlier", "to| be| or| not| |to be or not to be"),
    split("identifier, then its code span", "overlap", "foo|_|bar| `|foo_bar|`| is| foo|_|bar"),
    split("palindrome by deltas", "equal to the delta before last", "a| man| a| plan| a| canal| a| plan| a| man"),
    split("Fibonacci words", "cumulative from offset 0", "b|a|b|a|a|b|a|b|a|a|b|a|a|b"),
    split("Thue-Morse", "doubled deltas", "0|1|1|0|1|0|0|1|1|0|0|1|0|1|1|0"),
    split("look and say", "delta begins the text so far", "1|,| |11|,| |21|,| |1211|,| |1112|21"),
    split("repeats at a chunk border", "overlap", "He said he| he would go| go home home|.", report="qwen-code 7896"),
    split(
        "delta that begins with all text, said by the model", "cumulative from offset 0", "A| b|A bit| odd|,| b", report="web-ai-sdk 263"
    ),
    split("short delta equal to the last one", "equal neighbour", "ok|,| ok| ok|,| then|,| ok| ok", report="conductor-oss 618"),
    split("delta that repeats a head", "delta begins the text so far", "Hi|,| |Hi| there|,| |Hi|,| all", report="hermes-conduit 43"),
    split("last delta again at the end", "equal neighbour", "We| love| you|,| end|.| The| end| end", report="SillyTavern 2960"),
    Negative(
        "the last delta again, both counted",
        "last chunk twice",
        tuple(Event((Part(said),), usage=count) for count, said in enumerate(("Roses", " are", " red", " red"), 3)),
        report="SillyTavern 2960",
        styles=("constant", "role always", "nulls"),
    ),
    # Drafted tokens leave in one chunk, and what is drafted best is what was said before. The counter shows that all of them are new:
    # without it the bytes are those of a consolidated copy (see twins.py).
    Negative(
        "a sentence again, drafted as one chunk, counted",
        "size outlier",
        _counted(*((said, 1) for said in _FOX), ("".join(_FOX), 10), ("".join(_FOX), 10), ("Done", 1), (".", 1)),
        styles=("constant",),
    ),
    Negative(
        "a sentence again, drafted as one chunk, the odds of each token in it",
        "size outlier",
        (
            *(Event((Part(said),), logprobs=(-0.1 * place - 0.2,)) for place, said in enumerate(_FOX)),
            Event((Part("".join(_FOX)),), logprobs=tuple(-0.01 * place - 0.02 for place in range(10))),
            Event((Part("Done"),), logprobs=(-1.5,)),
        ),
        styles=("constant",),
    ),
    Negative(
        "a sentence again and on, drafted as one chunk, counted",
        "size outlier",
        _counted(*((said, 1) for said in _FOX), ("".join(_FOX) + "The end", 12), (".", 1)),
        styles=("constant",),
    ),
    split("quoting a stuttering log", "doubled deltas", 'The| log| shows|:| "|The|The| user| user| is| is|"|,| every| token| twice|.'),
    split("quoting a cumulative log", "cumulative from offset 0", "I|,| then|:| \"|I|I'll|I'll help|\"|.| So| every| delta| grows|."),
    split("quoting chunks", "prefix extension", 'delta|:| "|The|"\n|delta|:| "|The cat|"\n|delta|:| "|The cat sat|"\n|delta'),
    split(
        "explains the bug with its output",
        "size outlier",
        "Output|:| |Hello|,| world|!| |Output: Hello, world! |Output: Hello, world! |so| it| repeats|.",
    ),
    split("reasoning echo", "equal neighbour", "Wait|.| Wait|.| Let| me| think|.| Wait|.| Hmm|.| Hmm|.| Let| me| think|."),
)

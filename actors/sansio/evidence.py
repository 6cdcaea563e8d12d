"""Evidence for and against "this chunk was sent before": one named function per factor, each with its weight.

Weights are log10 likelihood ratios against the incremental reading (new text that merely looks like a repeat): 3.0 is
1000:1. Origin of the numbers, where a line does not say otherwise: `make calibrate` counts how often each relation occurs by
chance in clean text in six chunkings, and fails if a weight is larger than what it measures. The weights stay one to two orders
of magnitude below that, because a repeat that is shown is a nuisance and a character that is lost is not.

Here are the factors of the text; those of the envelope are in envelope.py. Nothing here decides; what adds up to a drop is decided in
hypotheses.py and lane.py.
"""

from __future__ import annotations

import itertools
import re
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The weight of a fact that decides alone against a repeat: no sum of the others reaches it.
NEVER: Final = -100.0


class Evidence(NamedTuple):
    """One finding. `weight` is log10 odds for a repeat; `name` says which factor it is, "" for none."""

    name: str
    weight: float


NOTHING: Final = Evidence("", 0.0)


class Kind(IntEnum):
    """What a piece of text is made of: how much a repeat of it says."""

    BLANK = 0
    DIGIT = 1
    LETTER = 2  # one letter, or one letter several times
    PUNCTUATION = 3
    WORD = 4


#: Characters by which a text is judged; no class and no weight changes beyond a few hundred.
_SAMPLE: Final = 4096


def kind_of(text: str) -> Kind:
    stripped = text.strip()[:_SAMPLE]
    if not stripped:
        return Kind.BLANK
    if not any(character.isalnum() for character in stripped):
        return Kind.PUNCTUATION
    if not any(character.isalpha() for character in stripped):
        return Kind.DIGIT
    if len(stripped) == 1 or len(set(stripped)) == 1:
        return Kind.LETTER
    # Markup and code repeat their brackets ("></div"): a word is mostly letters.
    return Kind.WORD if 2 * sum(character.isalnum() for character in stripped) > len(stripped) else Kind.PUNCTUATION


def is_run(text: str) -> bool:
    """Whether the text is one unit repeated ("la la la ", "----", "abab"): legitimate text looks the same as its own repeat.

    Blanks around it do not matter: the rules of a table are " =====  ==========".
    """
    return _is_periodic(text) or ((text[:1].isspace() or text[-1:].isspace()) and _is_periodic(text.strip()))


def _is_periodic(text: str) -> bool:
    # A text is periodic with period p exactly when it occurs in itself shifted by p; str.find is far faster than a prefix
    # function in Python.
    sample = text[:_SAMPLE]
    if len(sample) < 2:
        return False
    half = sample.find(sample[: (len(sample) + 1) // 2], 1)
    while 0 < half <= len(sample) // 2:
        if sample.startswith(sample[half:]):
            return True
        half = sample.find(sample[: (len(sample) + 1) // 2], half + 1)
    return False


def information(text: str) -> int:
    """Letters and digits in a text, one of CJK counting three (one token each, about three Latin letters); 0 for a run."""
    if is_run(text):
        return 0
    return sum(3 if character > "⺀" else 1 for character in text[:_SAMPLE] if character.isalnum())


# ---- the four factors of the text -----------------------------------------------------------------------------------

#: First of a chain, by what is reproduced. Blanks stay at 2.0: recorded answers that begin with an empty line often go on with another.
_FIRST_EXTENSION: Final = {Kind.BLANK: 2.0, Kind.DIGIT: 2.5, Kind.LETTER: 2.5, Kind.PUNCTUATION: 2.5, Kind.WORD: 2.5}
_SIGNS: Final = frozenset({Kind.DIGIT, Kind.PUNCTUATION})
#: Signs that stand between the items of a list.
_BETWEEN: Final = frozenset(",;'\"|")
#: What no text has several times in a row: models that write the tags of their thoughts themselves open them once.
_OPENED_ONCE: Final = frozenset({"<think>", "<thinking>"})
#: Letters and digits that go on where the text before stopped, scripts without word breaks left out; three are another token.
_CONTINUES: Final = re.compile(r"[^\W_\u2e80-\U0010ffff]")
_CONTINUES_FAR: Final = re.compile(r"[^\W\d_\u2e80-\U0010ffff]{3}")


def _is_eastern(text: str) -> bool:
    """Whether a text has Chinese or Japanese in it, too little of which was there to measure that a coincidence is rarer than 1 in 100."""
    return not text.isascii() and any("\u2e7f" < character < "\ua000" for character in text)


def glued(text: str) -> bool:
    """Whether a text has no separator at either end, in a script that has any: said twice in a row it would be "TheThe".

    Clean text repeats words with a blank or a sign between them; without one 4e-6 of the letters and 1e-6 of the words do.
    """
    return bool(text) and all(end.isalnum() and end < "\u2e80" for end in (text[0], text[-1]))


def prefix_pattern(before: str, text: str, earlier: int, *, repeated: bool = False) -> float:
    """How much it says that `text` begins with all of `before` and goes on.

    Args:
      before: the text that is reproduced.
      earlier: informative relations already seen in this chain. The second weighs more than the first: two in a row were seen at one in
        a quarter of a million chunks of clean text, none with the sum that a drop needs.
      repeated: `before` is the chain's first chunk and came twice. With a separator that is speech ("very ", "very ", "very good"), unless
        it is half a sentence.
    """
    kind = kind_of(before)
    if is_run(text):
        return 0.2
    if kind in _SIGNS and not before[0].isalnum() and not any(character.isalpha() for character in text):
        return 1.5 if earlier == 0 else 1.25  # rows of a matrix, a picture made of signs
    rest = text[len(before) :]
    if rest.startswith(before) or (len(rest) >= 3 and before.startswith(rest)):
        return 0.2  # the next of several alike, cut elsewhere
    if earlier >= 2:
        weight = 2.0
    else:
        weight = _FIRST_EXTENSION[kind] if earlier == 0 or kind is Kind.BLANK else 3.0 if kind is Kind.DIGIT else 3.5
        known = information(before) if kind is not Kind.DIGIT else 0
        blanks = (before[0].isspace() or before[-1].isspace()) and before.strip() not in _OPENED_ONCE
        phrase = known >= 16 and before.strip().count(" ") >= 2 and before.rstrip()[-1].isalpha()
        if known < 48 and (before[0] in _BETWEEN or (repeated and blanks and not phrase and kind is Kind.WORD)):
            weight -= 0.5 if earlier else 0.0
        else:
            weight += min(2.0 if known >= 24 else 1.0 if known >= 12 else 0.5 if known >= 4 else 0.0, 2.0 if earlier else 1.0)
        if earlier and kind is Kind.LETTER and glued(before) and information(rest) >= 2:
            weight += 0.5  # "I", "I", "I'll": none in 0.5 million letters without a separator
    # Words and numbers begin like others by chance ("in", "insert"; 10, 100), which is most of what clean text shows.
    if before[-1].isalnum() and _CONTINUES.match(rest):
        penalty = 0.75 if _CONTINUES_FAR.match(rest) else 1.5
        if kind is Kind.WORD and glued(before):
            penalty -= 0.75  # " in", " insert" is a thousand times as frequent as "in", "insert" in one lane
        weight = max(0.2, weight - penalty)
    return weight if earlier or not _is_eastern(before) else min(weight, 2.0)


def length_progression(lengths: Sequence[int]) -> float:
    """Snapshots grow by steps much smaller than themselves: 0.3 for at least three that do. Supports, never justifies.

    Guessed; the relation it measures is the same pair of chunks as `prefix_pattern`, so it only breaks ties.
    """
    steps = [after - before for before, after in itertools.pairwise(lengths)]
    return 0.3 if len(steps) >= 2 and all(step >= 0 for step in steps) and max(steps) * 2 <= lengths[-1] else 0.0


def timing(gap: float) -> float:
    """Duplicates of one write arrive within a millisecond: 0.1, to order hypotheses with equal odds. Never a factor."""
    return 0.1 if gap < 0.001 else 0.0


_REPEAT: Final = {Kind.BLANK: 0.2, Kind.DIGIT: 0.3, Kind.LETTER: 0.5, Kind.PUNCTUATION: 1.5, Kind.WORD: 2.0}


def content_similarity(text: str) -> float:
    """How much it says that a chunk equals the one before it, by what it is made of.

    A whole line is worth less than a word: verse and logs repeat lines, and servers that send line by line make each of them one chunk.
    """
    if is_run(text):
        return 0.2
    kind = kind_of(text)
    if _is_eastern(text):
        return min(_REPEAT[kind], 2.0)
    if kind is Kind.WORD and (known := information(text)) >= 128:
        return 4.5
    if kind is Kind.WORD and text.endswith("\n"):
        return 1.5 if known < 48 else 2.75 if known < 64 else 3.0
    return _REPEAT[kind] + (1.0 if kind is Kind.WORD and len(text) >= 64 else 0.0)


def head_similarity(text: str) -> float:
    """The same for a lane's first chunk. With a separator of its own it may be an item of a list (", OTH, OTH"), without one hardly."""
    weight = content_similarity(text)
    if glued(text):
        return 1.5 if kind_of(text) is Kind.LETTER else weight
    if text.strip() in _OPENED_ONCE:
        return _REPEAT[Kind.WORD]
    ends = sum(not end.isalnum() for end in (text[0], text[-1]))
    return weight - 0.5 * ends if weight == _REPEAT[Kind.WORD] else weight


def doubled(text: str) -> float:
    """The same for one of several chunks in a row that each come twice: songs, counting rhymes and reduplication do that with short words.

    A quarter of an order of magnitude per letter (a fifth per Latin letter's worth of Chinese), until it is worth what it is alone; a
    sixteenth for the short lines of which songs are made ("Frère Jacques" sings all four twice).
    """
    weight = content_similarity(text)
    kind = kind_of(text)
    if kind is Kind.PUNCTUATION:
        return min(weight, 1.25)
    if kind in (Kind.BLANK, Kind.DIGIT):
        return 0.45
    if kind is not Kind.WORD or weight <= 0.2:
        return weight
    known = information(text)
    if text.endswith("\n"):
        return known / 16 if known < 24 else max(weight, 2.0)
    if known >= 4 and glued(text):
        return max(weight, 3.0)
    return min(weight, known / (4 if text.isascii() else 5))


_IN_PAIRS: Final = frozenset("()[]{}<>\"'`#")


def seldom_twice(text: str) -> bool:
    """Whether clean text has a chunk so seldom twice in a row that waiting for what follows costs nearly nobody.

    Of 5,000 clean streams 5 % repeat a bare digit somewhere and 6 % an empty line, but 0.5 % anything that is left here, words included.
    """
    if is_run(text):
        return False
    kind = kind_of(text)
    if kind is Kind.BLANK:
        return text == " "
    return (
        not text.isdigit()
        if kind is Kind.DIGIT
        else kind is not Kind.PUNCTUATION or text in (" (", ")") or not _IN_PAIRS.issuperset(text.strip())
    )


def shared_prefix(a: str, b: str) -> int:
    """Characters that two texts share from their start."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while low + 1 < high:  # bisect on slices: compares at C speed
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def beyond(before: str, text: str) -> str | None:
    """What follows `before` in a text that begins with it; None if it does not.

    A delta may end between the two halves of a surrogate pair; in the next snapshot they are one character.
    """
    if text.startswith(before):
        return text[len(before) :]
    if before and "\ud800" <= before[-1] <= "\udbff" and text.startswith(before[:-1]) and len(text) >= len(before):
        pair = text[len(before) - 1].encode("utf-16-le", "surrogatepass")
        if pair[:2] == before[-1].encode("utf-16-le", "surrogatepass"):
            return pair[2:].decode("utf-16-le", "surrogatepass") + text[len(before) :]
    return None


_THINGS: Final = 5


def size_outlier(text: str, whole: str, longest: int, count: int) -> Evidence:
    """A chunk that holds all text so far and dwarfs every chunk before it is a consolidated copy, not a model repeating itself.

    A model that repeats itself does so token by token. 4 times the largest chunk (2 times from 64 characters on): 0 of
    1.55 million clean chunks of at least 24 characters (STUTTER section 4).

    Args:
      whole: all text of the lane so far, which `text` begins with.
      longest: length of the longest earlier chunk.
      count: chunks so far.
    """
    # "1, 2, 3, 4, 5." says little, but five things; a picture or a diff says two or three all over again.
    long_enough = information(whole) >= 18 or (count >= 8 and not is_run(whole) and len(set(filter(str.isalnum, whole))) >= _THINGS)
    if count >= 3 and len(text) >= (4 if len(whole) < 64 else 2) * longest and long_enough:
        return Evidence("size", 6.0)
    return NOTHING


# ---- facts about the stream -----------------------------------------------------------------------------------------

#: The completion's id changed after three or more events that shared one: a new attempt, or a new completion. With its head (a role,
#: or nothing) under the new id a little more, since an id that only rotates changes under text. Guessed.
RESTART_MARKER: Final = Evidence("restart", 1.0)
RESTART_HEAD: Final = Evidence("restart", 1.5)
#: The text since the marker is all of the lane's text, to its last character, and not just a common beginning. Guessed.
WHOLE_REPLAY: Final = 1.5
#: The incremental reading is no JSON, another one is: arguments that no client could parse.
GRAMMAR: Final = Evidence("grammar", 6.0)
#: The choice ends right after a chunk that equals all of its text: how a consolidated copy is placed (bifrost 2251, QwenPaw 7417).
#: Guessed: a model that says everything twice would have to do so in one chunk, with the same borders, as its last words.
FINISH: Final = Evidence("finish", 3.0)
#: An earlier repeat in this very stream was proven by its envelope. Guessed; only for stream heads.
HISTORY: Final = Evidence("history", 3.0)


def replayed_text(text: str) -> float:
    """How much it says that a text, after a restart, equals the lane's text from its first character on.

    A sixteenth of an order of magnitude per letter, half as much per other character, at most 6. Far below Shannon's 1 to 1.5 bit per
    letter of English: an agent's steps begin alike ("Let me look at ..."), and their ids differ too.
    """
    known = information(text)
    others = sum(not character.isalnum() for character in text) if known else 0
    return min((known + others / 2) / 16.0, 6.0)

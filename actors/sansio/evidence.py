"""Evidence for and against "this chunk was sent before": one named function per factor, each with its weight.

Weights are log10 likelihood ratios against the incremental reading (new text that merely looks like a repeat): 3.0 is
1000:1. Origin of the numbers, where a line does not say otherwise: 1.53 million clean stream starts cut from 617 real files
in six chunkings, counted by how often the relation occurs there by chance (STUTTER section 4), then lowered by about two
orders of magnitude, because a repeat that is shown is a nuisance and a character that is lost is not.

Envelope evidence is read from an event's raw data and only when a relation exists, so that a clean stream pays nothing.
Nothing here decides; what adds up to a drop is decided in hypotheses.py and lane.py.
"""

from __future__ import annotations

import itertools
import re
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .chunks import Event

#: The weight of a fact that decides alone against a repeat: no sum of the others reaches it.
NEVER: Final = -100.0


class Evidence(NamedTuple):
    """One finding. `weight` is log10 odds for a repeat; `name` says which factor it is, "" for none."""

    name: str
    weight: float


NOTHING: Final = Evidence("", 0.0)


class StreamFacts:
    """What a lane may know of its stream, kept by the detector.

    Attributes:
      threshold: log10 odds that a drop needs.
      prior: log10 odds of any stutter before the first evidence.
      head_prior: the same for a repeated head, higher for upstreams known for it.
      recent: the stream's last few events that brought text.
      usage_rose, usage_stuck: whether completion_tokens rose from one text to the next, or once stood still under a different one.
      proven: an earlier repeat in this stream was proven by its envelope.
    """

    __slots__ = ("head_prior", "prior", "proven", "recent", "threshold", "usage_rose", "usage_stuck")

    def __init__(self, threshold: float, prior: float, head_prior: float) -> None:
        self.threshold = threshold
        self.prior = prior
        self.head_prior = head_prior
        self.recent: Sequence[Event] = ()
        self.usage_rose = False
        self.usage_stuck = False
        self.proven = False


class Kind(IntEnum):
    """What a piece of text is made of: how much a repeat of it says."""

    BLANK = 0
    DIGIT = 1
    LETTER = 2  # one letter, or one letter several times
    PUNCTUATION = 3
    WORD = 4


def kind_of(text: str) -> Kind:
    stripped = text.strip()
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
    """Whether the text is one unit repeated ("la la la ", "----", "abab"): legitimate text looks the same as its own repeat."""
    # A text is periodic with period p exactly when it occurs in itself shifted by p; str.find is far faster than a prefix
    # function in Python. Texts beyond 4 Ki characters are judged by their beginning.
    sample = text[:4096]
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
    return sum(3 if character > "⺀" else 1 for character in text if character.isalnum())


# ---- the four factors of the text -----------------------------------------------------------------------------------

#: Chance in 7.4 million neighbouring chunks of clean text: digits 1e-3, letters 7e-4, punctuation 2e-4, blanks 1e-5, words of up to 3
#: letters 5e-4, up to 11 6e-5, up to 23 3e-5, longer below 5e-6; each lowered by one order of magnitude (blanks by three).
_FIRST_EXTENSION: Final = {Kind.BLANK: 2.0, Kind.DIGIT: 2.0, Kind.LETTER: 2.5, Kind.PUNCTUATION: 2.5, Kind.WORD: 2.5}


#: Letters and digits that go on where the text before stopped, scripts without word breaks left out; three are another token.
_CONTINUES: Final = re.compile(r"[^\W_\u2e80-\U0010ffff]")
_CONTINUES_FAR: Final = re.compile(r"[^\W\d_\u2e80-\U0010ffff]{3}")


def prefix_pattern(before: str, text: str, earlier: int) -> float:
    """How much it says that `text` begins with all of `before` and goes on.

    Args:
      before: the text that is reproduced.
      earlier: informative relations already seen in this chain. Two in a row were found in none of 0.9 million clean starts
        whose first chunk is a word, so the second weighs more than the first.
    """
    kind = kind_of(before)
    if is_run(text):
        return 0.2
    if earlier >= 2:
        weight = 2.0
    else:
        known = information(before)
        weight = 2.0 if known >= 24 else 1.0 if known >= 12 else 0.5 if known >= 4 else 0.0
        weight += _FIRST_EXTENSION[kind] if earlier == 0 or kind is Kind.BLANK else 3.5
    # Words and numbers begin like others by chance ("in", "insert"; 10, 100), which is most of what clean text shows.
    if before[-1].isalnum() and _CONTINUES.match(text, len(before)):
        weight = max(0.2, weight - (0.75 if _CONTINUES_FAR.match(text, len(before)) else 1.5))
    return weight


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

    At 64 characters and more it was never seen in 1.55 million clean pairs. A whole line is worth less than a word: verse and
    logs repeat lines, and servers that send line by line make each of them one chunk.
    """
    if is_run(text):
        return 0.2
    kind = kind_of(text)
    if kind is Kind.WORD and text.endswith("\n"):
        known = information(text)
        return 1.5 if known < 48 else 2.5 if known < 64 else 3.0
    return _REPEAT[kind] + (1.0 if kind is Kind.WORD and len(text) >= 64 else 0.0)


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


def size_outlier(text: str, whole: str, longest: int, count: int) -> Evidence:
    """A chunk that holds all text so far and dwarfs every chunk before it is a consolidated copy, not a model repeating itself.

    A model that repeats itself does so token by token. 4 times the largest chunk (2 times from 64 characters on): 0 of
    1.55 million clean chunks of at least 24 characters (STUTTER section 4).

    Args:
      whole: all text of the lane so far, which `text` begins with.
      longest: length of the longest earlier chunk.
      count: chunks so far.
    """
    long_enough = information(whole) >= 18 or (count >= 8 and not is_run(whole))
    if count >= 3 and len(text) >= (4 if len(whole) < 64 else 2) * longest and long_enough:
        return Evidence("size", 6.0)
    return NOTHING


# ---- the envelope ---------------------------------------------------------------------------------------------------

#: DashScope writes exactly one content chunk, its first, with the keys of choices[0] in this order, and every later one with
#: `delta` first (three clean captures); in the one capture of the stutter the first two have it, byte for byte alike.
_HEAD_ORDER: Final = re.compile(rb'\[\s*\{\s*"finish_reason"\s*:\s*null\s*,\s*"logprobs"\s*:\s*null\s*,\s*"delta"\s*:')
_REST_ORDER: Final = re.compile(rb'\[\s*\{\s*"delta"\s*:')


def head_order(data: bytes) -> bool | None:
    """Whether an event has DashScope's key order of the first chunk: True, False for that of the later ones, None for neither."""
    if _HEAD_ORDER.search(data):
        return True
    return False if _REST_ORDER.search(data) else None


def serialiser(before: Event, event: Event) -> Evidence:
    """A first-chunk key order followed by a later-chunk one: the second was written as new text."""
    if head_order(before.data) and head_order(event.data) is False:
        return Evidence("serialiser", NEVER)
    return NOTHING


#: DashScope's serialiser turning from first-chunk to later-chunk order after two chunks in first-chunk order: the second of
#: them was the head again. 5.5: one capture of the fault against three clean ones, and nothing else explains two heads.
SERIALISER_TURN: Final = Evidence("serialiser", 5.5)

STUCK_USAGE: Final = Evidence("usage", 5.5)


def usage(before: Event, event: Event, *, trusted: bool) -> Evidence:
    """A rising `usage.completion_tokens` means new text; one that stands still under the same text a duplicate.

    5.5: in the recordings with usage per chunk (DeepSeek, Perplexity) no text chunk ever left the counter where it was.

    Args:
      trusted: the counter has risen with text in this stream, and never stood still under a different text.
    """
    was, now = before.completion_tokens, event.completion_tokens
    if was is None or now is None or now < was:
        return NOTHING
    if now > was:
        return Evidence("usage", NEVER)
    return STUCK_USAGE if trusted and now > 0 else NOTHING


#: Log10 of the number of values one character of a random string can take, letters and digits.
_PER_CHARACTER: Final = 1.79
#: Fields that providers put there to pad: their mere presence proves a value per event.
_PADDING: Final = ("obfuscation", "p")
_CLOCKS: Final = frozenset({"created", "created_at", "timestamp", "time", "date"})
#: Mistral's `p` is a prefix of this of random length, so two events share it once in about 37 times.
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"


def nonce(before: Event, event: Event, recent: Sequence[Event]) -> Evidence:
    """A value that differs in every event proves which of two equal texts is a re-delivery and which is new.

    Equal: as many orders of magnitude as the value has room for, at most 7. Different: new text, whatever else speaks.

    Args:
      recent: the stream's last few events, in order; used to prove a field that is not known by name.
    """
    old, new = _strings(before.data), _strings(event.data)
    for name in _PADDING:
        if name in old and name in new:
            return _judge_nonce(old[name], new[name])
    distinct = {other.data: None for other in recent if other.data != event.data}
    if len(distinct) < 3:
        return NOTHING
    history = [_strings(data) for data in distinct]
    for name, value in new.items():
        values = [seen.get(name, "") for seen in history]
        if name in old and len(set(values)) == len(values) and min(map(len, values)) >= 8:
            return _judge_nonce(old[name], value)
    return NOTHING


def _judge_nonce(old: str, new: str) -> Evidence:
    if old != new:
        return Evidence("nonce", NEVER)
    if _ALPHABET.startswith(new):
        return Evidence("nonce", 1.5)
    return Evidence("nonce", min(7.0, _PER_CHARACTER * len(new)))


def _strings(data: bytes) -> dict[str, str]:
    """An event's string fields outside its choices (those carry text), clocks left out: they tick for all chunks of a moment."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {name: item for name, item in value.items() if isinstance(item, str) and name not in _CLOCKS}


def logprobs(before: Event, event: Event, position: int) -> Evidence:
    """Log-probabilities of a repeated text: the same floats mean the same sampling step, others a new one.

    5.5: two float32 values agree by chance about once in 10^6. Saturated values (0, or closer to it than 1e-3) say nothing:
    a model that is certain is certain each time.
    """
    old, new = _floats(before.data, position), _floats(event.data, position)
    if not old or not new:
        return NOTHING
    if old != new:
        return Evidence("logprobs", NEVER)
    return Evidence("logprobs", 5.5) if min(new) < -1e-3 else NOTHING


def _floats(data: bytes, position: int) -> list[float]:
    if b'"logprob"' not in data:
        return []
    try:
        value: Any = msgspec.json.decode(data)
        return [float(token["logprob"]) for token in value["choices"][position]["logprobs"]["content"]]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError, ValueError):
        return []


#: The completion's id changed after three or more events that shared one: a new attempt, or a new completion.
RESTART_MARKER: Final = Evidence("restart", 1.5)
#: The incremental reading is no JSON, another one is: arguments that no client could parse.
GRAMMAR: Final = Evidence("grammar", 6.0)
#: The choice ends right after a chunk that equals all of its text: how a consolidated copy is placed (bifrost 2251, QwenPaw 7417).
#: Guessed: a model that says everything twice would have to do so in one chunk, with the same borders, as its last words.
FINISH: Final = Evidence("finish", 3.0)
#: An earlier repeat in this very stream (or this upstream's configured profile) was proven. Guessed; only for stream heads.
HISTORY: Final = Evidence("history", 3.0)


def replayed_text(text: str) -> float:
    """How much it says that a text, after a restart, equals the lane's text from its first character on.

    A quarter of an order of magnitude per letter, half as much per other character, at most 6: Shannon's 1 to 1.5 bit per letter
    of English.
    """
    known = information(text)
    others = sum(not character.isalnum() for character in text) if known else 0
    return min((known + others / 2) / 4.0, 6.0)


def judge_repeat(before: Event, event: Event, recent: Sequence[Event], position: int, *, trusted_usage: bool) -> Evidence:
    """All that the envelope says about a text that equals the one before it: the first `NEVER`, else the sum of what speaks for it.

    Args:
      before: the event that brought the lane's previous text.
      position: the choice's position in the event.
    """
    total, names = 0.0, []
    for found in (
        usage(before, event, trusted=trusted_usage),
        serialiser(before, event),
        logprobs(before, event, position),
        nonce(before, event, recent),
    ):
        if found.weight == NEVER:
            return found
        if found.weight:
            names.append(found.name)
            total += found.weight
    return Evidence("+".join(names), total)

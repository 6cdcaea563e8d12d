"""Evidence around the text: what an event says of itself besides the delta, one named function per factor.

Two equal texts are a repeat or new text; a nonce, a token counter, log-probabilities or the order of keys can tell which, whatever
the texts are. Read from an event's raw data and only when a relation exists, so that a clean stream pays nothing, and only once, so
that an event of thousands of choices is no more than its bytes. Weights are log10 odds as in evidence.py. Knows no lanes; decides
nothing.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .evidence import NEVER, NOTHING, Evidence
from .nonces import read_members

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .chunks import Event
    from .stream_facts import StreamFacts

# ---- what is read ---------------------------------------------------------------------------------------------------


class Envelope:
    """What one event says of itself besides its texts. Each part is read when somebody asks for it first."""

    def __init__(self, event: Event) -> None:
        self.event = event

    @cached_property
    def head_order(self) -> bool | None:
        """Whether it has DashScope's key order of the first chunk: True, False for that of the later ones, None for neither."""
        data = self.event.data
        if _HEAD_ORDER.search(data):
            return True
        return False if _REST_ORDER.search(data) else None

    @cached_property
    def members(self) -> dict[str, msgspec.Raw]:
        """The fields of the event itself, unread; none if it is no object."""
        return read_members(self.event.view)

    @cached_property
    def characters(self) -> int:
        """Of all its texts."""
        return sum(len(delta.text) for delta in self.event.deltas)

    def logprobs(self, position: int) -> list[float]:
        """The log-probabilities of the tokens in one of its choices."""
        return self._logprobs[position] if position < len(self._logprobs) else []

    @cached_property
    def _logprobs(self) -> list[list[float]]:
        if b'"logprob"' not in self.event.raw:
            return []
        try:
            value: Any = msgspec.json.decode(self.event.view)
            return [_floats(choice) for choice in value["choices"]]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError, ValueError):
            return []


def _floats(choice: Any) -> list[float]:
    try:
        return [float(token["logprob"]) for token in choice["logprobs"]["content"]]
    except (LookupError, TypeError, ValueError, OverflowError):  # an integer of 400 digits is no float
        return []


# ---- the serialiser -------------------------------------------------------------------------------------------------

#: DashScope writes exactly one content chunk, its first, with the keys of choices[0] in this order, and every later one with
#: `delta` first (three clean captures); in the one capture of the stutter the first two have it, byte for byte alike.
_HEAD_ORDER: Final = re.compile(rb'\[\s*\{\s*"finish_reason"\s*:\s*null\s*,\s*"logprobs"\s*:\s*null\s*,\s*"delta"\s*:')
_REST_ORDER: Final = re.compile(rb'\[\s*\{\s*"delta"\s*:')

#: DashScope's serialiser turning from first-chunk to later-chunk order after two chunks in first-chunk order: the second of
#: them was the head again. 5.5: one capture of the fault against three clean ones, and nothing else explains two heads.
SERIALISER_TURN: Final = Evidence("serialiser", 5.5)


def serialiser(before: Envelope, envelope: Envelope) -> Evidence:
    """A first-chunk key order followed by a later-chunk one: the second was written as new text."""
    if before.head_order and envelope.head_order is False:
        return Evidence("serialiser", NEVER)
    return NOTHING


# ---- the token counter ----------------------------------------------------------------------------------------------

#: 5.5: in the recordings with usage per chunk (DeepSeek, Perplexity) no text chunk ever left the counter where it was.
STUCK_USAGE: Final = Evidence("usage", 5.5)
#: What one earlier rise adds to the trust in a counter. One of each chunk's own tokens rises by chance, too ("1, 2, 2, 1").
_PER_RISE: Final = 2.0


def usage(before: Event, event: Event, facts: StreamFacts) -> Evidence:
    """A rising `usage.completion_tokens` means new text; one that stands still under the same text a duplicate.

    Args:
      facts: how often the counter has risen with the stream's texts, and whether it ever fell or stood still under another text.
    """
    was, now = before.completion_tokens, event.completion_tokens
    if was is None or now is None or now < was:
        return NOTHING
    if now > was:
        return Evidence("usage", NEVER)
    if facts.usage_erratic or not facts.usage_rises or not now:
        return NOTHING
    return Evidence("usage", min(STUCK_USAGE.weight, _PER_RISE * facts.usage_rises))


class Standstill:
    """A counter that did not rise from a text to its repeat: proof once it is seen to count the whole answer.

    A counter of each chunk's own tokens looks the same at first ("1, 1, 2"). Two rises in a row tell, or one that is too high for the
    tokens of its own chunk, measured by the first one's.
    """

    __slots__ = ("_first", "_length", "_was", "rises")

    def __init__(self, first: int, length: int) -> None:
        self._first = first
        self._length = length
        self._was = first
        self.rises = 0

    def proven(self, envelope: Envelope) -> bool:
        """Takes the next event with text. Returns: whether the repeat is proven now."""
        now = envelope.event.completion_tokens
        if now is None or now <= self._was:
            self.rises = -1000  # it does not count, or not the whole answer
            return False
        self.rises += 1
        own = self._first * envelope.characters / self._length
        whole = self._first >= 8 and now >= 1.25 * own
        self._was = now
        return self.rises >= 2 or (self.rises == 1 and whole)


def counted_anew(before: Event, event: Event, known: int, text: str) -> bool:
    """Whether the counter says that the model generated all of a text which begins with what the lane said so far.

    Args:
      known: characters of the lane's text so far, which `text` begins with.
    """
    was, now = before.completion_tokens, event.completion_tokens
    if not was or now is None or now <= was or known < 24:
        return False
    if len(text) == known:
        return True  # an exact copy costs no token
    each = min(1.0, was / known)  # tokens per character; more than one is reasoning that is counted too
    return now - was > each * (len(text) - known / 2)


# ---- log-probabilities ----------------------------------------------------------------------------------------------

#: Multiples of one part of this are numbers of a low-precision model.
_COARSE: Final = 1 << 14


def logprobs(before: Envelope, envelope: Envelope, position: int, others: Iterable[Envelope]) -> Evidence:
    """Log-probabilities of a repeated text: the same floats mean the same sampling step, others a new one.

    5.5: two float32 values agree by chance about once in 10^6. Values that other texts of the stream had as well say nothing, and at
    least three others must be known to tell; nor do saturated ones (0, or closer to it than 1e-3), rounded ones (four decimals or
    fewer), coarse fractions, and the -9999 that stands for none: they are alike each time.

    Args:
      others: the stream's last few events with other texts.
    """
    old, new = before.logprobs(position), envelope.logprobs(position)
    if not old or not new:
        return NOTHING
    if old != new:
        return Evidence("logprobs", NEVER)
    telling = {value for value in new if -100.0 < value < -1e-3 and value != round(value, 4) and not (value * _COARSE).is_integer()}
    if not telling:
        return NOTHING
    known = {value for other in others for value in other.logprobs(position)}
    return Evidence("logprobs", 5.5) if telling - known and len(known) >= 3 else NOTHING


def sampled_anew(envelope: Envelope, position: int) -> bool:
    """Whether a chunk carries log-probabilities of several tokens: the model generated it, it is no copy that somebody put together."""
    return len(envelope.logprobs(position)) > 1


# ---- all of it ------------------------------------------------------------------------------------------------------


def judge_repeat(before: Event, event: Event, position: int, facts: StreamFacts) -> Evidence:
    """All that the envelope says about a text that equals the one before it: the first `NEVER`, else the sum of what speaks for it.

    Args:
      before: the event that brought the lane's previous text.
      position: the choice's position in the event.
    """
    if before is event:
        # Two entries of one index in one event are fragments (ai-dynamo PR 15054): no transport repeats within an event.
        return Evidence("event", NEVER)
    total, names = 0.0, []
    old, new = facts.envelope(before), facts.envelope(event)
    for found in (
        usage(before, event, facts),
        serialiser(old, new),
        logprobs(old, new, position, facts.others(new)),
        facts.nonces.judge(old, new),
    ):
        if found.weight == NEVER:
            return found
        if found.weight:
            names.append(found.name)
            total += found.weight
    return Evidence("+".join(names), total)

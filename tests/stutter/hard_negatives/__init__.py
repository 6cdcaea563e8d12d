"""Hard negatives: legitimate streams that look like stutter. Each must leave byte for byte as it came.

The rows are grouped by what makes them repeat. Each names the rule that it would trip: what a repair would have to believe to damage it.
`KNOWN_BROKEN` names those that the detector still damages, and why that is a fault of the detector; their tests are strict xfails, so
that a repair of the detector shows. Streams that nothing could tell from a fault are not here but in twins.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .code import CODE
from .digits import DIGITS
from .envelopes import ENVELOPES
from .growth import GROWTH
from .lanes import LANES
from .markup import MARKUP
from .scripts import SCRIPTS
from .speech import SPEECH
from .tools import TOOLS

if TYPE_CHECKING:
    from .stream import Negative

NEGATIVES: Final[tuple[Negative, ...]] = (*SPEECH, *DIGITS, *MARKUP, *CODE, *SCRIPTS, *GROWTH, *TOOLS, *LANES, *ENVELOPES)

_PROFILE: Final = "a profile's prior and two relations of the head's text commit: text alone, which a profile must never let decide"
_SHORT: Final = "three doubled words of one or two syllables commit; a doubled short word must weigh less than a long one"
_CHAIN: Final = "three lines that extend each other commit although the lane's own beginning is not among them"
_ONE_EVENT: Final = "two texts of one lane in one event are judged by their envelope, which is one and the same"
_NEW_CALL: Final = "a new id whose fragment has empty arguments is not seen, so the second call is taken for the first again"
_NEW_NAME: Final = "another function name on an index is another call, with or without an id"
_FINISHED: Final = "a finish ends what the choice said and called, whether or not the id changes after it"
_DRAFTED: Final = "usage that rises by the whole length, or new log-probabilities per token, must refute a copy"
_ROTATING: Final = "an id that changes again and again is no restart marker"
_BEGINNING: Final = "a few words in common after a new id commit: what follows is merged, and an end within them loses text"
_CONSTANT: Final = "a value that has not differed in every event so far is no nonce"
_CLOCK: Final = "a clock ticks for all events of a moment, whatever its name: no nonce"
_FLOATS: Final = "a value that every event has, or that is rounded to two digits, says nothing about a sampling step"

#: By the negative's name.
KNOWN_BROKEN: Final[dict[str, str]] = {
    "la la land": _PROFILE,
    "Game of Life": _PROFILE,
    "Twinkle, twinkle in syllables": _SHORT,
    "ABAB verbs": _SHORT,
    "memory game, line end in front": _CHAIN,
    "verse in two large chunks, then whole": "twice the size of two chunks is no outlier, and the finish behind it no second proof",
    "a sentence again, drafted as one chunk, counted": _DRAFTED,
    "a sentence again, drafted as one chunk, the odds of each token in it": _DRAFTED,
    "a sentence again and on, drafted as one chunk, counted": _DRAFTED,
    "index reused by a new id, same arguments after it": _NEW_CALL,
    "index reused, same arguments in fragments": _NEW_CALL,
    "index reused, the second call empty": _NEW_CALL,
    "another function with the same arguments, no ids, as Gemini sends": _NEW_NAME,
    "another function, no ids, arguments after it": _NEW_NAME,
    "next turn under the same id, the same call without ids": _FINISHED,
    "two equal fragments in one event, one index": _ONE_EVENT,
    "equal digits in entries of one index": _ONE_EVENT,
    "one choice in two entries of an event": _ONE_EVENT,
    "one choice in two entries, first of all": _ONE_EVENT,
    "next turn under the same id, begun alike in one chunk": _FINISHED,
    "ids rotate in threes, a refrain": _ROTATING,
    "ids rotate in fours, a refrain at a border": _ROTATING,
    "ids rotate in fours, the first verse again": _ROTATING,
    "next step under a new id, begun alike": _BEGINNING,
    "next step under a new id, a beginning of the first": _BEGINNING,
    "usage counts own tokens, first one and then twos": "one rise does not show that a counter counts the whole answer",
    "usage stands at zero, then counts": "a counter that is zero after text was sent does not count yet",
    "obfuscation left empty": _CONSTANT,
    "obfuscation left empty, head alike": _CONSTANT,
    "obfuscation scrubbed to one value": _CONSTANT,
    "fingerprint that changes now and then": _CONSTANT,
    "a clock of milliseconds under another name": _CLOCK,
    "log-probabilities without a value": _FLOATS,
    "log-probabilities rounded": _FLOATS,
}

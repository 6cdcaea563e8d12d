"""The form that a stream's events have in common: all of their bytes but the text.

Most upstreams send the same bytes around each piece of text for as long as an answer lasts. An event that is known to differ from an
earlier one in nothing but its text needs no JSON to be read. Owns how that is known; what an event means is event_json.py's business.

Theory of operation. A form is learnt from an event with one text: what stands before the text, and what stands behind it. That this
place is the text is not guessed: the event is read once more with another one there, and has to come out with that and else unchanged.
So the quotation marks around it are those of its string, and a block with the same beginning and the same end, and between them a text
without quotation mark, backslash and anything unprintable, is the same JSON with that text. Measured: 1.3 us for an event, where its JSON
is read 2.4, and a smaller part of the caches.

An upstream that draws something anew for each event (padding, a clock) has no form: then learning is given up.
"""

from __future__ import annotations

from typing import Final

from .chunks import Delta, Event, Weight
from .event_json import read_event

_NOTHING: Final = Weight.NOTHING
#: Texts that pass before one is learnt from: to learn costs as much as is saved with three events, and a short answer has no more.
_FIRST: Final = 3
#: Forms that are learnt in a row without one that fits. Guessed.
_TRIES: Final = 8
_OTHER: Final = b"the quick brown fox"


class EventForm:
    """The form of one attempt's events.

    Args:
      most: bytes of a block from which on it is not looked at.

    Attributes:
      given_up: there is none.
    """

    __slots__ = ("_before", "_behind", "_model", "_most", "_texts", "_vain", "given_up")

    def __init__(self, most: int) -> None:
        self._most = most
        self._model: Event | None = None  # the event that the form was learnt from, None while there is none
        self._before = self._behind = b""
        self._texts = 0
        self._vain = 0
        self.given_up = False

    def read(self, block: bytes) -> Event | None:
        """The event of a block that has the form, None if it has another. Any bytes may be asked for."""
        model, before, behind = self._model, self._before, self._behind
        if model is None or not block.startswith(before) or not block.endswith(behind) or len(block) >= self._most:
            return None
        try:
            text = block[len(before) : -len(behind)].decode()
        except UnicodeDecodeError:
            return None
        if not text or not text.isprintable() or '"' in text or "\\" in text:
            return None
        self._vain = 0
        delta = model.deltas[0]
        deltas = (Delta(delta.choice, delta.field, text, delta.position),)
        data = block[block.find(b"{") : -2]
        return Event(block, data, deltas, model.choices, (), model.weight, model.id, model.completion_tokens)

    def learn(self, event: Event) -> None:
        """Take the form of an event that had another. Its block is one line, its data one object."""
        if event.weight is _NOTHING or len(event.deltas) != 1 or len(event.raw) >= self._most:
            return
        self._texts += 1
        if self._texts <= _FIRST:
            return
        raw, text, vain = event.raw, event.deltas[0].text, self._vain + 1
        told = b'"%b"' % text.encode("utf-8", "replace")
        place = raw.find(told)
        if place >= 0:  # else it is written with escapes
            self._model, self._before, self._behind = event, raw[: place + 1], raw[place + len(told) - 1 :]
            probe = self._before + _OTHER + self._behind
            fits = read_event(probe, probe[probe.find(b"{") : -2]) == self.read(probe) and self.read(raw) == event
            if not fits or text == _OTHER.decode():
                self._model = None
        if self._model is None or place >= 0:
            self._vain = vain
            self.given_up = vain >= _TRIES

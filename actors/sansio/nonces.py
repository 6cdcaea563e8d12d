"""Which fields of a stream's events hold a value drawn anew for each: nonces, and the padding that providers add.

Such a value proves which of two equal texts is a re-delivery and which is new. Most fields that look like one are none: a gateway blanks
the padding, a node's name changes now and then, a clock ticks for all events of a moment. So every event of the stream counts: a field
is out for good once it stood still under another text.

Owns what the fields of one stream have shown. Knows no lanes; weights are log10 odds as in evidence.py.

Theory of operation. All string fields of the first event are candidates. Constant ones (`object`, `model`, `id`) are out with the first
text, so that a usual stream pays for two or three events; where a candidate is left, every event is read for it. The first events wait
to be read until somebody asks or a few have come: most short streams are over before.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

from .evidence import NEVER, NOTHING, Evidence

if TYPE_CHECKING:
    from .chunks import Delta, Event
    from .envelope import Envelope

#: Log10 of the number of values one character of a random string can take, letters and digits.
_PER_CHARACTER: Final = 1.79
#: Fields that providers put there to pad. Their mere presence says that a value per event is meant; that it differs has to be seen.
_PADDING: Final = frozenset({"obfuscation", "p"})
_CLOCKS: Final = frozenset({"created", "created_at", "timestamp", "time", "date"})
#: Mistral's `p` is a prefix of this of random length, so two events share it once in about 37 times.
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
#: Changes of a field without a known name before it is believed: four values that differ pairwise, as in the prototype.
_CHANGES: Final = 3
#: Places at which such a field has shown letters and digits. Names and numbers of machines have theirs apart; four of eight hexadecimal
#: digits show both among four values in 99 of 100 cases.
_MIXED: Final = 4
#: Values that are remembered to notice one that comes again.
_VALUES: Final = 256
#: First values, and first characters of each, whose letters and digits are looked at.
_SAMPLE: Final = 16
#: Events in which a field has to turn up first.
_FIRST: Final = 4


#: First events that wait to be read, and bytes of one beyond which none waits, so that little is kept. To read them takes 60 us of the
#: 1.1 ms that a stream of three events costs (measured).
_WAIT: Final = 8
_SMALL: Final = 4096


class _Padding(msgspec.Struct, gc=False):
    obfuscation: str | None = None
    p: str | None = None


_padding: Final = msgspec.json.Decoder(_Padding).decode
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Field:
    """What one field has shown."""

    __slots__ = ("again", "changed", "deltas", "fell", "last", "letters", "seen", "stuck")

    def __init__(self, value: str, deltas: tuple[Delta, ...]) -> None:
        self.last = value
        self.deltas = deltas
        self.changed = 0  # times it differed from the event before
        self.fell = False  # once it was smaller than before: no clock, no counter
        self.again = False  # a value came again later
        self.stuck = 0  # times it was the same under another text
        self.seen = {hash(value)}
        self.letters: list[int] = []  # by place: 1 for a digit seen there, 2 for a letter
        self._look_at(value)

    def note(self, value: str, deltas: tuple[Delta, ...]) -> None:
        if value == self.last:
            self.stuck += deltas != self.deltas
        else:
            self.changed += 1
            self.fell |= value < self.last
            self.again |= hash(value) in self.seen
            if len(self.seen) < _VALUES:
                self.seen.add(hash(value))
                if len(self.seen) <= _SAMPLE:
                    self._look_at(value)
        self.last, self.deltas = value, deltas

    def _look_at(self, value: str) -> None:
        beginning = value[:_SAMPLE]
        self.letters += [0] * (len(beginning) - len(self.letters))
        for place, character in enumerate(beginning):
            self.letters[place] |= character.isdigit() | 2 * character.isalpha()

    def room(self, value: str) -> float:
        """Orders of magnitude of values that it could have had instead."""
        if _ALPHABET.startswith(value):
            return min(1.5, math.log10(len(self.seen)))
        return min(7.0, _PER_CHARACTER * len(value))

    def believed(self, name: str) -> bool:
        if name in _PADDING:
            return self.changed > 0 and 8 * self.stuck <= self.changed
        return self.changed >= _CHANGES and self.fell and self.letters.count(3) >= _MIXED

    def refuted(self, name: str) -> bool:
        """Whether one that was stuck or came again is out for good."""
        if name in _PADDING:
            return self.stuck > 0 and self.room(self.last) >= 3.0  # short ones come again by chance
        return True


class Nonces:
    """The fields of one stream's events.

    Attributes:
      over: no field is left that could be one: there is nothing more to note.
    """

    def __init__(self) -> None:
        self.over = False
        self._fields: dict[str, _Field] = {}
        self._out: set[str] = set()
        self._count = 0
        self._only_padding = False
        self._waiting: list[Event] | None = []

    def note(self, event: Event) -> None:
        """Takes the next event, after its texts were judged."""
        if self._waiting is None:
            self._look(event)
            return
        self._waiting.append(event)
        if len(self._waiting) == _WAIT or len(event.raw) > _SMALL:
            self._catch_up()

    def _catch_up(self) -> None:
        waiting, self._waiting = self._waiting, None
        for event in waiting or ():
            self._look(event)

    def _look(self, event: Event) -> None:
        if self._only_padding:
            self._note_padding(event)
            return
        if self.over:
            return
        self._count += 1
        members = read_members(event.view)
        for name in list(self._fields) if self._count > _FIRST else members:
            if value := _text(members, name):
                self._note(name, value, event.deltas)
        self._only_padding = self._count >= _FIRST and bool(self._fields) and self._fields.keys() <= _PADDING
        self.over = self._count >= _FIRST and not self._fields

    def _note_padding(self, event: Event) -> None:
        """The usual case of a stream that has a nonce; reading two fields costs a third of reading them all."""
        try:
            found = _padding(event.view)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if found.obfuscation:
            self._note("obfuscation", found.obfuscation, event.deltas)
        if found.p:
            self._note("p", found.p, event.deltas)

    def _note(self, name: str, value: str, deltas: tuple[Delta, ...]) -> None:
        field = self._fields.get(name)
        if field is None:
            if name not in self._out:
                self._fields[name] = _Field(value, deltas)
            return
        field.note(value, deltas)
        if (field.stuck or field.again) and field.refuted(name):
            del self._fields[name]
            self._out.add(name)
            self._only_padding = self._only_padding and bool(self._fields)

    def judge(self, before: Envelope, envelope: Envelope) -> Evidence:
        """What the nonces of two events with equal texts say.

        Equal: as many orders of magnitude as the value has room for, at most 7. Different: new text, whatever else speaks.
        """
        self._catch_up()
        if not self._fields:
            return NOTHING
        same = NOTHING
        for name, field in self._fields.items():
            was, now = _text(before.members, name), _text(envelope.members, name)
            if not was or not now:
                continue
            if was != now and (name in _PADDING or field.believed(name)):
                return Evidence("nonce", NEVER)
            if was == now and field.believed(name):
                same = max(same, Evidence("nonce", field.room(now)), key=lambda found: found.weight)
        return same


def same_padding(before: Envelope, envelope: Envelope) -> str:
    """The value of a padding field that two events share, "" if there is none: a nonce if the next event has another."""
    old, new = before.members, envelope.members
    return next((value for name in sorted(_PADDING) if (value := _text(old, name)) and value == _text(new, name)), "")


def other_padding(value: str, envelope: Envelope) -> Evidence:
    """What two events that shared a padding value prove when a third one's is seen."""
    other = next((found for name in sorted(_PADDING) if (found := _text(envelope.members, name))), value)
    if other == value or _ALPHABET.startswith(value):
        return NOTHING
    return Evidence("nonce", min(7.0, _PER_CHARACTER * len(value)))


def read_members(data: bytes | memoryview) -> dict[str, msgspec.Raw]:
    """The fields of a JSON object, unread; none if it is no object."""
    try:
        return _members(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _text(members: dict[str, msgspec.Raw], name: str) -> str:
    """A string as it is written, "" if it is none or a clock."""
    if (raw := members.get(name)) is None or name in _CLOCKS:
        return ""
    written = memoryview(raw)  # which is large for `choices`
    return str(written[1:-1], "utf-8") if bytes(written[:1]) == b'"' else ""

"""The readings of a lane that compete with the incremental one: snapshots, m-fold duplicates, a replay from the start.

A hypothesis says, for every delta, which text the client should get if it were true, or that the delta refutes it. Its score
is its log10 odds against the incremental reading; `ready` is the only place where a drop becomes possible: odds past the
threshold *and* two independent factors. Knows one lane's deltas, no events' order, no clock.

    deltas       I    I    I'll   I'll help    you
    incremental  I    I    I'll   I'll help    you        every delta is new
    Snapshot     I    ''   'll    help         refuted    every delta repeats the text so far
    Duplicate    I    ''   refuted                        every delta comes m times
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import envelope, evidence, nonces
from .evidence import NEVER, NOTHING, Evidence, Kind

if TYPE_CHECKING:
    from .chunks import Event
    from .envelope import Envelope

#: Relations below this weight (blanks, digits, runs) support but are no factor.
_INFORMATIVE: Final = 0.5
#: Most that doubled chunks without a word add, however many: digits come in pairs (1122), and so do the frames of a picture made of
#: signs. Twice as much where digits, signs and blanks all come doubled ("11,,  22,,").
_WEAK: Final = 3.0
#: Repeats of a chunk with nothing that grows after which it is a run, not a snapshot. Guessed; cumulative streams with pauses repeat more.
_RUN: Final = 8
#: Bytes of events that a replay keeps to give them back. Guessed: about 4,000 tokens; who has said the same for so long will catch up.
_STASH: Final = 1 << 20


class Hypothesis:
    """What all readings share.

    Args:
      score: log10 odds against the incremental reading before any evidence.

    Attributes:
      texts: what it would send for each delta that its lane still holds, oldest first.
      factors: names of independent factors beyond the text's own relations.
      findings: all that was scored, in order.
      relations: informative pairs of chunks seen.
      lean: what the upstream is known for, in log10 odds; it counts as soon as a factor beside the text does.
      shadow: its hold expired and the incremental reading was sent; it watches on and may still win, but holds nothing.
    """

    __slots__ = ("factors", "findings", "lean", "relations", "score", "shadow", "texts")

    def __init__(self, score: float) -> None:
        self.score = score
        self.texts: list[str] = []
        self.factors: set[str] = set()
        self.findings: list[Evidence] = []
        self.relations = 0
        self.lean = 0.0
        self.shadow = False

    def follow(self, text: str, repeat: Evidence) -> str | None:
        """What the client should get for the next delta; None if the delta refutes this reading.

        Args:
          repeat: what the envelope says if the delta equals the lane's previous one, else nothing.
        """
        raise AssertionError  # every reading has its own

    def proceed(self, text: str, repeat: Evidence) -> str | None:
        """`follow`, once committed: nothing is scored any more."""
        raise AssertionError  # every reading has its own

    def add(self, found: Evidence) -> None:
        if found.weight:
            self.score += found.weight
            self.factors.add(found.name)
            self.findings.append(found)

    def relate(self, weight: float) -> None:
        self.score += weight
        self.relations += weight >= _INFORMATIVE
        self.findings.append(Evidence("text", weight))

    def ready(self, threshold: float) -> bool:
        """Whether it may win now: the odds, and at least two independent factors.

        One pair of chunks is one factor, however many of its properties were scored; a hypothesis exists because of one. The second
        is another informative pair, or anything that is not the text. Text alone has to reach the threshold without the upstream's
        reputation: "la", "la", "land" is what a portal that repeats its heads says as well.
        """
        if self.factors:
            return self.score + self.lean >= threshold
        return self.score >= threshold and self.relations >= 2

    @property
    def shape(self) -> str:
        raise AssertionError  # every reading has its own


class Snapshot(Hypothesis):
    """Every delta is the whole text so far: it extends or repeats the one before it.

    Args:
      before: the lane's text when the relation was seen; `text` begins with it.
      head: `before` is the lane's first delta, so the chain began at the start of the stream.
    """

    __slots__ = (
        "confirmed",
        "extensions",
        "head",
        "in_head_order",
        "lengths",
        "over",
        "padding",
        "repeats",
        "standstill",
        "strikes",
        "text",
    )

    def __init__(self, score: float, before: str, text: str, repeat: Evidence, *, head: bool) -> None:
        super().__init__(score)
        self.text = before
        self.head = head
        self.extensions = 0
        self.repeats = 0
        self.confirmed = False  # a repeat of it was scored
        self.strikes = 0
        self.lengths = [len(before)]
        self.in_head_order = False
        self.padding = ""
        self.standstill: envelope.Standstill | None = None
        self.over = False  # other text has followed; its envelope may still prove the repeats before that
        self.texts = [self.follow(text, repeat) or ""]

    def follow(self, text: str, repeat: Evidence) -> str | None:
        before = self.text
        if self.over:
            return self._other(text)
        if text == before:
            if repeat.weight == NEVER and repeat.name == "usage":
                return self._other(text)  # the counter rose: new text, whatever it proves of the repeats before
            self.repeats += 1
            if not self.extensions and self.repeats > _RUN:
                return None
            if not self.confirmed and (not self.extensions or evidence.information(text) >= 48):
                self.confirmed = True
                # A fresh nonce refutes a duplicate; a snapshot may be repeated with one.
                weight = evidence.head_similarity(text) if self.head else evidence.content_similarity(text)
                self.relate(weight - (1.0 if repeat.weight == NEVER else 0.0))
                if repeat.weight > 0:
                    self.add(repeat)
            return ""
        rest = evidence.beyond(before, text)
        if rest is None:
            return self._other(text)
        repeated = bool(self.repeats) and not self.extensions
        self.relate(evidence.prefix_pattern(before, text, self.relations, repeated=repeated))
        self.extensions += 1
        self.lengths = [*self.lengths[-2:], len(text)]
        self.score += evidence.length_progression(self.lengths)
        self.text = text
        return rest

    def _other(self, text: str) -> str | None:
        self.over = True
        return text if self.watching else None

    def watch(self, before: Envelope, head: Envelope, repeat: Evidence) -> None:
        """Notes what the envelopes of a head and its repeat may prove later (`turn`)."""
        self.in_head_order = before.head_order is True and head.head_order is True
        tokens = before.event.completion_tokens
        if tokens and tokens == head.event.completion_tokens and "usage" not in repeat.name:
            self.standstill = envelope.Standstill(tokens, len(self.text))
        if repeat.weight != NEVER and "nonce" not in repeat.name:
            self.padding = nonces.same_padding(before, head)

    @property
    def watching(self) -> bool:
        return self.in_head_order or self.standstill is not None or bool(self.padding)

    def turn(self, following: Envelope) -> bool:
        """Whether the next event proves that the chunks before it were one head sent again."""
        found = NOTHING
        if self.in_head_order and following.head_order is False:
            found = envelope.SERIALISER_TURN
            self.in_head_order = False
        elif self.padding:
            found, self.padding = nonces.other_padding(self.padding, following), ""
        elif self.standstill is not None:
            if self.standstill.proven(following):
                found = envelope.STUCK_USAGE
            if found.weight or self.standstill.rises < 0:
                self.standstill = None
        self.add(found)
        return bool(found.weight)

    def rearm(self, score: float) -> None:
        """After its repeats were proven: whether the chain goes on has to be shown anew."""
        self.score = score
        self.relations = 0
        self.factors = {evidence.HISTORY.name}
        self.findings = []
        self.texts = []

    def proceed(self, text: str, repeat: Evidence) -> str | None:
        """`follow`, once committed: what a cumulative stream may do besides growing. None if it is incremental again."""
        before = self.text
        rest = evidence.beyond(before, text)
        if rest is not None:
            self.text = text
            self.extensions += bool(rest)
            self.strikes = 0
            return rest
        if before.startswith(text) and (
            len(text) >= max(32, len(before) // 2) or (self.extensions >= 6 and evidence.information(text) >= 12)
        ):
            return ""  # an older snapshot again
        share = evidence.shared_prefix(before, text)
        nearly_all = share >= 4 and share >= 0.8 * len(before)
        if self.extensions >= 3 and len(text) > share and (nearly_all or (share >= 8 and share >= len(before) - 8)):
            self.text = text
            return text[share:]  # a revised tail (K1): nothing is taken back, nothing is lost
        if self.extensions >= 6 and self.strikes < 3:
            self.strikes += 1  # something else in between: it passes, the next snapshot is still measured against the last
            return text
        return None

    @property
    def ends_on_commit(self) -> bool:
        """A repeated head alone says nothing about what follows."""
        return not self.extensions

    @property
    def shape(self) -> str:
        if not self.head:
            return "A3" if self.extensions else "E1"
        if not self.extensions:
            return "B1"
        return "A2" if self.repeats else "A1"


class Duplicate(Hypothesis):
    """Every delta is sent `times` times.

    Args:
      value: the delta that was just repeated; two copies of it have come.
    """

    __slots__ = ("_before", "_credit", "_kinds", "_weak", "count", "from_start", "times", "value")

    def __init__(self, score: float, value: str, times: int, repeat: Evidence, *, from_start: bool) -> None:
        super().__init__(score)
        self.times = times
        self.value = value
        self.count = 1
        self.from_start = from_start
        self._before: str | None = None  # the value of the last complete group, and what it was worth
        self._credit = 0.0
        self._kinds: set[Kind] = set()  # of the chunks without words, and what they have added
        self._weak = 0.0
        self.texts = [self.follow(value, repeat) or ""]

    def follow(self, text: str, repeat: Evidence) -> str | None:
        said = self.proceed(text, repeat)
        if said is not None and self.count == self.times:
            self._complete(repeat)
        return said

    def proceed(self, text: str, repeat: Evidence) -> str | None:
        if self.count < self.times:
            if text != self.value or repeat.weight == NEVER:
                return None
            self.count += 1
            return ""
        self.value, self.count = text, 1
        return text

    def _complete(self, repeat: Evidence) -> None:
        if self.value == self._before:
            # A run: neither this group nor the one before it says anything.
            self.score -= self._credit
            self.relations -= self._credit >= _INFORMATIVE
            self._credit = 0.0
            return
        weight = evidence.doubled(self.value)
        if (kind := evidence.kind_of(self.value)) < Kind.WORD:
            self._kinds.add(kind)
            credit = min(weight + 0.5 * (self.times - 2), max(0.0, (_WEAK if len(self._kinds) == 1 else 2 * _WEAK) - self._weak))
            self._weak += credit
        else:
            # A text that begins with a word three times writes the first in another way ("Hip hip hip"), these were one as the other.
            credit = weight * (2.0 if self.from_start and self.times == 3 else 1.0)
            credit += (0.5 if self.relations and weight >= 1.0 else 0.0) + 0.5 * (self.times - 2)
        self._credit = credit
        self._before = self.value
        self.relate(self._credit)
        self.add(repeat)

    def ready(self, threshold: float) -> bool:
        return self.count == self.times and super().ready(threshold)

    @property
    def shape(self) -> str:
        if not self.from_start:
            return "C3"
        return "C1" if self.times == 2 else "C2"


class Replay(Hypothesis):
    """The lane begins again: what comes is its text from the first character on, then goes on.

    Once committed it swallows; should the new text differ after all (F3), or end before it has caught up, what was swallowed is given
    back, so that two attempts are never spliced and nothing is lost.

    Args:
      whole: the lane's text when it began again.
      because: why a replay is thought of at all: the restart marker, or arguments that were complete.
      complete_only: nothing less than the whole text again may be dropped.

    Attributes:
      stash: the events that were swallowed, None once they are too many to be kept.
    """

    __slots__ = ("_because", "_complete_only", "_size", "position", "stash", "swallowed", "whole")

    def __init__(self, whole: str, text: str, because: Evidence, *, complete_only: bool = False) -> None:
        super().__init__(0.0)
        self.whole = whole
        self.position = 0
        self._because = because.weight
        self._complete_only = complete_only
        self._size = 0
        self.stash: list[Event] | None = []
        self.swallowed = ""
        self.add(because)
        self.texts = [self.follow(text, NOTHING) or ""]

    @property
    def done(self) -> bool:
        return self.position >= len(self.whole)

    def follow(self, text: str, repeat: Evidence) -> str | None:
        said = self.proceed(text, repeat)
        if said is not None:
            self.relations = 1
            self.score = self._because + evidence.replayed_text(self.whole[: min(self.position, 512)])
            if self.done:
                self.score += evidence.WHOLE_REPLAY
        return said

    def swallow(self, text: str, event: Event) -> None:
        """Keeps what is not sent."""
        self.swallowed += text
        self._size += len(event.raw)
        if self.stash is not None:
            self.stash.append(event)
        if self._size > _STASH:
            self.stash = None

    def proceed(self, text: str, repeat: Evidence) -> str | None:
        """The part of a delta that lies beyond the text already sent; None where it differs from it."""
        if self.done:
            return None
        if self.whole.startswith(text, self.position):
            self.position += len(text)
            return ""
        rest = self.whole[self.position :]
        if not text.startswith(rest):
            return None
        self.position = len(self.whole)
        return text[len(rest) :]

    def ready(self, threshold: float) -> bool:
        return super().ready(threshold) and (self.done or not self._complete_only)

    @property
    def shape(self) -> str:
        return "G2" if self._complete_only else "F1"

"""What the lanes of one stream share: its odds, its counter, and the envelopes of its events as far as somebody asks for them.

Owned by the detector, read by lanes. Judges nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from .envelope import Envelope
from .nonces import Nonces

if TYPE_CHECKING:
    from .chunks import Event

#: Events with log-probabilities that are kept to see which ones other texts have. Others are not kept: they would be 12 KB per stream.
_RECENT: Final = 16


class StreamFacts:
    """What a lane may know of its stream.

    Args:
      threshold: log10 odds that a drop needs.
      prior: log10 odds of any stutter before the first evidence.
      head_prior: the same for a repeated head, higher for upstreams known for it.

    Attributes:
      recent: the stream's last few events that have log-probabilities.
      nonces: which fields of its events are drawn anew for each.
      usage_rises: how often completion_tokens rose from one text to the next.
      usage_erratic: it fell once, or stood still under another text: it does not count the whole answer.
      proven: an earlier repeat in this stream was proven by its envelope.
      restarted: its id has changed as if it began again.
    """

    __slots__ = (
        "_earlier",
        "_lately",
        "_others",
        "head_prior",
        "nonces",
        "prior",
        "proven",
        "recent",
        "restarted",
        "threshold",
        "usage_erratic",
        "usage_rises",
    )

    def __init__(self, threshold: float, prior: float, head_prior: float) -> None:
        self.threshold = threshold
        self.prior = prior
        self.head_prior = head_prior
        self.recent: deque[Event] = deque(maxlen=_RECENT)
        self.nonces = Nonces()
        self.usage_rises = 0
        self.usage_erratic = False
        self.proven = False
        self.restarted = False
        self._lately: dict[int, Envelope] = {}
        self._earlier: dict[int, Envelope] = {}
        self._others: tuple[Envelope, list[Envelope]] | None = None

    def begin(self) -> None:
        """Another event of several texts is about to be judged: what was read for the one before the last is forgotten."""
        self._earlier, self._lately = self._lately, {}
        self._others = None

    def envelope(self, event: Event) -> Envelope:
        """An event's envelope, the same one for all lanes in which the event speaks: it may be megabytes, and they thousands."""
        if len(event.deltas) < 2:
            return Envelope(event)  # one lane asks
        key = id(event)
        found = self._lately.get(key) or self._earlier.get(key) or Envelope(event)
        self._lately[key] = found
        return found

    def others(self, envelope: Envelope) -> list[Envelope]:
        """The recent events that say something else than the one that is judged."""
        if self._others is None or self._others[0] is not envelope:
            said = envelope.event.deltas
            self._others = envelope, [self.envelope(other) for other in self.recent if other.deltas and other.deltas != said]
        return self._others[1]

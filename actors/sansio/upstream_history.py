"""What one upstream's streams have shown: how often it stutters, and how much that is worth beforehand.

Owns the counts, their forgetting and the learned prior with its cap. One instance per upstream, shared by its streams; all of them run
in one thread and note only when they end, so nothing is locked. Knows no text and decides nothing.

The learned prior is the share of streams with a proven repeat of their head, as odds, beside the guess that every upstream starts with.
It never counts as a factor: with it a repeat needs as many independent proofs as without, and the cap keeps the odds of a single pair of
chunks below the threshold whatever was learned.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

from .shapes import HEAD_SHAPES, SHAPES
from .sliding_window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Most that history adds to the log10 odds of a repeated head. The strongest single pair weighs 4.5 (`evidence.prefix_pattern`), and
#: 4.5 - 2.5 + 0.9 is below the 3.0 that a drop needs.
MOST: Final = 0.9
#: Parts in which history is forgotten: an hour each of the default day.
_PARTS: Final = 24
_STREAMS, _HEADS, _REFUTED = range(3)


class Learned(msgspec.Struct, frozen=True):
    """What is known of an upstream, for `GET /status`.

    Args:
      streams: attempts that ended, within the time that is remembered, as are all counts.
      proven: those in which a repeat was proven, by shape.
      refuted: suspicions that held something and turned out to be wrong.
      prior: what is added to the log10 odds of a repeated head, 0 to `MOST`.
      last_proof_age: seconds since the last stream with a proof ended, None if none is remembered.
    """

    streams: int
    proven: dict[str, int]
    refuted: int
    prior: float
    last_proof_age: float | None


class UpstreamHistory:
    """The streams of one upstream in the last `forget` seconds.

    Args:
      forget: seconds after which a stream no longer counts; 0 learns nothing.
      base: log10 odds of a stutter before anything is known; also how many streams that guess is worth (-2.5: 316).
    """

    def __init__(self, forget: float = 86_400.0, base: float = -2.5) -> None:
        self._forget = forget
        self._base = base
        self._counts = SlidingWindow(forget or 1.0, _PARTS, 3 + len(SHAPES))
        self._last_proof = -math.inf

    def note(self, proven: Mapping[str, int], refuted: int, now: float) -> None:
        """Takes one stream that ended.

        Args:
          proven: how often each shape was proven in it, without the help of this history.
          refuted: suspicions that were dropped.
        """
        if not self._forget:
            return
        found = [shape for shape in SHAPES if proven.get(shape, 0) > 0] if proven else []
        self._counts.record(_STREAMS, now)
        for shape in found:
            self._counts.record(3 + SHAPES.index(shape), now)
        if not HEAD_SHAPES.isdisjoint(found):
            self._counts.record(_HEADS, now)
        for _ in range(refuted):
            self._counts.record(_REFUTED, now)
        if found:
            self._last_proof = max(self._last_proof, now)

    def prior(self, now: float) -> float:
        """What is added to the log10 odds of a repeated head: 0 to `MOST`. Never less than 0: nothing learned makes repairs rarer."""
        self._counts.advance(now)
        counts = self._counts.totals
        clean = 10**-self._base + counts[_STREAMS] - counts[_HEADS] + counts[_REFUTED]
        return min(MOST, max(0.0, math.log10((1 + counts[_HEADS]) / clean) - self._base))

    def learned(self, now: float) -> Learned:
        """The state of the history."""
        prior = self.prior(now)
        counts = self._counts.totals
        proven = {shape: counts[3 + place] for place, shape in enumerate(SHAPES) if counts[3 + place]}
        age = now - self._last_proof if proven else None
        return Learned(counts[_STREAMS], proven, counts[_REFUTED], prior, age)

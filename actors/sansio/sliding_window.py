"""A sliding time window of counters.

It owns counting per kind over the last so many seconds; it does not know what is counted, nor what follows from it.

Theory of operation: time is cut into buckets of equal width. A ring holds the counters of the last `buckets` of them, and a
running total is kept beside it. Moving on subtracts each bucket that falls out from the total and clears it, so that reading is
O(1) and no entry is kept one by one. The price is the resolution: an entry expires with its bucket, up to one width early.
"""

from __future__ import annotations


class SlidingWindow:
    """Counts entries of several kinds over the last `span` seconds.

    Args:
      span: seconds, above 0.
      buckets: how many the span is cut into; one bucket forgets everything at once.
      kinds: how many different things are counted; a kind is an index below it.
    """

    __slots__ = ("_buckets", "_head", "_ring", "_totals", "_width")

    def __init__(self, span: float, buckets: int, kinds: int) -> None:
        self._width = span / buckets
        self._buckets = buckets
        self._ring = [[0] * kinds for _ in range(buckets)]
        self._totals = [0] * kinds
        self._head = 0  # number of the newest bucket, counted from the clock's zero

    @property
    def width(self) -> float:
        """Seconds per bucket."""
        return self._width

    @property
    def totals(self) -> tuple[int, ...]:
        """The counts per kind, as of the last `advance` or `record`."""
        return tuple(self._totals)

    @property
    def counts(self) -> bool:
        """There is an entry, as of then."""
        return any(self._totals)

    def advance(self, now: float) -> None:
        """Forget what has left the window. A clock that stands still or steps back changes nothing."""
        newest = int(now // self._width)
        if newest <= self._head:
            return
        # After an idle time longer than the window every bucket is cleared once, however long the idle time was.
        for number in range(max(self._head + 1, newest - self._buckets + 1), newest + 1):
            bucket = self._ring[number % self._buckets]
            for kind, count in enumerate(bucket):
                self._totals[kind] -= count
                bucket[kind] = 0
        self._head = newest

    def record(self, kind: int, now: float) -> None:
        """Count one entry."""
        self.advance(now)
        self._ring[self._head % self._buckets][kind] += 1
        self._totals[kind] += 1

    def clear(self) -> None:
        """Forget everything; the place in time stays."""
        for bucket in self._ring:
            bucket[:] = [0] * len(bucket)
        self._totals[:] = [0] * len(self._totals)

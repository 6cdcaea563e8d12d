"""How fast an attempt answers, against the floors below which the circuit breaker calls it slow.

Counts events as tokens: upstreams send about one in each. Only time in which the upstream was waited for counts, so that a client
who reads slowly makes no upstream slow.
"""

from __future__ import annotations

from typing import Final

#: Of fewer events no rate is judged: the last ones carry usage, and may come late. A guess.
_FEWEST: Final = 20


class Pace:
    """The pace of one streamed attempt after its first look.

    Args:
      floor: tokens per second below which it is slow.
    """

    def __init__(self, floor: float) -> None:
        self._floor = floor
        self._events = 0
        self._waited = 0.0

    def saw(self, data: bytes, waited: float) -> None:
        """One read: what came, and the seconds that it was waited for."""
        self._events += data.count(b"data:")
        self._waited += waited

    @property
    def slow(self) -> bool:
        return self._events >= _FEWEST and self._events < self._floor * self._waited

"""One chunk on its way through the buffer, and what was decided about it so far.

Lanes settle its texts, the detector its labels and whether it leaves at all; SmartBuffer lets it go once nothing is left to decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .chunks import Chunk, Event
    from .told_once import RepeatedLabel


class Ticket:
    """One chunk on its way through the buffer.

    Attributes:
      arrived: when, in seconds.
      texts: what to send instead, by the delta's place in the event, for those that change.
      unsettled: deltas that their lanes still hold.
      shape: what was repaired in the texts, "" for nothing.
      labels: ids and names of calls that were told before and go.
      returned: earlier events that were withheld for nothing: they leave in front of this one, as they came.
      dropped: the whole event is one that came before.
    """

    __slots__ = ("arrived", "chunk", "dropped", "labels", "returned", "shape", "texts", "unsettled")

    def __init__(self, chunk: Chunk, arrived: float) -> None:
        self.chunk = chunk
        self.arrived = arrived
        self.texts: dict[int, str] = {}
        self.unsettled = 0
        self.shape = ""
        self.labels: list[RepeatedLabel] = []
        self.returned: list[Event] = []
        self.dropped = False

    @property
    def changed(self) -> bool:
        return self.dropped or bool(self.texts or self.labels)

    @property
    def shapes(self) -> list[str]:
        """Everything that was repaired in it."""
        return [self.shape] * bool(self.texts) + ["G3"] * bool(self.labels) + ["H1"] * self.dropped

    def settle(self, place: int, came: str, sent: str, shape: str) -> None:
        """One held delta is decided: it came as `came` and leaves as `sent`."""
        if came != sent:
            self.texts[place] = sent
            self.shape = self.shape or shape
        self.unsettled -= 1

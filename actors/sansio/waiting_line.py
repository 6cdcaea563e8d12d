"""Who may go on and who waits: places that are few, and the lines before them.

It owns the order in which waiting requests are served and whom a full line turns away. It does not know what a place is good for,
how anybody waits, or for how long (admission.py).

Theory of operation
-------------------
A *place* is the right to do something of which only so much may happen at once: to be served at all, or to use one of an upstream's
slots. Whoever finds none free joins the line of that kind of place. Each line serves its keys in turn, and each key's requests in
the order in which they came, so that somebody who sends ten requests waits behind his own and not others behind all of his.

All lines together hold so many. Beyond that the newest request of the key that waits most often makes room, if the newcomer's key
waits at least twice less often than that; otherwise the newcomer is turned away.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: The kind of place that every request needs. No upstream can have this name.
STREAMS: Final = ""


class Standing(Enum):
    """What became of a request for a place."""

    GRANTED = "granted"
    WAITING = "waiting"
    TURNED_AWAY = "turned away"  # the lines are full
    DISPLACED = "displaced"  # it waited, and made room for somebody who has less in line
    GONE = "gone"  # given back, or given up


@dataclass(slots=True, eq=False)
class Place:
    """One request for a place. `wake` is called when its standing changes while it waits."""

    kind: str
    key: str
    wake: Callable[[], None]
    standing: Standing = Standing.WAITING


class FairLine:
    """The places of one kind: how many are taken, and who waits.

    Args:
      slots: places there are, 0 for as many as anybody wants.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.taken = 0
        self.waiting = 0
        self._keys: OrderedDict[str, OrderedDict[Place, None]] = OrderedDict()  # whose turn it is stands first

    @property
    def free(self) -> bool:
        """Somebody who comes now need not wait. Nobody waits then: a place that becomes free is given at once."""
        return not self.slots or self.taken < self.slots

    def join(self, place: Place) -> None:
        self._keys.setdefault(place.key, OrderedDict())[place] = None
        self.waiting += 1

    def leave(self, place: Place) -> None:
        of_key = self._keys[place.key]
        del of_key[place]
        self.waiting -= 1
        if not of_key:
            del self._keys[place.key]

    def next(self) -> Place | None:
        """Whoever is served next, taken out of the line; their key goes behind the others."""
        if not self._keys:
            return None
        key, of_key = next(iter(self._keys.items()))
        place = next(iter(of_key))
        self.leave(place)
        if of_key:
            self._keys.move_to_end(key)
        return place

    def newest(self, key: str) -> Place | None:
        """The request of `key` that joined last."""
        of_key = self._keys.get(key)
        return next(reversed(of_key)) if of_key else None


class WaitingLines:
    """All places of one process.

    Args:
      most_streams: requests that are served at once, 0 for no limit.
      most_waiting: requests that wait in all lines together.
      slots: of each upstream that has a limit, by name.
    """

    def __init__(self, most_streams: int, most_waiting: int, slots: Mapping[str, int]) -> None:
        self._most_waiting = most_waiting
        self._lines = {STREAMS: FairLine(most_streams)} | {name: FairLine(count) for name, count in slots.items()}
        self._waiting: Counter[str] = Counter()  # requests by key, in all lines

    @property
    def waiting(self) -> int:
        return self._waiting.total()

    def taken(self) -> dict[str, int]:
        """Places taken, by kind."""
        return {kind: line.taken for kind, line in self._lines.items()}

    def ask(self, kind: str, key: str, wake: Callable[[], None], *, patient: bool = True) -> Place:
        """Ask for a place. The answer is its standing.

        Args:
          key: whose request it is.
          patient: it may wait; else it is turned away where it would have to.

        Raises:
          KeyError: there are no places of that kind.
        """
        line = self._lines[kind]
        place = Place(kind, key, wake)
        if line.free:
            line.taken += 1
            place.standing = Standing.GRANTED
        elif not patient or not self._make_room(key):
            place.standing = Standing.TURNED_AWAY
        else:
            line.join(place)
            self._waiting[key] += 1
        return place

    def give_back(self, place: Place) -> None:
        """Give a place back, or give up waiting for it; whatever it is, it is over. A second time changes nothing."""
        standing, place.standing = place.standing, Standing.GONE
        if standing is Standing.WAITING:
            self._leave(place)
        elif standing is Standing.GRANTED:
            self._lines[place.kind].taken -= 1
            self._serve(self._lines[place.kind])

    def reconfigure(self, most_streams: int, most_waiting: int, slots: Mapping[str, int]) -> None:
        """Go on with other limits. Nobody who has a place loses it; whoever waits in a line that is too long now stays in it."""
        self._most_waiting = most_waiting
        wanted = {STREAMS: most_streams, **slots}
        for kind in {*self._lines, *wanted}:
            line = self._lines.setdefault(kind, FairLine(0))
            line.slots = wanted.get(kind, 0)
            self._serve(line)

    def _serve(self, line: FairLine) -> None:
        """Give free places to those who wait."""
        while line.free and (place := line.next()) is not None:
            self._forget(place.key)
            line.taken += 1
            place.standing = Standing.GRANTED
            place.wake()

    def _make_room(self, key: str) -> bool:
        """Whether one more of `key` may wait."""
        if self.waiting < self._most_waiting:
            return True
        longest, count = max(self._waiting.items(), key=lambda item: item[1], default=("", 0))
        if count < 2 * (self._waiting[key] + 1):
            return False
        newest = next(place for line in self._lines.values() if (place := line.newest(longest)) is not None)
        self._leave(newest)
        newest.standing = Standing.DISPLACED
        newest.wake()
        return True

    def _leave(self, place: Place) -> None:
        self._lines[place.kind].leave(place)
        self._forget(place.key)

    def _forget(self, key: str) -> None:
        self._waiting[key] -= 1
        if not self._waiting[key]:
            del self._waiting[key]

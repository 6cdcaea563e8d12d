"""Admission: how many requests are served at once, and how the others wait for their turn.

Owns the limits of the process and the slots of its upstreams; which of the waiting goes next is decided in sansio/waiting_line.py.
There is one `Admission` per process, and one `Visit` per request. All of it is plain state of one thread: every change is a call
without a checkpoint, so there is nothing to lock, and nobody can be cancelled in the middle of one.

Whoever waits, waits in its own task; a client that leaves cancels that task, and its place in the line, or the one it was just
given, goes to the next. The order is: a place among the streams, an upstream's slot, the circuit breaker's permit, the connection.
Nobody who holds a permit waits for anything here, so a probe never stands in a line.
"""

from __future__ import annotations

import random as random_module
from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

import trio

from .sansio.waiting_line import STREAMS, Place, Standing, WaitingLines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Seconds that whoever is turned away is told to wait: drawn between these, so that they do not all come back together. A guess:
#: most answers take a few seconds.
_COME_BACK: Final = (2.0, 10.0)


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """What one process takes on.

    Args:
      max_streams: requests served at once, streamed or not; 0 is no limit. Each needs two sockets, and 4,096 is a usual limit of
        open files, so the default is what goes in there with some to spare.
      max_waiting: requests that wait at once, for a place or for an upstream's slot.
      max_wait: seconds that one request waits in all.
      max_body_bytes: request bodies held at once, all requests together: 32 of the longest, or a million short ones.
      max_memory: share of the memory that the process may have at which new requests are turned away; 0 is off. A guess: what is left
        has to do for the streams that run, which go on growing for a while.
    """

    max_streams: int = 2000
    max_waiting: int = 1000
    max_wait: float = 30.0
    max_body_bytes: int = 1024 * 1024 * 1024
    max_memory: float = 0.85


#: Why somebody is turned away: the line is full, max_wait is over, room was made for somebody who has less in line, max_body_bytes or
#: max_memory.
REJECTIONS: Final = ("full", "waited", "displaced", "memory")


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why somebody has no place.

    Args:
      reason: one of REJECTIONS.
      message: for the client.
      retry_after: seconds after which to come back.
      setting: its dotted name.
    """

    reason: str
    message: str
    retry_after: float
    setting: str


@dataclass(frozen=True, slots=True)
class AdmissionStatistics:
    """One moment: who waits, who is served, the slots in use by upstream, and totals of those turned away, by reason."""

    waiting: int
    streams: int
    slots_in_use: Mapping[str, int]
    body_bytes: int
    rejected: Mapping[str, int]


class Admission:
    """The limits of one process.

    Args:
      policy: its limits.
      slots: requests that an upstream takes at once, by its name; those without an entry have no limit.
      random: uniform in [0, 1).
      beyond: whether the process holds so large a share of the memory that it may have.
    """

    def __init__(
        self,
        policy: AdmissionPolicy | None = None,
        slots: Mapping[str, int] = MappingProxyType({}),
        *,
        random: Callable[[], float] = random_module.random,
        beyond: Callable[[float], bool] = lambda _: False,
    ) -> None:
        self.policy = policy or AdmissionPolicy()
        self.slots = {name: count for name, count in slots.items() if count}
        self._lines = WaitingLines(self.policy.max_streams, self.policy.max_waiting, self.slots)
        self._random = random
        self._beyond = beyond
        self._body_bytes = 0
        self._rejected: Counter[str] = Counter()

    def visit(self) -> Visit:
        """One request's dealings with these limits: a context manager around all of it."""
        return Visit(self, self._lines)

    def reconfigure(self, policy: AdmissionPolicy, slots: Mapping[str, int]) -> None:
        """Go on with other limits; those who wait may find them raised, and nobody loses what they have."""
        self.policy = policy
        self.slots = {name: count for name, count in slots.items() if count}
        self._lines.reconfigure(policy.max_streams, policy.max_waiting, self.slots)

    def statistics(self) -> AdmissionStatistics:
        taken = self._lines.taken()
        in_use = {name: taken[name] for name in self.slots}
        return AdmissionStatistics(self._lines.waiting, taken[STREAMS], in_use, self._body_bytes, dict(self._rejected))

    def reject(self, reason: str, message: str, setting: str) -> Rejection:
        """Count one that is turned away."""
        self._rejected[reason] += 1
        least, most = _COME_BACK
        return Rejection(reason, message, least + (most - least) * self._random(), setting)

    @property
    def short_of_memory(self) -> bool:
        """New requests are turned away for want of memory. Where nobody is served nobody is: it would never end, and frees nothing."""
        most = self.policy.max_memory
        return bool(most) and self._beyond(most) and self._lines.taken()[STREAMS] > 0

    def hold_bytes(self, count: int) -> bool:
        """Take so many bytes of bodies more, or give back if negative; False if there is no room for them."""
        limit = self.policy.max_body_bytes
        if count > 0 and limit and self._body_bytes + count > limit:
            return False
        self._body_bytes += count
        return True


@dataclass(slots=True, eq=False)
class Visit:
    """One request's place, slots and bytes. Leaving the block gives back whatever it still has. Made by `Admission.visit`."""

    _admission: Admission
    _lines: WaitingLines
    _key: str = ""
    _patience: float = field(init=False)
    _place: Place | None = None
    _turned: trio.Event | None = None  # there is one as long as it waits for its place
    _bytes: int = 0

    def __post_init__(self) -> None:
        self._patience = self._admission.policy.max_wait

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._place is not None:
            self._lines.give_back(self._place)
            self._place = None  # a cycle, since it wakes us, which only a collection would free
        self._admission.hold_bytes(-self._bytes)
        self._bytes = 0

    def look_in(self) -> Rejection | None:
        """Whether there is memory for one more request, before anything of its body is read."""
        if not self._admission.short_of_memory:
            return None
        text = f"evenflow is short of memory (admission.max_memory = {self._admission.policy.max_memory:g}); come back later"
        return self._admission.reject("memory", text, "admission.max_memory")

    def hold_bytes(self, count: int) -> Rejection | None:
        """Hold so many bytes more of the request's body until the visit ends."""
        if self._admission.hold_bytes(count):
            self._bytes += count
            return None
        limit = self._admission.policy.max_body_bytes
        text = f"the bodies of the requests that run fill admission.max_body_bytes = {limit}; come back later"
        return self._admission.reject("memory", text, "admission.max_body_bytes")

    def knock(self, key: str = "") -> Rejection | None:
        """Ask for a place among the streams: it is there, or a place in the line is, or neither.

        Args:
          key: whose request it is; keys are served in turn.
        """
        self._key = key
        self._place = self._lines.ask(STREAMS, self._key, self._turn)
        return self._turned_away() if self._place.standing is Standing.TURNED_AWAY else None

    async def admitted(self) -> Rejection | None:
        """Wait until the place that `knock` asked for is there. Once it is, this does not wait."""
        if self._place is None:
            return self.knock() or await self.admitted()
        self._turned = trio.Event()
        return await self._until_granted(self._place, self._turned, "admission.max_streams")

    def _turn(self) -> None:
        if self._turned is not None:
            self._turned.set()

    def free_slot(self, upstream: str) -> Slot | None:
        """A slot of an upstream, if one is free and nobody waits for it."""
        if upstream not in self._admission.slots:
            return Slot(None, None)
        place = self._lines.ask(upstream, self._key, _nobody_waits, patient=False)
        return Slot(self._lines, place) if place.standing is Standing.GRANTED else None

    async def slot(self, upstream: str) -> Slot | Rejection:
        """A slot of an upstream, which is waited for. The caller enters it at once.

        Cancellation: a slot that was granted to a caller who is cancelled goes to the next.
        """
        if upstream not in self._admission.slots:
            return Slot(None, None)
        turned = trio.Event()
        place = self._lines.ask(upstream, self._key, turned.set)
        if place.standing is Standing.TURNED_AWAY:
            return self._turned_away()
        try:
            rejection = await self._until_granted(place, turned, f"upstreams.{upstream}.slots")
        except BaseException:
            self._lines.give_back(place)
            raise
        return Slot(self._lines, place) if rejection is None else rejection

    async def _until_granted(self, place: Place, turned: trio.Event, setting: str) -> Rejection | None:
        if place.standing is Standing.WAITING:
            began = trio.current_time()
            with trio.move_on_after(self._patience):
                await turned.wait()
            self._patience = max(0.0, self._patience - (trio.current_time() - began))
        # Whoever was granted a place in the very moment in which patience ended has it.
        if place.standing is Standing.GRANTED:
            return None
        displaced = place.standing is Standing.DISPLACED
        self._lines.give_back(place)
        if displaced:
            text = "evenflow is busy: this request made room for somebody who has fewer of them waiting"
            return self._admission.reject("displaced", text, "admission.max_waiting")
        text = f"evenflow is busy: no place became free ({setting}) within admission.max_wait = {self._admission.policy.max_wait:g} s"
        return self._admission.reject("waited", text, setting)

    def _turned_away(self) -> Rejection:
        text = f"evenflow is busy: admission.max_waiting = {self._admission.policy.max_waiting} requests wait already"
        return self._admission.reject("full", text, "admission.max_waiting")


class Slot:
    """A slot of an upstream, held as long as the connection that uses it: a context manager."""

    __slots__ = ("_lines", "_place")

    def __init__(self, lines: WaitingLines | None, place: Place | None) -> None:
        self._lines = lines
        self._place = place

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lines is not None and self._place is not None:
            self._lines.give_back(self._place)


def _nobody_waits() -> None:
    """Whoever does not wait is not woken."""

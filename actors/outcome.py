"""How a request ended, and everything that was counted on the way: what the canonical log line and the metrics are made of.

An `Outcome` is made once, by whoever supervised the request, after every task of it has ended. `Tally` is its mutable other
half: each stage adds to the tally of its own stream, nobody else reads it before the end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .sansio.faults import Fault


#: Entries of one stream's story; what a page shows, and a bound on memory for streams that stutter all the time.
STORY_MOST: Final = 100


class End(StrEnum):
    """A request ends in exactly one of these."""

    DONE = "done"
    ERROR = "error"
    CANCELLED = "cancelled"


class Phase(StrEnum):
    """Where a request was when it ended. The letter is the second one of the termination code."""

    CONNECTING = "C"  # waiting for a permit, in a back-off, connecting
    HEAD = "H"  # connected, nothing meaningful came yet
    DATA = "D"  # output was sent
    LAST = "L"  # the answer was complete, its last bytes were on the way
    NONE = "-"


class Party(StrEnum):
    """Who ended a request: the first letter of the termination code, HAProxy's habit. Lower case: by being silent too long."""

    NOBODY = "-"
    CLIENT = "C"
    CLIENT_STALLED = "c"
    UPSTREAM = "U"
    UPSTREAM_SILENT = "u"
    PROXY = "P"


class _Counts(Counter[Any]):
    """A Counter that is made ten times as fast, as long as it is made empty: each request has eight, most of which stay so."""

    __init__ = dict.__init__


@dataclass(slots=True)
class Tally:
    """Counts of one request. Times are of the monotonic clock, in seconds; None means it never happened."""

    started: float = 0.0
    head_sent: float | None = None
    first_token: float | None = None
    ended: float | None = None
    attempts: int = 0  # upstreams that were asked, hedges included
    retries: int = 0  # attempts beyond the first, failovers included
    bytes_in: int = 0
    bytes_out: int = 0
    events: int = 0  # dispatched events received from upstreams
    holds: int = 0  # events that waited in the SmartBuffer
    longest_hold: float = 0.0
    skipped: int = 0  # malformed events that were not passed on
    comments_dropped: int = 0
    keepalives: int = 0
    done_added: bool = False  # the upstream forgot its [DONE]
    replayed: int = 0  # attempts whose reasoning was swallowed
    resumes: Counter[tuple[str, str]] = field(default_factory=_Counts)  # attempts to take up output: (strategy, result)
    repairs: Counter[str] = field(default_factory=_Counts)  # by stutter shape: A1, B1, ...
    refused: Counter[str] = field(default_factory=_Counts)  # repairs that were thought of and not proven, by shape
    loops: Counter[str] = field(default_factory=_Counts)  # attempts whose model repeated itself, by loop_guard.action
    flushes: Counter[str] = field(default_factory=_Counts)  # by SmartBuffer policy: size, age, pattern, confidence
    transitions: Counter[tuple[str, str, str]] = field(default_factory=_Counts)  # (from, event, to)
    hedges: Counter[str] = field(default_factory=_Counts)  # second upstreams asked beside a silent one, by what came of it
    story: list[tuple[float, str, str]] = field(default_factory=list)  # what happened to it: when (monotonic), which kind of thing, words
    faults: Counter[tuple[str, str]] = field(default_factory=_Counts)  # (upstream, FaultKind value), the last one included

    def tell(self, now: float, kind: str, words: str) -> None:
        """Something happened that an operator may want to see; what happens with every event is no such thing.

        Args:
          kind: "attempt", "fault", "retry", "state", "hold", "repair", "resume" or "loop".
        """
        if len(self.story) < STORY_MOST:
            self.story.append((now, kind, words))

    def told(self, fault: Fault | None) -> None:
        """The client was told this at the end. Most faults ended an attempt and are counted with it; those that ended only the request
        (the total time over, a shutdown, no place, a crash) are counted here."""
        if fault is not None and not self.faults[fault.upstream, fault.kind.value]:
            self.faults[fault.upstream, fault.kind.value] += 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finished request.

    Args:
      end: done, error or cancelled.
      party, phase: who ended it and where; together the two letters of `termination`.
      status: the HTTP status the client got, 0 if it got none.
      fault: what the client was told went wrong, None unless `end` is ERROR.
      upstream: name of the upstream that served the last attempt, "" if none was reached.
      cancel_latency: seconds from the client's leaving until the upstream connection was closed, None if neither happened.
    """

    end: End
    party: Party
    phase: Phase
    status: int
    fault: Fault | None
    upstream: str
    tally: Tally
    cancel_latency: float | None = None

    @property
    def termination(self) -> str:
        """Two letters: who ended it, and in which phase; `--` is a complete answer."""
        return f"{self.party.value}{self.phase.value}"

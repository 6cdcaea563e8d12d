"""The states of one stream, and every way from one to another.

Rules of this file: all that affects transitions lives here; it knows no bytes, no clock and no upstream.

Theory of operation
-------------------
StateStuttering means: some event is held. StateRecovering means: an attempt failed, and another one is being sought or has
started but has not yet joined the stream. Head sent and output sent are facts of the stream machine, not states: a bare head
may go out in any state, since the client's patience does not depend on what the upstream does.

`advance()` runs on transitions, never per chunk: a stream in normal flow stays there however many chunks pass. A missing
entry in TRANSITIONS is a bug in the caller, raises IllegalTransition, and changes nothing.

    StateInitial ----> StateNormalFlow <---> StateStuttering
         |                  |     ^               |
         |                  v     |               |
         +---------> StateRecovering <------------+        each of them ----> StateTerminating
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from ..errors import EvenflowError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class StateInitial:
    """Nothing of an answer was released yet."""


@dataclass(frozen=True, slots=True)
class StateNormalFlow:
    """Events leave as they arrive."""


@dataclass(frozen=True, slots=True)
class StateStuttering:
    """At least one event is held because a lane is ambiguous."""


@dataclass(frozen=True, slots=True)
class StateRecovering:
    """An attempt failed; the next one has not yet joined."""


@dataclass(frozen=True, slots=True)
class StateTerminating:
    """The stream's end is decided. Nothing leaves this state."""


StreamState: TypeAlias = StateInitial | StateNormalFlow | StateStuttering | StateRecovering | StateTerminating


@dataclass(frozen=True, slots=True)
class FirstOutput:
    """The first event with weight was released."""


@dataclass(frozen=True, slots=True)
class HoldBegan:
    """The buffer was empty and holds an event now."""


@dataclass(frozen=True, slots=True)
class HoldResolved:
    """The buffer is empty again."""


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt failed and the stream goes on without it. Holds were resolved first."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A further attempt delivered something the client gets."""


@dataclass(frozen=True, slots=True)
class GaveUp:
    """No further attempt is possible; the stream ends with the fault."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The stream ended: complete, with an error that allows no further attempt, or by a deadline."""


StreamEvent: TypeAlias = FirstOutput | HoldBegan | HoldResolved | AttemptFailed | Joined | GaveUp | Ended

TRANSITIONS: Final[Mapping[type[StreamState], Mapping[type[StreamEvent], StreamState]]] = MappingProxyType(
    {
        StateInitial: {
            FirstOutput: StateNormalFlow(),
            HoldBegan: StateStuttering(),
            AttemptFailed: StateRecovering(),
            Ended: StateTerminating(),
        },
        StateNormalFlow: {
            HoldBegan: StateStuttering(),
            AttemptFailed: StateRecovering(),
            Ended: StateTerminating(),
        },
        StateStuttering: {
            HoldResolved: StateNormalFlow(),
            AttemptFailed: StateRecovering(),
            Ended: StateTerminating(),
        },
        StateRecovering: {
            Joined: StateNormalFlow(),
            AttemptFailed: StateRecovering(),
            GaveUp: StateTerminating(),
        },
        StateTerminating: {},
    }
)


class IllegalTransition(EvenflowError):
    """The table has no such entry: a bug in the caller."""


def advance(state: StreamState, event: StreamEvent) -> StreamState:
    """The state that follows `event`.

    Raises:
      IllegalTransition: TRANSITIONS has no entry; the state stays what it was.
    """
    try:
        return TRANSITIONS[type(state)][type(event)]
    except KeyError:
        raise IllegalTransition(f"{type(event).__name__} is no event of {type(state).__name__}") from None


def words_of(state: StreamState) -> str:
    """A state as people read it: "normal flow" for StateNormalFlow."""
    return _words(type(state).__name__)


@functools.cache  # four of the five in every stream
def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.removeprefix("State")).lower()

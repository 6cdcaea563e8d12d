"""What the stream machine asks for: a response head, bytes for the client, an order for the reader, the stream's end.

The vocabulary between the machine and the tasks around it; pure values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from .faults import Fault
    from .resume_plan import ResumePlan


@dataclass(frozen=True, slots=True)
class Head:
    """The response head that commits the stream to a 200. `upstream` and `attempt` are "" and 0 while none has answered."""

    upstream: str = ""
    attempt: int = 0
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Resume:
    """Order: seek another attempt, for this fault ended the last one.

    Args:
      replay: its reasoning will be swallowed.
      plan: output was sent, and so it may be taken up; None if none was.
    """

    fault: Fault
    replay: bool
    plan: ResumePlan | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """Order: no further attempt. `fault` is what the circuit breaker is told about the last one, None is success."""

    fault: Fault | None


Order: TypeAlias = Resume | Finish


@dataclass(frozen=True, slots=True)
class Complete:
    """The stream is done; everything of it is in the frames."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The stream ends with an error. Whether as a status or as a frame is decided by whether the head was sent."""

    fault: Fault


class Effects(msgspec.Struct):
    """What one call asks for, in this order: send the head, write the frames, give the order, end the stream."""

    head: Head | None = None
    frames: list[bytes] = []
    order: Order | None = None
    end: Complete | Failed | None = None

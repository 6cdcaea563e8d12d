"""Trace: who may watch a stream machine decide. `evenflow replay` prints what it is told here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .loop_guard import Loop
    from .smart_buffer import Released
    from .stream_state import StreamEvent, StreamState


class Trace(Protocol):
    """What a machine tells while it decides."""

    def released(self, one: Released, now: float) -> None:
        """The buffer let a chunk go, perhaps changed or emptied."""

    def advanced(self, before: StreamState, event: StreamEvent, after: StreamState, now: float) -> None:
        """The state changed."""

    def looped(self, loop: Loop, now: float) -> None:
        """The model repeats itself."""

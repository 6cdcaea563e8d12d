"""How a later attempt's events look to a client that already has events of an earlier one.

One answer has one identity: the first attempt's id, created, model and fingerprint are kept, the second role is dropped. Where
reasoning was sent already, the new attempt's reasoning is swallowed until its answer begins (DESIGN section 5 (a)).
"""

from __future__ import annotations

from typing import Final

from .chunk_parser import ChunkParser
from .chunk_rewriter import rewrite
from .chunks import Event, Field, Weight
from .event_json import read_json

#: The fields by which a client knows one completion from another.
_IDENTITY: Final = ("id", "created", "model", "system_fingerprint")
_REASONING: Final = frozenset({Field.REASONING, Field.REASONING_CONTENT})


class Resumption:
    """Restates the events of one later attempt.

    Args:
      first: the first event that the client got.
      replay: reasoning was sent, so this attempt's is swallowed.
    """

    def __init__(self, first: Event, *, replay: bool) -> None:
        fields = read_json(first.data)
        self._identity = {name: fields[name] for name in _IDENTITY if name in fields}
        self._swallowing = replay

    def restate(self, event: Event) -> Event | None:
        """The event as the client may see it, None if nothing of it is left."""
        swallowed = {}
        if self._swallowing:
            if event.weight is not Weight.OUTPUT:
                return None
            self._swallowing = False
            swallowed = {position: "" for position, delta in enumerate(event.deltas) if delta.field in _REASONING}
        # An event without choices (usage, a server's own) has no role, and nowhere to look for one.
        frame = rewrite(event, swallowed, envelope=self._identity, drop_role=bool(event.choices))
        if frame is None:
            return None
        (restated,) = ChunkParser().feed(frame)
        return restated if isinstance(restated, Event) else event

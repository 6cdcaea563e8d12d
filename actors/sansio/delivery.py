"""What leaves a stream, and when: the response head before the first byte, the frames of the answer, the keep-alives in its silences.

With `delivery = "whole"` the frames are kept until the answer is complete, so that any failure can be retried unseen. Refuses to know
what is in a frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .effects import Head

if TYPE_CHECKING:
    from ..outcome import Tally
    from .chunks import AttemptStarted
    from .effects import Effects
    from .stream_policy import StreamPolicy

KEEP_ALIVE: Final = b": keep-alive\n\n"
#: Bytes of an answer that are kept; a longer one is let go and streams from there. Guessed: sixteen times a model's longest answer.
LIMIT: Final = 8 * 1024 * 1024


class Delivery:
    """The client's side of one stream.

    Args:
      now: when the request was accepted (seconds, monotonic).

    Attributes:
      attempt: whose head goes out with the first byte, None while none runs.
      head_sent: the status is fixed.
      last_write: when the client last heard of us.
    """

    def __init__(self, policy: StreamPolicy, tally: Tally, now: float) -> None:
        self._policy = policy
        self._tally = tally
        self._kept: list[bytes] | None = [] if policy.whole else None
        self._size = 0
        self.last_write = now
        self.attempt: AttemptStarted | None = None
        self.head_sent = False

    @property
    def keeping(self) -> bool:
        """The client has nothing of the answer yet, whatever came."""
        return self._kept is not None

    @property
    def open(self) -> bool:
        """The head is out and nothing is kept: a frame leaves as it is."""
        return self.head_sent and self._kept is None

    @property
    def keepalive_at(self) -> float:
        """When the client has heard nothing for too long."""
        return self.last_write + (self._policy.keepalive_interval if self.head_sent else self._policy.keepalive_after)

    def keep_alive(self, now: float, effects: Effects) -> None:
        self._tally.keepalives += 1
        self._write(KEEP_ALIVE, now, effects)

    def client_blocked(self, seconds: float) -> None:
        """The client took so long for what it has: it heard of us until now."""
        self.last_write += seconds

    def deliver(self, frame: bytes, now: float, effects: Effects) -> None:
        """A frame of the answer."""
        if self._kept is None:
            self._write(frame, now, effects)
            return
        self._kept.append(frame)
        self._size += len(frame)
        if self._size > LIMIT:
            self.let_go(now, effects)

    def let_go(self, now: float, effects: Effects) -> None:
        """Whatever was kept leaves, and nothing is kept any more."""
        kept, self._kept = self._kept, None
        for frame in kept or ():
            self._write(frame, now, effects)

    def drop(self) -> None:
        """The attempt failed: nobody will see what was kept of it."""
        if self._kept is not None:
            self._kept, self._size = [], 0

    def _write(self, data: bytes, now: float, effects: Effects) -> None:
        if not self.head_sent:
            self.head_sent = True
            self._tally.head_sent = now
            attempt = self.attempt
            effects.head = Head(attempt.upstream, attempt.number, attempt.headers) if attempt is not None else Head()
        self.last_write = now
        effects.frames.append(data)

"""When a worker that ended by itself is started again, and when that is given up."""

from __future__ import annotations

from collections import deque
from typing import Final

#: So many ends within so many seconds are no accident any more: whatever it is, another start will not mend it. Guessed.
MOST: Final = 5
WINDOW: Final = 60.0
#: Seconds before the second start in a row; doubles. The first one comes at once, for connections wait in the worker's queue.
_BASE: Final = 0.5


class Restarts:
    """Of one worker."""

    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=MOST)

    def ended(self, now: float) -> float | None:
        """It ended by itself.

        Returns:
          Seconds until it shall be started again, None if it shall not.
        """
        self._ends.append(now)
        recent = sum(now - end < WINDOW for end in self._ends)
        if recent == MOST:
            return None
        return 0.0 if recent == 1 else _BASE * 2.0 ** (recent - 2)

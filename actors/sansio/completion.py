"""Whether an answer is complete, judged by its own words: the honest end of DESIGN section 4."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .chunks import Event


class Completion:
    """Which choices of one attempt have begun and which have finished.

    Args:
      asked: `n` of the request: so many choices have to finish.

    Attributes:
      id: of the completion that the last event belongs to.
      usual: the choices of the last event, if all of them are open. An event with this id and these choices that finishes none is no
        news: it need not be noted.
    """

    def __init__(self, asked: int) -> None:
        self._asked = asked
        self._open: set[int] = set()
        self._finished: set[int] = set()
        self.id = ""
        self.usual: tuple[int, ...] | None = None

    def note(self, event: Event) -> None:
        """Take the next event of the attempt."""
        if event.id and event.choices and event.id != self.id:
            if self._finished and not self._open:
                self._finished.clear()  # after a finish, a new id begins a new completion
            self.id = event.id
        for choice in event.choices:
            if choice not in self._finished:
                self._open.add(choice)
        self.usual = event.choices if self._open.issuperset(event.choices) and not event.finished else None
        for choice in event.finished:
            self._open.discard(choice)
            self._finished.add(choice)

    @property
    def complete(self) -> bool:
        """Every choice seen, and every one asked for, has a finish_reason."""
        return bool(self._finished) and not self._open and len(self._finished) >= self._asked

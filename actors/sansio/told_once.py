"""What is told once and repeated by some servers: the id and name of a tool call (G3), the finish of a choice (H1).

Clients join what comes in fragments, so a name told in every fragment becomes "get_timeget_time" and a finish told twice "stopstop".
Owns which repetition is certain. Knows nothing of texts, of holds, or of how a field is taken out of JSON (chunk_rewriter.py).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .event_json import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .chunks import Call, Event

#: Members of an event that say when it was written, or pad it: a finish that differs in nothing else is the same finish.
_MOMENT: Final = frozenset({"created", "created_at", "timestamp", "time", "date", "obfuscation", "p"})
#: OpenRouter writes every finish twice by design, the second time with the usage, and marks both with this. Its recordings pass.
_NATIVE: Final = "native_finish_reason"
_EMPTY: Final[tuple[object, ...]] = (None, "", [], {})


class RepeatedLabel(NamedTuple):
    """One entry of `tool_calls` that tells again what its call was told before.

    Args:
      id, name: which of the two.
    """

    call: Call
    id: bool
    name: bool


class _Known:
    __slots__ = ("ended", "id", "name")

    def __init__(self, call: Call) -> None:
        self.id = call.id
        self.name = call.name
        self.ended = False


class CallLabels:
    """The ids and names of one stream's tool calls."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], _Known] = {}
        self._unfinished: dict[int, list[_Known]] = defaultdict(list)  # by choice

    def is_new(self, call: Call, said: str | None) -> bool:
        """Whether an entry begins another call on its index; from then on its labels are the index's.

        Args:
          said: the last arguments of the call that the index stands for now, None if none have come.
        """
        known = self._known.get((call.choice, call.index))
        if known is not None and not self._begins(call, known, said):
            return False
        self._known[call.choice, call.index] = known = _Known(call)
        self._unfinished[call.choice].append(known)
        return True

    def _begins(self, call: Call, known: _Known, said: str | None) -> bool:
        if call.id and known.id:
            return call.id != known.id
        if known.ended:
            return True
        # A name comes before its arguments, perhaps in pieces; another one after them is another call's.
        return said is not None and bool(call.name) and bool(known.name) and call.name != known.name

    def repeated(self, call: Call, said: str | None) -> RepeatedLabel | None:
        """Which labels of an entry, one that is not new, were told before. None: none for certain.

        Args:
          said: as in `is_new`.
        """
        known = self._known[call.choice, call.index]
        again = bool(call.id) and call.id == known.id
        same = bool(call.name) and call.name == known.name and (again or self._goes_on(call, known, said))
        known.id = known.id or call.id
        if not same and said is None:
            known.name += call.name  # the name's next piece
        return RepeatedLabel(call, again, same) if again or same else None

    def _goes_on(self, call: Call, known: _Known, said: str | None) -> bool:
        """Whether an entry without an id is a later fragment of the known call, so that its name can be no piece of one.

        With the arguments the name was complete. Where they were complete too and begin again, it may be a second call under one index
        (GPT-5.4): then nothing is certain.
        """
        if call.id or not known.id or (said is None and not call.arguments):
            return False
        return not ((said or "").rstrip().endswith("}") and call.arguments.lstrip().startswith("{"))

    def finish(self, choice: int) -> None:
        """The choice is finished: a label after it is of another call, unless it has the same id."""
        for known in self._unfinished.pop(choice, ()):
            known.ended = True


class Finishes:
    """The finishes of one stream's choices."""

    def __init__(self) -> None:
        self._told: dict[int, Event] = {}

    def is_repeat(self, event: Event) -> bool:
        """Whether an event tells nothing but finishes that were told, with nothing said in between.

        It is one if it brings no text, has the same id or none, and every value in it is empty or was in the earlier finish. Anything
        new (usage above all) lets it pass; so does an OpenRouter finish that is no exact copy.
        """
        if not event.finished or event.deltas or any(choice not in self._told for choice in event.choices):
            return False
        earlier = [self._told[choice] for choice in event.choices]
        if any(event.id not in ("", first.id) for first in earlier):
            return False
        told = {id(first): first for first in earlier}  # one event may have finished thousands of choices
        try:
            read = {key: _Finish(first) for key, first in told.items()}
            return _adds_nothing(read_json(event.data), [read[id(first)] for first in earlier], read.values())
        except (ValueError, TypeError):  # how deep JSON may nest depends on the caller's own depth, an index may be a list: it passes
            return False

    def note(self, event: Event) -> None:
        """Takes an event that finishes choices."""
        for choice in event.finished:
            self._told.setdefault(choice, event)

    def forget(self, choices: Iterable[int]) -> None:
        """These choices said something after their finish: the next finish ends that."""
        for choice in choices:
            self._told.pop(choice, None)


class _Finish:
    """An earlier finish, read.

    Raises:
      ValueError, TypeError: it cannot be compared.
    """

    def __init__(self, event: Event) -> None:
        self.value: dict[str, Any] = read_json(event.data)
        self.entries: dict[Any, list[dict[str, Any]]] = defaultdict(list)  # by the index that they name
        for entry in self.value["choices"]:
            if isinstance(entry, dict):
                self.entries[entry.get("index", 0)].append(entry)


def _adds_nothing(new: dict[str, Any], earlier: list[_Finish], told: Iterable[_Finish]) -> bool:
    """Whether each choice of an event is what the finish at its place in `earlier` has of it; `told` are these, each once."""
    entries = [entry for entry in new.get("choices", ()) if isinstance(entry, dict)]
    if len(entries) != len(earlier):
        return False
    for entry, first in zip(entries, earlier, strict=True):
        places = first.entries.get(entry.get("index", 0), [])
        if len(places) != 1:
            return False
        copies = entry == places[0]
        if not copies and (_NATIVE in entry or not _is_within(entry, places[0])):
            return False
    rest = {name: value for name, value in new.items() if name not in _MOMENT and name != "choices"}
    return all(_is_within(rest, first.value) for first in told)


def _is_within(new: object, old: object) -> bool:
    """Whether every value in a piece of JSON is empty or stands at the same place of another. The role was told with the first event."""
    if new in _EMPTY:
        return True
    if isinstance(new, dict):
        return isinstance(old, dict) and all(_is_within(value, old.get(name)) for name, value in new.items() if name != "role")
    return new == old

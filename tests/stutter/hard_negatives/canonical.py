"""What two negatives have in common when they differ only in the repeated string or in how often it comes.

The canonical form keeps relations and forgets texts. Per lane every delta becomes

    .       nothing before it is like it, and nothing later is the same; several in a row are one
    0 1 ..  a text that comes more than once in its lane, numbered by first appearance
    <       it begins with the delta before it       W  it begins with all of the lane's text so far
    p       all text so far begins with it           s  the text so far ends with it
    =       it equals the latest delta of another lane

(the letters only where the texts differ: they are new relations, not the repeat itself). A unit of any length that comes several times in
a row is written once, as (unit)+, so counts are gone. Lanes, choices and call indexes are numbered by appearance too; what an event fixes
of its envelope is kept as a relation: id, call id and further fields as same or other, usage as its sign of change, log-probabilities
as same or other. So two rows that differ in kind of text alone (digits, letters, blanks) are alike here, although detectors tell
them apart: the stricter reading.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from .stream import PROVING, STYLES

if TYPE_CHECKING:
    from .stream import Event, Negative

_FILLER: Final = re.compile(r"T?\d*\.")
_Lane = tuple[str, int, int]


class _Reader:
    """Reads a negative's events into tokens."""

    def __init__(self, negative: Negative) -> None:
        parts = [part for event in negative.events for part in event.parts]
        self.often = Counter(((part.lane, part.choice, part.index), part.text) for part in parts)
        self.numbers: dict[tuple[_Lane, str], int] = {}
        self.lanes: dict[_Lane, int] = {}
        self.texts: dict[_Lane, str] = {}
        self.last: dict[_Lane, str] = {}
        self.before: Event | None = None

    def read(self, event: Event) -> str:
        said = "&".join(self._part(part.text, (part.lane, part.choice, part.index), part.call, part.name) for part in event.parts)
        token = said + self._envelope(event)
        self.before = event
        return token

    def _part(self, text: str, lane: _Lane, call: str | None, name: str | None) -> str:
        number = self.lanes.setdefault(lane, len(self.lanes))
        kind = {"tool": "T", "function": "T"}.get(lane[0], "")
        token = f"{kind}{number or ''}" + ("" if call is None else "#" if call else "_") + "n" * (name is not None)
        if not text:
            return token + "0"
        before, last = self.texts.get(lane, ""), self.last.get(lane, "")
        mark = str(self.numbers.setdefault((lane, text), len(self.numbers))) if self.often[lane, text] > 1 else "."
        if before and text not in (last, before) and (mark == "." or text not in before):
            mark += "<" * text.startswith(last) + "W" * (text.startswith(before) and before != last)
            mark += "p" * before.startswith(text) + "s" * before.endswith(text)
        elif before and text == before and before != last:
            mark += "W="
        if any(other == text for one, other in self.last.items() if one != lane):
            mark += "="
        self.texts[lane], self.last[lane] = before + text, text
        return token + mark

    def _envelope(self, event: Event) -> str:
        was, token = self.before, ""
        token += "|f" if event.finish else ""
        token += "|:" if event.comment else ""
        token += "|[]" if not event.choices else ""
        token += "|2" if event.split else ""
        token += "|m" if event.message else ""
        if event.id is not None:
            token += "|i" + ("=" if was is not None and was.id == event.id else "0" if not event.id else "!")
        if event.usage is not None:
            earlier = was.usage if was is not None and was.usage is not None else -1
            token += "|u" + ("0" if not event.usage else "+" if event.usage > earlier else "-" if event.usage < earlier else "=")
        if event.logprobs is not None:
            token += "|l" + ("=" if was is not None and was.logprobs == event.logprobs else "!") + str(min(len(event.logprobs), 2))
            token += "~" if max(event.logprobs) > -0.001 else "v" if min(event.logprobs) < -999 else ""
        for name, value in event.extra:
            token += f"|{name}" + ("0" if not value else "=" if was is not None and was.extra == event.extra else "!")
        if event.keys:
            token += "|" + "".join(key[0] for key in event.keys)
        return token


def _folded(tokens: list[str]) -> list[str]:
    """Fillers in a row as one, then every unit that repeats in a row as (unit)+, shortest units first."""
    out: list[str] = []
    for token in tokens:
        if not (_FILLER.fullmatch(token) and out and out[-1] == token):
            out.append(token)
    size = 1
    while size <= len(out) // 2:
        at = 0
        while at + 2 * size <= len(out):
            unit = out[at : at + size]
            end = at + size
            while out[end : end + size] == unit:
                end += size
            if end > at + size:
                out[at:end] = [f"({' '.join(unit)})+"]
            at += 1
        size += 1
    return out


def canonical(negative: Negative) -> str:
    """The form in which no two negatives may be alike."""
    reader = _Reader(negative)
    where = {STYLES: "", PROVING: "proven "}.get(negative.styles, "")
    return where + " ".join(_folded([reader.read(event) for event in negative.events])) + (" bare" if negative.bare else "")

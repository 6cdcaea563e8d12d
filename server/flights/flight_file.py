"""A flight read back from its file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .flight import Facts

_BEGIN: Final = b'{"evenflow":"flight"'


class NoFlight(ValueError):
    """A file that is no flight, or was torn; the text says where."""


@dataclass(frozen=True, slots=True)
class FlightFile:
    """One recorded stream.

    Args:
      head: what it was: id, model, route, engine, whether texts are redacted.
      entries: (milliseconds since the request, kind, what).
      end: how it ended; empty if the file was torn.
    """

    head: Facts
    entries: list[tuple[float, str, Any]]
    end: Facts

    def blocks(self) -> Iterator[tuple[float, bytes]]:
        """The chunks of its last attempt, with the seconds that each came after the one before; the first one's since the request.

        A chunk whose bytes were not kept is a comment that says so.
        """
        begin = max((place for place, (_, kind, _) in enumerate(self.entries) if kind == "attempt"), default=0)
        before = 0.0
        for at, kind, what in self.entries[begin:]:
            if kind in ("chunk", "length"):
                yield max(0.0, at - before) / 1000, what.encode() if kind == "chunk" else b": %d bytes were not kept\n\n" % what
                before = at


def is_flight(path: Path) -> bool:
    """Whether a file begins as a flight does."""
    with path.open("rb") as file:
        return file.read(len(_BEGIN)) == _BEGIN


def read_flight(path: Path) -> FlightFile:
    """Read a file.

    Raises:
      NoFlight: it is none, or of a later version.
      OSError: it cannot be read.
    """
    lines = path.read_bytes().splitlines()
    if not lines or not lines[0].startswith(_BEGIN):
        raise NoFlight(f"{path}: not a flight; the recorder's files begin with {_BEGIN.decode()}")
    head = _object(lines[0], path, 1)
    if head.get("version") != 1:
        raise NoFlight(f"{path}: a flight of version {head.get('version')}; this evenflow reads version 1")
    entries: list[tuple[float, str, Any]] = []
    end: Facts = {}
    for number, line in enumerate(lines[1:], 2):
        entry = _object(line, path, number)
        if isinstance(entry.get("end"), dict):
            end = entry["end"]
            continue
        at = entry.pop("ms", None)
        if not isinstance(at, int | float) or len(entry) != 1:
            raise NoFlight(f"{path}:{number}: not an entry of a flight")
        [(kind, what)] = entry.items()
        if (kind == "chunk" and not isinstance(what, str)) or (kind == "length" and not isinstance(what, int)):
            raise NoFlight(f"{path}:{number}: not an entry of a flight")
        entries.append((float(at), kind, what))
    return FlightFile(head, entries, end)


def _object(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise NoFlight(f"{path}:{number}: {exc}") from None
    if not isinstance(value, dict):
        raise NoFlight(f"{path}:{number}: not a JSON object")
    return value

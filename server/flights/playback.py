"""A flight as an upstream: what came then comes again, at the pace at which it came."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..simulator import Recording, Scenario, ScenarioStep
from .flight_file import NoFlight, is_flight, read_flight
from .recorder import ENDING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NoFlight", "always", "read_flights"]


def _recording_of(path: Path) -> Recording:
    if not is_flight(path):
        return Recording.of(path.read_bytes())
    timed = list(read_flight(path).blocks())
    if not timed:
        raise NoFlight(f"{path}: no upstream answered in this flight")
    return Recording(tuple(block for _, block in timed), tuple(wait for wait, _ in timed))


def read_flights(folder: Path) -> dict[str, Recording]:
    """Every flight of a folder in which an upstream answered, by its name without the ending.

    Raises:
      NoFlight: a file is none although it is called so.
      OSError: it cannot be read.
    """
    flights = {path.stem: list(read_flight(path).blocks()) for path in sorted(folder.glob(f"*{ENDING}"))}
    return {name: Recording(*zip(*((block, wait) for wait, block in timed), strict=True)) for name, timed in flights.items() if timed}


def always(path: Path) -> tuple[Scenario, dict[str, Recording]]:
    """A simulator's scenario in which every request gets one file, a flight or an .sse recording, and the recordings it needs.

    Raises:
      NoFlight: it cannot be read as one, or no upstream answered in it.
      OSError: it cannot be read.
    """
    return Scenario((ScenarioStep("recording:it"),)), {"it": _recording_of(path)}

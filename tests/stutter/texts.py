"""Where true text comes from: the lanes of recorded streams."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Event, Field

ROOT: Final = Path(__file__).resolve().parents[2]
#: The first that exists is used.
RECORDINGS: Final = (ROOT.parent / "shared" / "corpus", ROOT / "tests" / "recordings")


def recordings() -> list[Path]:
    for folder in RECORDINGS:
        if files := sorted(folder.glob("*.sse")):
            return files
    return []


def lanes_of(path: Path) -> dict[tuple[int, Field, int, str], list[str]]:
    """A recording's deltas by lane; arguments by call."""
    parser = ChunkParser()
    lanes: dict[tuple[int, Field, int, str], list[str]] = {}
    calls: dict[tuple[int, int], str] = {}
    for chunk in [*parser.feed(path.read_bytes()), *parser.close(True)]:
        if isinstance(chunk, Event):
            for delta in chunk.deltas:
                if delta.call_id is not None:
                    calls[delta.choice, delta.call_index] = delta.call_id
                call = calls.get((delta.choice, delta.call_index), "") if delta.call_index >= 0 else ""
                lanes.setdefault((delta.choice, delta.field, delta.call_index, call), []).append(delta.text)
    return lanes


def text_lanes(least: int = 10, most: int = 400) -> list[tuple[str, list[str]]]:
    """(name of the recording, deltas) of every recorded text lane of at least `least` deltas."""
    return [
        (path.stem, deltas[:most])
        for path in recordings()
        for (_, field, _, _), deltas in lanes_of(path).items()
        if field not in (Field.TOOL_ARGUMENTS, Field.FUNCTION_ARGUMENTS) and len(deltas) >= least
    ]


def argument_lanes() -> list[tuple[str, list[str]]]:
    return [
        (path.stem, deltas)
        for path in recordings()
        for (_, field, _, _), deltas in lanes_of(path).items()
        if field in (Field.TOOL_ARGUMENTS, Field.FUNCTION_ARGUMENTS)
    ]

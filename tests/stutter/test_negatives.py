"""What must pass untouched: hard negatives in every envelope at three speeds, and the recorded streams."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from actors.sansio.chunk_parser import ChunkParser

from .negatives import ARGUMENTS, TEXT, Row
from .texts import recordings
from .wire import ENVELOPES, build, play, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("style", ENVELOPES)
@pytest.mark.parametrize(
    ("row", "field"),
    [(row, "content") for row in TEXT] + [(row, "arguments") for row in ARGUMENTS],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_a_legitimate_stream_leaves_byte_for_byte(row: Row, field: str, style: str) -> None:
    for gap in (0.0005, 0.06, 0.5):
        blocks = write(build(row[2], random.Random(1), gap=gap, field=field), style)  # type: ignore[arg-type]  # a parameter of ENVELOPES
        result = play(blocks)
        assert result.raw == b"".join(raw for _, raw in blocks)
        assert not result.late_first


def test_no_two_rows_are_alike() -> None:
    names = [row[0] for row in TEXT + ARGUMENTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", [path for path in recordings() if "STUTTER" not in path.name], ids=lambda path: path.stem)
def test_a_recorded_stream_leaves_as_it_came(path: Path) -> None:
    raw = path.read_bytes()
    result = play([(0.0001 * place, raw[place : place + 700]) for place in range(0, len(raw), 700)])
    parser = ChunkParser()  # mends a missing last blank line; what it makes of the bytes is the measure
    assert result.raw == b"".join(chunk.raw for chunk in [*parser.feed(raw), *parser.close(True)])
    assert not result.shapes
    assert not result.late_first

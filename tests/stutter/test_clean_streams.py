"""What must pass untouched besides the hard negatives: recorded streams, and how much the generators of test_shapes leave out."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest

from actors.sansio.chunk_parser import ChunkParser

from .injections import CHUNKINGS, cut
from .test_shapes import ALPHABET, TOKENS, is_cumulative, is_related
from .texts import half_of, passages, recordings, text_lanes
from .wire import ENVELOPES, build, play, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("path", [path for path in recordings() if "STUTTER" not in path.name], ids=lambda path: path.stem)
def test_a_recorded_stream_leaves_as_it_came(path: Path) -> None:
    raw = path.read_bytes()
    result = play([(0.0001 * place, raw[place : place + 700]) for place in range(0, len(raw), 700)])
    parser = ChunkParser()  # mends a missing last blank line; what it makes of the bytes is the measure
    assert result.raw == b"".join(chunk.raw for chunk in [*parser.feed(raw), *parser.close(True)])
    assert not result.shapes
    assert not result.late_first


@pytest.mark.parametrize("chunking", CHUNKINGS)
def test_text_of_files_leaves_as_it_came(chunking: str) -> None:
    rng = random.Random(chunking)
    for tokens in passages("evaluation", 25, rng, length=2_000):
        blocks = write(build(cut(tokens, chunking, rng), rng, gap=CHUNKINGS[chunking]), rng.choice(ENVELOPES))
        assert play(blocks).raw == b"".join(raw for _, raw in blocks)


def test_every_provider_is_in_one_half() -> None:
    names = {path.stem for path in recordings()}
    halves = [{name.split("-")[0] for name in names if half_of(name) == half} for half in ("calibration", "evaluation")]
    assert not halves[0] & halves[1]
    lanes = [text_lanes(half) for half in ("calibration", "evaluation")]
    assert len(lanes[0]) + len(lanes[1]) == len(text_lanes())
    assert min(map(len, lanes)) >= 10


def test_the_share_of_streams_that_the_generators_leave_out() -> None:
    # The share of drawn streams, in the distributions of test_shapes. Small alphabets make coincidences the rule, so it is high there and
    # next to nothing in text as it is.
    rng = random.Random(7)
    drawn = [rng.choices(ALPHABET, k=rng.randint(1, 30)) for _ in range(4000)]
    assert sum(map(is_cumulative, drawn)) / len(drawn) < 0.02  # 1.1 %
    assert sum(map(is_related, drawn)) / len(drawn) < 0.5  # 48 %
    real = [cut(TOKENS, chunking, rng) for chunking in CHUNKINGS for _ in range(20)]
    real += [deltas for _, deltas in text_lanes()]
    assert sum(map(is_cumulative, real)) / len(real) < 0.01  # none
    assert sum(deltas[1].startswith(deltas[0]) for deltas in real if len(deltas) > 1) / len(real) < 0.01  # none
    assert sum(any(a == b for a, b in itertools.pairwise(deltas)) for deltas in real) / len(real) < 0.12  # 11 %

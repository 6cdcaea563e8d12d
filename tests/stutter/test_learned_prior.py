"""What holds for clean streams holds whatever an upstream has taught: everything again, with the highest prior that can be learned."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.sansio.smart_buffer import SmartBuffer
from actors.sansio.stuttering_detector import StutteringDetector, StutterPolicy
from actors.sansio.upstream_history import MOST, UpstreamHistory
from server.replay import replay

from .hard_negatives import NEGATIVES
from .hard_negatives.stream import Negative, arrivals, write
from .wire import play

CORPUS = sorted((Path(__file__).resolve().parents[3] / "shared" / "corpus").glob("*.sse"))


def taught() -> UpstreamHistory:
    """The history of an upstream of which every stream stuttered."""
    history = UpstreamHistory(forget=1e9)
    for _ in range(1000):
        history.note({"A1": 3, "B1": 1}, 0, 0.0)
    assert history.prior(0.0) == MOST
    return history


TAUGHT = taught()


@pytest.mark.parametrize("negative", [pytest.param(one, id=one.name) for one in NEGATIVES])
def test_a_hard_negative_leaves_as_it_came(negative: Negative) -> None:
    damaged = []
    for style in negative.styles:
        blocks = write(negative, style)
        for speed in ("burst", "normal"):
            policy = StutterPolicy(profile="portal" if "portal" in negative.profiles else "generic")
            buffer = SmartBuffer(StutteringDetector(policy, TAUGHT))
            if play(zip(arrivals(len(blocks), speed), blocks, strict=True), buffer=buffer).raw != b"".join(blocks):
                damaged.append((style, speed))
    assert not damaged


@pytest.mark.skipif(not CORPUS, reason="the recorded streams (../shared/corpus) are not here")
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem[:60])
def test_a_recorded_stream_comes_out_as_without_it(path: Path) -> None:
    recording = path.read_bytes()
    for pace in (0.0, 0.02):
        assert replay(recording, pace=pace, history=TAUGHT).body == replay(recording, pace=pace).body

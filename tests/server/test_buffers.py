"""The buffers of attempts, made to each upstream's settings, and the histories behind them."""

from __future__ import annotations

from collections import Counter

from server.buffers import Buffers
from server.settings import BufferSettings, Settings, StutterSettings, UpstreamSettings
from tests.fakes import content
from tests.stutter.wire import play

SNAPSHOTS = ["The capital", "The capital of Norway", "The capital of Norway is", "The capital of Norway is Oslo, by the fjord."]
BLOCKS = [(0.02 * place, content(text)) for place, text in enumerate(SNAPSHOTS)]


def buffers() -> Buffers:
    upstreams = {
        "plain": UpstreamSettings(base_url="http://a/v1"),
        "quick": UpstreamSettings(base_url="http://b/v1", buffer={"max_age": 0.1, "max_events": 2}),
        "blind": UpstreamSettings(base_url="http://c/v1", stutter={"mode": "off"}),
        "watched": UpstreamSettings(base_url="http://d/v1", stutter={"mode": "observe", "trailer": True, "forget": 0}),
    }
    return Buffers(Settings(configured_upstreams=upstreams, stutter=StutterSettings(), buffer=BufferSettings(max_age=0.3)))


def test_each_upstream_has_its_own_mode() -> None:
    open_buffer = buffers()
    came = b"".join(raw for _, raw in BLOCKS)
    left = {name: play(BLOCKS, buffer=open_buffer(name)) for name in ("plain", "blind", "watched")}
    assert left["plain"].only == SNAPSHOTS[-1]
    assert left["blind"].raw == left["watched"].raw == came
    assert left["watched"].buffer.repairs == {"A1": 3}
    assert left["blind"].buffer.repairs == {}


def test_each_upstream_has_its_own_trailer() -> None:
    open_buffer = buffers()
    wanted = {name: bool(open_buffer(name).trailer(Counter())) for name in ("plain", "blind", "watched")}
    assert wanted == {"plain": False, "blind": False, "watched": True}


def test_each_upstream_has_its_own_limits_of_a_hold() -> None:
    open_buffer = buffers()
    blocks = [(0.0, content("Hello")), (0.0, content("Hello")), (9.0, content("!"))]
    waits = {name: play(blocks, buffer=open_buffer(name)).held for name in ("plain", "quick")}
    assert waits == {"plain": [0.3], "quick": [0.1]}


def test_attempts_of_one_upstream_share_one_history_and_others_none() -> None:
    open_buffer = buffers()
    for name in ("plain", "plain", "watched"):
        buffer = open_buffer(name)
        play(BLOCKS, buffer=buffer)
        buffer.close(10.0)
    learned = open_buffer.learned(12.0)
    assert {name: known.streams for name, known in learned.items()} == {"plain": 2, "quick": 0, "blind": 0, "watched": 0}
    assert learned["plain"].proven == {"A1": 2}
    assert learned["plain"].last_proof_age == 2.0


def test_row_69_after_a_reload_the_history_of_an_upstream_that_is_watched_as_before_is_kept() -> None:
    before = buffers()
    for name in ("plain", "quick"):
        buffer = before(name)
        play(BLOCKS, buffer=buffer)
        buffer.close(10.0)
    upstreams = {
        "plain": UpstreamSettings(base_url="http://a/v1", buffer={"max_age": 0.2}),
        "quick": UpstreamSettings(base_url="http://elsewhere/v1"),
        "new": UpstreamSettings(base_url="http://e/v1"),
    }
    after = Buffers(Settings(configured_upstreams=upstreams), before)
    assert {name: known.streams for name, known in after.learned(12.0).items()} == {"plain": 1, "quick": 0, "new": 0}

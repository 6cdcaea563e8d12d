"""`make eval` and `make calibrate` in small: that they run, judge as they say, and say what was missed."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from bench import calibrate, stutter_eval
from bench.stutter_eval import exact_row
from bench.stutter_measure import Both, Score
from bench.stutter_plot import plot
from bench.undecidable import UNDECIDABLE, reason
from tests.stutter.wire import Envelope, Piece


def both(exact: int, streams: int, undecidable: int = 0, leaked: int = 0) -> Both:
    score = Score(streams=streams, exact=exact, repeated=1000, leaked=leaked)
    score.undecidable["blank head"] += undecidable
    return Both(score)


def test_a_small_run_prints_the_whole_table_and_loses_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    svg = tmp_path_factory.mktemp("eval") / "img" / "plot.svg"
    stutter_eval.main(["--lanes", "2", "--files", "4", "--negatives", "12", "--no-prototype", "--svg", str(svg)])
    told = capsys.readouterr().out
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in told.splitlines() if line.startswith("| ")}
    for measure in (
        "clean streams changed / characters lost, any set",
        "A1, A2, A3 exact, %",
        "B1 exact with nonce or dashscope or usage, %",
        "G1, G2, G2 {}, G2 x3 exact, %",
        "G3, H1 exact, %",
        "D1, D2 exact with nonce or usage, %",
        "B1, D1, D2, F2 without proof: repaired / losing text",
        "streams that lose any text, any shape",
    ):
        assert rows[measure].endswith("| yes |")
    assert "| - | 0 of 12 |" in rows["hard negatives damaged"]
    assert len(rows) >= 18
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")


def test_one_shape_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert stutter_eval.main(["--lanes", "1", "--shapes", "A1,D1", "--no-prototype", "--failures", "1"]) == 0
    told = capsys.readouterr().out
    assert "100.00 % exact" in told
    assert "FAIL D1" in told


@pytest.mark.parametrize(
    ("scores", "leak", "reached"),
    [
        ((both(99, 100), both(100, 100)), 0.0, "yes"),
        ((both(98, 100), both(100, 100)), 0.0, "**no**"),
        ((both(95, 100, 5), both(100, 100)), 0.0, "all that can be decided"),
        ((both(95, 100, 5), both(90, 100)), 0.0, "**no**"),
        ((both(99, 100, leaked=1), both(100, 100)), 0.3, "yes"),
        ((both(99, 100, leaked=4), both(100, 100)), 0.3, "**no**"),
    ],
)
def test_the_verdict(scores: tuple[Both, Both], leak: float, reached: str) -> None:
    shapes = dict(zip(("A", "B"), scores, strict=True))
    assert exact_row(shapes, ("A", "B"), (99, 99), leak=leak).reached == reached


@pytest.mark.parametrize(
    ("shape", "texts", "style", "why"),
    [
        ("B2", ["very ", "very ", "very good", " so"], "constant", "head with separators"),
        ("B2", ["very ", "very ", "very good", " so"], "usage", ""),
        ("B2", ["very ", "very ", "very good", "very good so"], "constant", ""),
        ("B2", ["The", "The", "The cat", " sat"], "constant", ""),
        ("B3", ["\n", "\n\n", "\n\nHi", " you"], "nonce", "blank head"),
        ("B3", ["\n", "\n\n", "\n\nHi", " you"], "dashscope", ""),
        ("C1", ["\n", "\n", "a", "a"], "constant", ""),
    ],
)
def test_undecidable_is_no_more_than_its_reason(shape: str, texts: list[str], style: Envelope, why: str) -> None:
    assert reason(shape, [Piece("", 0.0, "role"), *(Piece(text, 0.02) for text in texts)], style) == why
    assert {entry.name for entry in UNDECIDABLE} >= {why} - {""}


def test_a_shape_without_streams_is_drawn_as_well() -> None:
    assert ElementTree.fromstring(plot({"A1": both(99, 100), "G3": Both()})).tag.endswith("svg")


def test_a_weight_may_not_be_larger_than_what_was_measured() -> None:
    row = calibrate.Row("factor", "class", 0, 3000, 1.0, 3.0)
    assert row.odds == pytest.approx(3.0)
    assert row.holds
    assert not row._replace(weight=3.1).holds
    assert not row._replace(seen=9).holds
    assert str(row._replace(weight=3.1)).endswith("too large")


def test_calibration_counts_what_is_there() -> None:
    tally = calibrate.Tally()
    tally.add_clean(["The", " cat", " cat", " cats", "\n", "\n"])
    rows = {(row.factor.split(" (")[0], row.kind): row for row in tally.rows()}
    assert rows["equals its neighbour", "word, 0 to 3 letters"].seen == 1
    assert rows["equals its neighbour", "word, 0 to 3 letters"].chances == 2
    assert rows["extends its neighbour", "word, 0 to 3 letters, continued by a letter or two"].seen == 1
    assert rows["equals its neighbour", "blank"].seen == 1


def test_a_small_calibration(capsys: pytest.CaptureFixture[str]) -> None:
    calibrate.main(["--files", "6"])  # far too little text to hold any weight; `make calibrate` takes 3000
    told = capsys.readouterr().out
    assert "| factor | class | clean | stutter | log10 odds | weight used |" in told
    assert "usage: 0 of" in told


def test_scores_add_up() -> None:
    score = Score()
    assert score.add("abc", "abc", 3, ("a",))
    assert not score.add("abc", "abcabc", 3, ("a", "b"), "why")
    assert not score.add("abc", "ac", 3, ())
    assert (score.streams, score.exact, score.losing, score.leaked) == (3, 1, 1, 3)
    assert score.leak == pytest.approx(100 / 3)
    assert score.share("a") == 50.0
    assert score.decidable == 50.0
    assert replace(score).streams == 3

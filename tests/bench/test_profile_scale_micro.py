"""`make profile`, `make bench-scale` and `make bench-micro` in small."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from actors import SmartBuffer, StutteringDetector
from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Event
from bench import flame, micro, scale
from bench.flame_plot import flame_graph
from bench.scale_plot import plot

if TYPE_CHECKING:
    from pathlib import Path

    from bench.goals import Medians


STACKS = Counter(
    {
        ("run (trio/_core/_run.py:9)", "feed (actors/sansio/sse.py:3)"): 6,
        ("run (trio/_core/_run.py:9)", "feed (actors/sansio/sse.py:4)"): 2,
        ("run (trio/_core/_run.py:7)",): 1,
        ("run (trio/_core/_run.py:8)", "<b>&</b> (json.py)"): 1,
    }
)


def test_lines_of_a_function_are_one_row_with_its_share_and_its_cost() -> None:
    functions = flame.by_function(STACKS)
    assert functions[("run (trio/_core/_run.py)", "feed (actors/sansio/sse.py)")] == 8
    rows = {line.split("  ")[-1]: line.split()[:4] for line in flame.table(functions, 10, 50.0).splitlines() if line.startswith("  ")}
    assert rows["feed (actors/sansio/sse.py)"] == ["80.0", "80.0", "40", "40"]
    assert rows["run (trio/_core/_run.py)"] == ["10.0", "100.0", "5", "50"]
    assert rows["actors/sansio"] == ["80.0", "80.0", "40", "40"]
    assert rows["trio"][0] == rows["standard library"][0] == "10.0"


def test_the_flame_graph_has_a_box_as_wide_as_its_share() -> None:
    picture = ElementTree.fromstring(flame_graph(flame.by_function(STACKS), "<title>"))
    boxes = {group[0].text: float(group[1].get("width", "0")) for group in picture.iter("{http://www.w3.org/2000/svg}g")}
    widths = {re.split("[ :]", text)[0]: width for text, width in boxes.items() if text}
    assert widths["all"] == pytest.approx(1400, abs=1)
    assert widths["feed"] == pytest.approx(1120, abs=1)
    assert widths["<b>&</b>"] == pytest.approx(140, abs=1)


def test_what_has_no_process_has_no_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert flame.main(["--target", "direct"]) == 2
    assert "direct" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("cc") is None, reason="the load generator is compiled with cc")
def test_a_small_scale_has_a_row_for_each_target_and_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, svg = tmp_path / "scale.json", tmp_path / "scale.svg"
    asked = [
        "--open",
        "1,60,9999999",
        "--only",
        "direct,floor",
        "--repeats",
        "1",
        "--seconds",
        "0.1",
        "--json",
        str(result),
        "--svg",
        str(svg),
    ]
    assert scale.main(asked) == 0
    told = capsys.readouterr()
    assert "9999999 streams need" in told.err
    assert "every stream complete" in told.out
    medians = json.loads(result.read_text("utf-8"))["medians"]
    assert set(medians) == {"open-1", "open-60"}
    assert medians["open-60"]["floor"]["kb_per_stream"] > 0
    assert medians["open-1"]["floor"]["kb_per_stream"] is None
    assert "floor" in svg.read_text("utf-8")


def test_the_plot_of_the_scale_copes_with_holes() -> None:
    where = {"cpu": "x", "cores": 2, "python": "3", "date": "today"}
    medians: Medians = {
        "open-1": {"actors": {"cpu_ms_per_stream": 1.0, "kb_per_stream": None}},
        "open-10": {"actors@/old": {"cpu_ms_per_stream": 2.0}},
    }
    picture = plot(medians, ["actors", "actors@/old", "floor"], [1, 10, 100], where)
    assert len([line for line in ElementTree.fromstring(picture) if line.tag.endswith("polyline")]) == 2


def test_each_part_costs_something_and_the_yardstick_is_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert micro.main(["--repeats", "1", "--json", str(tmp_path / "micro.json")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert float(rows[0][1]) == 1.0
    assert all(float(row[0]) > 0 for row in rows)
    found = json.loads((tmp_path / "micro.json").read_text("utf-8"))
    assert set(found) == set(micro._TITLES)
    assert len(rows) == len(found)


def test_the_stream_of_the_micro_benchmarks_is_clean() -> None:
    parser = ChunkParser()
    events = [event for block in micro.blocks(500) for event in parser.feed(block) if isinstance(event, Event)]
    assert len(events) == 500
    buffer = SmartBuffer(StutteringDetector())
    assert [len(buffer.add(event, number / 50)) for number, event in enumerate(events)] == [1] * 500

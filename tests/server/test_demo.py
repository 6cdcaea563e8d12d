"""The demo: it shows what it says, it can fail, and its picture fits."""

from __future__ import annotations

import copy
import io
import re
from typing import TYPE_CHECKING

import pytest
import trio

from server.demo import run_demo
from server.demo.conversation import Heard, converse
from server.demo.run import demo_settings
from server.demo.scenes import SCENES, NotObserved, Scene, Stage
from server.demo.screen import Screen
from server.main import open_proxy
from server.simulator import open_simulator

if TYPE_CHECKING:
    from pathlib import Path

PACE = 0.002


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def displayed(written: str) -> list[str]:
    """What a terminal shows after these bytes: the few sequences the screen uses, and no other."""
    rows, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9]*[A-Za-z]|\n|[^\x1b\n]+|\x1b", written):
        if part == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif part.endswith("A") and part.startswith("\x1b["):
            row, column = row - int(part[2:-1]), 0
        elif part == "\x1b[K":
            rows[row] = rows[row][:column]
        elif not re.fullmatch(r"\x1b\[[0-9]*m", part):
            assert "\x1b" not in part, f"an unexpected sequence before {part!r}"
            rows[row] = rows[row][:column] + part + rows[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in rows]


def test_all_five_are_observed(logs: Path) -> None:
    out = io.StringIO()
    assert run_demo(out, pace=PACE) == 0, out.getvalue()
    shown = out.getvalue()
    for scene in SCENES:
        assert scene.title in shown
    assert "503 overloaded" in shown
    assert "200, x-evenflow-attempts: 2" in shown
    assert "upstream_truncated" in shown
    assert "closed -> open -> half_open -> closed" in shown
    assert "evenflow dev" in shown
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) < 80
    assert list(logs.iterdir()) == []


def test_a_missing_scene_is_named_and_the_others_still_run(logs: Path) -> None:
    async def never(stage: Stage) -> str:
        raise NotObserved("nothing came")

    async def broken(stage: Stage) -> str:
        async with trio.open_nursery():
            raise ZeroDivisionError("a scene's own defect")

    out = io.StringIO()
    programme = (Scene("a thing unseen", "never", never), Scene("a thing broken", "never", broken), SCENES[1])
    assert run_demo(out, pace=PACE, scenes=programme) == 1
    *_, summary = out.getvalue().partition("1 of 3 observed. Missing:")
    assert "1. a thing unseen: nothing came" in summary
    assert "2. a thing broken: ZeroDivisionError: a scene's own defect" in summary
    assert SCENES[1].title not in summary
    assert "=> told:" in out.getvalue()
    (log,) = logs.iterdir()
    assert str(log) in summary.replace("\n", "")
    assert "ZeroDivisionError" in log.read_text("utf-8")


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.title)
async def test_no_scene_is_observed_where_evenflow_does_nothing(scene: Scene) -> None:
    async with open_simulator(pace=PACE) as simulator, open_proxy(demo_settings(simulator.base_url)) as proxy:
        bypassed = copy.copy(proxy)
        bypassed.base_url = simulator.base_url
        with pytest.raises(NotObserved):
            await scene.play(Stage(simulator, bypassed, Screen(io.StringIO()), PACE))


@pytest.mark.parametrize("model", ["cut:after=3", "reset:after=3", "close-before-headers"])
async def test_a_broken_connection_is_heard_as_such(model: str) -> None:
    async with open_simulator(pace=PACE) as simulator:
        heard = Heard()
        await converse(simulator.base_url, {"model": model, "stream": True, "messages": []}, heard)
    assert not heard.whole
    assert not heard.done
    assert heard.error is None


async def test_a_whole_answer_is_heard_to_its_end() -> None:
    async with open_simulator(pace=0.0) as simulator:
        stream, whole, refused = Heard(), Heard(), Heard()
        body = {"model": "ok:text=one two", "messages": []}
        await converse(simulator.base_url, {**body, "stream": True}, stream)
        await converse(simulator.base_url, body, whole)
        await converse(simulator.base_url, {"model": "http-503", "messages": []}, refused)
    assert (stream.text, stream.done, stream.whole, stream.status) == ("one two", True, True, 200)
    assert (whole.text, whole.done, whole.whole) == ("one two", False, True)
    assert refused.status == 503
    assert refused.error_line.startswith("overloaded: The engine")


def play(out: io.StringIO) -> None:
    screen = Screen(out)
    screen.begin("a scene")
    for end in range(0, 200, 7):
        screen.left.show(("text", ("word " * 40)[:end]))
        screen.right.show(("good", ("other " * 40)[: end // 2]))
        screen.refresh()
    screen.left.show(("bad", "short\x1b[2J\r after all"))
    screen.end("good", "done")


def test_a_terminal_ends_up_showing_what_is_printed_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, live, grey = io.StringIO(), Terminal(), Terminal()
    play(plain)
    play(live)
    monkeypatch.setenv("NO_COLOR", "1")
    play(grey)
    assert "\x1b" not in plain.getvalue()
    assert "\x1b[32m" in live.getvalue()
    assert re.search(r"\x1b\[[0-9]*m", grey.getvalue()) is None
    # A terminal keeps the blank lines of a column that had been longer.
    shown = [line for line in plain.getvalue().split("\n") if line]
    assert [line for line in displayed(live.getvalue()) if line] == shown
    assert [line for line in displayed(grey.getvalue()) if line] == shown
    assert r"short\x1b[2J\r after all" in plain.getvalue()


@pytest.mark.parametrize("columns", ["80", "100", "300", "20"])
def test_the_picture_fits(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = io.StringIO()
    play(out)
    widest = max(map(len, out.getvalue().split("\n")))
    assert widest < max(48, min(120, int(columns)))
    assert widest > 30

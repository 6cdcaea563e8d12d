"""`make clients` in small: what it judges; and the two cheapest clients that are not Python, where they are installed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from bench.clients.__main__ import CLIENTS, main, table
from bench.clients.cases import CASES, RIGHT, Cell, Left, judge, scenario
from bench.clients.client import Client, Command, Output, Place, Said, said_in_json
from bench.clients.install import CannotInstall, installed
from bench.clients.run import run_client
from bench.clients.sdks import OPENAI_NODE, OPENAI_PYTHON, VERCEL_AI_SDK
from server.simulator import Ending, Seen

if TYPE_CHECKING:
    from pathlib import Path

WEATHER = ("get_weather", '{"city": "Kraków", "unit": "celsius", "days": [1, 2, 3]}')
CUT = Said(RIGHT[:50], "APIError upstream_truncated: incomplete")


@pytest.mark.parametrize("client", [OPENAI_NODE, VERCEL_AI_SDK], ids=lambda client: client.name)
def test_a_client_gets_what_was_promised(client: Client) -> None:
    try:
        folder, programs = installed(client, install=False)
    except CannotInstall as exc:
        pytest.skip(str(exc))
    cells = trio.run(partial(run_client, client, folder, programs, tell=lambda case: None))
    assert {case: cell.kind for case, cell in cells.items()} == dict.fromkeys(CASES, "ok"), cells


def place_of(case: str, home: Path) -> Place:
    return Place(case, "http://127.0.0.1:1/v1", home, home, home)


def seen_of(case: str, ending: Ending = Ending.COMPLETED, ended_ns: int = 0) -> Seen:
    return Seen(1, 1, "POST", "/v1/chat/completions", {}, b"", 0, 0.0, 0, model=case, ending=ending, ended_ns=ended_ns)


@pytest.mark.parametrize(
    ("case", "said", "kind"),
    [
        ("chat", Said(RIGHT), "ok"),
        ("chat", Said(RIGHT[:-1]), "off"),
        ("chat", Said(RIGHT, "an error"), "off"),
        ("stutter", Said("The" + RIGHT), "off"),
        ("tools", Said("", calls=(WEATHER,)), "ok"),
        ("tools", Said("", calls=(WEATHER, WEATHER)), "off"),
        ("tools", Said("", calls=((WEATHER[0], "{"),)), "off"),
        ("error", CUT, "ok"),
        ("error", Said(RIGHT[:50]), "off"),
        ("error", Said("", CUT.error), "off"),
        ("error", Said(RIGHT, CUT.error), "off"),
        ("error", Said("The" + RIGHT[:50], CUT.error), "off"),
        ("error", Said(RIGHT[:50], "Connection error."), "off"),
    ],
)
def test_a_verdict_is_on_what_the_user_got(case: str, said: Said, kind: str, tmp_path: Path) -> None:
    assert judge(OPENAI_PYTHON, place_of(case, tmp_path), said, [seen_of(case)], None).kind == kind
    assert judge(OPENAI_PYTHON, place_of(case, tmp_path), said, [], None).kind == "off"  # it asked nothing: whatever it says is not ours


def test_a_client_that_asks_again_may_show_the_beginning_as_often(tmp_path: Path) -> None:
    place, seen = place_of("error", tmp_path), [seen_of("error")] * 3
    assert str(judge(OPENAI_PYTHON, place, Said(RIGHT[:50] * 3, CUT.error), seen, None)) == "ok, asked 3 times"
    assert judge(OPENAI_PYTHON, place, Said(RIGHT[:50] * 3 + "The", CUT.error), seen, None).kind == "off"


@pytest.mark.parametrize(
    ("ending", "milliseconds", "left", "told"),
    [
        (Ending.CLIENT_CLOSED, 7, Left(0), "ok, 7 ms"),
        (Ending.CLIENT_CLOSED, 7, Left(0, 2), "ok, 7 ms after the second Ctrl-C"),
        (Ending.CLIENT_CLOSED, 7, Left(0, 3), "OFF: only SIGKILL ended it"),
        (Ending.CLIENT_CLOSED, 2_000, Left(0), "OFF: 2000 ms"),
        (Ending.COMPLETED, 7, Left(0), "OFF: the upstream was not told"),
        (Ending.CLIENT_CLOSED, 7, None, "OFF: did not leave"),
    ],
)
def test_leaving_is_judged_by_the_upstream(ending: Ending, milliseconds: int, left: Left | None, told: str, tmp_path: Path) -> None:
    seen = [seen_of("disconnect", ending, milliseconds * 1_000_000)]
    assert str(judge(OPENAI_PYTHON, place_of("disconnect", tmp_path), Said(""), seen, left)) == told


def test_what_a_client_does_by_itself_is_told_and_does_not_count(tmp_path: Path) -> None:
    client = Client("stubborn", ("stubborn==1",), lambda place: Command(()), said_in_json, own={"error": "NOT TOLD"})
    place = place_of("error", tmp_path)
    assert judge(client, place, Said("The"), [seen_of("error")], None).kind == "own"
    assert judge(client, place, Said("", "Connection error."), [seen_of("error")], None).kind == "off"


def test_a_tool_call_is_answered_once_and_in_the_folder_of_the_client(tmp_path: Path) -> None:
    client = Client("reader", ("reader==1",), lambda place: Command(()), said_in_json, call=("read", '{"file":"{home}/a"}'))
    call, then = scenario(client, place_of("tools", tmp_path)).steps
    assert call.times == 1
    assert call.answer.startswith("tools:name=read,arguments=%7B")
    assert then.answer == "ok"


def test_a_script_that_dies_is_an_error() -> None:
    assert said_in_json(Output(1, "", "Traceback\nModuleNotFoundError: nothing\n", None)).error.endswith("ModuleNotFoundError: nothing")  # type: ignore[arg-type]


def test_what_is_not_installed_is_a_row_with_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(CannotInstall, match="make clients"):
        installed(OPENAI_PYTHON, install=False)


def test_a_client_that_cannot_be_installed_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # nothing is to be had, and nobody is asked
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert main(["--only", "llm", "--cases", "chat"]) == 2
    assert "not run: llm cannot be installed: " in (told := capsys.readouterr().out)
    assert "nothing was run" in told


def test_the_table_has_a_row_for_every_client() -> None:
    cells = dict.fromkeys(CASES, Cell("none", "not run: nothing to run it with"))
    lines = table(dict.fromkeys(CLIENTS, cells), list(CASES)).splitlines()
    assert len(lines) == 2 + len(CLIENTS)
    assert lines[2].startswith("| openai-python | 3.54.0 | not run: nothing to run it with |")


def test_a_client_that_is_not_known_is_refused() -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--only", "telnet"])
    assert raised.value.code == 2

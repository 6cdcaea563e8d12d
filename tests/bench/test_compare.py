"""`make bench` in small: it runs, judges completeness by itself, and says what was missed."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
import trio

from bench import compare, goals, native
from bench.compare import Comparison, measure
from bench.compare_plot import plot
from bench.compare_table import markdown, number, table
from bench.native import CannotMeasure, Clients, Upstream
from bench.scenarios import SCENARIOS, Place, Result, Scenario

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the load generator is compiled with cc")

#: An event with its chunk framing, as upstream.c writes it: the fourth and the fifth of an answer.
_EVENT = re.compile(rb"[0-9a-f]+\r\ndata: [^\n]*~0000000[34]@[^\n]*\n\n\r\n")


def damaged(answer: bytes, how: str) -> bytes:
    """A whole answer, less something."""
    fourth, fifth = _EVENT.findall(answer)
    ending = b"0\r\n\r\n"
    return {
        "nothing": answer,
        "an event": answer.replace(fourth, b""),
        "order": answer.replace(fourth + fifth, fifth + fourth),
        "an event, twice": answer.replace(fourth, fourth + fourth),
        "the end of the body": answer.removesuffix(ending),
        "[DONE]": answer.replace(b"[DONE]", b"[GONE]"),
        "the last events": answer[: answer.index(fifth)] + b"e\r\ndata: [DONE]\n\n\r\n" + ending,
        "the status": answer.replace(b"200 OK", b"500 No"),
    }[how]


@pytest.mark.parametrize(
    ("loss", "verdict"),
    [
        ("nothing", "complete"),
        ("an event", "disordered"),
        ("order", "disordered"),
        ("an event, twice", "disordered"),
        ("the end of the body", "cut"),
        ("[DONE]", "no_done"),
        ("the last events", "events_missing"),
        ("the status", "status"),
    ],
)
@pytest.mark.parametrize("piece", [65_536, 7])
async def test_the_clients_notice_whatever_is_lost(loss: str, verdict: str, piece: int) -> None:
    async def lossy_relay(client: trio.SocketStream) -> None:
        async with client, await trio.open_tcp_stream("127.0.0.1", upstream.port) as server:
            await server.send_all(await client.receive_some(65_536))
            answer = b""
            while not answer.endswith(b"0\r\n\r\n"):
                answer += await server.receive_some(65_536)
            answer = damaged(answer, loss)
            for at in range(0, len(answer), piece):  # an event may be split anywhere
                await client.send_all(answer[at : at + piece])

    with Upstream() as upstream:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, lossy_relay, listeners)
            with Clients(listeners[0].socket.getsockname()[1], "loop", 2, "us=0 n=9", "conns=1") as clients:
                end = await trio.to_thread.run_sync(clients.end, 10.0)
            nursery.cancel_scope.cancel()
    assert {how: count for how, count in end.ends.items() if count} == {verdict: 2}
    assert end.incomplete == (0 if verdict == "complete" else 2)
    assert bool(end.troubles) == bool(end.incomplete)


def test_what_is_still_open_at_the_end_counts_as_not_whole() -> None:
    with Upstream() as upstream, Clients(upstream.port, "hold", 3, "us=0 silent=1") as clients:
        assert clients.ready(10.0)
        assert clients.mark().open == 3
        assert clients.end(0.1).ends["unfinished"] == 3


def test_both_see_the_same_clients_leave() -> None:
    with Upstream() as upstream, Clients(upstream.port, "hold", 5, "us=2000") as clients:
        assert clients.ready(10.0)
        clients.leave()
        assert clients.end(10.0).ends["left"] == 5
        seen = upstream.closes(5, 10.0)
    assert sorted(seen) == sorted(clients.left) == list(range(5))
    assert all(seen[stream] > at for stream, at in clients.left.items())


def test_a_small_run_prints_everything_and_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, svg = tmp_path / "result.json", tmp_path / "img" / "plot.svg"
    asked = [
        "--quick",
        "--seconds",
        "0.2",
        "--only",
        "direct,floor,actors",
        "--scenario",
        "short,json",
        "--json",
        str(result),
        "--svg",
        str(svg),
    ]
    assert compare.main(asked) == 0
    told = capsys.readouterr().out
    assert "every stream complete" in told
    assert "(1.2 there): actors " in told
    report = json.loads(result.read_text("utf-8"))
    assert [(run["scenario"], run["target"], run["incomplete"]) for run in report["runs"]] == [
        (scenario, target, 0) for scenario in ("short", "json") for target in ("direct", "floor", "actors")
    ]
    assert all(run["answers"] >= 20 for run in report["runs"])
    # Which of them is the cheaper is the benchmark's to say, on a quiet machine.
    assert min(report["medians"]["short"][target]["cpu_ms_per_stream"] for target in ("actors", "floor")) > 0
    assert report["machine"]["python"]
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")


def test_what_cannot_be_had_is_a_line_and_not_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no npm
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(CannotMeasure, match="no C compiler"):
        native.compiled("upstream")
    assert compare.main(["--quick", "--only", "direct", "--scenario", "json"]) == 2
    assert "no C compiler" in capsys.readouterr().err


def test_who_cannot_even_begin_all_streams_is_not_asked_again() -> None:
    asked: list[str] = []

    def run(place: Place) -> Result:
        asked.append(str(place.target.port))
        return Result({"seen": float(len(asked))}, overloaded=len(asked) == 1)

    results = Comparison(["direct"], {"first": Scenario("", run, {}), "second": Scenario("", run, {})})
    assert measure(results, "bench", repeats=3, seconds=0.1) == 0
    assert [scenario for scenario, *_ in results.runs] == ["first", "second", "second", "second"]
    assert results.medians() == {"first": {"direct": {"seen": 1.0}}, "second": {"direct": {"seen": 3.0}}}


def figures(direct: float, floor: float, actors: float | None, **others: float) -> goals.Medians:
    found = {"direct": direct, "floor": floor, "actors": actors} | others
    return {"first": {target: {"first_p50_ms": value} for target, value in found.items()}}


@pytest.mark.parametrize(
    ("medians", "verdict"),
    [
        (figures(0.2, 0.6, 0.99), "reached"),  # the floor adds what it added there, and 0.79 is below 0.8
        (figures(0.2, 0.6, 1.1), "MISSED"),
        (figures(0.2, 0.5, 0.99), "MISSED"),  # a faster machine
        (figures(0.2, 1.2, 2.0), "reached"),  # a slower one
        (figures(0.2, 1.0, 1.3, nginx=0.25), "MISSED"),  # of two peers one is twice as slow as there, one twice as fast
        (figures(0.2, 1.0, 0.99, nginx=0.25), "reached"),
        (figures(0.2, 0.6, None), "MISSED"),  # nothing arrived
        ({"first": {"actors": {"first_p50_ms": 1.0}}}, "unknown"),  # nothing to compare with
    ],
)
def test_a_goal_is_scaled_by_the_peers_of_the_run(medians: goals.Medians, verdict: str) -> None:
    (judged,) = goals.judge(medians, ("actors",))
    assert judged.verdicts == {"actors": verdict}


def test_every_goal_is_of_a_figure_that_its_scenario_gives() -> None:
    for goal in goals.GOALS:
        assert goal.figure in SCENARIOS[goal.scenario].figures


def test_table_and_plot_with_holes_in_them() -> None:
    where = {"cpu": "x", "cores": 2, "python": "3", "date": "today"}
    medians = figures(0.2, 0.6, None) | {"leave-silent": {"actors": {"seen": 0.0, "seen_p50_ms": None}}}
    told = table(medians, ["direct", "floor", "actors"], where)
    assert "never" in told
    assert ElementTree.fromstring(plot(medians, ["direct", "floor", "actors"], where)) is not None
    page = markdown(medians, ["direct", "floor", "actors"], where | {"command": "x"}, "once").splitlines()
    assert {line.count("|") for line in page[2:]} == {6}
    assert "never" in page[4]
    assert [number(value) for value in (123456.0, 123.4, 12.34, 1.234)] == ["123k", "123", "12.3", "1.23"]

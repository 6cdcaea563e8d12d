"""The load, in small: it counts what came, sees every close, and leaves nothing behind. Its times are judged by `make load` alone."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
from typing import TYPE_CHECKING

import pytest
import trio

from bench.closes import PHASES, Closes
from bench.load import Plan, Report, Streams, main, percentile
from bench.processes import CannotStart, running, unanswered_address
from bench.raw_client import Received, judge, post, receive
from server.simulator import open_simulator

if TYPE_CHECKING:
    from pathlib import Path

    from bench.raw_client import Verdict

LISTENING = re.compile(r"simulator: base_url http://([\d.:]+)/v1")
SIMULATE = ["simulate", "--bind", "127.0.0.1:0"]


def test_a_small_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "result.json"
    code = main(["--streams", "30", "--chunks", "5", "--pace", "20", "--closes", "5", "--json", str(result)])
    table = capsys.readouterr().out
    report = json.loads(result.read_text("utf-8"))
    streams = report["streams"]
    assert (streams["complete"], streams["lost"], streams["reordered"]) == (30, 0, 0), streams["troubles"]
    assert streams["first_token"]["p50"] <= streams["first_token"]["max"]
    assert [(row["phase"], row["seen"]) for row in report["closes"]] == [(phase.name, 5) for phase in PHASES]
    assert report["left_over"] == 0
    assert code == (0 if report["good"] else 1)
    assert "complete 30   lost 0   reordered 0" in table
    assert all(phase.name in table for phase in PHASES)


GOOD_STREAMS = Streams(complete=2, lost=0, reordered=0, seconds=1.0, first_token={"p50": 1.0}, troubles={})
GOOD_CLOSES = Closes("mid-stream", "simulator", closed=5, seen=5, median=1.0, most=100.0)
GOOD = Report(Plan(2, 5, 20.0, 5), GOOD_STREAMS, (GOOD_CLOSES,), left_over=0)


def test_a_report_is_good_only_if_every_promise_was_kept() -> None:
    assert GOOD.good
    assert "all as promised" in GOOD.table()
    lost = dataclasses.replace(GOOD, streams=dataclasses.replace(GOOD_STREAMS, complete=1, lost=1, troubles={"connection closed": 1}))
    assert not lost.good
    assert "not complete: 1 x connection closed" in lost.table()
    assert not dataclasses.replace(GOOD, left_over=1).good


@pytest.mark.parametrize(
    "closes",
    [
        dataclasses.replace(GOOD_CLOSES, seen=4),
        dataclasses.replace(GOOD_CLOSES, median=10.0),
        dataclasses.replace(GOOD_CLOSES, most=100.1),
        dataclasses.replace(GOOD_CLOSES, seen=0, median=None, most=None),
    ],
    ids=["unseen", "median", "max", "none"],
)
def test_a_close_that_was_missed_or_late(closes: Closes) -> None:
    missed = dataclasses.replace(GOOD, closes=(closes,))
    assert not missed.good
    assert "MISSED" in missed.table()


def answer(*texts: str, ending: str = "data: [DONE]\n\n", finish: str | None = "stop") -> bytes:
    """An answer of count:N, one chunk of the body for each of its events."""
    choices: list[dict[str, object]] = [{"index": 0, "delta": {"content": text}, "finish_reason": None} for text in texts]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    events = ["data: " + json.dumps({"choices": [choice]}) + "\n\n" for choice in choices]
    chunks = [f"{len(part):x}\r\n{part}\r\n" for part in [*events, ending] if part]
    return ("HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\n\r\n" + "".join(chunks) + "0\r\n\r\n").encode()


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (answer("", "1", " 2", " 3"), "complete"),
        (answer("1 2", " 3"), "complete"),
        (answer("1", " 3"), "lost"),
        (answer("1", " 2"), "lost"),
        (answer("2", " 3"), "lost"),
        (answer("1", " 2", " 3", " 4"), "lost"),
        (answer("1", " 3", " 2"), "reordered"),
        (answer("1", " 2", " 2", " 3"), "reordered"),
        (answer("1", " 2", " 3", ending=""), "lost"),
        (answer("1", " 2", " 3", finish=None), "lost"),
        (answer("1", " 2", ending='data: {"error": {"message": "cut"}}\n\n'), "lost"),
        (answer("1", " 2", " 3")[:-40], "lost"),
        (b"HTTP/1.1 200 \r\n\r\n", "lost"),
        (b"", "lost"),
    ],
)
def test_judge(data: bytes, verdict: Verdict) -> None:
    assert judge(data, 3) == verdict


@pytest.mark.parametrize(("percent", "value"), [(50, 2.0), (90, 4.0), (99, 4.0), (100, 4.0), (1, 1.0)])
def test_a_percentile_is_one_of_the_values(percent: int, value: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], percent) == value


@pytest.mark.parametrize(("model", "trouble"), [("cut:after=2", "connection closed"), ("http-503", "status 503"), ("count:3", "")])
async def test_what_a_client_notes(model: str, trouble: str) -> None:
    async with open_simulator(pace=0.0) as simulator:
        address, received = f"{simulator.host}:{simulator.port}", Received()
        await receive(address, post(address, {"model": model, "stream": True, "messages": []}, "one"), received)
        assert simulator.observer.seen[-1].headers["x-request-id"] == "one"
    assert received.trouble == trouble
    assert (received.ended is None) == bool(trouble)
    if not trouble:
        assert judge(bytes(received.data), 3) == "complete"
        assert received.first_token is not None


async def test_a_server_that_nobody_runs_is_noted() -> None:
    received = Received()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    await receive(address, b"", received)
    assert "refused" in received.trouble.lower()


async def test_a_process_ends_with_its_block_also_when_that_is_cancelled(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with running(SIMULATE, tmp_path / "log", LISTENING) as (address,):
            scope.cancel()
            await trio.sleep_forever()
    host, port = address.split(":")
    with pytest.raises(OSError, match=r"(?i)refused|connect"):
        await trio.open_tcp_stream(host, int(port))


async def test_a_process_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"simulate.*No such option"):
        async with running(["simulate", "--wrong"], tmp_path / "log", LISTENING):
            pytest.fail("it announced itself")


async def test_an_address_that_never_answers(autojump_clock: trio.testing.MockClock) -> None:
    with unanswered_address() as address, trio.move_on_after(1) as patience:
        host, port = address.split(":")
        with trio.socket.socket() as sock:
            await sock.connect((host, int(port)))
    assert patience.cancelled_caught

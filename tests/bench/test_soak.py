"""The soak, for a minute: it asks for every kind, finds everything back at its base, and names what is not."""

from __future__ import annotations

import dataclasses
import json
import random
from typing import TYPE_CHECKING

import pytest

from bench.soak import Report, Sample, main
from bench.soak_traffic import KINDS, Kind, Traffic
from server.simulator import open_simulator

if TYPE_CHECKING:
    from pathlib import Path


def test_row_80_a_minute_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The longest test there is; the hour is `make soak`."""
    result = tmp_path / "result.json"
    code = main(["--minutes", "1", "--json", str(result)])
    table = capsys.readouterr().out
    report = json.loads(result.read_text("utf-8"))
    assert report["faults"] == []
    assert code == 0
    assert report["asked"] == report["kept"] > len(KINDS)
    assert any(sample["streams"] for sample in report["samples"])
    assert (report["end"]["streams"], report["end"]["permits"], report["end"]["asked_of_upstream"]) == (0, 0, 0)
    assert "all as promised" in table
    assert " asked  0 broken" in table


@pytest.mark.parametrize(
    ("kind", "trouble"),
    [
        (Kind("count:count=25", promise="counted"), ""),
        (Kind("count:count=24", promise="counted"), "lost"),
        (Kind("ok", promise="whole", stream=False), ""),
        (Kind("cut", promise="whole"), "lost: "),
        (Kind("error-mid", promise="whole"), "lost: "),
        (Kind("cut", promise="whole", stream=False), "an unreadable body of "),
        (Kind("flaky", promise="whole"), "status 503 "),
        (Kind("close-before-headers"), "no answer"),
        (Kind("cut"), ""),
        (Kind("silence", leaves=0.01), ""),
        (Kind("endless", leaves=0.01, reading="slowly"), ""),
        (Kind("endless", leaves=0.01, reading="never"), ""),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else None,
)
async def test_what_an_upstream_alone_does_to_a_promise(kind: Kind, trouble: str) -> None:
    async with open_simulator(pace=0.0) as simulator:
        traffic = Traffic(f"{simulator.host}:{simulator.port}", rate=1e6, most=1, chance=random.Random(1), kinds=[kind])
        await traffic.run(0.0)
    tally = traffic.tally
    assert tally.asked == 1
    assert tally.kept == (not trouble)
    assert [(what.startswith(f"{kind.name}: {trouble}"), count) for what, count in tally.broken.items()] == ([(True, 1)] if trouble else [])


BASE = Sample(seconds=0.0, memory=60.0, cpu=1.0, descriptors=30, streams=0, permits=0, held=0, upstream=0, asked_of_upstream=0)
END = dataclasses.replace(BASE, seconds=9.0, cpu=2.0, descriptors=40, upstream=10)
SAMPLES = tuple(dataclasses.replace(END, seconds=float(second), streams=9) for second in range(1, 9))
GOOD = Report(minutes=0.15, asked=5, kept=5, broken={}, base=BASE, samples=SAMPLES, end=END, tracebacks=0)


def grown(memory: float) -> tuple[Sample, ...]:
    """Samples whose last quarter stands at so many megabytes, the others at 60."""
    return (*SAMPLES[:6], *(dataclasses.replace(sample, memory=memory) for sample in SAMPLES[6:]))


def test_as_promised() -> None:
    assert GOOD.faults == ()
    assert dataclasses.replace(GOOD, samples=grown(86.0)).faults == ()
    assert dataclasses.replace(GOOD, end=dataclasses.replace(END, descriptors=48)).faults == ()
    assert "all as promised" in GOOD.table()


@pytest.mark.parametrize(
    ("report", "named"),
    [
        (dataclasses.replace(GOOD, end=dataclasses.replace(END, streams=1)), "streams_active 1"),
        (dataclasses.replace(GOOD, end=dataclasses.replace(END, permits=2)), "permits_out 2"),
        (dataclasses.replace(GOOD, end=dataclasses.replace(END, held=3)), "3 requests"),
        (dataclasses.replace(GOOD, end=dataclasses.replace(END, asked_of_upstream=4)), "4 upstream connections"),
        (dataclasses.replace(GOOD, end=dataclasses.replace(END, descriptors=49)), "49 descriptors, at most 48"),
        (dataclasses.replace(GOOD, samples=grown(86.1)), "memory grew from 60.0 to 86.1 MB"),
        (dataclasses.replace(GOOD, tracebacks=1), "1 tracebacks"),
        (dataclasses.replace(GOOD, asked=0, kept=0), "no request"),
        (dataclasses.replace(GOOD, kept=4, broken={"ok: lost": 1}), "1 x ok: lost"),
    ],
)
def test_what_is_off_is_named(report: Report, named: str) -> None:
    (fault,) = report.faults
    assert named in fault
    assert f"OFF: {fault}" in report.table()
    assert "NOT as promised" in report.table()


@pytest.mark.parametrize("minutes", ["0", "-1", "inf", "nan", "soon"])
def test_minutes_that_are_none(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--minutes", minutes])
    assert caught.value.code == 2
    assert "--minutes" in capsys.readouterr().err

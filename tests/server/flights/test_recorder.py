"""The ring of files, its bounds, and what becomes of a stream when the disk does not take it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import pytest

from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import AttemptEnded, AttemptStarted
from server.flights import Flight, FlightRecorder
from server.flights.flight_file import NoFlight, read_flight
from server.flights.timeline import timeline

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "flights"


def opened(folder: Path, *, streams: int = 5, most: int = 10_000, redact: bool = True) -> FlightRecorder:
    return FlightRecorder(folder, streams=streams, most=most, redact=redact)


def fly(recorder: FlightRecorder, name: str, blocks: int = 3) -> Flight:
    flight = recorder.open(100.0, {"id": name, "model": "qwen3"})
    flight.came(AttemptStarted(1, "main", (), 60.0), 100.1)
    for n in range(blocks):
        flight.came(list(ChunkParser().feed(BLOCK)), 100.2 + n)
    flight.came(AttemptEnded(1, None), 104.0)
    recorder.close_flight(flight, {"outcome": "done", "events": blocks}, time.time())
    return flight


def test_a_flight_comes_back_with_its_times(folder: Path) -> None:
    recorder = opened(folder, redact=False)
    fly(recorder, "ev-1")
    recorder.close()
    [path] = folder.iterdir()
    flight = read_flight(path)
    assert flight.head["id"] == "ev-1"
    assert flight.end == {"outcome": "done", "events": 3}
    assert [(round(wait, 3), block) for wait, block in flight.blocks()] == [(0.2, BLOCK), (1.0, BLOCK), (1.0, BLOCK)]
    lines = list(timeline(flight))
    assert "attempt 1: main answers" in lines[1]
    assert any("nothing for 1.0 s" in line for line in lines)
    assert lines[-1] == "end: outcome done, events 3"


def test_texts_are_out_unless_they_are_wanted(folder: Path) -> None:
    recorder = opened(folder)
    fly(recorder, "ev-1")
    recorder.close()
    [path] = folder.iterdir()
    assert b"Hello" not in path.read_bytes()
    assert b"xxxxx" in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    assert folder.stat().st_mode & 0o077 == 0


def test_the_ring_keeps_the_newest(folder: Path) -> None:
    recorder = opened(folder, streams=3)
    for n in range(8):
        fly(recorder, f"ev-{n}")
    recorder.close()
    assert sorted(str(read_flight(path).head["id"]) for path in folder.iterdir()) == ["ev-5", "ev-6", "ev-7"]
    assert recorder.statistics().written == 8
    assert recorder.statistics().held == 0


def test_beyond_its_share_a_stream_keeps_lengths(folder: Path) -> None:
    recorder = opened(folder, most=len(BLOCK) * 2)
    flight = fly(recorder, "ev-1", blocks=5)
    assert flight.held == 2 * len(BLOCK)
    recorder.close()
    [path] = folder.iterdir()
    blocks = [block for _, block in read_flight(path).blocks()]
    assert blocks[2:] == [b": %d bytes were not kept\n\n" % len(BLOCK)] * 3
    assert len(blocks) == 5


def test_a_name_of_a_client_cannot_leave_the_folder(folder: Path) -> None:
    recorder = opened(folder)
    fly(recorder, "../../etc/passwd\n")
    recorder.close()
    [path] = folder.iterdir()
    assert path.parent == folder
    assert path.name.endswith("-.._.._etc_passwd_.flight")


def test_what_cannot_be_written_is_counted_and_told_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    recorder = opened(folder)
    with caplog.at_level(logging.WARNING):
        for n in range(5):
            fly(recorder, f"ev-{n}")
        recorder.close()
    assert recorder.statistics().failed == 5
    assert recorder.statistics().held == 0
    assert len(caplog.records) == 1
    assert f"recorder.directory = {folder}" in caplog.text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a flight"),
        ("data: {}\n\n", "not a flight"),
        ('{"evenflow":"flight","version":2}\n', "version 2"),
        ('{"evenflow":"flight","version":1}\n{"ms":1\n', ":2:"),
        ('{"evenflow":"flight","version":1}\n[1]\n', ":2: not a JSON object"),
        ('{"evenflow":"flight","version":1}\n{"ms":1,"chunk":5}\n', ":2: not an entry"),
        ('{"evenflow":"flight","version":1}\n{"chunk":"x"}\n', ":2: not an entry"),
    ],
)
def test_a_file_that_is_none_says_so(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "x.flight"
    path.write_text(text)
    with pytest.raises(NoFlight, match=says):
        read_flight(path)


def test_a_torn_file_shows_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "x.flight"
    path.write_text('{"evenflow":"flight","version":1,"id":"ev-1"}\n{"ms":1.0,"attempt":{"number":1,"upstream":"main","resumes":""}}\n')
    assert list(timeline(read_flight(path)))[-1] == "the file ends here; the process did before the stream"

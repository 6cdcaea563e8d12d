from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from server import log_sink
from server.log_sink import LineSink

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pipe() -> Iterator[tuple[io.FileIO, io.FileIO]]:
    """A pipe as (what a log reader reads, what the sink writes to). Its kernel buffer takes 64 KiB."""
    read, write = os.pipe()
    with io.FileIO(read, "r") as reader, io.FileIO(write, "w") as writer:
        yield reader, writer


class Stream:
    """A text stream that is nothing but its file descriptor."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file

    def fileno(self) -> int:
        return self._file.fileno()

    def write(self, text: str, /) -> object:
        raise AssertionError("the descriptor is there to be used")

    def flush(self) -> object:
        raise AssertionError("the descriptor is there to be used")


def test_lines_come_out_in_order_and_whole() -> None:
    stream = io.StringIO()
    sink = LineSink(stream)
    for number in range(1000):
        sink.put(f"line {number}")
    sink.close()
    assert stream.getvalue().splitlines() == [f"line {number}" for number in range(1000)]
    assert sink.dropped == 0


def test_73_a_reader_that_stands_still_costs_lines_and_never_time(pipe: tuple[io.FileIO, io.FileIO]) -> None:
    reader, writer = pipe
    sink = LineSink(Stream(writer), capacity=50)
    for number in range(1000):
        sink.put(f"{number:0>4}" * 250)  # 1000 lines of 1 kB: neither the pipe nor the queue holds them
    dropped = sink.dropped
    assert 0 < dropped < 1000
    assert not sink.flush(timeout=0)

    kept = 1000 - dropped
    lines: list[bytes] = []
    rest = b""
    while len(lines) < kept:
        *whole, rest = (rest + os.read(reader.fileno(), 65536)).split(b"\n")
        lines += whole
    assert sink.flush(timeout=60)
    assert lines == sorted(lines)
    assert all(line == line[:4] * 250 for line in lines)
    assert sink.dropped == dropped
    sink.close()


def test_73_a_closed_pipe_is_counted(pipe: tuple[io.FileIO, io.FileIO]) -> None:
    reader, writer = pipe
    reader.close()
    sink = LineSink(Stream(writer))
    sink.put("nobody reads this")
    assert sink.flush(timeout=60)
    assert sink.dropped == 1
    sink.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_73_a_full_disk_is_counted() -> None:
    with io.FileIO("/dev/full", "w") as full:
        sink = LineSink(Stream(full))
        for _ in range(3):
            sink.put("no room for this")
        assert sink.flush(timeout=60)
        assert sink.dropped == 3
        sink.close()


def test_a_descriptor_that_somebody_made_non_blocking_is_waited_for(pipe: tuple[io.FileIO, io.FileIO]) -> None:
    reader, writer = pipe
    os.set_blocking(writer.fileno(), False)
    sink = LineSink(Stream(writer))
    for _ in range(300):
        sink.put("x" * 999)
    received = 0
    while received < 300 * 1000:
        received += len(os.read(reader.fileno(), 65536))
    assert sink.flush(timeout=60)
    assert sink.dropped == 0
    sink.close()


def test_after_half_a_line_the_next_one_begins_on_its_own(pipe: tuple[io.FileIO, io.FileIO], monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = pipe
    monkeypatch.setattr(log_sink, "_PATIENCE", 0)
    os.set_blocking(writer.fileno(), False)
    sink = LineSink(Stream(writer))
    sink.put("x" * 100_000)  # more than the pipe takes: the rest has nowhere to go
    assert sink.flush(timeout=60)
    assert sink.dropped == 1
    torn = os.read(reader.fileno(), 100_000)
    assert 0 < len(torn) < 100_000
    sink.put("after")
    sink.put("and after")
    assert sink.flush(timeout=60)
    assert os.read(reader.fileno(), 100) == b"\nafter\nand after\n"
    sink.close()


def test_a_stream_that_is_closed_under_us_is_counted() -> None:
    stream = io.StringIO()
    sink = LineSink(stream)
    stream.close()
    sink.put("too late")
    assert sink.flush(timeout=60)
    assert sink.dropped == 1
    sink.close()


def test_after_close_lines_are_counted_and_nothing_waits() -> None:
    sink = LineSink(io.StringIO())
    sink.close()
    sink.close()
    sink.put("too late")
    assert sink.dropped == 1
    assert sink.flush(timeout=60)


def test_what_cannot_be_encoded_is_escaped(pipe: tuple[io.FileIO, io.FileIO]) -> None:
    reader, writer = pipe
    sink = LineSink(Stream(writer))
    sink.put("ä \ud800")
    assert sink.flush(timeout=60)
    assert os.read(reader.fileno(), 100) == "ä \\ud800\n".encode()
    sink.close()


def test_a_process_whose_log_nobody_reads_ends_by_itself() -> None:
    program = """
import logging, sys
from server.log import configure_logging
configure_logging("json")
for _ in range(2000):
    logging.getLogger("x").warning("y" * 1000)
sys.exit(7)
"""
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        # It may take the second that its last lines are worth, but neither hangs nor aborts.
        assert process.wait(timeout=120) == 7

"""Where the log goes is in trouble: disk full, pipe closed, reader stuck. Serving goes on, and what was lost is counted."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from .raw_client import PATIENCE
from .running_command import admin_of, serving

if TYPE_CHECKING:
    from server.simulator import Simulator

    from .raw_client import RawClient
    from .running_command import Command


async def lost_lines(running: Command) -> float:
    metrics = (await admin_of(running).get("/metrics")).body.decode()
    found = re.search(r"^evenflow_log_lines_dropped_total (\S+)", metrics, re.MULTILINE)
    assert found is not None
    return float(found[1])


async def until_lost(running: Command, client: RawClient) -> None:
    """Ask until a line was lost; every answer is whole."""
    with trio.fail_after(PATIENCE):
        while await lost_lines(running) == 0:
            assert (await client.ask("ok")).done


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
async def test_row_73_the_disk_is_full(simulator: Simulator, tmp_path: Path) -> None:
    with os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb") as full:
        async with serving(simulator, tmp_path, stderr=full) as (running, client):
            await until_lost(running, client)
            running.process.terminate()
            assert await running.ended() == 0


async def test_row_73_the_pipe_is_closed(simulator: Simulator, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as pipe:
        async with serving(simulator, tmp_path, stderr=pipe) as (running, client):
            os.close(reader)
            await until_lost(running, client)
            running.process.terminate()
            assert await running.ended() == 0


async def test_row_73_the_reader_is_stuck_and_the_process_still_ends_in_time(simulator: Simulator, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb"), os.fdopen(writer, "wb") as pipe:
        async with serving(simulator, tmp_path, stderr=pipe) as (running, client):
            os.set_blocking(pipe.fileno(), False)
            _fill(pipe.fileno())
            os.set_blocking(pipe.fileno(), True)
            for _ in range(20):
                assert (await client.ask("ok")).done
            began = trio.current_time()
            running.process.terminate()
            assert await running.ended() in (0, 1)
            assert trio.current_time() - began < 20.0


def _fill(pipe: int) -> None:
    try:
        while True:
            os.write(pipe, b"x" * 4096)
    except BlockingIOError:
        return

"""The circuit breaker's own failures, in a real process: it goes on twice, and then ends with one clear line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .running_command import command, serving

if TYPE_CHECKING:
    from pathlib import Path

    from server.simulator import Simulator

#: `evenflow` whose breaker fails at every end of an attempt that a server error ended.
BROKEN = """if True:
    from actors.sansio.circuit import Circuit
    from actors.sansio.faults import Verdict
    ended = Circuit.ended
    def fail(self, grant, verdict, now, retry_after=None):
        if verdict is Verdict.FAILURE:
            raise ZeroDivisionError("a defect")
        ended(self, grant, verdict, now, retry_after)
    Circuit.ended = fail
    from server.cli import main
    main()
"""


async def test_row_58_three_failures_of_the_breaker_end_the_process_with_one_line(simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path, more="[retry]\nretries = 0", program=BROKEN) as (running, client):
        for _ in range(2):
            assert (await client.ask("http-500")).status == 500
            assert (await client.ask("ok")).done  # the next body serves at once
        await client.ask("http-500")
        assert await running.process.wait() == 70
        await running.until_logged("(?m)^evenflow: .*")
    lines = running.err.splitlines()
    assert lines[-1] == "evenflow: the circuit breaker failed 3 times within 60 s"
    logged = [json.loads(line) for line in lines[:-1]]  # every other line is the log's, tracebacks inside
    assert [line["level"] for line in logged if "exception" in line] == ["error", "error", "critical", "critical"]


async def test_row_57_a_defect_outside_every_stream_ends_the_process_with_one_line(simulator: Simulator, tmp_path: Path) -> None:
    program = """if True:
        from server.watchdogs import LoopWatch
        async def run(self):
            raise ZeroDivisionError("a defect")
        LoopWatch.run = run
        from server.cli import main
        main()
    """
    (tmp_path / "evenflow.toml").write_text(f'[upstreams.main]\nbase_url = "{simulator.base_url}"\n')
    async with command("serve", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0", cwd=tmp_path, program=program) as running:
        assert await running.process.wait() == 70
        await running.until_logged("(?m)^evenflow: ")
    assert running.err.splitlines()[-1] == "evenflow: a defect"
    assert "ZeroDivisionError" in json.loads(running.err.splitlines()[0])["exception"]

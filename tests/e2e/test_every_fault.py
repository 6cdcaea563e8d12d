"""What holds whatever an upstream does: the request ends, in one line of the log; nothing of it is left; the next one works.

Every fault model of the simulator, on both engines, and not streamed. What each fault has to look like is asserted elsewhere, row by row.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest

from server.settings import RouteSettings
from server.simulator import FAULTS

from ..server.simulator.fault_table import ON_THE_WIRE
from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from server.simulator import Simulator

    from .running_proxy import LogTap

#: Those that end by a timer get this many seconds; they alone, since on a slow machine a sound answer would miss it as well.
TIMERS: Final = {"first_token": 0.15, "idle": 0.15, "total": 2.0}
#: Who ended it and where (docs/operations.md); `C` would be the client, which waits to the end here.
TERMINATION: Final = re.compile(r"--|[UuP][CHDL]")
#: As the table of the simulator's own tests has them, where it has arguments that make them quick.
ASKED: Final = {name: f"{name}:{ON_THE_WIRE[name][0]}" if ON_THE_WIRE.get(name, ("",))[0] else name for name in FAULTS}


@pytest.mark.parametrize(("engine", "stream"), [("actors", True), ("relay", True), ("relay", False)], ids=["actors", "relay", "whole"])
@pytest.mark.parametrize("fault", [name for name in ASKED if name != "recording"])
async def test_the_request_ends_and_the_next_one_works(fault: str, engine: str, stream: bool, simulator: Simulator, log: LogTap) -> None:
    settings = settings_for(
        {"main": simulator},
        engine=engine,
        routes=[RouteSettings(model="ok", upstreams=("main",)), RouteSettings(model="*", upstreams=("main",), timers=TIMERS)],
        breaker={"mode": "metrics_only"},
        retry={"retries": 1, "retry_after_max_alone": 0.1},
    )
    async with running_proxy(settings, simulator) as proxy:
        answer = await proxy.client.ask(ASKED[fault], stream=stream)
        await proxy.until_quiet()
        (line,) = log.requests()
        assert TERMINATION.fullmatch(line["termination"]), line
        assert (line["outcome"] == "done") == (line["termination"] == "--")
        assert line["status"] == answer.status
        if engine == "actors" and stream and answer.status == 200:
            dones = len(re.findall(rb"^data: ?\[DONE\]", answer.body.replace(b"\r", b"\n"), re.MULTILINE))
            assert dones == (line["outcome"] == "done")  # never a [DONE] after an error, nor an end without one
            assert answer.whole
        if answer.status != 200:
            assert answer.error["message"]
        assert (await proxy.client.ask("ok", stream=stream)).status == 200
        assert proxy.circuit("main").permits_out == 0

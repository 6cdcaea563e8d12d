"""The wall clock jumps; timers, breaker and back-off do not notice, only the times in the log do."""

from __future__ import annotations

import ast
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from server.settings import RouteSettings

from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.simulator import Simulator

ROOT = Path(__file__).resolve().parents[2]
_real = time.time


def _hurried() -> Callable[[], float]:
    began = _real()
    return lambda: began + 100 * (_real() - began)


@pytest.mark.parametrize(
    "jump", [lambda: lambda: _real() + 3600, lambda: lambda: _real() - 3600, _hurried], ids=["an hour on", "an hour back", "x 100"]
)
async def test_row_66_the_wall_clock_moves_no_timer_and_no_circuit(
    jump: Callable[[], Callable[[], float]], simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaker = {"consecutive_failures": 1, "open_base": 60.0, "open_max": 60.0, "alone_open_max": 0.0}
    routes = [
        RouteSettings(model="stall", upstreams=("main",), timers={"idle": 0.5}),
        RouteSettings(model="*", upstreams=("main",)),
    ]
    settings = settings_for({"main": simulator}, routes=routes, retry={"retries": 0}, breaker=breaker)
    async with running_proxy(settings, simulator) as proxy:
        began = trio.current_time()
        async with proxy.client.open("count:100,pace=10") as long, proxy.client.open("stall") as stalled:
            await long.read_until(b"data: ")
            await stalled.read_until(b"data: ")
            monkeypatch.setattr(time, "time", jump())
            assert (await stalled.rest()).error["code"] == "upstream_timeout"
            assert 0.5 <= trio.current_time() - began < 20.0
            assert (await long.rest()).done
        assert proxy.circuit("main").state == "open"
        seconds_left = (await proxy.admin.get("/status")).json["upstreams"]["main"]["seconds_left"]
        assert 40 < seconds_left <= 72  # with 20 % jitter


def test_row_66_the_wall_clock_is_read_where_a_date_is_meant_and_nowhere_else() -> None:
    readers = set()
    for path in (*ROOT.glob("actors/**/*.py"), *ROOT.glob("server/*.py"), *ROOT.glob("server/admin/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("time.time", "datetime.now", "datetime.utcnow", "time.localtime"):
                readers.add(path.name)
    retry_after_is_a_date = {"attempts.py", "first_look.py"}
    shown_to_people = {"edge_exchange.py", "bookkeeping.py", "tracing.py", "proxy.py"}  # a Date header, a log line, a span, the dashboard
    assert readers <= retry_after_is_a_date | shown_to_people

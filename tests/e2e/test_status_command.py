"""`evenflow status` against a proxy that runs, one that stops, and none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from server.status_command import is_ready, status_text

from .running_command import run
from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from pathlib import Path

    from server.simulator import Simulator


async def test_it_says_how_a_running_proxy_is(simulator: Simulator, tmp_path: Path) -> None:
    async with running_proxy(settings_for({"main": simulator}), simulator) as proxy:
        # Found by the configuration that lies there; keys that it names and this shell does not have do not matter.
        admin = proxy.proxy.admin_url.removeprefix("http://")
        text = f'admin_bind = "{admin}"\n[upstreams.main]\nbase_url = "https://a/v1"\nkey_env = "NOT_HERE"\n'
        (tmp_path / "evenflow.toml").write_text(text, "utf-8")
        code, out, err = await run("status", cwd=tmp_path)
        assert (code, err) == (0, "")
        first, second = out.splitlines()
        assert f"at {proxy.base_url}: ready, up " in first
        assert second == "  main  closed; 0 of 0 calls failed"
        code, out, _ = await run("status", "--json", "--admin", proxy.proxy.admin_url, cwd=tmp_path)
        assert (code, json.loads(out)["base_url"]) == (0, proxy.base_url)
        proxy.proxy.services.readiness.ready = False
        code, out, _ = await run("status", cwd=tmp_path)
        assert (code, ": stopping, up " in out) == (1, True)


async def test_where_nobody_answers_it_is_one_line(tmp_path: Path, unused_port: int) -> None:
    code, out, err = await run("status", "--admin", f"http://127.0.0.1:{unused_port}", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith(f"evenflow: no evenflow answers at http://127.0.0.1:{unused_port}: ")
    code, _, err = await run("status", "--admin-key-env", "NOT_HERE", cwd=tmp_path)
    assert (code, err) == (2, "evenflow: --admin-key-env: no environment variable NOT_HERE is set\n")


def process(**others: object) -> dict[str, object]:
    circuit = {"state": "open", "reason": "5 failures in a row", "seconds_left": 4.5, "failures": 5, "calls": 9}
    return {
        "version": "0.1.0",
        "base_url": "http://127.0.0.1:8143/v1",
        "ready": True,
        "uptime_seconds": 93784.0,
        "streams_active": 3,
        "admission": {"waiting": 1},
        "config_reloads": {"last_refusal": ""},
        "upstreams": {"main": circuit},
        **others,
    }


def test_a_circuit_that_is_open_says_why_and_for_how_long() -> None:
    first, second = status_text(process()).splitlines()
    assert first == "evenflow 0.1.0 at http://127.0.0.1:8143/v1: ready, up 1 d 2 h; 3 streams, 1 waiting"
    assert second == "  main  open: 5 failures in a row, 4.5 s left; 5 of 9 calls failed"


def test_several_workers_are_told_one_by_one() -> None:
    there = process(worker=0, pid=11, config_reloads={"last_refusal": "drian: unknown setting"}, upstreams={})
    status = {"workers": [there, {"worker": 1, "pid": 12, "absent": "it is being started"}]}
    lines = status_text(status).splitlines()
    assert lines[0].startswith("worker 0 (pid 11): evenflow 0.1.0 at ")
    assert lines[1:] == ["  the last reload was refused: drian: unknown setting", "worker 1 (pid 12): it is being started"]
    assert is_ready(status)
    assert not is_ready({"workers": [process(ready=False), {"absent": "it is being started"}]})


@pytest.mark.parametrize(("seconds", "age"), [(0.4, "0 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (86400 * 3, "3 d 0 h")])
def test_ages(seconds: float, age: str) -> None:
    assert f", up {age};" in status_text(process(uptime_seconds=seconds))

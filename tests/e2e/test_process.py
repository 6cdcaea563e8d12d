"""`evenflow` as a real process: what it prints, with what it ends, and how it takes a signal. No traceback, ever."""

from __future__ import annotations

import json
import re
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from .raw_client import CLIENT_KEY, UPSTREAM_KEY, RawClient
from .running_command import command, run, serving

if TYPE_CHECKING:
    from pathlib import Path

    from server.simulator import Simulator

SIGNALS = pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])


async def test_serve_without_an_upstream_names_the_four_ways_out(tmp_path: Path) -> None:
    code, out, err = await run("serve", cwd=tmp_path)
    assert (code, out) == (2, "")
    for way in ("--upstream", "EVENFLOW_UPSTREAM", "evenflow.toml", "evenflow dev"):
        assert way in err


@pytest.mark.parametrize("flag", ["--bind", "--admin-bind"])
async def test_row_74_a_port_in_use_is_one_line(flag: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = "--admin-bind" if flag == "--bind" else "--bind"
        code, _, err = await run("serve", "--upstream", "http://127.0.0.1:9/v1", flag, address, other, "127.0.0.1:0", cwd=tmp_path)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert address in err
    assert "in use" in err
    assert flag in err


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("drian = 3", "drian"),
        ('[upstreams.main]\nbase_url = "http://127.0.0.1:9/v1"\nkey_env = "NO_SUCH_VARIABLE"', "NO_SUCH_VARIABLE"),
        ("[[routes", "evenflow.toml"),
    ],
)
async def test_row_74_a_bad_configuration_is_one_line(toml: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "evenflow.toml").write_text(toml)
    code, _, err = await run("serve", cwd=tmp_path)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert told in err


async def test_a_listener_off_loopback_without_keys_is_refused(tmp_path: Path) -> None:
    code, _, err = await run("serve", "--upstream", "http://127.0.0.1:9/v1", "--bind", "0.0.0.0:0", cwd=tmp_path)
    assert code == 2
    assert "client_keys" in err
    assert "--allow-anonymous" in err


async def test_its_log_is_json_with_one_line_per_stream(simulator: Simulator, tmp_path: Path) -> None:
    async with serving(simulator, tmp_path, drain=0.0) as (running, client):
        await client.ask("ok")
        await client.ask("cut")
        running.process.send_signal(signal.SIGTERM)
        await running.ended()
    lines = [json.loads(line) for line in running.err.splitlines()]
    streams = [line for line in lines if line["event"] == "stream"]
    assert [line["termination"] for line in streams] == ["--", "UD"]


@SIGNALS
async def test_dev_prints_what_to_try_and_leaves_no_traceback(signum: signal.Signals, tmp_path: Path) -> None:
    async with command("dev", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0", cwd=tmp_path) as running:
        url = (await running.until_said(r"listens on (\S+/v1)"))[1]
        await running.until_said(r"(?s)stutter-b1.*curl -N " + re.escape(url))
        assert (await RawClient(url, None).ask("count:2")).done
        running.process.send_signal(signum)
        assert await running.ended() == 0


@pytest.mark.parametrize(
    ("configured", "answers"), [("", 502), ("[breaker]\nconsecutive_failures = 2", 503)], ids=["as it comes", "configured"]
)
async def test_dev_shows_each_fault_however_many_came_before(configured: str, answers: int, tmp_path: Path) -> None:
    (tmp_path / "dev.toml").write_text(configured)
    flags = ("--config", "dev.toml", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0")
    async with command("dev", *flags, cwd=tmp_path) as running:
        client = RawClient((await running.until_said(r"listens on (\S+/v1)"))[1], None)
        for _ in range(4):
            await client.ask("close-before-headers")
        assert (await client.ask("close-before-headers")).status == answers
        running.process.terminate()
        assert await running.ended() == 0


async def test_row_74_check_prints_every_value_and_no_key(tmp_path: Path) -> None:
    config = (
        'client_keys = ["env:CALLERS"]\n[upstreams.main]\nbase_url = "http://127.0.0.1:9/v1"\nkey_env = "UP_KEY"\n'
        'headers = { x-secret = "env:UP_KEY" }\n'
    )
    (tmp_path / "evenflow.toml").write_text(config)
    code, out, err = await run("check", cwd=tmp_path, UP_KEY=UPSTREAM_KEY, CALLERS=CLIENT_KEY)
    assert (code, err) == (0, "")
    assert "upstreams.main.base_url" in out
    assert "timers.first_token" in out
    assert UPSTREAM_KEY not in out
    assert CLIENT_KEY not in out


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="elsewhere files have no such mode")
async def test_row_74_a_key_file_that_others_can_read_is_one_line(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(UPSTREAM_KEY)
    key.chmod(0o644)
    (tmp_path / "evenflow.toml").write_text(f'[upstreams.main]\nbase_url = "http://127.0.0.1:9/v1"\nkey_file = "{key}"\n')
    code, _, err = await run("serve", cwd=tmp_path)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "chmod 600" in err


async def test_row_74_a_certificate_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "evenflow.toml").write_text('[upstreams.main]\nbase_url = "https://127.0.0.1:9/v1"\nca_file = "none.pem"\n')
    code, _, err = await run("serve", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0", cwd=tmp_path)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "none.pem" in err

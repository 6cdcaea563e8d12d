"""The command line: names of options, exit codes, and the one line that says why nothing was started."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
import trio
from click.testing import CliRunner, Result

import server.demo
import server.main
import server.replay
from server.cli import evenflow
from server.version import MINOR, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.settings import Settings

ROOT = Path(__file__).parents[2]
CANARY = "sk-canary-0123456789"


@pytest.fixture(autouse=True)
def clean_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory and no settings in the environment."""
    for name in [name for name in os.environ if name.startswith("EVENFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def invoke(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(evenflow, arguments, env=environ)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that `serve` and `dev` were started with; nothing is really started."""
    seen: list[Settings] = []

    async def start(settings: Settings, *_: object) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(settings)

    monkeypatch.setattr(server.main, "serve", start)
    monkeypatch.setattr(server.main, "serve_dev", start)
    return seen


#: Every command with its options: the names that others script against.
SOURCES = {"--config", "--bind", "--admin-bind", "--workers", "--upstream", "--upstream-key-env", "--allow-anonymous"}
COMMANDS: dict[str, set[str]] = {
    "serve": SOURCES,
    "check": SOURCES | {"--json"},
    "dev": {"--config", "--bind", "--admin-bind"},
    "demo": set(),
    "doctor": {"--config", "--upstream", "--model", "--skip", "--timeout", "--yes", "--json"},
    "status": {"--config", "--admin", "--admin-key-env", "--json"},
    "rollout": {"--config", "--admin", "--admin-key-env", "--json"},
    "simulate": {"--bind", "--pace", "--scenario", "--recordings", "--list", "--json"},
    "replay": {"--serve", "--pace", "--emit", "--emit-dir", "--json"},
    "schema": set(),
    "init": {"--base-url", "--key-env", "--output", "--force"},
}


def test_the_names_that_others_script_against() -> None:
    named = {
        command: {name for p in spec.params if isinstance(p, click.Option) for name in p.opts}
        for command, spec in evenflow.commands.items()
    }
    assert named == COMMANDS


def test_version() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"evenflow {VERSION}\n")


def test_version_for_scripts() -> None:
    result = invoke("--version", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["version"]) == (0, VERSION)
    assert {"python", "system", "trio", "httpx"} <= set(told)


@pytest.mark.parametrize("arguments", [["--json"], ["--json", "check"]])
def test_json_without_something_to_tell_is_refused(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_without_a_command_there_is_help() -> None:
    result = invoke()
    assert result.exit_code == 2
    assert "serve" in result.output


def test_an_unknown_command_exits_with_2_and_names_the_nearest() -> None:
    result = invoke("sevre")
    assert result.exit_code == 2
    assert "serve" in result.stderr


def test_help() -> None:
    result = invoke("serve", "-h")
    assert result.exit_code == 0
    assert "--upstream-key-env" in result.stdout


def test_an_unknown_option_exits_with_2() -> None:
    result = invoke("serve", "--upstrem", "http://a/v1")
    assert result.exit_code == 2
    assert "--upstream" in result.stderr


# ---- serve and dev --------------------------------------------------------------------------------------------------


def test_serve_gets_what_the_flags_say(served: list[Settings]) -> None:
    flags = [
        "--upstream",
        "https://a/v1",
        "--upstream-key-env",
        "KEY",
        "--bind",
        "0.0.0.0:1",
        "--admin-bind",
        "[::1]:2",
        "--allow-anonymous",
    ]
    result = invoke("serve", *flags, KEY=CANARY)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "spends the key of default" in result.stderr
    (settings,) = served
    assert (settings.bind, settings.admin_bind, settings.allow_anonymous) == ("0.0.0.0:1", "[::1]:2", True)
    (upstream,) = settings.upstreams()
    assert upstream.base_url == "https://a/v1"
    assert upstream.key is not None
    assert upstream.key.reveal() == CANARY


def test_serve_reads_the_file_that_lies_there_or_is_named(served: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "evenflow.toml").write_text('drain = 1\nupstreams.a.base_url = "http://a/v1"\n', "utf-8")
    (tmp_path / "other.toml").write_text('drain = 2\nupstreams.a.base_url = "http://a/v1"\n', "utf-8")
    invoke("serve")
    invoke("serve", "--config", "other.toml")
    assert [settings.drain for settings in served] == [1, 2]


def test_serve_without_an_upstream_is_one_line_that_names_every_way(served: list[Settings]) -> None:
    result = invoke("serve")
    assert result.exit_code == 2
    assert served == []
    (line,) = result.stderr.splitlines()
    for way in ("--upstream", "EVENFLOW_UPSTREAM", "evenflow.toml", "evenflow dev"):
        assert way in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["--upstream", "nonsense"],
        ["--upstream", "http://a/v1", "--bind", "nonsense"],
        ["--upstream", "http://a/v1", "--bind", "0.0.0.0:8143"],
        ["--upstream", "http://a/v1", "--admin-bind", "0.0.0.0:8143", "--allow-anonymous"],
        ["--upstream", "http://a/v1", "--upstream-key-env", "GONE"],
        ["--config", "gone.toml"],
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(served: list[Settings], arguments: list[str]) -> None:
    result = invoke("serve", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("evenflow: ")
    assert served == []


def test_warnings_do_not_keep_it_from_starting(served: list[Settings]) -> None:
    result = invoke("serve", "--upstream", "http://a", EVENFLOW_PORT="tcp://10.0.0.1:8143")
    assert result.exit_code == 0
    assert [line.partition(": ")[2][:22] for line in result.stderr.splitlines()] == ["warning: EVENFLOW_PORT", "warning: --upstream: h"]
    assert len(served) == 1


def test_dev_needs_nothing_and_ignores_what_is_configured(served: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "evenflow.toml").write_text("nonsense", "utf-8")
    result = invoke("dev", "--bind", "127.0.0.1:7", EVENFLOW_UPSTREAM="http://a/v1", EVENFLOW_LOG__LEVEL="debug")
    assert (result.exit_code, result.output) == (0, "")
    (settings,) = served
    assert (settings.bind, settings.log.level, settings.upstreams()) == ("127.0.0.1:7", "debug", ())


@pytest.mark.parametrize("command", ["serve", "dev"])
@pytest.mark.parametrize("wrap", [lambda exc: exc, lambda exc: ExceptionGroup("", [ExceptionGroup("", [exc])])])
def test_a_port_in_use_is_one_line(monkeypatch: pytest.MonkeyPatch, command: str, wrap: Callable[[Exception], Exception]) -> None:
    async def start(settings: Settings, *_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise wrap(server.main.BindError("cannot listen on 127.0.0.1:8143: the port is in use"))

    monkeypatch.setattr(server.main, "serve", start)
    monkeypatch.setattr(server.main, "serve_dev", start)
    result = invoke(command, EVENFLOW_UPSTREAM="http://a/v1")
    assert result.exit_code == 2
    assert result.stderr == "evenflow: cannot listen on 127.0.0.1:8143: the port is in use\n"


# ---- check ----------------------------------------------------------------------------------------------------------


def test_check_prints_every_value_with_its_origin_and_no_key(tmp_path: Path) -> None:
    (tmp_path / "evenflow.toml").write_text('[timers]\nidle = 9\n[upstreams.a]\nbase_url = "http://a/v1"\nkey_env = "KEY"\n', "utf-8")
    result = invoke("check", "--bind", "127.0.0.1:7", KEY=CANARY, EVENFLOW_CLIENT_KEYS=CANARY, EVENFLOW_DRAIN="5")
    assert result.exit_code == 0
    rows = {row[0]: row[1:] for row in (re.split(r"  +", line) for line in result.stdout.splitlines())}
    assert rows["bind"] == ['"127.0.0.1:7"', "--bind"]
    assert rows["allow_anonymous"] == ["false", "default"]
    assert rows["drain"] == ["5 s", "EVENFLOW_DRAIN"]
    assert rows["timers.idle"] == ["9 s", "evenflow.toml:2"]
    assert rows["timers.total"] == ["1800 s", "default"]
    assert rows["upstreams.a.key"] == ["****6789", "variable KEY"]
    assert "canary" not in result.output


def test_check_for_scripts(tmp_path: Path) -> None:
    (tmp_path / "evenflow.toml").write_text('[timers]\nidle = 9\n[upstreams.a]\nbase_url = "http://a"\nkey_env = "KEY"\n', "utf-8")
    result = invoke("check", "--json", KEY=CANARY)
    told = json.loads(result.stdout)
    assert (result.exit_code, result.stderr, told["ok"]) == (0, "", True)
    entries = {entry.pop("name"): entry for entry in told["settings"]}
    assert entries["timers.idle"] == {"value": 9.0, "unit": "s", "origin": "evenflow.toml:2"}
    assert entries["upstreams.a.key"] == {"value": "****6789", "unit": "", "origin": "variable KEY"}
    assert entries["allow_anonymous"]["value"] is False
    assert any(warning.startswith("evenflow.toml:4: upstreams.a.base_url: has no version") for warning in told["warnings"])
    assert "canary" not in result.output


def test_check_for_scripts_when_something_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "evenflow.toml").write_text("drian = 1\n", "utf-8")
    result = invoke("check", "--json")
    assert (result.exit_code, result.stderr) == (2, "")
    problem = {"where": "evenflow.toml:1: drian", "what": "unknown setting", "remedy": "did you mean drain?"}
    assert json.loads(result.stdout) == {"ok": False, "problems": [problem]}


def test_check_prints_one_line_per_problem(tmp_path: Path) -> None:
    (tmp_path / "evenflow.toml").write_text('drian = 1\n[timers]\nidle = -1\n[upstreams.a]\nbase_url = "http://a/v1"\n', "utf-8")
    result = invoke("check")
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.partition("; ")[0] for line in result.stderr.splitlines()] == [
        "evenflow: evenflow.toml:1: drian: unknown setting",
        "evenflow: evenflow.toml:3: timers.idle: expected float >= 0.0",
    ]


def test_schema_prints_what_editors_read() -> None:
    result = invoke("schema")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)["$id"] == f"urn:evenflow:settings:{MINOR}"


# ---- the others -----------------------------------------------------------------------------------------------------


def test_demo_hands_its_result_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.demo, "run_demo", lambda: 1)
    assert invoke("demo").exit_code == 1


def test_replay_hands_its_options_and_result_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.sse").write_bytes(b"data: [DONE]\n\n")
    seen: list[object] = []

    def run_replay(*arguments: object) -> int:
        seen.append(arguments)
        return 3

    monkeypatch.setattr(server.replay, "run_replay", run_replay)
    assert invoke("replay", "a.sse", "a.sse", "--pace", "5", "--emit-dir", "out").exit_code == 3
    assert invoke("replay", "a.sse", "--emit").exit_code == 3
    assert seen == [((Path("a.sse"), Path("a.sse")), 5.0, False, Path("out"), False), ((Path("a.sse"),), 20.0, True, None, False)]


@pytest.mark.parametrize(
    "arguments", [[], ["gone.sse"], ["--pace", "-1", "a.sse"], ["a.sse", "--emit", "--emit-dir", "out"], ["a.sse", "--emit", "--json"]]
)
def test_replay_refuses_what_makes_no_sense(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.sse").write_bytes(b"")
    assert invoke("replay", *arguments).exit_code == 2


def test_simulate_lists_its_fault_models_for_scripts() -> None:
    told = json.loads(invoke("simulate", "--list", "--json").stdout)
    assert told["stall"]


def test_simulate_lists_its_fault_models() -> None:
    result = invoke("simulate", "--list")
    assert result.exit_code == 0
    assert "`stall`" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--bind", "nonsense"], "evenflow: --bind: 'nonsense' is not HOST:PORT"),
        (["--scenario", "gone.toml"], "evenflow: --scenario: gone.toml: "),
        (["--scenario", "bad.toml"], "evenflow: --scenario: "),
        (["--recordings", "gone"], "evenflow: --recordings: cannot read gone: No such file or directory; "),
    ],
)
def test_simulate_refuses_in_one_line(arguments: list[str], told: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("nonsense = 1\n", "utf-8")
    result = invoke("simulate", *arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(told)


def test_simulate_on_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = invoke("simulate", "--bind", address)
    assert result.exit_code == 2
    assert result.stderr == f"evenflow: --bind: cannot listen on {address}: Address already in use; choose another with --bind HOST:PORT\n"


# ---- Ctrl-C ---------------------------------------------------------------------------------------------------------


def interrupted(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> None:
    def run_demo() -> int:
        raise raised

    monkeypatch.setattr(server.demo, "run_demo", run_demo)


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), BaseExceptionGroup("", [BaseExceptionGroup("", [KeyboardInterrupt()])])])
def test_an_interrupt_is_130_and_says_nothing(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> None:
    interrupted(monkeypatch, raised)
    result = invoke("demo")
    assert (result.exit_code, result.output.strip()) == (130, "")


def test_a_defect_beside_the_interrupt_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, BaseExceptionGroup("", [KeyboardInterrupt(), ValueError("a defect")]))
    with pytest.RaisesGroup(KeyboardInterrupt, ValueError):
        invoke("demo")


@pytest.mark.skipif(os.name != "posix", reason="SIGINT to another process")
def test_ctrl_c_leaves_no_traceback(tmp_path: Path) -> None:
    """The real thing: `python -m server`, a real signal."""
    command = [sys.executable, "-m", "server", "simulate", "--bind", "127.0.0.1:0"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}

    def obey_sigint() -> None:
        """A shell starts what it runs in the background with SIGINT ignored, and so would the child be."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True, preexec_fn=obey_sigint) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("simulator: base_url http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=120)
    assert (process.returncode, rest.strip()) == (130, "")

"""The systemd unit: what systemd itself says of it, where it is installed, and that its times and commands fit ours."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import click
import pytest

from server.cli import evenflow
from server.settings import Settings

UNIT: Final = Path(__file__).parents[2] / "deploy" / "evenflow.service"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists on this machine; its path is looked up."""
    copy = tmp_path / UNIT.name
    text, replaced = re.subn(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text("utf-8"), flags=re.MULTILINE)
    assert replaced == 1
    copy.write_text(text, "utf-8")
    return copy


def settings_of_unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text("utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@needs_systemd
def test_systemd_has_nothing_to_say_against_it(unit: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_systemd_calls_it_well_shut_in(unit: Path) -> None:
    """Exposure is 0 (none) to 10; up to 2.0 systemd calls it OK. Measured: 1.4."""
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "offline" in done.stderr:
        pytest.skip("this systemd-analyze (before 251) cannot look at a file")
    assert done.returncode == 0, done.stdout


def test_it_can_be_read_as_sections() -> None:
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(UNIT.read_text("utf-8"))
    assert parser.sections() == ["Unit", "Service", "Install"]


def test_it_starts_a_command_that_exists() -> None:
    program, command, *arguments = settings_of_unit()["ExecStart"][0].split()
    assert Path(program).name == "evenflow"
    options = {name for parameter in evenflow.commands[command].params if isinstance(parameter, click.Option) for name in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("-")} <= options


def test_its_times_fit_ours() -> None:
    unit, defaults = settings_of_unit(), Settings()
    assert float(unit["TimeoutStopSec"][0]) > defaults.drain + defaults.drain_notice + 2
    assert (unit["Type"], unit["NotifyAccess"]) == (["notify"], ["main"])
    assert float(unit["WatchdogSec"][0]) > 0
    assert unit["RestartPreventExitStatus"] == ["2"]  # what wrong settings end with
    assert "AF_UNIX" in unit["RestrictAddressFamilies"][0]  # else it could tell systemd nothing

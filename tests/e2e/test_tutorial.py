"""Every command of the tutorial is run as it stands there, and prints what stands there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from ..free_ports import free_port

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "tutorial.md"
_PORTS: Final = ("8150", "8143", "8144")
_MARK: Final = "--- next command ---"
#: A started server is waited for by asking until it answers, as a reader would.
_UNTIL_IT_LISTENS: Final = "until curl -s -o /dev/null http://127.0.0.1:{port}/; do sleep 0.1; done"


def commands() -> list[tuple[str, list[str]]]:
    """Each command, and the lines that it prints."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("bash") is None, reason="the tutorial needs curl and bash")
def test_every_command_prints_what_the_page_says(tmp_path: Path) -> None:
    ports = {port: str(free_port()) for port in _PORTS}
    script = [f'evenflow() {{ "{sys.executable}" -m server "$@"; }}']
    for command, _ in commands():
        # What a server says about itself while others run is for whoever sits there.
        script.append(f"{command.removesuffix('&')} > /dev/null &" if command.endswith("&") else command)
        if command.endswith("&"):
            listening = re.search(r"--bind 127\.0\.0\.1:(\d+)", command)
            assert listening is not None, f"nobody knows where this listens: {command}"
            script += [_UNTIL_IT_LISTENS.format(port=listening[1])]
        script.append(f"echo '{_MARK}'")
    text = "\n".join(script)
    for shown, real in ports.items():
        text = text.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{real}")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EVENFLOW_")}
    environ["PYTHONPATH"] = str(ROOT)
    with subprocess.Popen(
        ["bash"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
        env=environ,
        start_new_session=True,
    ) as shell:
        try:
            # Servers that were started keep the pipe open; the last mark says that all commands are through.
            assert shell.stdin is not None
            assert shell.stdout is not None
            shell.stdin.write(text + "\n")
            shell.stdin.flush()
            printed: list[list[str]] = [[]]
            for line in shell.stdout:
                if line.strip() == _MARK:
                    printed.append([])
                    if len(printed) > len(commands()):
                        break
                else:
                    printed[-1].append(line.rstrip("\n"))
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
    for (command, expected), lines in zip(commands(), printed, strict=False):
        assert [_as_shown(line, ports) for line in lines] == expected, command


def _as_shown(line: str, ports: dict[str, str]) -> str:
    for shown, real in ports.items():
        line = line.replace(f":{real}", f":{shown}")
    return line

"""The wheel: what is in it, and that `evenflow dev` runs from it in an environment that has nothing else.

Twice: with the packages that this environment has, which needs no network, and as a user installs it, which needs a package index and
is skipped where none can be reached.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import venv
import zipfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio

from server.settings_json_schema import schema_text
from server.version import VERSION

from ..e2e.raw_client import RawClient
from ..e2e.running_command import Command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT: Final = Path(__file__).parents[2]
#: Building, installing and starting on a busy machine.
PATIENCE: Final = 240.0

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, and where a virtual environment keeps its programs")


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=PATIENCE, env=environment())


def environment() -> dict[str, str]:
    """This one's, without what would lead to the checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("EVENFLOW_", "PYTHON", "VIRTUAL_ENV"))}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `pip wheel` would, but with the back end that is installed here, so that no index is asked."""
    folder = tmp_path_factory.mktemp("dist")
    built = run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder)
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


def test_it_holds_the_two_packages_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"evenflow-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
        (points,) = [name for name in names if name.endswith("entry_points.txt")]
        assert "evenflow = server.cli:main" in opened.read(points).decode()
    assert {name.split("/")[0] for name in names} == {"actors", "server", f"evenflow-{VERSION}.dist-info"}
    shipped = {path.relative_to(ROOT).as_posix() for package in ("actors", "server") for path in (ROOT / package).rglob("*.py")}
    assert shipped <= names
    assert {"server/py.typed", "actors/py.typed"} <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".toml", ".env"))]


@asynccontextmanager
async def dev(program: Path, cwd: Path) -> AsyncIterator[Command]:
    arguments = [str(program), "dev", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0"]
    process = await trio.lowlevel.open_process(arguments, cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    running = Command(process)
    try:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(running.read, "out")
                nursery.start_soon(running.read, "err")
                yield running
    finally:
        if process.returncode is None:
            process.kill()


async def dev_works(home: Path, empty: Path) -> None:
    """`evenflow dev` of an environment repairs a stutter, from an empty folder, and ends as told."""
    where = run(home / "bin" / "python", "-c", "import server, actors; print(server.__file__, actors.__file__)", cwd=empty)
    assert all(part.startswith(str(home)) for part in where.stdout.split()), where  # and not the checkout
    async with dev(home / "bin" / "evenflow", empty) as running:
        url = await running.until_said(r"listens on (\S+?),")
        answer = await RawClient(url[1], None).ask("stutter-b1:envelope=nonce", stream=True)
        assert answer.status == 200
        assert b"data: [DONE]" in answer.raw
        running.process.send_signal(signal.SIGINT)
        assert await running.ended() == 0


async def test_dev_runs_from_it_with_the_packages_of_this_environment(wheel: Path, tmp_path: Path) -> None:
    home, empty = tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    venv.create(home, with_pip=False, symlinks=True)
    installed = run(sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "--no-index", "--no-deps", wheel)
    assert installed.returncode == 0, installed.stderr
    (site,) = (home / "lib").glob("python3*/site-packages")
    # A line of a .pth file is only put on the path: the checkout's own .pth is not followed.
    (site / "dependencies.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n", "utf-8")
    await dev_works(home, empty)
    told = json.loads(run(home / "bin" / "evenflow", "--version", "--json", cwd=empty).stdout)
    assert told["version"] == VERSION
    assert run(home / "bin" / "evenflow", "schema", cwd=empty).stdout == schema_text()


async def test_a_user_can_install_it(wheel: Path, tmp_path: Path) -> None:
    home, empty = tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    probe = run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", tmp_path / "probe", "h11")
    if probe.returncode != 0:
        pytest.skip("no package index can be reached")
    venv.create(home, with_pip=True, symlinks=True)
    # The versions that are tested here. Hashes would have to be there for the wheel, too.
    locked = re.findall(r"(?m)^([A-Za-z0-9_.-]+==\S+)(?: ; ([^\\\n]+))? \\$", (ROOT / "requirements.lock").read_text("utf-8"))
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("".join(f"{package}{f' ; {marker}' if marker else ''}\n" for package, marker in locked), "utf-8")
    assert len(locked) > 10
    pip = home / "bin" / "pip"
    installed = run(pip, "install", "--quiet", "--disable-pip-version-check", "--constraint", constraints, wheel)
    assert installed.returncode == 0, installed.stderr
    checked = run(pip, "check")
    assert checked.returncode == 0, checked.stdout
    await dev_works(home, empty)

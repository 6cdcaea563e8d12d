"""The credential of an upstream, from wherever the settings say it is: `key_env`, `key_file` or EVENFLOW_UPSTREAM_KEY.

Of several sources the one of the highest precedence counts; two of the same precedence contradict each other. No text that
leaves this module holds any part of a key.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from actors import Secret

from .settings_checks import Problem
from .settings_layers import Origin, Rank

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .settings_schema import SettingPath


def resolve_credential(
    values: dict[SettingPath, tuple[object, Origin]], upstream: SettingPath, environ: Mapping[str, str], base: Path, directory: Path
) -> list[Problem]:
    """Put the key of one upstream into `values` under `key`, and make the paths of its files absolute.

    Args:
      upstream: the path of its table.
      base: what a path written in the settings file is relative to.
      directory: what any other path is relative to.
    """
    for name in ("key_file", "ca_file"):
        value, origin = values.get((*upstream, name), (None, Origin()))
        if isinstance(value, str):
            values[*upstream, name] = (str((base if origin.rank is Rank.FILE else directory) / Path(value).expanduser()), origin)
    said = {name: values[*upstream, name] for name in ("key", "key_env", "key_file") if (*upstream, name) in values}
    if not said:
        return []
    rank = max(origin.rank for _, origin in said.values())
    for name in [name for name, (_, origin) in said.items() if origin.rank < rank]:
        del said[name], values[*upstream, name]
    name, (value, origin) = next(iter(said.items()))
    if len(said) > 1:
        names = " and ".join("EVENFLOW_UPSTREAM_KEY" if n == "key" else n for n in said)
        return [Problem.at(origin, (*upstream, name), f"{names} are both set", "keep one of them")]
    try:
        text, source = _text_of(name, value, environ)
        values[*upstream, "key"] = (_key(text, source), origin if name == "key" else Origin(origin.rank, source))
    except ValueError as exc:
        what, _, remedy = str(exc).partition("; ")
        return [Problem.at(origin, (*upstream, name), what, remedy)]
    return []


def variable(name: str) -> str:
    """What to call a variable. A name that is not written as such is not repeated: it may be the key itself, pasted one line too far."""
    return f"variable {name}" if re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name) else "the variable it names"


def _text_of(name: str, value: object, environ: Mapping[str, str]) -> tuple[str, str]:
    """The text that holds the key, and what to call its source."""
    if isinstance(value, Secret):
        return value.reveal(), "it"
    if name == "key_env":
        return environ.get(str(value), ""), variable(str(value))
    return _read_key_file(Path(str(value))), f"file {value}"


def _read_key_file(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            # Windows has no such bits to go by.
            if os.name == "posix" and mode & 0o077:
                raise ValueError(f"{file} may be read by others (mode {mode:04o}); run: chmod 600 {file}")
            # No key is longer; a device or a log named by mistake shall not fill the memory.
            return opened.read(65536).decode("utf-8-sig")
    except OSError as exc:
        # Not the path: somebody may have written the key there.
        raise ValueError(f"the file cannot be read: {exc.strerror}; correct the path or its permissions") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not a text file; write the key alone into it") from None


def _key(text: str, source: str) -> Secret:
    """The key without the line end that editors and `echo` add. A header can carry only printable ASCII."""
    text = text.strip()
    if not text:
        raise ValueError(f"{source} is not set or empty; set it to the key, or remove this setting if the upstream wants none")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{source} holds a character that no key has (a space, a line end, or not ASCII); copy the key anew")
    return Secret(text)

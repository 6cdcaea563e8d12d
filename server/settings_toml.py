"""On which line of a TOML file a setting stands; tomllib does not say.

A best effort for error texts and `evenflow check`: a line that looks like a header or a key inside a multi-line string may be
taken for one. Whoever asks for a path that is not there names the file alone.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, TypeAlias

_Path: TypeAlias = tuple[str | int, ...]

_HEADER = re.compile(r"\s*(\[\[?)[^\[\]]+\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")


def key_lines(text: str) -> dict[_Path, int]:
    """The line, from 1, of every table header and every `key =`, by path; the items of [[lists]] are numbered."""
    lines: dict[_Path, int] = {}
    counts: dict[_Path, int] = {}
    table: _Path = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            if (path := _single_path(line, value="")) is None:
                continue
            table = _numbered(path, counts)
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            lines.setdefault(table, number)
        elif (key := _KEY.match(line)) and (path := _single_path(key[1], value=" = 0")) is not None:
            lines.setdefault(table + path, number)
    return lines


def _single_path(declaration: str, value: str) -> _Path | None:
    """Let tomllib itself read one header or key: quoting and dots are its business."""
    try:
        tree: Any = tomllib.loads(declaration + value)
    except tomllib.TOMLDecodeError:
        return None
    path: list[str] = []
    while isinstance(tree, dict | list) and tree:
        if isinstance(tree, list):
            tree = tree[0]
            continue
        name = next(iter(tree))
        path.append(name)
        tree = tree[name]
    return tuple(path)


def _numbered(path: _Path, counts: dict[_Path, int]) -> _Path:
    """`routes.timers` below the second [[routes]] -> `("routes", 1, "timers")`."""
    result: _Path = ()
    for index, part in enumerate(path):
        result = (*result, part)
        if index < len(path) - 1 and result in counts:
            result = (*result, counts[result])
    return result

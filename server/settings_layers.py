"""One source's values by path, each with its origin, and how sources are laid over one another."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .settings_schema import SettingPath


class Rank(IntEnum):
    """The sources of a setting in rising precedence."""

    DEFAULT = 0
    FILE = 1
    ENVIRONMENT = 2
    FLAG = 3


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: `default`, `evenflow.toml:12`, `EVENFLOW_BIND`, `--bind`."""

    rank: Rank = Rank.DEFAULT
    text: str = "default"

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class Layer:
    """What one source says. `items`: the named or listed tables that it opens, also empty ones."""

    values: dict[SettingPath, tuple[object, Origin]] = field(default_factory=dict)
    items: dict[SettingPath, Origin] = field(default_factory=dict)

    def lay_over(self, lower: Layer) -> Layer:
        """Both, this one winning. A list of tables is replaced as a whole: there is no telling which item stands for which."""
        lists = {path[:1] for path in self.items if isinstance(path[-1], int)}
        return Layer(
            {p: v for p, v in lower.values.items() if p[:1] not in lists} | self.values,
            {p: o for p, o in lower.items.items() if p[:1] not in lists} | self.items,
        )

    def origin_of(self, path: SettingPath) -> Origin:
        """Of a value, of a table, or of the first thing said inside a table."""
        if path in self.values:
            return self.values[path][1]
        inside = (origin for p, (_, origin) in self.values.items() if p[: len(path)] == path)
        return self.items.get(path) or next(inside, Origin())

    def drop(self, is_unwanted: Callable[[SettingPath], bool]) -> bool:
        """Forget some paths; whether there were any."""
        unwanted = [p for p in (*self.values, *self.items) if is_unwanted(p)]
        for path in unwanted:
            self.values.pop(path, None)
            self.items.pop(path, None)
        return bool(unwanted)

    def nested(self) -> dict[str, Any]:
        """Paths back into tables and lists, as msgspec.convert takes them."""
        tree: dict[str | int, Any] = {}
        for path in self.items:
            _descend(tree, path)
        for path, (value, _) in self.values.items():
            _descend(tree, path[:-1])[path[-1]] = value
        routes = tree.pop("routes", {})
        return {**{str(name): value for name, value in tree.items()}, "routes": [routes[index] for index in sorted(routes)]}


def _descend(tree: dict[str | int, Any], path: SettingPath) -> dict[str | int, Any]:
    for part in path:
        tree = tree.setdefault(part, {})
    return tree

"""Settings that got another name, and for how long the old one still works.

The promise: a setting that is renamed in one minor release works under both names in that release, with a warning that names the new
one; the next minor release refuses the old name and still says what it became. Owns the table of renamed settings and that rule;
settings_sources.py applies it to the file and to the environment. An entry may be dropped once nobody upgrades from before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .settings_schema import PREFIX, SettingPath, environment_name
from .version import MINOR

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Parts of a path that stand for what a user chose: the name of an upstream, the index of a route (settings_schema.leaves).
_CHOSEN: Final = ("NAME", "N")


@dataclass(frozen=True, slots=True)
class Rename:
    """One setting or table that got another name or place.

    Args:
      old: its path before, with NAME and N for what a user chooses, for example `("upstreams", "NAME", "idle")`.
      new: its path now; NAME and N stand for the same as in `old`, in the same order.
      since: the minor release that renamed it, for example "0.2".
    """

    old: SettingPath
    new: SettingPath
    since: str

    @property
    def works(self) -> bool:
        """Whether this release still takes the old name."""
        return _number(MINOR) <= _number(self.since)

    def described(self, new: str) -> tuple[str, str]:
        """What to tell whoever still uses the old name, and the remedy."""
        if self.works:
            return f"is now called {new}", f"rename it; the old name works in {self.since} and not after it"
        return f"was renamed to {new} in {self.since}", "rename it"


#: Every rename, oldest first. So far nothing has been renamed.
RENAMES: Final[tuple[Rename, ...]] = ()


def renamed_setting(path: SettingPath) -> tuple[Rename, SettingPath] | None:
    """What the setting at `path` is called now, if it was renamed."""
    for rename in RENAMES:
        if (chosen := _match(rename.old, path)) is not None:
            return rename, _fill(rename.new, chosen)
    return None


def renamed_variable(variable: str) -> tuple[Rename, str] | None:
    """The same for the name of an environment variable."""
    parts = variable.removeprefix(PREFIX).lower().split("__")
    for rename in RENAMES:
        old = tuple(part if part in _CHOSEN else str(part).lower() for part in rename.old)
        if (chosen := _match(old, tuple(parts))) is not None:
            return rename, environment_name(_fill(rename.new, chosen))
    return None


def _match(old: SettingPath, path: SettingPath) -> list[str | int] | None:
    if len(old) != len(path) or not all(part in _CHOSEN or part == given for part, given in zip(old, path, strict=True)):
        return None
    return [given for part, given in zip(old, path, strict=True) if part in _CHOSEN]


def _fill(new: SettingPath, chosen: Sequence[str | int]) -> SettingPath:
    rest = iter(chosen)
    return tuple(next(rest) if part in _CHOSEN else part for part in new)


def _number(minor: str) -> tuple[int, ...]:
    return tuple(int(part) for part in minor.split("."))

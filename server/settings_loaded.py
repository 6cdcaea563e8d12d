"""What is in force: the settings of this process, each with its value and where it came from, for people and for scripts.

Refuses to know how any of it was read (settings_sources.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from actors import Secret

from .settings_schema import Leaf, Listed, Named, SettingPath, Table, dotted, schema, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .settings import Settings
    from .settings_layers import Origin


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting in force.

    Args:
      name: dotted.
      value: as the settings hold it; a credential is a `Secret`.
      unit: of a number, else empty.
      origin: `default`, a line of a file, a variable or a flag.
      text: what to show in place of the value.
    """

    name: str
    value: object
    unit: str
    origin: str
    text: str

    def to_json(self) -> dict[str, Any]:
        """The same for scripts; credentials masked."""
        value = msgspec.to_builtins(self.value, enc_hook=_masked)
        return {"name": self.name, "value": value, "unit": self.unit, "origin": self.origin}


def _masked(value: object) -> str:
    assert isinstance(value, Secret)
    return shown(value)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings of this process and where each came from.

    Args:
      warnings: one line each; what was ignored or looks wrong but may be meant.
    """

    settings: Settings
    warnings: tuple[str, ...]
    values: Mapping[SettingPath, tuple[object, Origin]]

    def effective(self) -> Iterator[Entry]:
        """Every setting in the order of the reference."""
        yield from self._listed(schema(), ())

    def _listed(self, table: Table, path: SettingPath) -> Iterator[Entry]:
        for name, node in table.fields.items():
            here = (*path, name)
            below = list(dict.fromkeys(p[len(here)] for p in self.values if len(p) > len(here) and p[: len(here)] == here))
            match node:
                case Leaf():
                    if here in self.values:
                        value, origin = self.values[here]
                        yield Entry(dotted(here), value, node.unit, str(origin), shown(value, node.unit))
                    elif not table.partial and not node.internal:
                        yield Entry(dotted(here), node.default, node.unit, "default", shown(node.default, node.unit))
                case Table():
                    yield from self._listed(node, here)
                case Named() | Listed():
                    if not below:
                        implied = node is schema().fields["routes"] and self.settings.configured_upstreams
                        text = '(none: "*" over every upstream in turn)' if implied else "(none)"
                        yield Entry(dotted(here), [] if isinstance(node, Listed) else {}, "", "default", text)
                    for part in below:
                        yield from self._listed(node.item, (*here, part))

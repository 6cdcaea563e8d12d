"""The table of fault models: every name a request's `model` may have, with one line that says what happens.

`evenflow dev` prints it, GET /v1/models lists it, the documentation is rendered from it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from . import breakage, dialects, rejections, streams, stutter
from .ask import COMMON

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .ask import Model

MODELS: Final[Mapping[str, Model]] = MappingProxyType(
    {**streams.MODELS, **rejections.MODELS, **breakage.MODELS, **dialects.MODELS, **stutter.MODELS}
)

FAULTS: Final[Mapping[str, str]] = MappingProxyType({name: model.description for name, model in MODELS.items()})


def faults_table() -> str:
    """The table as Markdown: name, arguments with their defaults, description."""
    lines = ["| model | arguments | what happens |", "|---|---|---|"]
    for name, model in MODELS.items():
        options = ", ".join(f"`{key}={value}`" for key, value in model.options.items() if COMMON.get(key) != value)
        lines.append(f"| `{name}` | {options} | {model.description.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"

"""A flame graph as SVG, drawn by ourselves: stacks from the bottom up, a box as wide as its share of the samples."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_WIDTH: Final = 1400
_ROW: Final = 17
_TOP: Final = 34
_THIN: Final = 0.6  # pixels; narrower boxes are left out
_LETTER: Final = 6.2  # pixels, of a usual letter at this size


@dataclass(slots=True)
class _Box:
    count: int = 0
    children: dict[str, _Box] = field(default_factory=dict)

    def depth(self) -> int:
        return 1 + max((child.depth() for child in self.children.values()), default=0)


def flame_graph(stacks: Mapping[tuple[str, ...], int], title: str) -> str:
    """The picture.

    Args:
      stacks: outermost function first, with how often each was seen.
    """
    root = _Box()
    for stack, count in stacks.items():
        root.count += count
        box = root
        for frame in stack:
            box = box.children.setdefault(frame, _Box())
            box.count += count
    height = _TOP + _ROW * root.depth() + 6
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="8" y="20" font-size="14" font-weight="bold">{escape(title)}: {root.count} samples</text>',
        *_drawn("all", root, 0.0, _WIDTH / max(root.count, 1), height - 6 - _ROW, max(root.count, 1)),
        "</svg>",
        "",
    ]
    return "\n".join(parts)


def _drawn(name: str, box: _Box, x: float, scale: float, y: float, total: int) -> Iterator[str]:
    width = box.count * scale
    if width < _THIN:
        return
    # Warm colours, the same for a function wherever it appears.
    shade = zlib.crc32(name.encode())
    colour = f"rgb({205 + shade % 50},{90 + shade // 50 % 110},{shade // 7000 % 60})"
    shown = name if len(name) * _LETTER < width else name[: max(0, int(width / _LETTER) - 1)]
    label = f'<text x="{x + 3:.1f}" y="{y + 12:.1f}">{escape(shown)}</text>' if len(shown) > 2 else ""
    told = f"{escape(name)}: {box.count} samples, {100 * box.count / total:.1f} %"
    shape = f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width - 0.4, 0.4):.1f}" height="{_ROW - 1}" fill="{colour}"/>'
    yield f"<g><title>{told}</title>{shape}{label}</g>"
    for child, inner in sorted(box.children.items()):
        yield from _drawn(child, inner, x, scale, y - _ROW, total)
        x += inner.count * scale

"""The plot of `make bench-scale`: two panels of lines over the number of open streams, which is on a logarithmic axis."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any, Final

from .compare_table import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .goals import Medians

_PANELS: Final = (("cpu_ms_per_stream", "CPU ms per 3-chunk stream"), ("kb_per_stream", "KB per open stream"))
_COLOURS: Final = {"actors": "#2563a8", "relay": "#5aa0d8", "floor": "#b8b8b8", "nginx": "#7a9a5a", "naive": "#c08a3a"}
_WIDTH: Final = 460  # pixels, of a panel
_HEIGHT: Final = 240
_LEFT: Final = 50
_TOP: Final = 80


def plot(medians: Medians, targets: Sequence[str], counts: Sequence[int], machine: Mapping[str, Any]) -> str:
    """The whole picture, as SVG. Axes of values begin at 0."""
    caption = f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {machine['date']}"
    width, height = len(_PANELS) * (_WIDTH + 20), _TOP + _HEIGHT + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="16" y="22" font-size="15" font-weight="bold">cost by the number of open streams: flat is good</text>',
        f'<text x="16" y="40" fill="#666">{escape(caption)}</text>',
    ]
    for place, (figure, title) in enumerate(_PANELS):
        parts += _panel(place * (_WIDTH + 20) + _LEFT, figure, title, medians, targets, counts)
    return "\n".join([*parts, "</svg>", ""])


def _short(count: int) -> str:
    return f"{count / 1000:g}k" if count >= 1000 else str(count)


def _panel(left: int, figure: str, title: str, medians: Medians, targets: Sequence[str], counts: Sequence[int]) -> list[str]:
    lines = {
        target: [(count, value) for count in counts if (value := medians.get(f"open-{count}", {}).get(target, {}).get(figure)) is not None]
        for target in targets
    }
    most = max((value for line in lines.values() for _, value in line), default=1.0) * 1.1 or 1.0
    span = math.log(max(counts, default=1)) or 1.0
    right = _WIDTH - _LEFT - 60

    def x(count: int) -> float:
        return left + right * math.log(count) / span

    def y(value: float) -> float:
        return _TOP + _HEIGHT * (1 - value / most)

    parts = [f'<text x="{left}" y="{_TOP - 14}" font-weight="bold">{escape(title)}</text>']
    for quarter in range(5):
        value = most * quarter / 4
        parts += [
            f'<line x1="{left}" y1="{y(value):.1f}" x2="{left + right}" y2="{y(value):.1f}" stroke="#e4e4e4"/>',
            f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#666">{number(value)}</text>',
        ]
    parts += [
        f'<text x="{x(count):.1f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle" fill="#666">{_short(count)}</text>' for count in counts
    ]
    for target, line in lines.items():
        if not line:
            continue
        name = target.partition("@")[0]
        colour = _COLOURS.get(name, "#888")
        points = " ".join(f"{x(count):.1f},{y(value):.1f}" for count, value in line)
        dashes = ' stroke-dasharray="5 4"' if "@" in target else ""
        last, value = line[-1]
        parts += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>',
            *(f'<circle cx="{x(count):.1f}" cy="{y(value):.1f}" r="3" fill="{colour}"/>' for count, value in line),
            f'<text x="{x(last) + 8:.1f}" y="{y(value) + 4:.1f}" fill="{colour}">{escape(target.rpartition("/")[2])}</text>',
        ]
    return parts

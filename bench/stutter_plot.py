"""The exact repairs of every shape as a bar chart, in SVG that reads on a light and on a dark page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .stutter_measure import Both

_ROW, _LEFT, _WIDTH, _TOP = 26, 74, 520, 44
_OURS, _THEIRS, _INK = "#2f7d5b", "#b9b4a7", "#7a7a7a"


def plot(shapes: Mapping[str, Both]) -> str:
    """One row per shape: ours above, the prototype's below, in % of the injected streams."""
    height = _TOP + _ROW * len(shapes) + 30
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 60}" height="{height}"',
        f' font-family="sans-serif" font-size="12" fill="{_INK}">',
        "<title>Injected streams repaired exactly, by shape</title>",
        f'<rect x="{_LEFT}" y="12" width="12" height="12" fill="{_OURS}"/><text x="{_LEFT + 18}" y="22">evenflow</text>',
        f'<rect x="{_LEFT + 100}" y="12" width="12" height="12" fill="{_THEIRS}"/><text x="{_LEFT + 118}" y="22">prototype</text>',
        f'<text x="{_LEFT + 210}" y="22">% of injected streams repaired exactly</text>',
    ]
    for number in range(0, 101, 25):
        x = _LEFT + _WIDTH * number // 100
        out.append(f'<line x1="{x}" y1="{_TOP - 8}" x2="{x}" y2="{height - 24}" stroke="{_INK}" stroke-opacity="0.3"/>')
        out.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle">{number}</text>')
    for place, (name, both) in enumerate(shapes.items()):
        y = _TOP + _ROW * place
        out.append(f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{name}</text>')
        for score, colour, top, thick in ((both.ours, _OURS, y, 10), (both.prototype, _THEIRS, y + 11, 6)):
            if score.streams:
                wide = _WIDTH * score.share() / 100
                out.append(f'<rect x="{_LEFT}" y="{top}" width="{wide:.1f}" height="{thick}" fill="{colour}"/>')
        out.append(f'<text x="{_LEFT + _WIDTH * both.ours.share() / 100 + 6:.1f}" y="{y + 10}">{both.ours.share():.1f}</text>')
    return "\n".join([*out, "</svg>\n"])

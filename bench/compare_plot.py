"""The plot of `make bench`: one panel a figure, one bar a target. Drawn by hand: a chart of bars needs no library."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from .compare_table import number
from .scenarios import SCENARIOS
from .targets import OURS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .goals import Medians

#: What a reader looks for first; one panel each.
_PANELS: Final = (
    ("paced-20", "cpu_us_per_chunk"),
    ("paced-100", "cpu_us_per_chunk"),
    ("paced-1000", "cpu_us_per_chunk"),
    ("flood", "cpu_us_per_chunk"),
    ("short", "cpu_ms_per_stream"),
    ("json", "cpu_us_per_request"),
    ("paced-1000", "kb_per_stream"),
    ("first", "first_p50_ms"),
)
_COLUMNS: Final = 2
_WIDTH: Final = 420  # pixels, of a panel
_ROW: Final = 18
_LABEL: Final = 70
_TOP: Final = 54


def plot(medians: Medians, targets: Sequence[str], machine: Mapping[str, Any]) -> str:
    """The whole picture, as SVG. Bars are linear; one beyond four times the longest of evenflow is cut off and marked »."""
    panels = [panel for panel in _PANELS if panel[0] in medians]
    height_of_panel = 34 + _ROW * len(targets)
    rows = -(-len(panels) // _COLUMNS)
    width, height = _WIDTH * _COLUMNS + 20, _TOP + rows * height_of_panel
    caption = f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {machine['date']}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="16" y="22" font-size="15" font-weight="bold">evenflow beside its peers: shorter is better</text>',
        f'<text x="16" y="40" fill="#666">{escape(caption)}</text>',
    ]
    for place, (scenario, figure) in enumerate(panels):
        x, y = 16 + place % _COLUMNS * _WIDTH, _TOP + place // _COLUMNS * height_of_panel
        parts += _panel(x, y, scenario, figure, medians[scenario], targets)
    return "\n".join([*parts, "</svg>", ""])


def _panel(
    x: int, y: int, scenario: str, figure: str, by_target: Mapping[str, Mapping[str, float | None]], targets: Sequence[str]
) -> list[str]:
    values = {target: value for target in targets if (value := by_target.get(target, {}).get(figure)) is not None and value > 0}
    title = f"{SCENARIOS[scenario].title}: {SCENARIOS[scenario].figures[figure]}"
    parts = [f'<text x="{x}" y="{y + 14}" font-weight="bold">{escape(title)}</text>']
    ours = [value for target, value in values.items() if target.partition("@")[0] in OURS]
    most = min(max(values.values(), default=1.0), 4 * max(ours, default=1e9))
    for row, (target, value) in enumerate(values.items()):
        top = y + 22 + row * _ROW
        length = min(value / most, 1.0) * (_WIDTH - _LABEL - 80)
        colour = "#2563a8" if target.partition("@")[0] in OURS else "#b8b8b8"
        beyond = " »" if value > most else ""
        parts += [
            f'<text x="{x + _LABEL - 6}" y="{top + 12}" text-anchor="end">{escape(target.rpartition("/")[2])}</text>',
            f'<rect x="{x + _LABEL}" y="{top + 1}" width="{length:.1f}" height="{_ROW - 5}" fill="{colour}"/>',
            f'<text x="{x + _LABEL + length + 5:.1f}" y="{top + 12}" fill="#333">{number(value)}{beyond}</text>',
        ]
    return parts

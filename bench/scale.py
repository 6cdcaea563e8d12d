"""`make bench-scale`: whether a request costs the same, and a stream takes the same memory, however many are open.

    python -m bench.scale [--open 1,100,1000,2000,5000] [--only floor,actors,relay] [--repeats 3] [--json FILE] [--svg FILE]

3-chunk streams are asked for beside so many open, silent ones. Exit codes as of bench.compare.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from server.listeners import raise_descriptor_limit

from .compare import Comparison, as_json, machine, measure, names
from .compare_table import number
from .scale_plot import plot
from .scenarios import Scenario, short
from .targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .goals import Medians

_OPEN: Final = (1, 100, 1000, 2000, 5000)
_FIGURES: Final = {"cpu_ms_per_stream": "CPU ms per request", "kb_per_stream": "KB per open stream", "first_p50_ms": "first token p50, ms"}
_COLUMN: Final = 10


def scenarios(counts: Sequence[int]) -> dict[str, Scenario]:
    """One for each number of open streams."""
    return {f"open-{count}": Scenario(f"{count:,} streams open", short(count), _FIGURES) for count in counts}


def table(medians: Medians, targets: Sequence[str], counts: Sequence[int]) -> str:
    """For people."""
    lines = [f"{'open streams':<24}{'':<10}" + "".join(f"{count:>{_COLUMN},}" for count in counts)]
    for figure, title in _FIGURES.items():
        for target in targets:
            values = [medians.get(f"open-{count}", {}).get(target, {}).get(figure) for count in counts]
            row = "".join(f"{'-' if value is None else number(value):>{_COLUMN}}" for value in values)
            lines.append(f"{title:<24}{target.rpartition('/')[2]:<10}{row}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as asked on the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description="Cost per request and memory per stream by open streams.")
    parser.add_argument("--open", type=_counts, default=_OPEN, metavar="N,...", help=",".join(map(str, _OPEN)))
    parser.add_argument("--only", type=names(list(TARGETS)), default=["nginx", "floor", "actors", "relay"], metavar="NAME,...")
    parser.add_argument("--repeats", type=int, default=3, help="[%(default)s]")
    parser.add_argument("--seconds", type=float, default=3.0, help="sets how many requests are asked for [%(default)g]")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--svg", type=Path, metavar="FILE")
    asked = parser.parse_args(arguments)
    limit = raise_descriptor_limit()
    counts = [count for count in asked.open if limit <= 0 or 2 * count + 200 <= limit]
    for count in set(asked.open) - set(counts):
        print(f"scale: {count} streams need {2 * count + 200} open files, {limit} are allowed (ulimit -Hn): left out", file=sys.stderr)
    where, results = machine("bench.scale"), Comparison(asked.only, scenarios(counts))
    code = measure(results, "scale", repeats=asked.repeats, seconds=asked.seconds)
    if not results.runs:
        return code
    medians = results.medians()
    if asked.json is not None:
        asked.json.write_text(json.dumps(as_json(results, where), indent=1) + "\n", "utf-8")
    if asked.svg is not None:
        asked.svg.parent.mkdir(parents=True, exist_ok=True)
        asked.svg.write_text(plot(medians, asked.only, counts, where), "utf-8")
    print(table(medians, asked.only, counts))
    for trouble in results.troubles():
        print(f"! {trouble}")
    print("every stream complete" if results.complete else "NOT every stream complete")
    return code


def _counts(text: str) -> list[int]:
    return [int(count) for count in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())

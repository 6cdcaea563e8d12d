"""The command `evenflow rollout`: what `/rollout` of the admin listener says, the engines side by side, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_COLUMNS: Final = (12, 9, 8, 7, 10, 12, 14, 18, 18)
_HEADINGS: Final = ("", "streams", "done", "error", "cancelled", "own faults", "repairs", "first token", "longest hold")


def table(report: Mapping[str, Any]) -> str:
    """The report for people; of several workers, one after the other."""
    if "workers" in report:
        rest = [f"worker {one['worker']}: {one.get('absent') or ''}\n{table(one) if 'engines' in one else ''}" for one in report["workers"]]
        return "\n\n".join(text.rstrip() for text in rest)
    shadow = report["shadow"]
    rows: list[tuple[str, ...]] = [_HEADINGS]
    rows += [_row(name, record) for name, record in report["engines"].items()]
    if shadow["would_have"]["streams"]:
        rows.append(_row("shadow", shadow["would_have"]))
    lines = ["".join(cell.ljust(width) for cell, width in zip(row, _COLUMNS, strict=True)).rstrip() for row in rows]
    lines.append("")
    if report["fallback"]:
        lines.append(f"FALLBACK: the relay serves everything, after {report['fallback']}. `evenflow rollout PERCENT` ends it.")
    else:
        lines.append(f"engine {report['engine']}: {report['percent']:g} % of the streams are served by the actors")
    if shadow["comparison"]:
        told = {"unfinished": "looked complete and was not", "repaired": "would have been repaired"}
        found = ", ".join(f"{count} {told.get(name, name)}" for name, count in sorted(shadow["comparison"].items()))
        lines.append(f"shadow: {found}")
    elif not shadow["on"] and report["percent"] < 100:
        lines.append("shadow: off; streaming.shadow = true has the relayed streams judged beside")
    return "\n".join(lines)


def _row(name: str, record: Mapping[str, Any]) -> tuple[str, ...]:
    ends, repairs = record["ends"], record["repairs"]
    return (
        name,
        str(record["streams"]),
        *(str(ends.get(end, 0)) for end in ("done", "error", "cancelled")),
        str(record["own_faults"]),
        " ".join(f"{shape}:{count}" for shape, count in sorted(repairs.items()))[: _COLUMNS[6] - 1] or "-",
        _times(record["first_token_ms"]),
        _times(record["longest_hold_ms"]),
    )


def _times(quantiles: Mapping[str, float]) -> str:
    return f"{quantiles['p50']:g} / {quantiles['p99']:g} ms" if quantiles else "-"

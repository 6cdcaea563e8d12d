"""The command `evenflow rollout`: the engines side by side, and another percentage, asked of a running evenflow's admin listener."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

_PATIENCE: Final = 10.0
_COLUMNS: Final = (12, 9, 8, 7, 10, 12, 14, 18, 18)
_HEADINGS: Final = ("", "streams", "done", "error", "cancelled", "own faults", "repairs", "first token", "longest hold")


class NoAnswer(Exception):
    """The admin listener did not do what it was asked; the text says why."""


def ask_rollout(url: str, key: str, percent: float | None) -> dict[str, Any]:
    """The report, after the percentage was changed if one is given.

    Args:
      url: root of the admin listener.
      key: one of its admin_keys, "" without.

    Raises:
      NoAnswer: nobody is there, or it refused.
    """
    body = msgspec.json.encode({"percent": percent}) if percent is not None else None
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(f"{url}/rollout", body, headers)
    # The environment's proxies are for the world outside.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_PATIENCE) as response:
            report: dict[str, Any] = msgspec.json.decode(response.read(), type=dict[str, Any])
    except urllib.error.HTTPError as refusal:
        raise NoAnswer(f"{url} answers {refusal.code}: {_message(refusal.read())}") from None
    except (OSError, msgspec.DecodeError) as failure:
        reason = getattr(failure, "reason", failure)
        raise NoAnswer(f"no evenflow answers at {url}: {reason}; is it running, and is this its admin_bind?") from None
    return report


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


def _message(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, LookupError, TypeError):
        return "no reason was given"

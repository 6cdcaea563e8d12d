"""The one canonical line per request, and how its end reads as JSON.

Owns which fields a line has. What a line looks like and what must never be in one is log.py's business.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from actors import End

from .log import is_plain, log_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors import Outcome


def outcome_facts(outcome: Outcome) -> dict[str, object]:
    """How a request ended and what was counted, ready for JSON: the part of its line that comes from the outcome alone."""
    tally, fault = outcome.tally, outcome.fault
    return {
        "outcome": outcome.end.value,
        "termination": outcome.termination,
        "status": outcome.status,
        "upstream": outcome.upstream,
        "attempts": tally.attempts,
        "fault": fault.kind.value if fault is not None else None,
        "fault_message": fault.message if fault is not None else None,
        "setting": (fault.setting or None) if fault is not None else None,
        "ttft_ms": _milliseconds(tally.first_token, tally.started),
        "total_ms": _milliseconds(tally.ended, tally.started),
        "cancel_ms": _milliseconds(outcome.cancel_latency),
        "hedged": dict(tally.hedges),
        "events": tally.events,
        "bytes_in": tally.bytes_in,
        "bytes_out": tally.bytes_out,
        "holds": tally.holds,
        "longest_hold_ms": _milliseconds(tally.longest_hold) if tally.holds else None,
        "repairs": dict(tally.repairs),
        "loops": dict(tally.loops),
        "skipped": tally.skipped,
        "keepalives": tally.keepalives,
        "replayed": tally.replayed,
        "resumes": {f"{strategy} {result}": count for (strategy, result), count in tally.resumes.items()},
        "done_added": tally.done_added,
    }


def log_request(
    facts: Mapping[str, object],
    at: float,
    *,
    request_id: str,
    route: str,
    model: str,
    engine: str,
    endpoint: str,
    client: str | None,
    stream: bool,
) -> None:
    """Write the canonical line of one finished request: `stream`, or `request` if the client asked for no stream.

    Args:
      facts: `outcome_facts` of it.
      at: when it ended, in seconds of the wall's clock.
      endpoint: path, with or without its `/v1/`.
      route: pattern of the route that served it.
      model: as the client named it.
      client: id of the client key, None without one.
    """
    endpoint = endpoint.removeprefix("/v1/")
    fields = {"id": request_id, "endpoint": endpoint, "model": model, "route": route, "engine": engine, "client": client, **facts}
    # Most requests have nothing that needs to be made plain: then not each field is looked at. What a fault says may hold anything.
    plain = facts["fault"] is None and is_plain(request_id, endpoint, model, route, client, str(facts["upstream"]))
    log_at(at, "warning" if facts["outcome"] == End.ERROR else "info", "stream" if stream else "request", fields, plain=plain)


def _milliseconds(end: float | None, start: float = 0.0) -> float | None:
    """To a tenth below 100 ms, where it matters; whole above."""
    if end is None or not math.isfinite(value := (end - start) * 1000):
        return None
    return round(value, 1) if value < 100 else round(value)

"""A flight for people: one line per thing that happened, chunks in runs, and a mark where nothing came for long."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from ..log import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .flight_file import FlightFile

#: Gaps of this many milliseconds are drawn: what a reader feels as a pause.
_PAUSE: Final = 500.0
_LONGEST_BAR: Final = 40
#: Milliseconds that one sign of a pause's bar stands for.
_PER_SIGN: Final = 250.0
_SHOWN: Final = 100


def timeline(flight: FlightFile) -> Iterator[str]:
    """The lines."""
    head = flight.head
    facts = ", ".join(
        f"{name} {printable(str(value), 80)}" for name, value in head.items() if name not in ("evenflow", "version", "redacted") and value
    )
    yield f"{facts}; texts {'redacted' if head.get('redacted') else 'as they were'}"
    run: list[tuple[float, int]] = []
    before = 0.0
    for at, kind, what in flight.entries:
        if at - before >= _PAUSE:
            yield from _chunks(run)
            run = []
            yield _pause(at - before)
        before = at
        if kind in ("chunk", "length"):
            run.append((at, len(what.encode()) if isinstance(what, str) else int(what)))
            continue
        yield from _chunks(run)
        run = []
        yield f"{_at(at)}{_told(kind, what)}"
    yield from _chunks(run)
    if flight.end:
        yield f"end: {_listed(flight.end)}"
    else:
        yield "the file ends here; the process did before the stream"


def _listed(facts: Mapping[str, object]) -> str:
    """What is known of it; what is nought or empty is left out."""
    return ", ".join(f"{name} {printable(str(value), _SHOWN)}" for name, value in facts.items() if value)


def _chunks(run: list[tuple[float, int]]) -> Iterator[str]:
    if not run:
        return
    first, last = run[0][0], run[-1][0]
    size = sum(size for _, size in run)
    longest = max((after - before for (before, _), (after, _) in pairwise(run)), default=0.0)
    pace = f", {len(run)} within {last - first:.0f} ms, longest gap {longest:.0f} ms" if len(run) > 1 else ""
    yield f"{_at(first)}{len(run)} chunk{'s' if len(run) > 1 else ''}, {size} bytes{pace}"


def _pause(milliseconds: float) -> str:
    signs = min(_LONGEST_BAR, max(1, round(milliseconds / _PER_SIGN)))
    return f"{'':>12}{'.' * signs} nothing for {milliseconds / 1000:.1f} s"


def _told(kind: str, what: Any) -> str:
    match kind, what:
        case "state", [before, event, after]:
            return f"{before} --{event}--> {after}"
        case "attempt", {"number": number, "upstream": upstream, "resumes": resumes}:
            return f"attempt {number}: {printable(str(upstream))} answers{f', asked to resume ({resumes})' if resumes else ''}"
        case "failed", {"number": 0, "fault": fault}:
            return f"no further attempt: {fault}"
        case "failed", {"number": number, "fault": fault, "upstream": upstream}:
            return f"attempt {number} failed: {fault} of {printable(str(upstream))}"
        case "over", {"number": number, "fault": fault}:
            return f"attempt {number}: its body ended{f' with {fault}' if fault else ''}"
        case "released", {"shape": shape, "held_ms": held, "dropped": dropped}:
            done = f"repaired {shape}{' (dropped)' if dropped else ''}" if shape else "released unchanged"
            return f"{done} after {held:g} ms"
        case "judged", {"lane": lane, "held": held, "threshold": threshold, "readings": [*readings]}:
            told = ", ".join(f"{r['shape']} {r['verdict']} ({r['odds']:+g} of {threshold:+g})" for r in readings)
            return f"choice {lane}{' held' if held else ''}: {told or 'nothing'}"
        case "loop", {"position": position, "length": length}:
            return f"a loop of {length} characters up to character {position}"
    return f"{kind}: {printable(str(what), _SHOWN)}"


def _at(milliseconds: float) -> str:
    return f"{milliseconds:>8.0f} ms "

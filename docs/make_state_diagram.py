"""Draws docs/state-diagram.md from the transition table itself, so that it cannot rot: `python docs/make_state_diagram.py`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from actors.sansio.stream_state import TRANSITIONS  # noqa: E402 - the checkout is not always installed


def diagram() -> str:
    """The page: a Mermaid diagram, what each event means, and the table."""
    lines = [
        "# The states of a stream",
        "",
        "Drawn from `TRANSITIONS` in `actors/sansio/stream_state.py` by `python docs/make_state_diagram.py`. A pair that is missing is a bug in",
        "the caller and raises `IllegalTransition`.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> Initial",
    ]
    events: dict[str, str] = {}
    rows = []
    for state, exits in TRANSITIONS.items():
        for event, after in exits.items():
            before_name, after_name = state.__name__.removeprefix("State"), type(after).__name__.removeprefix("State")
            lines.append(f"    {before_name} --> {after_name}: {event.__name__}")
            rows.append(f"| {before_name} | {event.__name__} | {after_name} |")
            events[event.__name__] = " ".join((event.__doc__ or "").split())
    lines += ["    Terminating --> [*]", "```", "", "| state | means |", "|---|---|"]
    lines += [f"| {state.__name__.removeprefix('State')} | {' '.join((state.__doc__ or '').split())} |" for state in TRANSITIONS]
    lines += ["", "| event | means |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in events.items()]
    lines += ["", "| in | on | goes to |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


if __name__ == "__main__":
    (ROOT / "docs" / "state-diagram.md").write_text(diagram())

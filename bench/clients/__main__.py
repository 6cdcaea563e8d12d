"""`make clients`: real clients end to end, the simulator behind evenflow.

    python -m bench.clients [--only NAME,NAME] [--cases NAME,NAME] [--straight] [--json FILE]

Each client is installed into a cache of its own (~/.cache/evenflow-clients, or below $XDG_CACHE_HOME) at the version that was tried,
then run through every case, one after the other, each with an evenflow of its own. --straight leaves evenflow out: what the client
makes of the same upstream alone. KEEP_CLIENT_OUTPUT=FOLDER keeps what the clients printed.
Exit codes: 0 all as promised (what a client does by itself, and what could not be installed, is told and does not count), 1 not so,
2 nothing could be run, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from bench.processes import CannotStart, first

from .aider import AIDER
from .cases import CASES, Cell
from .install import CannotInstall, installed
from .llm import LLM
from .opencode import OPENCODE
from .qwen_code import QWEN_CODE
from .run import run_client
from .sdks import LANGCHAIN, LITELLM, OPENAI_NODE, OPENAI_PYTHON, VERCEL_AI_SDK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .client import Client

CLIENTS: Final = (OPENAI_PYTHON, OPENAI_NODE, VERCEL_AI_SDK, LANGCHAIN, LITELLM, LLM, AIDER, QWEN_CODE, OPENCODE)


def table(rows: Mapping[Client, Mapping[str, Cell]], cases: Sequence[str]) -> str:
    """All verdicts, as Markdown."""
    lines = [f"| client | version | {' | '.join(cases)} |", f"|---|---|{'---|' * len(cases)}"]
    lines += [f"| {client.name} | {client.version} | {' | '.join(str(cells[case]) for case in cases)} |" for client, cells in rows.items()]
    return "\n".join(lines)


def _row(client: Client, cases: Sequence[str], straight: bool) -> dict[str, Cell]:
    began = time.monotonic()
    try:
        folder, programs = installed(client)
    except CannotInstall as exc:
        return dict.fromkeys(cases, Cell("none", f"not run: {exc}"))

    def tell(case: str) -> None:
        print(f"  {client.name} {client.version}: {case}", file=sys.stderr, flush=True)

    cells: dict[str, Cell] = trio.run(partial(run_client, client, folder, programs, cases=cases, straight=straight, tell=tell))
    told = ", ".join(f"{case} {cell}" for case, cell in cells.items())
    print(f"{client.name} {client.version} in {time.monotonic() - began:.0f} s: {told}", flush=True)
    return cells


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the clients that the command line names. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.clients", description="Real clients, the simulator behind evenflow.")
    names = [client.name for client in CLIENTS]
    parser.add_argument("--only", metavar="NAME,NAME", help="these clients alone: " + ", ".join(names))
    parser.add_argument("--cases", metavar="NAME,NAME", help="these cases alone: " + ", ".join(CASES))
    parser.add_argument("--straight", action="store_true", help="without evenflow in between")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    asked = parser.parse_args(arguments)
    wanted = asked.only.split(",") if asked.only else names
    cases = asked.cases.split(",") if asked.cases else list(CASES)
    if unknown := (set(wanted) - set(names)) | (set(cases) - set(CASES)):
        parser.error(f"no such client or case: {', '.join(sorted(unknown))}")
    rows: dict[Client, dict[str, Cell]] = {}
    code, began = 2, time.monotonic()
    try:
        for client in CLIENTS:
            if client.name in wanted:
                rows[client] = _row(client, cases, asked.straight)
        code = 0
    except* KeyboardInterrupt:
        code = 130
    except* CannotStart as group:
        print(f"clients: {first(group)}", file=sys.stderr)
    if asked.json is not None:
        asked.json.write_text(json.dumps(_as_json(rows), indent=2) + "\n", "utf-8")
    if code:
        return code
    cells = [cell for row in rows.values() for cell in row.values()]
    off = sum(cell.kind == "off" for cell in cells)
    print(f"\n{table(rows, cases)}")
    skipped = sum(all(cell.note.startswith("not run") for cell in row.values()) for row in rows.values())
    verdict = f"{off} cells NOT as promised" if off else "all as promised" if skipped < len(rows) else "nothing was run"
    told = f", {skipped} not run" if 0 < skipped < len(rows) else ""
    print(f"\n{len(rows)} clients in {time.monotonic() - began:.0f} s, {verdict}{told}")
    if skipped == len(rows):
        return 2
    return 1 if off else 0


def _as_json(rows: Mapping[Client, Mapping[str, Cell]]) -> list[dict[str, Any]]:
    return [
        {
            "client": client.name,
            "version": client.version,
            "cells": {case: {"kind": cell.kind, "note": cell.note} for case, cell in cells.items()},
        }
        for client, cells in rows.items()
    ]


if __name__ == "__main__":
    sys.exit(main())

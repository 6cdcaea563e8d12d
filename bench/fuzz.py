"""`make fuzz`: the tests of tests/fuzz with other seeds, round after round, and what they found.

Each round runs every file of that folder in a process of its own, with more examples than `make test` takes. What fails is kept by
hypothesis in .hypothesis and tried first the next time, by `make test` too; it is mended together with a test that names it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "tests" / "fuzz"
#: How pytest marks what it shows of a failure, and where a failure's report begins.
_SHOWN: Final = re.compile(r"E  |  [|+]|FAILED |ERROR ")
#: Lines shown of one failed file.
_MOST: Final = 60


def run(path: Path, seed: int, seconds: float) -> str | None:
    """One file once.

    Returns:
      What pytest said if something failed, "" if nothing did, None if the time was over before.
    """
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "--show-capture=no", f"--hypothesis-seed={seed}", str(path)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | {"HYPOTHESIS_PROFILE": "fuzz"}, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    return "" if done.returncode == 0 else done.stdout + done.stderr


def finding(output: str) -> str:
    """The lines of a failed run that tell what was found."""
    lines = [line for line in output.splitlines() if _SHOWN.match(line)]
    return "\n".join(lines[:_MOST] or output.splitlines()[-_MOST:])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description="Fuzz the parser, the machine and the edge.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first round; the next has the next one")
    parser.add_argument("--only", default="", help="part of the name of the files to run, for example parser")
    options = parser.parse_args(arguments)
    files = [path for path in sorted(FOLDER.glob("test_*.py")) if options.only in path.name]
    if not files:
        parser.error(f"no file of {FOLDER.relative_to(ROOT)} has '{options.only}' in its name")
    until, seed = time.monotonic() + options.minutes * 60, options.seed
    runs, findings = dict.fromkeys(files, 0), dict.fromkeys(files, 0)
    while time.monotonic() < until:
        for path in files:
            output = run(path, seed, max(1.0, until - time.monotonic()))
            if output is None:
                break
            runs[path] += 1
            if output:
                findings[path] += 1
                print(f"\n{path.name}, seed {seed}:\n{finding(output)}", flush=True)
        seed += 1
    for path in files:
        print(f"{path.name:28} {runs[path]:4} runs   {findings[path]} with findings")
    return 1 if any(findings.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

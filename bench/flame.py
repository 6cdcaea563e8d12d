"""`make profile`: where a proxy spends its time under one scenario: a table of functions, and a flame graph.

    python -m bench.flame [--target actors] [--scenario paced-100] [--seconds 10] [--svg FILE] [--stacks FILE]

py-spy samples the process from outside, from the other processor; it is installed into the cache folder. Exit codes: 0 there is a
profile, 2 there is none (where a process may not read another one's memory, a line says what would allow it).
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .flame_plot import flame_graph
from .installs import python_tool, tell
from .native import CannotMeasure, Upstream
from .process_tree import pinned, two_sides
from .scenarios import SCENARIOS, Place
from .targets import TARGETS, launcher, started

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .scenarios import Result

_RATE: Final = 400  # samples a second; more disturbs what is measured
_END_LIMIT: Final = 60.0  # seconds that py-spy has to write its file
_ROWS: Final = 30

Stacks = Counter[tuple[str, ...]]


def profile(target: str, scenario: str, seconds: float) -> tuple[Stacks, Result]:
    """Run one scenario once and sample the target meanwhile; its start and its end are not in it.

    Raises:
      CannotMeasure: py-spy is not to be had, or may not look.
    """
    if launcher(target) is None:
        raise CannotMeasure(f"{target} is no process that could be looked into")
    spy = python_tool("py-spy", "py-spy") / "py-spy"
    proxies, others = two_sides()
    with tempfile.TemporaryDirectory(prefix="evenflow-profile-") as folder, Upstream(others) as upstream:
        stacks = Path(folder) / "stacks.txt"
        with started(target, upstream.port, Path(folder) / "target", proxies) as running:
            command = [
                str(spy),
                "record",
                "--pid",
                str(running.pid),
                "--rate",
                str(_RATE),
                "--threads",
                "--format",
                "raw",
                "--output",
                str(stacks),
            ]
            with _sampled(command, others, stacks):
                result = SCENARIOS[scenario].run(Place(running, upstream, others, seconds))
        # Other threads (the log's, for one) mostly wait, which py-spy cannot tell from work everywhere.
        found: Stacks = Counter()
        for stack, count in _lines(stacks):
            thread, *frames = stack.split(";")
            if "MainThread" in thread and frames:
                found[tuple(frames)] += int(count)
        return found, result


@contextmanager
def _sampled(command: Sequence[str], cores: set[int] | None, output: Path) -> Iterator[None]:
    """Let py-spy look on for the length of a block."""
    with pinned(cores):
        spy = subprocess.Popen([*command, "--duration", "3600"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        spy.send_signal(signal.SIGINT)  # it writes what it has
        said = spy.communicate(timeout=_END_LIMIT)[1].strip()
    if not output.exists():
        raise CannotMeasure(_reason(said))


def _reason(said: str) -> str:
    if "ermission" in said or "not permitted" in said:
        return (
            "py-spy may not look into another process here; what allows it: root, `sysctl kernel.yama.ptrace_scope=0`, "
            "or in a container the capability SYS_PTRACE"
        )
    return f"py-spy gave no profile: {(said.splitlines() or ['it said nothing'])[-1]}"


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text("utf-8", "replace").splitlines():
        stack, _, count = line.rpartition(" ")
        yield stack, count


def table(stacks: Stacks, rows: int, cost: float | None) -> str:
    """Where the time goes: by package, then by function.

    Args:
      cost: CPU of one chunk or request while it was sampled; divided among the rows.
    """
    alone: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    packages: Counter[str] = Counter()
    for stack, count in stacks.items():
        alone[stack[-1]] += count
        packages[_package(stack[-1])] += count
        for function in set(stack):
            whole[function] += count
    total = sum(stacks.values()) or 1
    each = 0.0 if cost is None else cost / total

    def row(name: str, count: int, below: int) -> str:
        return f"{100 * count / total:8.1f}{100 * below / total:8.1f}{count * each:9.3g}{below * each:9.3g}  {name}"

    head = f"{'itself':>8}{'+ below':>8}{'itself':>9}{'+ below':>9}\n{'%':>8}{'%':>8}{'cost':>9}{'cost':>9}"
    return "\n".join(
        [
            f"{total} samples of the main thread",
            head,
            *(row(name, count, count) for name, count in packages.most_common(12)),
            "",
            *(row(name, count, whole[name]) for name, count in alone.most_common(rows)),
            "",
            "by what they and all below them take:",
            *(row(name, alone[name], count) for name, count in whole.most_common(rows)),
        ]
    )


def _package(frame: str) -> str:
    """ "feed (actors/sansio/sse.py)" is of "actors/sansio"; of other people's packages the name is enough."""
    place = frame.rpartition("(")[2].rstrip(")")
    parts = place.split("/")
    if parts[0] in ("actors", "server"):
        return "/".join(parts[:-1])
    return parts[0] if len(parts) > 1 else "standard library"


def by_function(stacks: Stacks) -> Stacks:
    """The same stacks without line numbers: a function is one box however many of its lines were seen."""
    merged: Stacks = Counter()
    for stack, count in stacks.items():
        merged[tuple(_function(frame) for frame in stack)] += count
    return merged


def _function(frame: str) -> str:
    # "feed (actors/sansio/sse.py:120)" -> "feed (actors/sansio/sse.py)"
    name, _, place = frame.rpartition(":")
    return f"{name})" if place.rstrip(")").isdigit() else frame


def _figures(figures: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in figures.items() if value is not None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as asked on the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.flame", description="Where a proxy spends its time under one scenario.")
    parser.add_argument("--target", default="actors", help=f"{', '.join(TARGETS)}, or ENGINE@CHECKOUT [%(default)s]")
    parser.add_argument("--scenario", choices=list(SCENARIOS), default="paced-100", help="[%(default)s]")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the measuring window [%(default)g]")
    parser.add_argument("--rows", type=int, default=_ROWS, help="of the table [%(default)s]")
    parser.add_argument("--svg", type=Path, default=Path("flame.svg"), metavar="FILE", help="the flame graph [%(default)s]")
    parser.add_argument("--stacks", type=Path, metavar="FILE", help="the stacks too, one a line with its count")
    asked = parser.parse_args(arguments)
    if "@" not in asked.target and asked.target not in TARGETS:
        parser.error(f"no target {asked.target}")
    tell(f"{asked.scenario} through {asked.target}")
    try:
        stacks, result = profile(asked.target, asked.scenario, asked.seconds)
    except CannotMeasure as error:
        print(f"profile: {error}", file=sys.stderr)
        return 2
    if asked.stacks is not None:
        asked.stacks.write_text("".join(f"{';'.join(stack)} {count}\n" for stack, count in stacks.most_common()), "utf-8")
    functions = by_function(stacks)
    asked.svg.write_text(flame_graph(functions, f"{asked.target}: {SCENARIOS[asked.scenario].title}"), "utf-8")
    cost = next((value for name, value in result.figures.items() if name.startswith("cpu_") and "_per_" in name), None)
    print(table(functions, asked.rows, cost))
    print(f"while sampled (slower than without): {_figures(result.figures)}")
    print(f"flame graph: {asked.svg}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

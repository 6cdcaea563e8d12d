"""`make bench`: evenflow's engines and their peers, side by side, in one run.

    python -m bench.compare [--scenario NAME,...] [--peers haproxy,naive,litellm,portkey] [--repeats 5] [--seconds 3] [--quick]
                            [--only NAME,...] [--also CHECKOUT] [--json FILE] [--svg FILE] [--markdown FILE]

Every repeat goes through all targets before the next begins, so that what else the machine does touches all of them alike; figures are
medians over the repeats. Exit codes: 0 every stream of evenflow, nginx and the floor came complete; 1 one did not, or evenflow could not
be measured; 2 nothing could be run; 130 Ctrl-C. Whether goals were reached is told and not part of the exit code: on a busy machine it
would be chance.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from server.listeners import raise_descriptor_limit

from .compare_plot import plot
from .compare_table import markdown, table
from .goals import judge
from .installs import tell
from .native import CannotMeasure, Upstream
from .process_tree import pause_tree, two_sides
from .scenarios import SCENARIOS, Place
from .targets import ALWAYS, KEPT, OURS, TARGETS, Running, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .goals import Medians
    from .scenarios import Result, Scenario

_PEERS: Final = tuple(name for name in TARGETS if name not in ALWAYS)
_PACKAGES: Final = ("trio", "httpx", "httptools", "hypercorn", "quart", "quart-trio", "msgspec")


_DISTURBED: Final = 0.15  # processors; a desktop at rest uses less
_QUIET: Final = 20.0  # seconds between two lines of progress where nobody watches a terminal


class _Quiet:
    until = 0.0


_quiet: Final = _Quiet()


class Comparison:
    """The results of all runs so far.

    Args:
      targets: by name, in the order of the table.
      scenarios: by name.
    """

    def __init__(self, targets: Sequence[str], scenarios: Mapping[str, Scenario]) -> None:
        self.targets = list(targets)
        self.scenarios = scenarios
        self.runs: list[tuple[str, str, int, Result]] = []
        self.absent: dict[str, str] = {}
        self.others = 0.0  # processors that whatever else runs on this machine used meanwhile

    def medians(self) -> Medians:
        """The median of each figure over the repeats that gave one; None where fewer than half did."""
        values: dict[str, dict[str, dict[str, list[float | None]]]] = {}
        for scenario, target, _, result in self.runs:
            of_target = values.setdefault(scenario, {}).setdefault(target, defaultdict(list))
            for name, value in result.figures.items():
                of_target[name].append(value)
        return {
            scenario: {target: {name: _median(list_) for name, list_ in figures.items()} for target, figures in by_target.items()}
            for scenario, by_target in values.items()
        }

    def troubles(self) -> list[str]:
        """Everything that did not come whole, for people."""
        told = [
            f"{scenario} / {target}: {result.incomplete} of {result.answers} not whole ({'; '.join(result.troubles)})"
            if result.incomplete
            else f"{scenario} / {target}: {'; '.join(result.troubles)}"
            for scenario, target, _, result in self.runs
            if result.incomplete or result.troubles
        ]
        return [f"{name}: {reason}" for name, reason in self.absent.items()] + told

    def hopeless(self, scenario: str, target: str) -> bool:
        """It could not even begin all the streams of this scenario; asking again would take a minute and say the same."""
        return any(result.overloaded for name, who, _, result in self.runs if (name, who) == (scenario, target))

    @property
    def complete(self) -> bool:
        """Every answer was whole, and every target there; optional peers may break, and nginx may be missing."""
        broken = any(result.incomplete for _, target, _, result in self.runs if target not in _PEERS)
        return not broken and not any(target not in (*_PEERS, "nginx") for target in self.absent)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if len(known) * 2 > len(values) else None


def compare(results: Comparison, *, repeats: int, seconds: float) -> None:
    """Run everything. What there is when it is interrupted stays in `results`.

    Raises:
      CannotMeasure: the harness itself cannot run here.
    """
    proxies, others = two_sides()
    plan = [(repeat, scenario, target) for repeat in range(repeats) for scenario in results.scenarios for target in results.targets]
    began, busy = time.monotonic(), _busy_elsewhere()
    with tempfile.TemporaryDirectory(prefix="evenflow-bench-") as folder, Upstream(others) as upstream, ExitStack() as stack:
        kept = _Kept(stack, upstream.port, Path(folder), proxies)
        for done, (repeat, scenario, target) in enumerate(plan):
            if target in results.absent or results.hopeless(scenario, target):
                continue
            left = f"about {(time.monotonic() - began) / done * (len(plan) - done) / 60:.0f} min left" if done else ""
            _progress(f"{done + 1}/{len(plan)}  repeat {repeat + 1}  {scenario}  {target}  {left}")
            upstream.drain()
            try:
                with (
                    kept.running(target) if target in KEPT else started(target, upstream.port, Path(folder) / str(done), proxies) as running
                ):
                    result = results.scenarios[scenario].run(Place(running, upstream, others, seconds))
            except CannotMeasure as error:
                results.absent[target] = str(error)
                continue
            if result.overloaded:
                kept.end(target)  # what it still has to do would be done under the next scenario
            results.runs.append((scenario, target, repeat, result))
            results.others = max(0.0, _busy_elsewhere() - busy) / (time.monotonic() - began)
    _progress("")


class _Kept:
    """Targets that take long to start: each is started once, and stopped while others are measured."""

    def __init__(self, stack: ExitStack, upstream: int, folder: Path, cores: set[int] | None) -> None:
        self._stack = stack
        self._upstream = upstream
        self._folder = folder
        self._cores = cores
        self._alive: dict[str, tuple[ExitStack, Running]] = {}
        self._starts = 0

    @contextmanager
    def running(self, target: str) -> Iterator[Running]:
        if target not in self._alive:
            self._starts += 1
            own = self._stack.enter_context(ExitStack())
            folder = self._folder / f"{target}-{self._starts}"
            self._alive[target] = own, own.enter_context(started(target, self._upstream, folder, self._cores))
        running = self._alive[target][1]
        pause_tree(running.pid, go_on=True)
        yield running
        if target in self._alive:
            pause_tree(running.pid)

    def end(self, target: str) -> None:
        if target in self._alive:
            self._alive.pop(target)[0].close()


def _busy_elsewhere() -> float:
    """Seconds that the processors have worked, less what this process and the children it has waited for used of them."""
    fields = next(line.split()[1:] for line in _lines("/proc/stat") if line.startswith("cpu "))
    busy = sum(int(field) for place, field in enumerate(fields[:8]) if place not in (3, 4))  # all but idle and iowait
    return busy / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def machine(command: str) -> dict[str, Any]:
    """Where and with what it was measured; `command` is the module that measures."""
    model = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": " ".join(["python", "-m", command, *sys.argv[1:]]),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
    elif text and time.monotonic() >= _quiet.until:
        _quiet.until = time.monotonic() + _QUIET
        tell(text)


def as_json(results: Comparison, where: dict[str, Any]) -> dict[str, Any]:
    """The whole result, for a machine."""
    medians = results.medians()
    return {
        "machine": where | {"others_used_cores": results.others},
        "medians": medians,
        "goals": [
            {"scenario": one.goal.scenario, "figure": one.goal.figure, "goal": one.goal.text(one.limit), "limit": one.limit, **one.verdicts}
            for one in judge(medians, tuple(results.targets))
        ],
        "runs": [
            {"scenario": scenario, "target": target, "repeat": repeat, "answers": result.answers, "incomplete": result.incomplete}
            | {"troubles": result.troubles, "figures": result.figures}
            for scenario, target, repeat, result in results.runs
        ],
        "absent": results.absent,
        "complete": results.complete,
    }


def names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """For argparse: a list of names with commas between; an engine may carry the checkout it is of."""

    def split(text: str) -> list[str]:
        found = [name for name in text.split(",") if name]
        if unknown := [name for name in found if name.partition("@")[0] not in known]:
            raise argparse.ArgumentTypeError(f"no such thing: {', '.join(unknown)}; there are {', '.join(known)}")
        return found

    return split


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description="evenflow's engines and their peers, side by side.")
    parser.add_argument("--scenario", type=names(list(SCENARIOS)), default=list(SCENARIOS), metavar="NAME,...", help=", ".join(SCENARIOS))
    parser.add_argument(
        "--peers", type=names(_PEERS), default=[], metavar="NAME,...", help=f"beside nginx and the floor: {', '.join(_PEERS)}"
    )
    parser.add_argument("--only", type=names(list(TARGETS)), default=None, metavar="NAME,...", help="these targets and no others")
    parser.add_argument(
        "--also", action="append", default=[], metavar="CHECKOUT", help="both engines of another checkout as well: before and after"
    )
    parser.add_argument("--repeats", type=int, default=5, help="[%(default)s]")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measuring window [%(default)g]")
    parser.add_argument("--quick", action="store_true", help="one repeat, windows of a second: whether it runs, not how fast")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="the plot")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the table as docs/performance.md has it")
    return parser.parse_args(arguments)


def measure(results: Comparison, name: str, *, repeats: int, seconds: float) -> int:
    """Run everything, and say on the terminal if it could not be. Returns the exit code."""
    raise_descriptor_limit()
    try:
        compare(results, repeats=repeats, seconds=seconds)
    except CannotMeasure as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted", file=sys.stderr)
        return 130
    for target, reason in results.absent.items() if not results.runs else ():
        print(f"{name}: {target}: {reason}", file=sys.stderr)
    return 2 if not results.runs else 0 if results.complete else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as asked on the command line. Returns the exit code."""
    asked = _arguments(arguments)
    targets = asked.only or [*ALWAYS, *asked.peers]
    targets += [f"{engine}@{Path(tree).resolve()}" for tree in asked.also for engine in OURS]
    repeats, seconds = (1, min(1.0, asked.seconds)) if asked.quick else (asked.repeats, asked.seconds)
    scenarios = {name: SCENARIOS[name] for name in asked.scenario}
    where, results = machine("bench.compare"), Comparison(targets, scenarios)
    code = measure(results, "bench", repeats=repeats, seconds=seconds)
    if not results.runs:
        return code
    if asked.json is not None:
        asked.json.write_text(json.dumps(as_json(results, where), indent=1) + "\n", "utf-8")
    if asked.svg is not None:
        asked.svg.parent.mkdir(parents=True, exist_ok=True)
        asked.svg.write_text(plot(results.medians(), results.targets, where), "utf-8")
    if asked.markdown is not None:
        measured = f"medians of {repeats} interleaved repeats with windows of {seconds:g} s"
        asked.markdown.write_text(markdown(results.medians(), results.targets, where, measured), "utf-8")
    print(table(results.medians(), results.targets, where))
    if results.others > _DISTURBED:
        print(f"! something else used {results.others:.1f} of the processors meanwhile: only ratios within a row mean anything")
    for trouble in results.troubles():
        print(f"! {trouble}")
    print("every stream complete" if results.complete else "NOT every stream complete")
    return code


if __name__ == "__main__":
    sys.exit(main())

"""`make load`: many streams through one proxy process, then clients that leave; judged by what was promised.

    python -m bench.load [--streams 1000] [--chunks 40] [--pace 200] [--closes 100] [--json FILE]

Three processes: `evenflow simulate`, `evenflow serve`, and the clients in this one. Exit codes: 0 every stream came complete and
in order and every close was seen in time, 1 not so, 2 it could not be run, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import trio

from server.listeners import raise_descriptor_limit

from .closes import BUSY, MEDIAN_LIMIT, MOST_LIMIT, NOWHERE, PHASES, Closes, Leavers
from .processes import PROXY, SIMULATOR, Failure, run_load, running, unanswered_address
from .raw_client import Received, judge, post, receive

if TYPE_CHECKING:
    from collections.abc import Sequence


_MARGIN: Final = 60.0  # seconds that all streams together may take longer than an upstream alone would
_PERCENTILES: Final = (50, 90, 99, 100)

#: The defaults are what is measured. The exceptions: nothing drains at the end; the two upstreams that fail on purpose may do so as
#: often as the load wants (retry budget, circuit, connect timer), since not they but leaving them is measured.
_SETTINGS: Final = f"""\
bind = "127.0.0.1:0"
admin_bind = "127.0.0.1:0"
drain = 0.0
[retry]
budget_floor = 1000000
[upstreams.simulator]
base_url = "http://{{simulator}}/v1"
[upstreams.busy]
base_url = "http://{{simulator}}/v1"
breaker = {{{{ mode = "metrics_only" }}}}
[upstreams.nowhere]
base_url = "http://{{nowhere}}/v1"
timers = {{{{ connect = 60.0 }}}}
[[routes]]
model = "{BUSY}"
upstreams = ["busy"]
[[routes]]
model = "{NOWHERE}"
upstreams = ["nowhere"]
[[routes]]
model = "*"
upstreams = ["simulator"]
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for.

    Args:
      pace: milliseconds between the chunks of a stream.
      closes: clients that leave in each phase.
    """

    streams: int
    chunks: int
    pace: float
    closes: int


@dataclass(frozen=True, slots=True)
class Streams:
    """What came of the streams.

    Args:
      seconds: from the first connect to the last byte.
      first_token: percentiles in milliseconds, from a client's connect; over the streams that had one.
      troubles: what happened to those that were not complete.
    """

    complete: int
    lost: int
    reordered: int
    seconds: float
    first_token: dict[str, float]
    troubles: dict[str, int]


@dataclass(frozen=True, slots=True)
class Report:
    """The whole result."""

    plan: Plan
    streams: Streams
    closes: tuple[Closes, ...]
    left_over: int

    @property
    def good(self) -> bool:
        """Everything that was promised."""
        return self.streams.complete == self.plan.streams and all(phase.good for phase in self.closes) and not self.left_over

    def table(self) -> str:
        """For people."""
        plan, streams = self.plan, self.streams
        first = "   ".join(f"{name} {value:,.0f}" for name, value in streams.first_token.items()) or "none"
        lines = [
            f"{plan.streams:,} streams x {plan.chunks} chunks, one each {plan.pace:g} ms, through one process: {streams.seconds:.1f} s",
            f"  complete {streams.complete:,}   lost {streams.lost:,}   reordered {streams.reordered:,}",
            f"  time to first token, ms   {first}",
            *(f"  not complete: {count:,} x {why}" for why, count in streams.troubles.items()),
            f"{plan.closes} clients leave in each phase; ms from the close to its upstream's (< {MEDIAN_LIMIT:g}, <= {MOST_LIMIT:g})",
            f"  {'phase':<24}{'seen':>9}{'median':>9}{'max':>9}   observed in",
        ]
        for phase in self.closes:
            median, most = ("-" if value is None else f"{value:.1f}" for value in (phase.median, phase.most))
            seen = f"{phase.seen}/{phase.closed}"
            lines.append(f"  {phase.phase:<24}{seen:>9}{median:>9}{most:>9}   {phase.observer}{'' if phase.good else '   MISSED'}")
        lines.append(f"left over at the end: {self.left_over}")
        lines.append("all as promised" if self.good else "NOT as promised")
        return "\n".join(lines)


async def run_plan(plan: Plan) -> Report:
    """Start both servers, put the load on, stop both.

    Raises:
      CannotStart: a server did not start.
    """
    with tempfile.TemporaryDirectory(prefix="evenflow-load-") as folder, unanswered_address() as nowhere:
        place = Path(folder)
        simulate = ["simulate", "--bind", "127.0.0.1:0", "--pace", f"{plan.pace:g}"]
        async with running(simulate, place / "simulator.log", SIMULATOR) as (simulator,):
            (place / "evenflow.toml").write_text(_SETTINGS.format(simulator=simulator, nowhere=nowhere), "utf-8")
            serve, log = ["serve", "--config", str(place / "evenflow.toml")], place / "proxy.log"
            async with running(serve, log, PROXY) as (proxy, admin):
                streams = await _streams(plan, proxy)
                async with httpx.AsyncClient(trust_env=False, timeout=30.0) as http:
                    leavers = Leavers(http, proxy=proxy, admin=admin, simulator=simulator, log=log)
                    closes = []
                    await leavers.settle()
                    for phase in PHASES:
                        _progress(f"clients leave: {phase.name}")
                        closes.append(await leavers.leave(phase, plan.closes))
                    _progress("")
                    return Report(plan, streams, tuple(closes), await leavers.left_over())


async def _streams(plan: Plan, proxy: str) -> Streams:
    """All streams at once: they connect together, and the last byte of the slowest ends it."""
    body = {"model": f"count:{plan.chunks}", "stream": True, "messages": [{"role": "user", "content": "count"}]}
    clients = [Received() for _ in range(plan.streams)]
    began = trio.current_time()
    with trio.move_on_after(plan.chunks * plan.pace / 1000 + _MARGIN):
        async with trio.open_nursery() as watching:
            watching.start_soon(_tell_progress, clients)
            async with trio.open_nursery() as nursery:
                for number, client in enumerate(clients):
                    nursery.start_soon(receive, proxy, post(proxy, body, f"load-{number}"), client)
            watching.cancel_scope.cancel()
    seconds = trio.current_time() - began
    _progress("judging")
    verdicts: Counter[str] = Counter()
    troubles: Counter[str] = Counter()
    for client in clients:
        verdict = judge(bytes(client.data), plan.chunks) if client.ended is not None else "lost"
        verdicts[verdict] += 1
        if verdict != "complete":
            troubles[client.trouble or ("not over in time" if client.ended is None else f"{verdict}: {_tail(client.data)}")] += 1
    waits = sorted((client.first_token - client.began) * 1000 for client in clients if client.first_token is not None)
    first_token = {f"p{p}" if p < 100 else "max": round(percentile(waits, p), 1) for p in _PERCENTILES} if waits else {}
    return Streams(
        verdicts["complete"], verdicts["lost"], verdicts["reordered"], round(seconds, 2), first_token, dict(troubles.most_common(5))
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """The nearest rank of sorted values: always one that was measured."""
    return values[max(0, -(-len(values) * percent // 100) - 1)]


def _tail(data: bytearray) -> str:
    """The last event with words in it, as printable text."""
    return ascii(bytes(data[-160:]).decode("utf-8", "replace"))


async def _tell_progress(clients: Sequence[Received]) -> None:
    while True:
        over = sum(client.ended is not None or bool(client.trouble) for client in clients)
        speaking = sum(client.first_token is not None for client in clients)
        _progress(f"{len(clients):,} streams: {speaking:,} have spoken, {over:,} are over")
        await trio.sleep(0.5)


def _progress(text: str) -> None:
    """One line that is overwritten, where somebody watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description="Streams through one proxy process, and clients that leave.")
    parser.add_argument("--streams", type=_positive, default=1000, help="at the same time [%(default)s]")
    parser.add_argument("--chunks", type=_positive, default=40, help="tokens of each stream [%(default)s]")
    parser.add_argument("--pace", type=float, default=200.0, metavar="MS", help="time between two chunks of a stream [%(default)g]")
    parser.add_argument("--closes", type=_positive, default=100, help="clients that leave in each phase [%(default)s]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load as asked on the command line. Returns the exit code."""
    asked = _arguments(arguments)
    plan = Plan(asked.streams, asked.chunks, asked.pace, asked.closes)
    limit, needed = raise_descriptor_limit(), 2 * max(plan.streams, plan.closes) + 200  # the proxy has two sockets per stream
    if 0 < limit < needed:
        print(
            f"load: {needed} open files are needed, {limit} allowed; raise the hard limit (ulimit -Hn) or lower --streams", file=sys.stderr
        )
        return 2
    report = run_load(partial(run_plan, plan))
    if isinstance(report, Failure):
        _progress("")
        print(f"load: {report.why}", file=sys.stderr)
        return report.code
    if asked.json is not None:
        asked.json.write_text(json.dumps(asdict(report) | {"good": report.good}, indent=2) + "\n", "utf-8")
    print(report.table())
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())

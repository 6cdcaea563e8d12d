"""`make soak`: mixed traffic with faults for minutes; at the end everything has to be back where it was (FAULTS row 80).

    python -m bench.soak [--minutes 1] [--rate 20] [--clients 40] [--seed 1] [--json FILE]

Three processes, as in bench.load. What the proxy holds is read from its own /metrics and /status while the traffic runs, and
judged once it has settled: streams, permits, descriptors, connections, memory, promises to clients, tracebacks in its log.
Exit codes: 0 all as promised, 1 not so, 2 it could not be run, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import trio

from server.listeners import raise_descriptor_limit

from .processes import PROXY, SIMULATOR, CannotStart, Failure, run_load, running
from .soak_traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Timers short enough for each of them to strike many times, and long enough for a machine on which others leave little to us. The circuit
#: counts but refuses nothing: with so many faults it would be open most of the time, and a soak of refusals would say nothing about
#: streams. For the same reason retries have no budget.
_SETTINGS: Final = """\
bind = "127.0.0.1:0"
admin_bind = "127.0.0.1:0"
drain = 0.0
[timers]
first_token = 5.0
idle = 4.0
total = 20.0
client_stall = 5.0
keepalive_after = 0.5
keepalive_interval = 0.5
[retry]
backoff_base = 0.05
backoff_cap = 0.2
budget_floor = 1000000
[breaker]
mode = "metrics_only"
[upstreams.simulator]
base_url = "http://{simulator}/v1"
"""

_SETTLE: Final = 15.0  # seconds after the last answer until nothing may be left of any
_POLL: Final = 0.1
_SAMPLES: Final = 40  # ten for each quarter of a run, more in one of more than 40 minutes
_LINES: Final = 10
_MINUTE: Final = 60.0
#: Descriptors beyond the base and the idle upstream connections: the admin listener's own connections come and go.
_FEW: Final = 8
#: Growth of memory between the second and the last quarter that is no leak: a share, and megabytes of allocator's noise.
_SHARE: Final = 1.1
_NOISE: Final = 20.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the proxy held at one moment.

    Args:
      seconds: since the traffic began.
      memory: resident megabytes.
      cpu: seconds of processor time since its start.
      permits: of the circuits, granted and not given back.
      held: requests that the admission counts, waiting or served.
      upstream: open connections to upstreams, idle ones included.
      asked_of_upstream: requests the simulator still works at.
    """

    seconds: float
    memory: float
    cpu: float
    descriptors: int
    streams: int
    permits: int
    held: int
    upstream: int
    asked_of_upstream: int

    @property
    def quiet(self) -> bool:
        """Nothing runs: what connections are open are idle."""
        return not (self.streams or self.permits or self.held or self.asked_of_upstream)


@dataclass(frozen=True, slots=True)
class Report:
    """The whole result.

    Args:
      base, end: before the traffic, and when it had settled.
      broken: promises to clients that were not kept, and how often.
      tracebacks: lines of the proxy's log that hold one.
    """

    minutes: float
    asked: int
    kept: int
    broken: dict[str, int]
    base: Sample
    samples: tuple[Sample, ...]
    end: Sample
    tracebacks: int

    @property
    def memory(self) -> tuple[float, float]:
        """Mean megabytes in the second quarter and in the last one."""
        quarter = max(1, len(self.samples) // 4)
        early = self.samples[quarter : 2 * quarter] or self.samples
        return statistics.fmean(s.memory for s in early), statistics.fmean(s.memory for s in self.samples[-quarter:])

    @property
    def faults(self) -> tuple[str, ...]:
        """What is not as promised, in one line each."""
        end, (early, late) = self.end, self.memory
        allowed = self.base.descriptors + end.upstream + _FEW
        checks = [
            (end.streams == 0, f"streams_active {end.streams}, not 0"),
            (end.permits == 0, f"permits_out {end.permits}, not 0"),
            (end.held == 0, f"{end.held} requests still counted by the admission"),
            (end.asked_of_upstream == 0, f"{end.asked_of_upstream} upstream connections are not idle"),
            (end.descriptors <= allowed, f"{end.descriptors} descriptors, at most {allowed} expected"),
            (late <= early * _SHARE + _NOISE, f"memory grew from {early:.1f} to {late:.1f} MB between the second and the last quarter"),
            (self.tracebacks == 0, f"{self.tracebacks} tracebacks in the log"),
            (self.asked > 0, "no request was made"),
        ]
        lines = [text for good, text in checks if not good]
        return (*lines, *(f"{count} x {what}" for what, count in self.broken.items()))

    def table(self) -> str:
        """For people."""
        base, end, (early, late) = self.base, self.end, self.memory
        seconds = self.samples[-1].seconds
        lines = [
            f"{self.minutes:g} minutes: {self.asked:,} requests, {self.kept:,} as promised; "
            f"{(self.samples[-1].cpu - base.cpu) / seconds:.0%} of a processor",
            f"  {'':<24}{'base':>9}{'end':>9}",
            f"  {'memory, MB':<24}{base.memory:>9.1f}{end.memory:>9.1f}   second quarter {early:.1f}, last {late:.1f}",
            f"  {'descriptors':<24}{base.descriptors:>9}{end.descriptors:>9}   {end.upstream} of them idle upstream connections",
            f"  {'streams, permits':<24}{f'{base.streams}, {base.permits}':>9}{f'{end.streams}, {end.permits}':>9}",
            *(f"  OFF: {fault}" for fault in self.faults),
            "NOT as promised" if self.faults else "all as promised",
        ]
        return "\n".join(lines)


class _Gauge:
    """Asks both servers what they hold."""

    def __init__(self, http: httpx.AsyncClient, *, admin: str, simulator: str) -> None:
        self._http = http
        self._admin = admin
        self._simulator = simulator
        self._began = trio.current_time()

    async def sample(self) -> Sample:
        metrics = (await self._http.get(f"http://{self._admin}/metrics")).text
        status = (await self._http.get(f"http://{self._admin}/status")).json()
        report = (await self._http.get(f"http://{self._simulator}/_simulator/report")).json()
        return Sample(
            seconds=round(trio.current_time() - self._began, 2),
            memory=round(_value(metrics, "process_resident_memory_bytes") / 1e6, 2),
            cpu=_value(metrics, "process_cpu_seconds_total"),
            descriptors=int(_value(metrics, "process_open_fds")),
            streams=int(_value(metrics, "evenflow_streams_active")),
            permits=sum(int(upstream["permits_out"]) for upstream in status["upstreams"].values()),
            held=int(status["admission"]["streams"]) + int(status["admission"]["waiting"]),
            upstream=int(_value(metrics, "evenflow_open_upstream_connections")),
            asked_of_upstream=int(report["active"]),
        )

    async def settled(self) -> Sample:
        """The first sample in which nothing runs, or the last one in time."""
        deadline = trio.current_time() + _SETTLE
        while True:
            sample = await self.sample()
            if sample.quiet or trio.current_time() > deadline:
                return sample
            await trio.sleep(_POLL)


def _value(metrics: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)", metrics, re.MULTILINE)
    if found is None:
        raise CannotStart(f"the proxy does not tell {name} on this system")
    return float(found[1])


async def run_soak(minutes: float, *, rate: float, clients: int, seed: int) -> Report:
    """Start both servers, let the traffic run, wait until it has settled, stop both.

    Raises:
      CannotStart: a server did not start.
      httpx.HTTPError: one stopped answering.
    """
    with tempfile.TemporaryDirectory(prefix="evenflow-soak-") as folder:
        place = Path(folder)
        async with running(["simulate", "--bind", "127.0.0.1:0"], place / "simulator.log", SIMULATOR) as (simulator,):
            (place / "evenflow.toml").write_text(_SETTINGS.format(simulator=simulator), "utf-8")
            serve, log = ["serve", "--config", str(place / "evenflow.toml")], place / "proxy.log"
            async with running(serve, log, PROXY) as (proxy, admin), httpx.AsyncClient(trust_env=False, timeout=30.0) as http:
                gauge = _Gauge(http, admin=admin, simulator=simulator)
                base = await gauge.sample()
                traffic = Traffic(proxy, rate=rate, most=clients, chance=random.Random(seed))
                samples: list[Sample] = []
                async with trio.open_nursery() as watching:
                    watching.start_soon(_watch, gauge, traffic, minutes * _MINUTE, samples)
                    await traffic.run(minutes * _MINUTE)
                    watching.cancel_scope.cancel()
                end = await gauge.settled()
                tally = traffic.tally
                return Report(
                    minutes,
                    tally.asked,
                    tally.kept,
                    dict(tally.broken.most_common()),
                    base,
                    tuple(samples) or (end,),
                    end,
                    _tracebacks(log),
                )


async def _watch(gauge: _Gauge, traffic: Traffic, seconds: float, samples: list[Sample]) -> None:
    told = 0.0
    while True:
        await trio.sleep(min(seconds / _SAMPLES, _MINUTE))
        sample = await gauge.sample()
        if sample.seconds > seconds:
            continue  # the last answers run out: less traffic, which would make the last quarter look better than it was
        samples.append(sample)
        tally = traffic.tally
        if sample.seconds - told >= min(seconds / _LINES, _MINUTE) * 0.99:  # a timer's jitter must not cost a line
            told = sample.seconds
            print(
                f"{sample.seconds:7.0f} s  {sample.memory:6.1f} MB  {sample.descriptors:4} descriptors  {sample.streams:3} streams  "
                f"{sample.permits:3} permits  {sample.upstream:3} upstream  {tally.asked:,} asked  {tally.broken.total()} broken",
                flush=True,
            )


def _tracebacks(log: Path) -> int:
    with log.open("rb") as lines:
        return sum(b"Traceback (most recent call last)" in line for line in lines)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="Mixed traffic with faults, for minutes.")
    parser.add_argument("--minutes", type=_positive, default=1.0, help="for how long [%(default)g]")
    parser.add_argument("--rate", type=_positive, default=20.0, help="requests per second, on average [%(default)g]")
    parser.add_argument("--clients", type=int, default=40, help="requests at the same time, at most [%(default)s]")
    parser.add_argument("--seed", type=int, default=1, help="of the choice among the kinds of requests [%(default)s]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    return parser.parse_args(arguments)


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("more than 0")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak as asked on the command line. Returns the exit code."""
    asked = _arguments(arguments)
    raise_descriptor_limit()
    report = run_load(partial(run_soak, asked.minutes, rate=asked.rate, clients=asked.clients, seed=asked.seed))
    if isinstance(report, Failure):
        print(f"soak: {report.why}", file=sys.stderr)
        return report.code
    if asked.json is not None:
        asked.json.write_text(json.dumps(asdict(report) | {"faults": report.faults}, indent=2) + "\n", "utf-8")
    print(report.table())
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())

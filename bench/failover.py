"""`make failover`: the sixteen classical faults of an upstream at their real speed, against docs/examples/failover.toml as it is shipped.

    python -m bench.failover [--only NAME,NAME] [--json FILE]

For each fault one `evenflow serve` of its own, in front of two simulators that stand for the file's `local` and `hosted`; all of them at
the same time, since most of the time nothing happens. Nothing of the file is changed but the upstreams' addresses, which stand in the
environment. Every fault is met by one caller who asks once, but for the flap: there somebody asks all the time.
Exit codes: 0 all as promised, 1 not so, 2 it could not be run, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import trio

from server.listeners import raise_descriptor_limit
from server.simulator import Scenario, ScenarioStep, Simulator, open_simulator

from .processes import PROXY, Failure, run_load, running

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EXAMPLE: Final = Path(__file__).resolve().parent.parent / "docs" / "examples" / "failover.toml"

_RESUMED: Final = re.compile(r"^: evenflow resumed after \S+ on upstream '(\w+)' (\(\w+\))$", re.MULTILINE)
_PACE: Final = 0.02  # seconds between two events, so that an answer takes a second
#: Seconds: the caller's patience, more than all retries with all timers of the file can take.
_PATIENCE: Final = 150.0
_STARTS: Final = 2  # processes that start at the same time
_AGAIN: Final = 30.0  # seconds after a flap within which the first upstream is used again: the promise


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller got.

    Args:
      done: `[DONE]` came, once and last.
      code: of the error it was told, "" if none.
      resumed: by whom and how it was taken up, as a comment line says; "" if it was not.
    """

    status: int
    text: str
    done: bool
    finished: tuple[str, ...]
    code: str
    resumed: str
    tokens: int
    upstream: str
    attempts: int

    @classmethod
    def of(cls, response: httpx.Response) -> Answer:
        """Read a response to its end."""
        header = response.headers.get
        upstream, attempts = header("x-evenflow-upstream", ""), int(header("x-evenflow-attempts", "0"))
        if not header("content-type", "").startswith("text/event-stream"):
            error = response.json().get("error", {})
            return cls(response.status_code, "", False, (), str(error.get("code")), "", 0, upstream, attempts)
        data = [block[6:] for block in response.text.split("\n\n") if block.startswith("data: ")]
        events: list[Any] = [json.loads(event) for event in data if event != "[DONE]"]
        choices = [choice for event in events for choice in event.get("choices", ())]
        return cls(
            response.status_code,
            "".join(choice["delta"].get("content") or "" for choice in choices),
            data.count("[DONE]") == 1 and data[-1] == "[DONE]",
            tuple(choice["finish_reason"] for choice in choices if choice["finish_reason"]),
            next((str(event["error"].get("code")) for event in events if "error" in event), ""),
            " ".join(resumed.groups()) if (resumed := _RESUMED.search(response.text)) else "",
            next((event["usage"]["completion_tokens"] for event in reversed(events) if event.get("usage")), 0),
            upstream,
            attempts,
        )

    def verdict(self, right: str) -> str:
        """In one word or two; "complete" is the only good one for an answer."""
        if self.code:
            return f"error {self.status} {self.code}"
        if self.text == right and self.done and self.finished == ("stop",):
            return "complete"
        return "wrong, and looks complete" if self.done else "truncated"


@dataclass(frozen=True, slots=True)
class Result:
    """What one fault came to.

    Args:
      got: the caller's verdict.
      seconds: until the end of its answer.
      local, hosted: requests that each upstream got.
      note: what else there is to say.
      faults: what is not as promised.
    """

    fault: str
    got: str
    seconds: float
    local: int
    hosted: int
    note: str = ""
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One classical fault.

    Args:
      local: what the first upstream does, so many `times` (0: always), and well afterwards.
      hosted: what the second one does.
      got: what the caller has to get.
      check: further promises: what is wrong with the answer, the log's line and the counts of both upstreams.
    """

    name: str
    local: str
    times: int = 0
    hosted: str = "ok"
    got: str = "complete"
    check: Callable[[Answer, dict[str, Any], int, int], list[str]] = lambda *_: []


def _silent(answer: Answer, line: dict[str, Any], local: int, hosted: int) -> list[str]:
    return [f"a silent upstream was asked {local} times"] if local != 1 else []


def _own_error(answer: Answer, line: dict[str, Any], local: int, hosted: int) -> list[str]:
    return [] if (answer.status, hosted) == (400, 0) else [f"status {answer.status}, the second upstream was asked {hosted} times"]


def _aligned(answer: Answer, line: dict[str, Any], local: int, hosted: int) -> list[str]:
    joined = sum(count for name, count in line["resumes"].items() if name.startswith("align") and name.endswith("joined"))
    return (
        []
        if answer.resumed and joined == 1 and hosted == 1
        else [f"resumes {line['resumes']}, the second upstream was asked {hosted} times"]
    )


def _accounts(answer: Answer, line: dict[str, Any], local: int, hosted: int) -> list[str]:
    told = (answer.upstream, answer.attempts, line["upstream"], line["attempts"], line["outcome"])
    wanted = ("hosted", local + hosted, "hosted", local + hosted, "done")
    wrong = [] if told == wanted else [f"told {told}, not {wanted}"]
    return wrong if answer.tokens else [*wrong, "the caller got no usage"]


CASES: Final = (
    Case("429 without Retry-After", "http-429", 1),
    Case("429 with Retry-After", "http-429:retry_after=2", 1),
    Case("500 once", "http-500", 1),
    Case("503 always", "http-503"),
    Case("reset before headers", "reset-before-headers"),
    Case("silence", "silence", check=_silent),
    Case("slow first token of 20 s", "slow-first-token:seconds=20"),
    Case("cut mid-answer", "cut:after=20"),
    Case("stall of 30 s", "stall:after=20,seconds=30.5"),  # of 30 s exactly, chance would say whether the timer or the upstream is first
    Case("malformed chunk", "torn-chunk:after=20"),
    Case("missing [DONE]", "no-done"),
    Case("context length", "context-length"),
    Case("content filter", "content-filter", got="error 400 content_filter", check=_own_error),
    Case("fallback without prefix", "cut:after=20", hosted="no-prefix", check=_aligned),
    Case("flapping for 60 s", "flap:period=5,lasts=60"),
    Case("accounting after failover", "http-503", check=_accounts),
)


class _Running:
    """One case's proxy and its two upstreams."""

    def __init__(self, address: str, log: Path, local: Simulator, hosted: Simulator, http: httpx.AsyncClient) -> None:
        self._url = f"http://{address}/v1/chat/completions"
        self._log = log
        self._upstreams = (local, hosted)
        self._http = http

    async def ask(self) -> Answer:
        body = {
            "model": "coder",
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": "Tell me about the river."}],
        }
        with trio.fail_after(_PATIENCE):
            return Answer.of(await self._http.post(self._url, json=body))

    def line(self) -> dict[str, Any]:
        """The log's line about the last request."""
        lines = [json.loads(text) for text in self._log.read_text("utf-8").splitlines() if text.startswith("{")]
        found: dict[str, Any] = [line for line in lines if line["event"] == "stream"][-1]
        return found

    def asked(self) -> tuple[int, int]:
        local, hosted = self._upstreams
        return local.observer.requests, hosted.observer.requests

    def begin(self) -> None:
        """Faults that pass or flap begin now, not when the process was started."""
        for upstream in self._upstreams:
            upstream.reset()


async def _meet(case: Case, proxy: _Running, right: str) -> Result:
    proxy.begin()
    began = trio.current_time()
    if case.local.startswith("flap"):
        return await _meet_flap(case, proxy, right)
    answer = await proxy.ask()
    seconds = trio.current_time() - began
    await trio.sleep(0.2)  # the log is written by a thread of the proxy's
    local, hosted = proxy.asked()
    line, got = proxy.line(), answer.verdict(right)
    faults = [] if got == case.got else [f"{got}, not {case.got}"]
    note = f"taken up by {answer.resumed}" if answer.resumed else f"from {answer.upstream}" if not answer.code else ""
    if line.get("hedged"):
        note += ", hedged"
    return Result(case.name, got, round(seconds, 1), local, hosted, note, (*faults, *case.check(answer, line, local, hosted)))


async def _meet_flap(case: Case, proxy: _Running, right: str) -> Result:
    """Somebody asks all the time; afterwards until the first upstream answers again."""
    began, lasts = trio.current_time(), float(case.local.rpartition("=")[2])
    verdicts: list[str] = []
    served: set[str] = set()
    while trio.current_time() < began + lasts:
        answer = await proxy.ask()
        verdicts.append(answer.verdict(right))
        served.add(answer.upstream)
    again = began + lasts
    while trio.current_time() < began + lasts + 2 * _AGAIN:
        asked = trio.current_time()
        answer = await proxy.ask()
        verdicts.append(answer.verdict(right))
        if answer.upstream == "local":
            again = asked
            break
    else:
        again = float("inf")
    bad = [verdict for verdict in verdicts if verdict != case.got]
    faults = [f"{len(bad)} of {len(verdicts)} answers: {bad[0]}"] if bad else []
    if again - began - lasts > _AGAIN:
        faults.append(f"the first upstream was not used again within {_AGAIN:g} s")
    if served != {"local", "hosted"}:
        faults.append(f"served by {sorted(served)} alone: there was no flap")
    note = f"{len(verdicts)} answers; local again {max(0.0, again - began - lasts):.1f} s after it"
    local, hosted = proxy.asked()
    return Result(case.name, bad[0] if bad else case.got, round(trio.current_time() - began, 1), local, hosted, note, tuple(faults))


async def _run_case(case: Case, right: str, place: Path, starts: trio.CapacityLimiter, results: dict[str, Result]) -> None:
    log = place / f"{re.sub(r'[^a-z0-9]+', '-', case.name)}.log"
    async with AsyncExitStack() as stack:
        steps = (ScenarioStep(case.local, times=case.times), ScenarioStep("ok"))
        local = await stack.enter_async_context(open_simulator(pace=_PACE, scenario=Scenario(steps)))
        hosted = await stack.enter_async_context(open_simulator(pace=_PACE, scenario=Scenario((ScenarioStep(case.hosted),))))
        variables = {
            "OPENROUTER_API_KEY": "sk-example",
            "EVENFLOW_UPSTREAMS__LOCAL__BASE_URL": local.base_url,
            "EVENFLOW_UPSTREAMS__HOSTED__BASE_URL": hosted.base_url,
        }
        serve = ["serve", "--config", str(EXAMPLE), "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0"]
        async with starts:
            address, _ = await stack.enter_async_context(running(serve, log, PROXY, variables=variables))
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=None))
        result = await _meet(case, _Running(address, log, local, hosted, http), right)
    results[case.name] = result
    print(row(result), flush=True)


async def run_cases(cases: Sequence[Case]) -> tuple[Result, ...]:
    """Run some faults, all at the same time; their results in the order of `cases`.

    Raises:
      CannotStart, in a group: a proxy did not start.
    """
    results: dict[str, Result] = {}
    async with open_simulator(pace=0.0) as good, httpx.AsyncClient(trust_env=False) as http:
        body = {"model": "ok", "stream": True, "messages": [{"role": "user", "content": "Tell me about the river."}]}
        right = Answer.of(await http.post(f"{good.base_url}/chat/completions", json=body)).text
    with tempfile.TemporaryDirectory(prefix="evenflow-failover-") as folder:
        async with trio.open_nursery() as nursery:
            starts = trio.CapacityLimiter(_STARTS)
            for case in cases:
                nursery.start_soon(_run_case, case, right, Path(folder), starts, results)
    return tuple(results[case.name] for case in cases)


HEAD: Final = "| fault of the first upstream | the caller got | after, s | first asked | second asked | |\n|---|---|---:|---:|---:|---|"


def row(result: Result) -> str:
    """One line of the table."""
    note = "; ".join([result.note, *(f"OFF: {fault}" for fault in result.faults)])
    return f"| {result.fault} | {result.got} | {result.seconds:.1f} | {result.local} | {result.hosted} | {note} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the faults that the command line names. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.failover", description="Sixteen faults of an upstream, at their real speed.")
    parser.add_argument("--only", metavar="NAME,NAME", help="these faults alone: " + ", ".join(case.name for case in CASES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    asked = parser.parse_args(arguments)
    wanted = asked.only.split(",") if asked.only else [case.name for case in CASES]
    if unknown := set(wanted) - {case.name for case in CASES}:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    raise_descriptor_limit()
    began = time.monotonic()
    results = run_load(partial(run_cases, [case for case in CASES if case.name in wanted]))
    if isinstance(results, Failure):
        print(f"failover: {results.why}", file=sys.stderr)
        return results.code
    if asked.json is not None:
        asked.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n", "utf-8")
    off = sum(bool(result.faults) for result in results)
    print(f"\n{HEAD}")
    print(*(row(result) for result in results), sep="\n")
    print(f"\n{len(results)} faults in {time.monotonic() - began:.0f} s, {f'{off} NOT as promised' if off else 'all as promised'}")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())

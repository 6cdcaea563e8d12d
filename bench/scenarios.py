"""The scenarios of `make bench`: what is asked of a target, and which figures come of it.

A scenario knows nothing of the target but its port, its processes and its extra headers. Paced and flooding streams have no end of their
own: the upstream ends them when the measuring window is over, so that each can be judged for completeness and a slow target is not
handed a shorter task.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .native import Clients
from .process_tree import cpu_ns, memory_kb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .native import Figures, Upstream
    from .targets import Running

_OPEN_LIMIT: Final = 60.0  # seconds until all streams of a scenario have had their first event; the naive one needs ten
_END_LIMIT: Final = 40.0  # seconds that what was sent has to arrive in, after the upstream's end; a flood leaves megabytes in every socket
_SETTLE: Final = 0.5
_CALM: Final = 2.0  # milliseconds; of an event's delay
_CALM_TRIES: Final = 6
_SEEN_LIMIT: Final = 3.0  # seconds within which an upstream should see the last of the clients leave
#: Memory that a handful of paced streams, connections and caches need does not belong to any stream: so many are served before.
_WARM: Final = 60
_MANY: Final = 50


@dataclass(slots=True)
class Result:
    """What one run of one scenario against one target gave.

    Args:
      figures: by name; None where it could not be had (nothing was seen, nothing arrived).
      answers: asked for.
      incomplete: answers that were not whole.
      troubles: the same in words.
      overloaded: not even all streams could be opened in time; asking again takes as long and says the same.
    """

    figures: dict[str, float | None] = field(default_factory=dict)
    answers: int = 0
    incomplete: int = 0
    troubles: list[str] = field(default_factory=list)
    overloaded: bool = False

    def await_open(self, clients: Clients, count: int) -> None:
        """Wait until all these streams have begun, or it is clear that they do not."""
        if not clients.ready(_OPEN_LIMIT):
            self.overloaded = True
            self.troubles.append(f"not all of {count} streams had begun after {_OPEN_LIMIT:g} s")

    def judge(self, end: Figures) -> None:
        """Take in how some answers ended."""
        self.answers += sum(end.ends.values())
        self.incomplete += end.incomplete
        if end.incomplete:
            self.troubles.append(end.troubles)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a scenario runs.

    Args:
      cores: processors for the clients; None: any.
      seconds: length of a measuring window.
    """

    target: Running
    upstream: Upstream
    cores: set[int] | None
    seconds: float

    def clients(self, what: str, count: int, spec: str, *options: str) -> Clients:
        """Start clients of this target."""
        headers = [f"header={header}" for header in self.target.headers]
        return Clients(self.target.port, what, count, spec, *options, *headers, cores=self.cores)

    def cpu(self) -> int:
        """CPU time of the target so far, ns."""
        return cpu_ns(self.target.pid) if self.target.pid else 0

    def memory(self) -> int:
        """Resident memory of the target, KB."""
        return memory_kb(self.target.pid) if self.target.pid else 0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that is asked of a target.

    Args:
      title: for the table.
      run: measures it once.
      figures: those it gives, in the order of the table, with their units.
    """

    title: str
    run: Callable[[Place], Result]
    figures: Mapping[str, str]


def _paced(streams: int, each_second: float) -> Callable[[Place], Result]:
    def run(place: Place) -> Result:
        return _window(place, streams, f"us={1e6 / each_second:.0f}", streams * each_second)

    return run


def _window(place: Place, streams: int, spec: str, offered: float | None) -> Result:
    """Open streams, look at them for a while, let them end."""
    result = Result()
    _warm(place)
    before = place.memory()
    with place.clients("hold", streams, spec) as clients:
        result.await_open(clients, streams)
        if offered:
            _calm_down(clients)
        else:
            time.sleep(_SETTLE)  # a flood is never calm: what is in the sockets' buffers is always old
        used = place.cpu()
        began = clients.mark()
        time.sleep(place.seconds)
        ended = clients.mark()
        used = place.cpu() - used
        memory = place.memory() - before
        place.upstream.stop()
        result.judge(clients.end(_END_LIMIT))
    seconds = (ended.at - began.at) / 1e9
    if seconds <= 0:
        return result  # all were over before the window began: it says why
    delay = ended.delay
    result.figures = {
        "cpu_us_per_chunk": used / 1000 / ended.events if ended.events else None,
        "cpu_share": used / 1e9 / seconds,
        "chunks_per_second": ended.events / seconds,
        "delivered": ended.events / seconds / offered if offered else None,
        "delay_p50_ms": delay.p50 if delay.count else None,
        "delay_p99_ms": delay.p99 if delay.count else None,
        "delay_max_ms": delay.max if delay.count else None,
        "kb_per_stream": memory / streams,
    }
    return result


def _calm_down(clients: Clients) -> None:
    """Opening many streams leaves a backlog; what is measured begins when it is gone, or does not go."""
    for _ in range(_CALM_TRIES):
        time.sleep(_SETTLE)
        if clients.mark().delay.p50 < _CALM:
            return


def _warm(place: Place) -> None:
    """Code paths, caches, upstream connections: a few answers before anything is counted."""
    with place.clients("loop", _WARM, "us=500 n=3", "conns=8") as clients:
        clients.end(_OPEN_LIMIT)


def _flood(place: Place) -> Result:
    return _window(place, 32, "us=0", None)


def short(open_beside: int) -> Callable[[Place], Result]:
    """3-chunk streams, each on a connection of its own, eight at a time; perhaps beside many that are open and silent."""

    def run(place: Place) -> Result:
        result = Result()
        with ExitStack() as stack:
            _warm(place)
            before = place.memory()
            others = _beside(place, open_beside, stack, result)
            memory, idle = place.memory() - before, _idle_cpu(place) if open_beside else 0.0
            with place.clients("loop", _answers(place, 150), "us=2000 n=3", "conns=8") as clients:
                used, began = place.cpu(), time.monotonic()
                end = clients.end(_OPEN_LIMIT)
                used, seconds = place.cpu() - used, time.monotonic() - began
            result.judge(end)
            if others is not None:
                place.upstream.stop()
                result.judge(others.end(_END_LIMIT))
        if not (done := end.ends["complete"]):
            return result
        result.figures = {
            "cpu_ms_per_stream": max(0.0, used - idle * seconds) / 1e6 / done,
            "streams_per_second": done / seconds,
            "first_p50_ms": end.first.p50,
            "first_p99_ms": end.first.p99,
            # A few streams say nothing about memory: the allocator takes it in larger pieces.
            "kb_per_stream": memory / open_beside if open_beside >= _MANY else None,
        }
        return result

    return run


def _beside(place: Place, count: int, stack: ExitStack, result: Result) -> Clients | None:
    if not count:
        return None
    beside = stack.enter_context(place.clients("hold", count, "us=0 silent=1"))
    result.await_open(beside, count)
    time.sleep(_SETTLE)
    return beside


def _idle_cpu(place: Place) -> float:
    """CPU, ns a second, that the open streams cost without any request."""
    used = place.cpu()
    time.sleep(_SETTLE)
    return (place.cpu() - used) / _SETTLE


def _answers(place: Place, each_second: float) -> int:
    return max(20, int(each_second * place.seconds))


def _first(place: Place) -> Result:
    """One stream at a time: the delay of a first token when nothing else goes on."""
    result = Result()
    _warm(place)
    with place.clients("loop", _answers(place, 40), "us=5000 n=3", "conns=1") as clients:
        end = clients.end(_OPEN_LIMIT)
    result.judge(end)
    if end.first.count:
        result.figures = {"first_p50_ms": end.first.p50, "first_p99_ms": end.first.p99}
    return result


def _json(*options: str) -> Callable[[Place], Result]:
    """Answers that are not streamed."""

    def run(place: Place) -> Result:
        result = Result()
        with place.clients("loop", _WARM, "json", "conns=8", *options) as clients:
            clients.end(_OPEN_LIMIT)
        with place.clients("loop", _answers(place, 400), "json", "conns=8", *options) as clients:
            used, began = place.cpu(), time.monotonic()
            end = clients.end(_OPEN_LIMIT)
            used, seconds = place.cpu() - used, time.monotonic() - began
        result.judge(end)
        if done := end.ends["complete"]:
            result.figures = {
                "cpu_us_per_request": used / 1000 / done,
                "requests_per_second": done / seconds,
                "whole_p50_ms": end.whole.p50,
            }
        return result

    return run


def _leave(spec: str) -> Callable[[Place], Result]:
    """Clients that close in the middle, one after another: when does the upstream see it?"""

    def run(place: Place) -> Result:
        result = Result()
        _warm(place)
        count = 100
        with place.clients("hold", count, spec) as clients:
            result.await_open(clients, count)
            time.sleep(_SETTLE)
            place.upstream.drain()
            clients.leave()
            result.judge(clients.end(_END_LIMIT))
            seen = place.upstream.closes(count, _SEEN_LIMIT)
            place.upstream.stop()  # those whose client has left unnoticed
        waits = sorted((seen[stream] - at) / 1e6 for stream, at in clients.left.items() if stream in seen)
        result.figures = {
            "seen": len(waits) / count,
            # An answer that nobody saw left is the worst of all: the median is none if half of them were never seen.
            "seen_p50_ms": waits[count // 2] if len(waits) > count // 2 else None,
            "seen_max_ms": waits[-1] if len(waits) == count else None,
        }
        return result

    return run


def _slow(place: Place) -> Result:
    """Clients that read 20 kB/s of a flood: what does the target hoard for them?"""
    result, count = Result(), 20
    _warm(place)
    with place.clients("hold", count, "us=0", "rate=20000") as clients:
        result.await_open(clients, count)
        time.sleep(_SETTLE)
        before = place.memory()
        time.sleep(place.seconds)
        grown = place.memory() - before
        clients.mark()
        clients.leave()
        result.judge(clients.end(_END_LIMIT))
        place.upstream.closes(count, _SETTLE)
        place.upstream.stop()
    result.figures = {"growth_mb": grown / 1024}
    return result


_PACED: Final = {
    "cpu_us_per_chunk": "CPU us per chunk",
    "delay_p50_ms": "chunk latency p50, ms",
    "delay_p99_ms": "chunk latency p99, ms",
    "delivered": "share of offered chunks delivered",
    "cpu_share": "share of its core",
}
_THOUSAND: Final = _PACED | {"kb_per_stream": "KB per stream"}
_JSON: Final = {"cpu_us_per_request": "CPU us per request", "requests_per_second": "requests/s"}
_LEAVE: Final = {
    "seen_p50_ms": "upstream sees the client leave, p50 ms",
    "seen_max_ms": "the last of them, ms",
    "seen": "share seen within 3 s",
}

SCENARIOS: Final[Mapping[str, Scenario]] = {
    "paced-20": Scenario("20 streams x 50/s", _paced(20, 50), _PACED),
    "paced-100": Scenario("100 streams x 50/s", _paced(100, 50), _PACED),
    "paced-500": Scenario("500 streams x 10/s", _paced(500, 10), _THOUSAND),
    "paced-1000": Scenario("1,000 streams x 10/s", _paced(1000, 10), _THOUSAND),
    "flood": Scenario("32 streams, saturated", _flood, {"cpu_us_per_chunk": "CPU us per chunk", "chunks_per_second": "chunks/s"}),
    "short": Scenario(
        "3-chunk streams, 8 at a time", short(0), {"cpu_ms_per_stream": "CPU ms per stream", "first_p50_ms": "first token p50, ms"}
    ),
    "short-1000": Scenario(
        "3-chunk streams beside 1,000 open", short(1000), {"cpu_ms_per_stream": "CPU ms per stream", "first_p50_ms": "first token p50, ms"}
    ),
    "first": Scenario("one stream at a time", _first, {"first_p50_ms": "first token p50, ms", "first_p99_ms": "first token p99, ms"}),
    "json": Scenario("non-stream, 8 at a time, each on a new connection", _json(), _JSON),
    "json-kept": Scenario("non-stream, 8 at a time, on kept connections", _json("keep=1"), _JSON),
    "leave-flowing": Scenario("100 clients leave flowing streams", _leave("us=20000"), _LEAVE),
    "leave-silent": Scenario("100 clients leave silent streams", _leave("us=0 silent=1"), _LEAVE),
    "slow": Scenario("20 readers at 20 kB/s of a flood", _slow, {"growth_mb": "memory growth, MB"}),
}

"""The admin listener of several workers: every request is asked of all of them, and what they answer becomes one answer.

Owns how answers are merged. Who may ask is decided by the workers, each by the same rules (app.py), so that a refusal is a refusal of
all. What a worker says is its own: nothing is added up here, for what can be added up is Prometheus' business, or the dashboard's
(merged_board.py).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from actors import error_json

from ..worker_channel import Answer, Ask
from .dashboard import PAGE
from .watching import Watched, Watching

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

#: Bytes of a request's body that are passed on; the workers refuse less than that.
_MOST_BODY: Final = 8192
_SAMPLE: Final = re.compile(rb"([A-Za-z_:][A-Za-z0-9_:]*)(\{)?")
#: Written anew for what is merged, or about one connection.
_OWN_HEADERS: Final = frozenset({b"content-length", b"content-type", b"connection", b"date", b"server", b"transfer-encoding"})
_JSON: Final = b"application/json"
_EVENTS: Final = "/dashboard/events"
#: What every worker answers alike: nobody waits for one that hangs.
_ALIKE: Final = frozenset({"/", "/openapi.json", _EVENTS, *PAGE})


class WorkerStatistics(msgspec.Struct, frozen=True):
    """One worker as its supervisor sees it.

    Args:
      pid: of its present or last process.
      serving: it takes requests.
      restarts: processes that it had before the present one.
    """

    pid: int | None
    serving: bool
    restarts: int


class Asked(Watched, Protocol):
    """What is needed of the workers."""

    async def ask(self, request: Ask, /) -> Mapping[int, Answer | None]:
        """What each answers; None for one that does not."""

    async def first_answer(self, request: Ask, /) -> Answer | None:
        """The answer of whoever is first; None if nobody answers."""


class FanOut:
    """The ASGI application of that listener."""

    def __init__(self, workers: Asked) -> None:
        self._workers = workers
        self._watching = Watching(workers)
        self._registry = CollectorRegistry()
        self._registry.register(_OfWorkers(workers.statistics))

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        body, more = b"", True
        while more and len(body) <= _MOST_BODY:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = tuple((bytes(name), bytes(value)) for name, value in scope["headers"])
        path, method = scope["path"], scope["method"]
        watches = path == _EVENTS and method == "GET"
        # HEAD as GET, for what is merged needs bodies; and a stream as HEAD, for it has no end and is not theirs.
        asked = "HEAD" if watches else "GET" if method == "HEAD" and path != _EVENTS else method
        request = Ask(0, asked, path, scope["query_string"], headers, body)
        if path in _ALIKE:
            answer = await self._workers.first_answer(request) or _NOBODY
        else:
            answers = await self._workers.ask(request)
            answer = self._merged(asked, path, dict(headers).get(b"accept", b"").decode("latin-1"), answers)
        if watches and answer.status < 300:
            await self._watching.serve(receive, send)
            return
        told = [(name, value) for name, value in answer.headers if name.lower() not in _OWN_HEADERS]
        told += [(b"content-type", _content_type(answer)), (b"content-length", b"%d" % len(answer.body))]
        await send({"type": "http.response.start", "status": answer.status, "headers": told})
        await send({"type": "http.response.body", "body": answer.body if method != "HEAD" else b""})

    def _merged(self, method: str, path: str, accept: str, answers: Mapping[int, Answer | None]) -> Answer:
        there = {number: answer for number, answer in answers.items() if answer is not None}
        absent = [number for number in answers if number not in there]
        if path == "/healthz" and absent:
            return _error(503, "not every worker answers", "worker_absent")
        if path == "/readyz":
            # Whoever balances load wants to know whether requests are taken here at all, /healthz says whether all is well.
            return next((a for a in there.values() if a.status == 200), _error(503, "no new requests are taken now", "not_ready"))
        if not there:
            return _NOBODY
        first = next(iter(there.values()))
        refusals = [answer for answer in there.values() if answer.status >= 300]
        if refusals:
            return refusals[0]
        if method == "POST" and absent:
            return _error(
                503, f"worker {absent[0]} does not answer and was told nothing; the others have obeyed: ask again", "worker_absent"
            )
        if path == "/metrics":
            encode, _ = choose_encoder(accept)
            parts = [(b"%d" % number, answer.body) for number, answer in there.items()]
            return msgspec.structs.replace(first, body=merge_expositions([*parts, (b"", encode(self._registry))]))
        return self._listed(there) if path != "/healthz" and _content_type(first).startswith(_JSON) else first

    def _listed(self, there: Mapping[int, Answer]) -> Answer:
        """One JSON document with each worker's own."""
        rows = []
        for number, known in self._workers.statistics().items():
            row: dict[str, Any] = {"worker": number, "pid": known.pid, "restarts": known.restarts}
            document = (
                msgspec.json.decode(there[number].body)
                if number in there
                else {"absent": "it does not answer" if known.serving else "it is being started"}
            )
            rows.append(row | (document if isinstance(document, dict) else {"answer": document}))
        text = msgspec.json.format(msgspec.json.encode({"workers": rows}), indent=2)
        return msgspec.structs.replace(next(iter(there.values())), body=text + b"\n")


class _OfWorkers(Collector):
    """What only the supervisor knows."""

    def __init__(self, statistics: Callable[[], Mapping[int, WorkerStatistics]]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("evenflow_worker_up", "Whether the worker takes requests.", labels=("worker",))
        restarts = CounterMetricFamily("evenflow_worker_restarts", "Starts of a worker that had ended by itself.", labels=("worker",))
        for number, known in self._statistics().items():
            up.add_metric((str(number),), float(known.serving))
            restarts.add_metric((str(number),), known.restarts)
        yield from (up, restarts)


def merge_expositions(parts: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Several expositions of the same metrics as one: every family described once, all its samples behind that.

    Args:
      parts: the value of the label `worker` and an exposition, in Prometheus' text format or OpenMetrics, the same for all. With an
        empty value no label is added.
    """
    described: dict[bytes, list[bytes]] = {}
    samples: dict[bytes, list[bytes]] = {}
    end = b""
    for worker, text in parts:
        family, is_new = b"", False
        for line in text.split(b"\n"):
            if line.startswith(b"# EOF"):
                end = line + b"\n"
            elif line.startswith(b"#"):
                name = line.split(b" ", 3)[2]
                if name != family:
                    family, is_new = name, name not in described
                    described.setdefault(name, [])
                    samples.setdefault(name, [])
                if is_new:
                    described[name].append(line)
            elif line:
                samples[family].append(_SAMPLE.sub(_labelled(worker), line, count=1) if worker else line)
    return b"".join(b"\n".join([*lines, *samples[name], b""]) for name, lines in described.items()) + end


def _labelled(worker: bytes) -> Callable[[re.Match[bytes]], bytes]:
    label = b'worker="' + worker + b'"'
    return lambda found: found[1] + (b"{" + label + b"," if found[2] else b"{" + label + b"}")


def _content_type(answer: Answer) -> bytes:
    return next((value for name, value in answer.headers if name.lower() == b"content-type"), b"text/plain; charset=utf-8")


def _error(status: int, message: str, code: str) -> Answer:
    return Answer(0, status, ((b"content-type", _JSON), (b"cache-control", b"no-store")), error_json(message, "server_error", code) + b"\n")


_NOBODY: Final = _error(503, "no worker answers", "no_worker")

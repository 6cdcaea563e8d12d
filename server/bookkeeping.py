"""One request's entries in all books: metrics, the log's line, the roll-out's comparison, the dashboard, the flight recorder, the trace.

Each is opened when the request begins and closed when it has ended, once and in this order, whatever happened in between. What the next
request may depend on (who runs, whether the roll-out falls back) is done at the end itself; the rest is noted then and written a
moment later, by the clerk. Knows none of the books' insides.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from .request_line import log_request, outcome_facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors import Outcome, RequestFacts

    from .admin.board import Shown
    from .flights import Flight
    from .rollout import Engine
    from .services import Processor, Services
    from .tracing import StreamSpan

#: W3C's headers of a trace; passed on as they came where nothing is traced here.
TRACE_CONTEXT: Final = frozenset({b"traceparent", b"tracestate"})
_MODEL: Final = 200


@dataclass(slots=True)
class Booking:
    """The entries of one request. Made by `open_booking`.

    Args:
      path: with its /v1/.
      route: pattern of the route that serves it.
      client: id of the client key, None without one.
      stream: the client asked for a stream; `streamed` if it is one of ours, a completion's.
    """

    services: Services
    request_id: str
    path: str
    model: str
    route: str
    engine: Engine
    client: str | None
    stream: bool
    streamed: bool
    flight: Flight | None
    span: StreamSpan | None
    _processor: Processor | None = None
    _shown: Shown | None = None
    _outcome: Outcome | None = None
    _ended: float = 0.0
    _at: float = 0.0

    def trace_headers(self) -> list[tuple[bytes, bytes]]:
        """What tells the upstream of our span; empty where none is traced."""
        return self.span.headers() if self.span is not None else []

    def trace_response(self) -> bytes:
        """What tells the client of our span; b"" where none is traced."""
        return self.span.response() if self.span is not None else b""

    def begin(self, processor: Processor) -> None:
        """The request begins."""
        services = self.services
        self._processor = processor
        services.metrics.request_started(stream=self.stream)
        services.readiness.begin(processor)
        if self.streamed:
            shown = {"id": self.request_id, "model": self.model, "client": self.client or "", "engine": self.engine}
            services.board.stream_begins(processor, processor.tally, shown)

    def end(self, outcome: Outcome) -> None:
        """It has ended; to be called once, and never before `begin`."""
        services, processor = self.services, self._processor
        assert processor is not None
        self._processor = None  # what it holds need not lie with the clerk
        services.readiness.running.discard(processor)
        services.metrics.request_over(stream=self.stream)
        now = trio.current_time()
        if self.streamed:
            services.rollout.ended(outcome, self.engine, now)
            self._shown = services.board.stream_leaves(processor)
        self._outcome, self._ended, self._at = outcome, now, time.time()
        services.clerk.leave(self, now)

    def write(self) -> None:
        """Write down how it ended; the clerk calls it, once."""
        services, outcome, at = self.services, self._outcome, self._at
        assert outcome is not None
        facts = outcome_facts(outcome)
        try:
            services.metrics.request_ended(outcome, endpoint=self.path, engine=self.engine, stream=self.stream)
            if self._shown is not None:
                services.board.stream_ended(self._shown, outcome, self._ended, at)
            if self.flight is not None and services.recorder is not None:
                services.recorder.close_flight(self.flight, facts, at)
            if self.span is not None:
                self.span.end(outcome)
        finally:  # whichever book has a defect, there is a line, and no defect of the line's is one of the books'
            log_request(
                facts,
                at,
                request_id=self.request_id,
                route=self.route,
                model=self.model,
                engine=self.engine,
                endpoint=self.path,
                client=self.client,
                stream=self.stream,
            )


def open_booking(
    services: Services,
    request_id: str,
    path: str,
    facts: RequestFacts,
    *,
    route: str,
    engine: Engine,
    client: str | None,
    streamed: bool,
    headers: Mapping[str, str],
) -> Booking:
    """A request that is about to begin.

    Args:
      headers: the client's, for the trace that it may belong to; names in lower case.
    """
    flight = span = None
    model = facts.model[:_MODEL]
    if services.recorder is not None and engine == "actors":
        told: dict[str, object] = {
            "id": request_id,
            "endpoint": path.removeprefix("/v1/"),
            "model": model,
            "route": route,
            "engine": engine,
        }
        flight = services.recorder.open(trio.current_time(), told)
    if services.tracing is not None and streamed:
        span = services.tracing.begin(trio.current_time(), headers, request_id=request_id, model=model, route=route, engine=engine)
    return Booking(services, request_id, path, facts.model, route, engine, client, facts.stream, streamed, flight, span)

"""Traces: one OpenTelemetry span per stream, with an event for each attempt, fault, hold and repair. Needs the extra `otel`.

A span is opened when its stream begins, since the upstream is told of it, and written when it has ended, from what was counted anyway; a
stream in between pays nothing. The SDK exports on a thread of its own. Names are those of the GenAI semantic conventions (status
Development, November 2026: open-telemetry/semantic-conventions-genai), and defined here, for the SDK's own constants are deprecated.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from actors import End

from .version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actors import Outcome

    from .settings import Settings

_logger: Final = logging.getLogger("evenflow.tracing")
_NS: Final = 1_000_000_000
#: Seconds that spans have at the end to be exported, and the exporter to give up.
LAST_SPANS: Final = 1.5
_LAST: Final = 1.0
#: Spans that may wait for the exporter; more are dropped, as the SDK does.
_WAITING: Final = 4096
_PARENT: Final = ("traceparent", "tracestate")


class Tracing:
    """Opens spans. Made by `open_tracing`.

    Args:
      provider: the SDK's TracerProvider.
      servers: host and port of each upstream.
    """

    def __init__(self, provider: Any, servers: Mapping[str, tuple[str, int]], clock: Callable[[], float] = time.time) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("evenflow", VERSION)
        self._propagator = TraceContextTextMapPropagator()
        self._servers = servers
        self._clock = clock

    def begin(self, now: float, headers: Mapping[str, str], *, request_id: str, model: str, route: str, engine: str) -> StreamSpan:
        """A stream begins.

        Args:
          now: monotonic; the wall's time is put beside it, so that the span's times are those of the monotonic clock.
          headers: the client's, whose trace it joins if they name one.
        """
        from opentelemetry.trace import SpanKind

        shift = self._clock() - now
        parent = self._propagator.extract({name: headers[name] for name in _PARENT if name in headers})
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": model,
            "evenflow.request.id": request_id,
            "evenflow.route": route,
            "evenflow.engine": engine,
        }
        started = int((now + shift) * _NS)
        span = self._tracer.start_span(f"chat {model}", parent, SpanKind.CLIENT, attributes=attributes, start_time=started)
        return StreamSpan(span, shift, self._propagator, self._servers)

    def close(self) -> None:
        """Export what waits, for at most a second. Blocks: to be called on a thread."""
        self._provider.force_flush(int(1000 * _LAST))
        self._provider.shutdown()


class StreamSpan:
    """The span of one stream."""

    def __init__(self, span: Any, shift: float, propagator: Any, servers: Mapping[str, tuple[str, int]]) -> None:
        self._span = span
        self._shift = shift
        self._propagator = propagator
        self._servers = servers

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What makes it the parent of what the upstream does."""
        from opentelemetry.trace import set_span_in_context

        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(self._span))
        return [(name.encode(), value.encode()) for name, value in carrier.items()]

    def response(self) -> bytes:
        """What tells the client of it: `traceresponse`, W3C Trace Context Level 2 (2024), section 3.3."""
        context = self._span.get_span_context()
        return b"00-%032x-%016x-%02x" % (context.trace_id, context.span_id, context.trace_flags)

    def end(self, outcome: Outcome) -> None:
        """The stream has ended."""
        from opentelemetry.trace import Status, StatusCode

        span, tally = self._span, outcome.tally
        if span.is_recording():
            for at, kind, words in tally.story:
                span.add_event(kind, {"evenflow.detail": words}, timestamp=self._ns(at))
            span.set_attributes(self._attributes(outcome))
            if outcome.end is End.ERROR and outcome.fault is not None:
                span.set_attribute("error.type", outcome.fault.kind.value)
                span.set_status(Status(StatusCode.ERROR, outcome.fault.code or outcome.fault.kind.value))
        span.end(self._ns(tally.ended if tally.ended is not None else tally.started))

    def _attributes(self, outcome: Outcome) -> dict[str, Any]:
        tally = outcome.tally
        told: dict[str, Any] = {
            "evenflow.outcome": outcome.end.value,
            "evenflow.termination": outcome.termination,
            "evenflow.attempts": tally.attempts,
            "evenflow.retries": tally.retries,
            "evenflow.events": tally.events,
            "evenflow.holds": tally.holds,
            "evenflow.repairs": tally.repairs.total(),
        }
        if tally.first_token is not None:
            told["gen_ai.client.operation.time_to_first_chunk"] = tally.first_token - tally.started
        if outcome.upstream in self._servers:
            told["gen_ai.provider.name"] = outcome.upstream
            told["server.address"], told["server.port"] = self._servers[outcome.upstream]
        return told

    def _ns(self, at: float) -> int:
        return int((at + self._shift) * _NS)


def open_tracing(settings: Settings) -> Tracing | None:
    """What the configuration wants; None if it wants none. Settings that want it without the extra `otel` are refused by their checks."""
    wanted = settings.tracing
    if not wanted.endpoint:
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    # The exporter's own logger complains with a traceback for each batch that nobody takes.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    headers = {name: value.reveal() for name, value in wanted.headers.items()}
    exporter = OTLPSpanExporter(wanted.endpoint, headers=headers, timeout=wanted.timeout)
    resource = Resource.create({"service.name": wanted.service_name, "service.version": VERSION})
    provider = TracerProvider(ParentBased(TraceIdRatioBased(wanted.share)), resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=_WAITING))
    return Tracing(provider, {name: _server(table.base_url) for name, table in settings.configured_upstreams.items()})


def _server(base_url: str) -> tuple[str, int]:
    parts = urlsplit(base_url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

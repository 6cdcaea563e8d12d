"""Traces over the wire: one span per stream at a collector, in the client's trace, and known to the upstream."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import trio

from actors.routes import Secret
from server.main import open_proxy
from server.settings import TracingSettings

from .raw_client import CLIENT_KEY, PATIENCE, Answer, RawClient
from .running_proxy import settings_for, upstream_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server.simulator import Simulator

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Collector:
    """Takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        self.keys: list[str | None] = []
        self.url = ""

    def take(self, body: bytes, key: str | None) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.keys.append(key)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services |= {a.value.string_value for a in resource.resource.attributes if a.key == "service.name"}
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]


@pytest.fixture
def collector() -> Iterator[Collector]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is not installed")
    with _collecting() as running:
        yield running


@contextmanager
def _collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["content-length"])), self.headers["x-collector-key"])
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield collector
        server.shutdown()


def attributes(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


async def traced(
    simulator: Simulator, collector: Collector, *models: str, headers: dict[str, str] | None = None, **tracing: Any
) -> list[Answer]:
    """Ask for streams; when this returns, all spans are at the collector."""
    wanted = TracingSettings(endpoint=collector.url, headers={"x-collector-key": Secret("collector-key-012345")}, **tracing)
    settings = settings_for({"main": upstream_of(simulator)}, tracing=wanted)
    async with open_proxy(settings) as proxy:
        return [await RawClient(proxy.base_url, CLIENT_KEY).ask(model, headers=headers or {}) for model in models]


async def test_one_span_per_stream_with_what_happened_to_it(simulator: Simulator, collector: Collector) -> None:
    await traced(simulator, collector, "flaky", "stutter-a1")
    flaky, stutter = collector.spans
    assert collector.services == {"evenflow"}
    assert collector.keys == ["collector-key-012345"]
    told = attributes(flaky)
    assert flaky.name == "chat flaky"
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == "flaky"
    assert told["gen_ai.provider.name"] == "main"
    assert (told["server.address"], told["server.port"]) == ("127.0.0.1", simulator.port)
    assert (told["evenflow.outcome"], told["evenflow.attempts"]) == ("done", 2)
    assert [event.name for event in flaky.events if event.name in ("fault", "retry", "attempt")] == ["fault", "retry", "attempt"]
    times = [flaky.start_time_unix_nano, *(event.time_unix_nano for event in flaky.events), flaky.end_time_unix_nano]
    assert times == sorted(times)
    assert attributes(stutter)["evenflow.repairs"] > 0
    assert "repair" in {event.name for event in stutter.events}


async def test_an_error_is_one(simulator: Simulator, collector: Collector) -> None:
    await traced(simulator, collector, "error-mid")
    [span] = collector.spans
    assert span.status.code == 2
    assert attributes(span)["error.type"] == "in_band_error"


async def test_it_joins_the_clients_trace_and_both_sides_are_told_of_ours(simulator: Simulator, collector: Collector) -> None:
    [answer] = await traced(simulator, collector, "ok", headers={"traceparent": PARENT, "tracestate": "vendor=1"})
    [span] = collector.spans
    assert span.trace_id.hex() == TRACE
    assert span.parent_span_id.hex() == "b7ad6b7169203331"
    [seen] = simulator.observer.seen
    assert seen.headers["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert seen.headers["tracestate"] == "vendor=1"
    assert answer.header("traceresponse") == seen.headers["traceparent"]


async def test_what_the_client_does_not_sample_is_passed_on_and_not_exported(simulator: Simulator, collector: Collector) -> None:
    await traced(simulator, collector, "ok", headers={"traceparent": PARENT.removesuffix("01") + "00"})
    assert collector.spans == []
    [seen] = simulator.observer.seen
    assert seen.headers["traceparent"].startswith(f"00-{TRACE}-")
    assert seen.headers["traceparent"].endswith("-00")


async def test_a_share_of_none_exports_nothing(simulator: Simulator, collector: Collector) -> None:
    await traced(simulator, collector, "ok", share=0.0)
    assert collector.spans == []


async def test_without_tracing_the_clients_context_passes_as_it_is(simulator: Simulator) -> None:
    async with open_proxy(settings_for({"main": upstream_of(simulator)})) as proxy:
        answer = await RawClient(proxy.base_url, CLIENT_KEY).ask("ok", headers={"traceparent": PARENT})
    [seen] = simulator.observer.seen
    assert seen.headers["traceparent"] == PARENT
    assert answer.header("traceresponse") == ""


async def test_row_76_a_collector_that_is_not_there_costs_no_stream_anything_and_the_end_little(
    simulator: Simulator, unused_port: int
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is not installed")
    wanted = TracingSettings(endpoint=f"http://127.0.0.1:{unused_port}/v1/traces")
    with trio.fail_after(PATIENCE):
        async with open_proxy(settings_for({"main": upstream_of(simulator)}, tracing=wanted)) as proxy:
            answer = await RawClient(proxy.base_url, CLIENT_KEY).ask("ok")
        assert answer.done

"""What several workers answer, as one answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import prometheus_client
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from server.admin.fan_out import FanOut, merge_expositions
from server.worker_channel import Answer, Ask

from .crew import Crew

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON = ((b"Content-Type", b"application/json"), (b"cache-control", b"no-store"))
OK = Answer(1, 200, JSON, b'{"status": "ok"}')
NOT_READY = Answer(1, 503, JSON, b'{"error": {"code": "not_ready"}}')


async def asked(answers: Mapping[int, Answer | None], path: str, method: str = "GET") -> tuple[int, Any, Ask]:
    """The status and the body of what becomes of them, and what the workers were asked."""
    crew = Crew(answers)
    sent: list[Any] = []

    async def receive() -> Any:
        await trio.lowlevel.checkpoint()
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    scope = {"method": method, "path": path, "query_string": b"a=1", "headers": [(b"host", b"localhost")]}
    await FanOut(crew)(scope, receive, send)
    headers = dict(sent[0]["headers"])
    assert int(headers[b"content-length"]) == len(sent[1]["body"]) or method == "HEAD"
    body = sent[1]["body"]
    return sent[0]["status"], json.loads(body) if headers[b"content-type"] == b"application/json" and body else body, crew.seen[0]


@pytest.mark.parametrize(
    ("answers", "healthy", "ready"),
    [
        ({1: OK, 2: OK}, 200, 200),
        ({1: OK, 2: None}, 503, 200),
        ({1: None, 2: None}, 503, 503),
    ],
)
async def test_well_is_who_has_all_workers_and_ready_who_has_one(answers: dict[int, Answer | None], healthy: int, ready: int) -> None:
    assert (await asked(answers, "/healthz"))[0] == healthy
    assert (await asked(answers, "/readyz"))[0] == ready


async def test_whoever_drains_is_not_ready() -> None:
    assert (await asked({1: NOT_READY, 2: NOT_READY}, "/readyz"))[0] == 503
    assert (await asked({1: NOT_READY, 2: OK}, "/readyz"))[0] == 200


async def test_documents_stand_side_by_side_and_who_is_absent_is_named() -> None:
    status, document, request = await asked({1: OK, 2: None}, "/status")
    assert status == 200
    assert document == {
        "workers": [
            {"worker": 1, "pid": 101, "restarts": 0, "status": "ok"},
            {"worker": 2, "pid": 102, "restarts": 0, "absent": "it is being started"},
        ]
    }
    assert (request.path, request.query, request.body, request.headers) == ("/status", b"a=1", b"{}", ((b"host", b"localhost"),))


async def test_the_supervisor_adds_what_only_it_knows() -> None:
    metrics = Answer(1, 200, ((b"content-type", b"text/plain"),), exposition({"a": 1}, strict=False))
    _, body, _ = await asked({1: metrics, 2: None}, "/metrics")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert [(s.labels["worker"], s.value) for s in families["evenflow_worker_up"].samples] == [("1", 1.0), ("2", 0.0)]
    assert [(s.labels["worker"], s.value) for s in families["evenflow_worker_restarts"].samples] == [("1", 0.0), ("2", 0.0)]
    assert [s.labels["worker"] for s in families["evenflow_plain"].samples] == ["1"]


async def test_a_refusal_is_a_refusal_of_all() -> None:
    refusal = Answer(1, 421, JSON, b'{"error": {"code": "wrong_host"}}')
    assert (await asked({1: refusal, 2: refusal}, "/status"))[:2] == (421, {"error": {"code": "wrong_host"}})
    assert (await asked({1: OK, 2: refusal}, "/breaker/a/reset", "POST"))[0] == 421


async def test_an_order_that_a_worker_did_not_hear_is_no_success() -> None:
    status, document, _ = await asked({1: OK, 2: None}, "/breaker/a/reset", "POST")
    assert (status, document["error"]["code"]) == (503, "worker_absent")
    assert (await asked({1: OK, 2: OK}, "/breaker/a/reset", "POST"))[0] == 200


async def test_without_any_worker_there_is_nothing_to_say() -> None:
    assert (await asked({1: None}, "/status"))[:2] == (
        503,
        {"error": {"message": "no worker answers", "type": "server_error", "param": None, "code": "no_worker"}},
    )


async def test_head_is_asked_as_get_and_has_no_body() -> None:
    status, body, request = await asked({1: OK, 2: OK}, "/status", "HEAD")
    assert (status, body, request.method) == (200, b"", "GET")


def exposition(counts: dict[str, int], *, strict: bool) -> bytes:
    registry = CollectorRegistry()
    counter = prometheus_client.Counter("evenflow_things", 'Of "all" kinds {and} more.', ["kind"], registry=registry)
    for kind, count in counts.items():
        counter.labels(kind).inc(count)
    prometheus_client.Gauge("evenflow_plain", "Without labels.", registry=registry).set(len(counts))
    prometheus_client.Histogram("evenflow_wait_seconds", "A histogram.", buckets=(0.1, 1.0), registry=registry).observe(0.5)
    if not strict:
        return prometheus_client.generate_latest(registry)
    text: bytes = prometheus_client.openmetrics.exposition.generate_latest(registry)  # type: ignore[no-untyped-call]
    return text


@given(
    st.lists(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), st.integers(0, 9), max_size=4), max_size=4),
    st.booleans(),
)
def test_every_sample_is_there_once_under_its_worker(workers: list[dict[str, int]], strict: bool) -> None:
    merged = merge_expositions([(b"%d" % number, exposition(counts, strict=strict)) for number, counts in enumerate(workers, 1)]).decode()
    parse = openmetrics.text_string_to_metric_families if strict else text_string_to_metric_families
    families = {family.name: family for family in parse(merged)} if workers else {}
    found = [
        (sample.labels["worker"], sample.labels["kind"], sample.value)
        for name in ("evenflow_things",)
        for sample in (families[name].samples if name in families else ())
        if not sample.name.endswith("_created")
    ]
    assert sorted(found) == sorted((str(n), kind, float(count)) for n, counts in enumerate(workers, 1) for kind, count in counts.items())
    if workers:
        assert merged.count("# HELP evenflow_plain ") == merged.count("# TYPE evenflow_plain ") == 1
        assert [s.labels for s in families["evenflow_plain"].samples] == [{"worker": str(n)} for n in range(1, len(workers) + 1)]
        assert merged.count("# EOF") == strict

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from actors import REJECTIONS
from actors.outcome import End, Outcome, Party, Phase, Tally
from server.metrics import BREAKER_STATES, ENDPOINTS
from server.version import VERSION

from .full_exposition import everything_happened, make_admission, make_metrics, make_statistics, of_all_workers, run_one

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.sansio.breaker_state import StateName
    from server.metrics import Metrics

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def read(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample, by name and labels."""
    families = parse_text(metrics.render()[0].decode())
    return {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}


def value(metrics: Metrics, name: str, labels: Mapping[str, str] | None = None) -> float:
    return read(metrics)[name, frozenset((labels or {}).items())]


def test_a_stream_is_counted_once_in_every_metric_it_concerns() -> None:
    metrics = make_metrics()
    before = read(metrics)
    run_one(metrics, everything_happened())
    after = read(metrics)

    def labelled(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
        return f"evenflow_{name}", frozenset(labels.items())

    changed = {
        key: now - before.get(key, 0.0)
        for key, now in after.items()
        if now != before.get(key, 0.0) and not key[0].endswith("_bucket") and not key[0].startswith("process_")
    }
    step = {"from": "StateInitial", "event": "FirstOutput", "to": "StateNormalFlow"}
    assert changed == pytest.approx(
        {
            labelled("streams_total", outcome="error", upstream="cloud", engine="actors"): 1,
            labelled("requests_total", endpoint="chat/completions", status_class="2xx"): 1,
            labelled("time_to_first_token_seconds_count"): 1,
            labelled("time_to_first_token_seconds_sum"): 0.3,
            labelled("stream_duration_seconds_count"): 1,
            labelled("stream_duration_seconds_sum"): 4.0,
            labelled("chunks_total"): 40,
            labelled("bytes_total", direction="in"): 5000,
            labelled("bytes_total", direction="out"): 4000,
            labelled("holds_total"): 4,
            labelled("hold_seconds_count"): 1,
            labelled("hold_seconds_sum"): 0.03,
            labelled("repairs_total", shape="A1"): 2,
            labelled("repairs_total", shape="done"): 1,
            labelled("repairs_refused_total", shape="C1"): 3,
            labelled("loops_total", action="observe"): 1,
            labelled("resumes_total", strategy="align", result="joined"): 1,
            labelled("hedges_total", result="won"): 1,
            labelled("buffer_flushes_total", policy="age"): 1,
            labelled("buffer_flushes_total", policy="confidence"): 3,
            labelled("events_skipped_total"): 1,
            labelled("faults_total", upstream="local", kind="connect"): 2,
            labelled("faults_total", upstream="cloud", kind="truncated"): 1,
            labelled("retries_total", upstream="cloud"): 2,
            labelled("upstream_cancel_seconds_count"): 1,
            labelled("upstream_cancel_seconds_sum"): 0.002,
            labelled("state_transitions_total", **step): 1,
        }
    )


def test_active_streams_rise_and_fall_and_other_requests_are_none() -> None:
    metrics = make_metrics()
    metrics.request_started(stream=True)
    metrics.request_started(stream=True)
    metrics.request_started(stream=False)
    assert value(metrics, "evenflow_streams_active") == metrics.streams_active == 2
    for stream in (True, False):
        metrics.request_over(stream=stream)
        metrics.request_ended(everything_happened(), endpoint="completions", engine="relay", stream=stream)
    assert value(metrics, "evenflow_streams_active") == metrics.streams_active == 1
    assert value(metrics, "evenflow_requests_total", {"endpoint": "completions", "status_class": "2xx"}) == 2
    assert value(metrics, "evenflow_streams_total", {"outcome": "error", "upstream": "cloud", "engine": "relay"}) == 1


def test_what_never_happened_is_not_measured() -> None:
    metrics = make_metrics()
    run_one(metrics, Outcome(End.CANCELLED, Party.CLIENT, Phase.CONNECTING, 0, None, "", Tally(started=1.0, ended=1.5)))
    samples = read(metrics)
    assert value(metrics, "evenflow_requests_total", {"endpoint": "chat/completions", "status_class": "none"}) == 1
    assert value(metrics, "evenflow_streams_total", {"outcome": "cancelled", "upstream": "none", "engine": "actors"}) == 1
    for name in ("time_to_first_token_seconds", "hold_seconds", "upstream_cancel_seconds"):
        assert samples[f"evenflow_{name}_count", frozenset()] == 0


@pytest.mark.parametrize(
    ("endpoint", "status", "labels"),
    [
        ("/v1/models", 200, ("models", "2xx")),
        ("embeddings", 429, ("embeddings", "4xx")),
        ("/v1/chat/completions", 503, ("chat/completions", "5xx")),
        ("/v1/anything/a/client/likes", 404, ("other", "4xx")),
        ("", 0, ("other", "none")),
        ("/v1/models", 999, ("models", "none")),
    ],
)
def test_answers_that_never_became_an_attempt(endpoint: str, status: int, labels: tuple[str, str]) -> None:
    metrics = make_metrics()
    metrics.request_answered(endpoint=endpoint, status=status)
    assert value(metrics, "evenflow_requests_total", {"endpoint": labels[0], "status_class": labels[1]}) == 1


def test_ten_thousand_names_from_outside_make_no_time_series() -> None:
    metrics = make_metrics()

    def send(number: int) -> None:
        tally = Tally(attempts=2, retries=1, faults=Counter({(f"upstream-{number}", "connect"): 1}))
        outcome = Outcome(End.DONE, Party.NOBODY, Phase.NONE, 200, None, f"upstream-{number}", tally)
        run_one(metrics, outcome, endpoint=f"/v1/models/model-{number}")
        metrics.request_answered(endpoint=f"/v1/model-{number}", status=404)
        metrics.breaker_transition(f"upstream-{number}", "closed", "open", f"reason {number}")

    send(0)
    series = read(metrics).keys()
    for number in range(1, 10_000):
        send(number)
    assert read(metrics).keys() == series
    assert value(metrics, "evenflow_retries_total", {"upstream": "other"}) == 10_000


def test_breaker_states_are_those_of_the_moment_of_the_scrape() -> None:
    metrics = make_metrics()
    states: tuple[StateName, ...] = ("closed", "open")
    metrics.watch(breaker=lambda: make_statistics(*states))

    def shown(upstream: str) -> dict[str, float]:
        return {s: value(metrics, "evenflow_breaker_state", {"upstream": upstream, "state": s}) for s in BREAKER_STATES}

    assert shown("u1") == {state: float(state == "open") for state in BREAKER_STATES}
    states = ("closed", "paused")
    assert shown("u0") == {state: float(state == "closed") for state in BREAKER_STATES}
    assert shown("u1") == {state: float(state == "paused") for state in BREAKER_STATES}


def test_59_each_transition_of_a_breaker_is_counted() -> None:
    metrics = make_metrics()
    for before, after in [("closed", "open"), ("open", "half_open"), ("half_open", "open"), ("open", "half_open"), ("half_open", "closed")]:
        metrics.breaker_transition("local", before, after, "")
    assert value(metrics, "evenflow_breaker_transitions_total", {"upstream": "local", "from": "open", "to": "half_open"}) == 2
    assert value(metrics, "evenflow_breaker_transitions_total", {"upstream": "local", "from": "half_open", "to": "closed"}) == 1


def test_what_others_know_is_asked_at_the_scrape() -> None:
    metrics = make_metrics()
    before = {name for name, _ in read(metrics)}
    metrics.watch(breaker=lambda: make_statistics("closed", "open"))
    metrics.watch(open_connections=lambda: 5)
    assert {
        name: value(metrics, name) for name in {name for name, _ in read(metrics)} - before if "state" not in name and "refused" not in name
    } == {
        "evenflow_open_upstream_connections": 5,
        "evenflow_breaker_restarts_total": 1,
        "evenflow_breaker_failed_open_total": 2,
        "evenflow_breaker_lost_reports_total": 3,
        "evenflow_breaker_mailbox_depth": 4,
    }
    assert value(metrics, "evenflow_breaker_refused_total", {"upstream": "u1"}) == 1
    assert value(metrics, "evenflow_retries_refused_total") == 7
    assert value(metrics, "evenflow_log_lines_dropped_total") == 3
    assert any(name == "evenflow_build_info" and ("version", VERSION) in labels for name, labels in read(metrics))


def test_admission_is_asked_at_each_scrape_and_every_reason_is_there_from_the_first() -> None:
    metrics = make_metrics()
    metrics.watch(admission=make_admission)
    assert value(metrics, "evenflow_waiting") == 3
    assert value(metrics, "evenflow_slots_in_use", {"upstream": "local"}) == 2
    assert value(metrics, "evenflow_request_body_bytes") == 1000
    rejected = {reason: value(metrics, "evenflow_rejected_total", {"reason": reason}) for reason in REJECTIONS}
    assert rejected == {"full": 5, "waited": 0, "displaced": 0, "memory": 0}


async def test_tasks_are_counted_at_each_scrape() -> None:
    metrics = make_metrics()
    assert not any(name == "evenflow_tasks" for name, _ in read(metrics))
    metrics.watch(tasks=lambda: trio.lowlevel.current_statistics().tasks_living)
    before = value(metrics, "evenflow_tasks")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(trio.sleep_forever)
        assert value(metrics, "evenflow_tasks") == before + 2
        nursery.cancel_scope.cancel()


def test_circuits_of_models_are_counted_under_their_upstream() -> None:
    metrics = make_metrics()
    statistics = make_statistics("open", "closed", "open")
    renamed = zip(("local", "local[m]", "local[n]"), statistics.upstreams.values(), strict=True)
    metrics.watch(breaker=lambda: replace(statistics, upstreams=dict(renamed)))
    shown = {labels: number for (name, labels), number in read(metrics).items() if name == "evenflow_breaker_state"}
    assert shown[frozenset({("upstream", "local"), ("state", "open")})] == 2
    assert len(shown) == len(BREAKER_STATES)


def test_the_first_failure_of_an_upstream_is_an_increase_from_zero() -> None:
    assert value(make_metrics(), "evenflow_streams_total", {"outcome": "error", "upstream": "cloud", "engine": "actors"}) == 0
    assert value(make_metrics(), "evenflow_faults_total", {"upstream": "cloud", "kind": "auth"}) == 0


def test_accept_chooses_openmetrics() -> None:
    metrics = make_metrics()
    run_one(metrics, everything_happened())
    body, content_type = metrics.render("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]
    assert {"evenflow_streams", "evenflow_hold_seconds", "evenflow_log_lines_dropped"} <= names
    assert metrics.render("text/html")[1].startswith("text/plain")


async def test_every_metric_and_every_label_is_documented() -> None:
    families = [f for f in parse_text(await of_all_workers()) if f.name.startswith("evenflow_")]
    assert len(families) >= 20
    rows = {line.split("`")[1]: line for line in DOCUMENTED.splitlines() if line.startswith("| `evenflow_")}
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        assert name in rows, f"{name} is not in docs/operations.md"
        # `worker` stands in the page once for all, but for the two that have it always.
        own = {"le"} if name.startswith("evenflow_worker") else {"le", "worker"}
        for label in {label for sample in family.samples for label in sample.labels} - own:
            assert f"`{label}`" in rows[name], f"label {label} of {name} is not in docs/operations.md"
    exposed = {f.name + ("_total" if f.type == "counter" else "") for f in families}
    assert set(rows) == exposed, "docs/operations.md knows metrics that do not exist"
    assert all(f"`{endpoint}`" in DOCUMENTED for endpoint in ENDPOINTS)

"""Metrics in Prometheus' format: what was counted, by labels that cannot grow.

Owns the names, the labels and the buckets. Every label value comes from the configuration (upstreams), from an enum or a table of
ours, or is one of the endpoints listed here; everything else is `other`. A model's name, a client's key or a path is never a
label: each would let a client create time series.

Streams are counted when they end, from the `Outcome` that the log line is made of, so the hot path counts nothing twice. What
other parts know better at any moment (breaker states, lost log lines) is asked for when Prometheus asks.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Final, Literal, get_args

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from actors import REJECTIONS, End, FaultKind, StateName, upstream_of

from .counters import Counter, Histogram
from .version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.metrics_core import Metric

    from actors import AdmissionStatistics, BreakerStatistics, CircuitStatistics, Outcome

    from .rollout import RolloutStatistics

#: Endpoints with a label of their own: those that OpenAI clients use. Any other path is `other`.
ENDPOINTS: Final = frozenset({"chat/completions", "completions", "embeddings", "models", "responses"})

#: States of a circuit (DESIGN section 6).
BREAKER_STATES: Final[tuple[StateName, ...]] = get_args(StateName)

# Faults that no retry and no time mends: each upstream has them from the first scrape on, so that the first of all is an increase.
_NEEDS_SOMEBODY: Final = (FaultKind.AUTH.value, FaultKind.MODEL_ACCESS.value, FaultKind.QUOTA.value)

# Seconds. OpenTelemetry's buckets for gen_ai.client.operation.duration, doubled onward until they pass timers.first_token (300 s)
# and timers.total (1800 s): a local model may need minutes for its first token.
_FIRST_TOKEN_BUCKETS: Final = tuple(0.01 * 2**i for i in range(16))  # 10 ms .. 328 s
_DURATION_BUCKETS: Final = tuple(0.01 * 2**i for i in range(19))  # 10 ms .. 2621 s

# A hold lasts at most 400 ms (DESIGN section 1).
_HOLD_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)

# The promise is a median under 10 ms and none over 100 ms.
_CANCEL_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


# From what a busy loop shows all the time (some ms) to what the watchdog warns of (500 ms) and beyond.
_LAG_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """All metrics of one process, in a registry of their own.

    Args:
      upstreams: configured names; they are the values of the label `upstream`.
      dropped_lines: asked at each scrape: log lines that were lost.
    """

    def __init__(
        self,
        upstreams: Iterable[str],
        *,
        dropped_lines: Callable[[], int] = lambda: 0,
    ) -> None:
        self._registry = CollectorRegistry()
        self._upstreams = frozenset(upstreams)

        self._streams = self._counter("streams", "Streams that ended.", "outcome", "upstream", "engine")
        self._requests = self._counter("requests", "Requests that were answered, streams included.", "endpoint", "status_class")
        self._active = 0
        active = prometheus_client.Gauge("evenflow_streams_active", "Streams that run now.", registry=self._registry)
        active.set_function(lambda: self._active)
        self._first_token = self._histogram("time_to_first_token", "From a stream's request to its first token.", _FIRST_TOKEN_BUCKETS)
        self._duration = self._histogram("stream_duration", "From a stream's request to its end.", _DURATION_BUCKETS)
        self._chunks = self._counter("chunks", "Events received from upstreams.")
        self._bytes = self._counter("bytes", "Bytes of bodies: in from upstreams, out to clients.", "direction")
        self._holds = self._counter("holds", "Events that waited because they looked like stutter.")
        self._hold_time = self._histogram("hold", "Longest hold of each stream that had one.", _HOLD_BUCKETS)
        self._repairs = self._counter("repairs", "Repairs by shape of stutter; done: an added [DONE].", "shape")
        self._refused = self._counter("repairs_refused", "Repairs that were thought of and not proven, by shape of stutter.", "shape")
        self._flushes = self._counter("buffer_flushes", "Ends of a hold by the policy that ended it.", "policy")
        self._loops = self._counter("loops", "Attempts whose model repeated itself endlessly, by what was done about it.", "action")
        self._resumes = self._counter("resumes", "Attempts to take up an answer after output was sent.", "strategy", "result")
        self._skipped = self._counter("events_skipped", "Malformed events that were not passed on.")
        self._faults = self._counter("faults", "Failed attempts by what went wrong.", "upstream", "kind")
        self._retries = self._counter("retries", "Attempts beyond a request's first, by the upstream that was reached last.", "upstream")
        self._hedges = self._counter("hedges", "Second upstreams that were asked beside a silent one, by what came of it.", "result")
        self._breaker_transitions = self._counter("breaker_transitions", "Changes of a circuit's state.", "upstream", "from", "to")
        self._cancel = self._histogram("upstream_cancel", "From a client's leaving to its upstream connection's end.", _CANCEL_BUCKETS)
        self._transitions = self._counter("state_transitions", "Steps of the streams' state machines.", "from", "event", "to")

        self._reloads = self._counter("config_reloads", "Configurations that were read anew, by what became of them.", "result")
        self._lag = self._histogram("loop_lag", "How late the event loop woke a task, ten times a second.", _LAG_BUCKETS)

        # From the first scrape on, so that the first failure of all is seen as an increase.
        self._show_upstreams()
        for result in ("accepted", "refused"):
            self._reloads.add(0, result)
        for result in ("won", "lost", "failed", "refused", "cancelled"):
            self._hedges.add(0, result)

        build = prometheus_client.Info("evenflow_build", "What runs here.", registry=self._registry)
        build.info({"version": VERSION, "python": platform.python_version()})
        self._at_scrape = _AskedAtScrape(dropped_lines)
        self._registry.register(self._at_scrape)
        prometheus_client.ProcessCollector(registry=self._registry)  # reads /proc; elsewhere it reports nothing

    def watch(
        self,
        *,
        breaker: Callable[[], BreakerStatistics] | None = None,
        admission: Callable[[], AdmissionStatistics] | None = None,
        rollout: Callable[[], RolloutStatistics] | None = None,
        open_connections: Callable[[], int] | None = None,
        memory: Callable[[], float] | None = None,
        tasks: Callable[[], int] | None = None,
    ) -> None:
        """Name those who are asked at each scrape from now on: breaker, admission, roll-out, who knows of connections, memory and tasks."""
        self._at_scrape.breaker = breaker or self._at_scrape.breaker
        self._at_scrape.admission = admission or self._at_scrape.admission
        self._at_scrape.rollout = rollout or self._at_scrape.rollout
        self._at_scrape.open_connections = open_connections or self._at_scrape.open_connections
        self._at_scrape.memory = memory or self._at_scrape.memory
        self._at_scrape.tasks = tasks or self._at_scrape.tasks

    def know(self, upstreams: Iterable[str]) -> None:
        """Take further names for the label `upstream`. Those that are gone stay: their streams may still end."""
        self._upstreams |= frozenset(upstreams)
        self._show_upstreams()

    def _show_upstreams(self) -> None:
        for upstream in sorted(self._upstreams):
            self._retries.add(0, upstream)
            for end in End:
                self._streams.add(0, end.value, upstream, "actors")
            for kind in _NEEDS_SOMEBODY:
                self._faults.add(0, upstream, kind)

    def config_reloaded(self, result: Literal["accepted", "refused"]) -> None:
        """The configuration was read anew."""
        self._reloads.add(1, result)

    def loop_lag(self, seconds: float) -> None:
        """The event loop woke a task so much later than it should have."""
        self._lag.observe(seconds)

    def request_started(self, *, stream: bool) -> None:
        """A request was accepted."""
        if stream:
            self._active += 1

    def request_over(self, *, stream: bool) -> None:
        """A request that `request_started` told of runs no more; `request_ended` says what became of it."""
        if stream:
            self._active -= 1

    def request_ended(self, outcome: Outcome, *, endpoint: str, engine: str, stream: bool) -> None:
        """What became of a request that is over.

        Args:
          endpoint: path below /v1/, as in `ENDPOINTS`; anything else counts as `other`.
          engine: `actors` or `relay`.
          stream: as it was given to `request_started`.
        """
        tally = outcome.tally
        self.request_answered(endpoint=endpoint, status=outcome.status)
        if stream:
            self._streams.add(1, outcome.end.value, self._upstream(outcome.upstream), engine)
            if tally.first_token is not None:
                self._first_token.observe(tally.first_token - tally.started)
            if tally.ended is not None:
                self._duration.observe(tally.ended - tally.started)
        if outcome.cancel_latency is not None:
            self._cancel.observe(outcome.cancel_latency)
        if tally.holds:
            self._hold_time.observe(tally.longest_hold)
            self._holds.add(tally.holds)
        self._chunks.add(tally.events)
        self._bytes.add(tally.bytes_in, "in")
        self._bytes.add(tally.bytes_out, "out")
        if tally.skipped:
            self._skipped.add(tally.skipped)
        if tally.retries:
            self._retries.add(tally.retries, self._upstream(outcome.upstream))
        if tally.done_added:
            self._repairs.add(1, "done")
        for shape, count in tally.repairs.items():
            self._repairs.add(count, shape)
        for shape, count in tally.refused.items():
            self._refused.add(count, shape)
        for action, count in tally.loops.items():
            self._loops.add(count, action)
        for (strategy, result), count in tally.resumes.items():
            self._resumes.add(count, strategy, result)
        for policy, count in tally.flushes.items():
            self._flushes.add(count, policy)
        for step, count in tally.transitions.items():
            self._transitions.add(count, *step)
        for result, count in tally.hedges.items():
            self._hedges.add(count, result)
        for (upstream, kind), count in tally.faults.items():
            self._faults.add(count, self._upstream(upstream), kind)

    def request_answered(self, *, endpoint: str, status: int) -> None:
        """A request was answered that never became an attempt: refused, or answered by evenflow itself.

        Args:
          status: the HTTP status, 0 if the client left before it got one.
        """
        known = endpoint.removeprefix("/v1/")
        self._requests.add(1, known if known in ENDPOINTS else "other", f"{status // 100}xx" if 100 <= status <= 599 else "none")

    def breaker_transition(self, upstream: str, before: str, after: str, reason: str = "") -> None:
        """A circuit changed its state. The reason is free text: it goes into the log, not into a label."""
        self._breaker_transitions.add(1, self._upstream(upstream_of(upstream)), before, after)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Everything as one exposition.

        Args:
          accept: the scraper's Accept header, which chooses between Prometheus' text and OpenMetrics.

        Returns:
          The body and its content type.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    @property
    def streams_active(self) -> int:
        """Streams that run now."""
        return self._active

    def _upstream(self, name: str) -> str:
        if not name:
            return "none"
        return name if name in self._upstreams else "other"

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        counter = Counter(f"evenflow_{name}", text, labels)
        self._registry.register(counter)
        return counter

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
        histogram = Histogram(f"evenflow_{name}_seconds", text, bounds)
        self._registry.register(histogram)
        return histogram


class _AskedAtScrape(Collector):
    """What others know at any moment."""

    def __init__(self, dropped_lines: Callable[[], int]) -> None:
        self._dropped_lines = dropped_lines
        self.breaker: Callable[[], BreakerStatistics] | None = None
        self.admission: Callable[[], AdmissionStatistics] | None = None
        self.rollout: Callable[[], RolloutStatistics] | None = None
        self.open_connections: Callable[[], int] | None = None
        self.memory: Callable[[], float] | None = None
        self.tasks: Callable[[], int] | None = None

    def collect(self) -> Iterator[Metric]:
        yield _counted("log_lines_dropped", "Log lines that were lost.", self._dropped_lines())
        if self.open_connections is not None:
            yield _gauged(
                "open_upstream_connections", "Connections to upstreams that are open, idle ones included.", self.open_connections()
            )
        if self.memory is not None:
            yield _gauged("memory_ratio", "Share of the memory it may have that the process holds; 0 where it is not known.", self.memory())
        if self.tasks is not None:
            yield _gauged("tasks", "Tasks of the event loop, its own included.", self.tasks())
        if self.breaker is not None:
            yield from _collect_breaker(self.breaker())
        if self.admission is not None:
            yield from _collect_admission(self.admission())
        if self.rollout is not None:
            yield from _collect_rollout(self.rollout())


def _collect_breaker(breaker: BreakerStatistics) -> Iterator[Metric]:
    state = GaugeMetricFamily("evenflow_breaker_state", "Circuits of an upstream in each state.", labels=("upstream", "state"))
    refused = CounterMetricFamily("evenflow_breaker_refused", "Requests that a circuit did not let through.", labels=("upstream",))
    # An upstream may have a circuit for each of its configured models; the model is no label all the same.
    circuits: dict[str, list[CircuitStatistics]] = {}
    for name, circuit in sorted(breaker.upstreams.items()):
        circuits.setdefault(upstream_of(name), []).append(circuit)
    for name, all_of_them in circuits.items():
        refused.add_metric((name,), sum(circuit.refused for circuit in all_of_them))
        for possible in BREAKER_STATES:
            state.add_metric((name, possible), float(sum(possible == circuit.state for circuit in all_of_them)))
    yield from (state, refused)
    yield _counted("retries_refused", "Retries that the budget did not allow.", breaker.retry_budget.refused)
    yield _counted("breaker_restarts", "Failures of the circuit breaker's actor.", breaker.restarts)
    yield _counted("breaker_failed_open", "Requests let through since the breaker did not answer.", breaker.failed_open)
    yield _counted("breaker_lost_reports", "Reports that found the breaker's mailbox full.", breaker.lost_reports)
    yield _gauged("breaker_mailbox_depth", "Messages that wait for the circuit breaker.", breaker.mailbox_depth)


def _collect_admission(admission: AdmissionStatistics) -> Iterator[Metric]:
    yield _gauged("waiting", "Requests that wait for their turn, or for an upstream's slot.", admission.waiting)
    yield _gauged("request_body_bytes", "Bytes of request bodies that are held.", admission.body_bytes)
    slots = GaugeMetricFamily("evenflow_slots_in_use", "Slots in use, of upstreams that have a limit.", labels=("upstream",))
    for name, count in sorted(admission.slots_in_use.items()):
        slots.add_metric((name,), count)
    rejected = CounterMetricFamily("evenflow_rejected", "Requests that were turned away since evenflow was busy.", labels=("reason",))
    for reason in REJECTIONS:
        rejected.add_metric((reason,), admission.rejected.get(reason, 0))
    yield from (slots, rejected)


def _collect_rollout(rollout: RolloutStatistics) -> Iterator[Metric]:
    yield _gauged("rollout_ratio", "Share of streams that the actors engine serves now.", rollout.percent / 100)
    yield _gauged("engine_fallback", "1 while the relay serves all streams because the actors failed too often.", rollout.fallen_back)
    faults = CounterMetricFamily("evenflow_engine_faults", "Streams in which evenflow itself failed.", labels=("engine",))
    for engine, count in rollout.own_faults.items():
        faults.add_metric((engine,), count)
    shadowed = CounterMetricFamily("evenflow_shadowed", "Relayed streams that were judged beside, by what differed.", labels=("result",))
    for result, count in rollout.shadowed.items():
        shadowed.add_metric((result,), count)
    yield from (faults, shadowed)


def _counted(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"evenflow_{name}", text, value=value)


def _gauged(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"evenflow_{name}", text, value=value)

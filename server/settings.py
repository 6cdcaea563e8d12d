"""Everything that can be set: one typed `Settings`, every default with its unit and its reason.

Owns the names, types, bounds, units and reasons of all settings, and their translation into the values the actors take
(`RouteTable`, `Upstream`, `BreakerPolicy`). Refuses to know where a value came from (settings_sources.py) and what contradicts
what (settings_checks.py). The reference in docs/configuration.md, the environment names and `evenflow check` are derived from
these types by settings_schema.py; there is no second list.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from actors import (
    STRATEGIES,
    AdmissionPolicy,
    BreakerPolicy,
    Candidate,
    LoopPolicy,
    RecoveryPolicy,
    RetryBudgetPolicy,
    Route,
    RouteTable,
    Secret,
    Strategy,
    Timers,
    Upstream,
    circuit_name,
    is_glob,
    seconds_or_off,
    upstream_of,
)

# These defaults live with the code that uses them.
_TIMERS, _RECOVERY, _BREAKER, _BUDGET, _LOOPS, _ADMISSION = (
    Timers(),
    RecoveryPolicy(),
    BreakerPolicy(),
    RetryBudgetPolicy(),
    LoopPolicy(),
    AdmissionPolicy(),
)


def _text(why: str, example: str = "") -> Meta:
    return Meta(description=why, examples=[example] if example else None)


def _seconds(why: str) -> Meta:
    """A duration that 0 switches off."""
    return Meta(description=why, extra={"unit": "s"}, ge=0)


def _duration(why: str) -> Meta:
    """A duration that cannot be off."""
    return Meta(description=why, extra={"unit": "s"}, gt=0)


def _count(why: str, unit: str, *, ge: int = 1) -> Meta:
    return Meta(description=why, extra={"unit": unit}, ge=ge)


def _share(why: str) -> Meta:
    return Meta(description=why, extra={"unit": "share"}, ge=0, le=1)


class _Section(Struct, frozen=True, forbid_unknown_fields=True):
    """One table of the file."""


class TimersSettings(_Section, frozen=True):
    """Every wait that is bounded. Origin of the numbers: DESIGN section 8."""

    connect: Annotated[float, _seconds("until the connection to the upstream stands, TLS included")] = _TIMERS.connect
    first_token: Annotated[
        float, _seconds("until the first token; long, since local prompt processing and hidden reasoning take minutes")
    ] = _TIMERS.first_token
    idle: Annotated[float, _seconds("between two tokens; reasoning and tool deltas count as tokens")] = _TIMERS.idle
    total: Annotated[float, _seconds("of the whole request, a last resort against streams without end")] = _TIMERS.total
    keepalive_after: Annotated[
        float,
        _seconds("silence before the head and the first `: keep-alive` comment go out; below the 30 to 60 s at which middleboxes cut"),
    ] = _TIMERS.keepalive_after
    keepalive_interval: Annotated[float, _seconds("between two keep-alive comments")] = _TIMERS.keepalive_interval
    client_stall: Annotated[float, _seconds("a client that takes no byte for so long is given up and its upstream freed")] = (
        _TIMERS.client_stall
    )


class RouteRetrySettings(_Section, frozen=True):
    """What one request may spend."""

    retries: Annotated[int, _count("further tries on the same upstream, before output was sent", "tries", ge=0)] = _RECOVERY.retries
    backoff_base: Annotated[float, _duration("first ceiling of the back-off; full jitter draws below it")] = _RECOVERY.backoff_base
    backoff_cap: Annotated[float, _duration("highest ceiling of the back-off, which doubles per try")] = _RECOVERY.backoff_cap
    retry_after_max: Annotated[float, _seconds("longest Retry-After waited for while the route has another upstream")] = (
        _RECOVERY.retry_after_max
    )
    retry_after_max_alone: Annotated[float, _seconds("longest Retry-After waited for where the route has no other upstream")] = (
        _RECOVERY.retry_after_max_alone
    )


class RetrySettings(RouteRetrySettings, frozen=True):
    """The same, and the budget that all requests share."""

    budget_ratio: Annotated[float, _share("retries per attempt over all requests, so that an outage is not multiplied")] = _BUDGET.share
    budget_floor: Annotated[int, _count("retries always allowed, so that a machine with one user still gets them", "per 10 s", ge=0)] = (
        _BUDGET.floor
    )


_AFTER = {
    "connect": "refused, unreachable, DNS, or timers.connect passed",
    "tls": "handshake or certificate failed; a certificate does not mend itself within a back-off",
    "first_token_timeout": "timers.first_token passed; the same upstream has just used up minutes",
    "cut": "the stream broke, fell silent or lost its framing before output was sent",
    "server_error": "5xx, an unreadable answer, or an error inside a 200",
    "rate_limited": "429 that asks for a pause",
    "auth": "401, 402, 403 of a configured key, or a quota gone for good",
    "context_length": "prompt too long; moves on only to another model",
    "reasoning_cut": "cut when only reasoning was sent: ask again and swallow the new attempt's reasoning",
    "bad_chunk": "a torn event that may have carried text; skipping it loses that text",
}

# Derived, so that a fault which gets a second legal strategy is a setting at once.
RecoverySettings = msgspec.defstruct(
    "RecoverySettings",
    [
        (
            name,
            Annotated[Literal[tuple(s.value for s in legal)], Meta(description=_AFTER.get(name, "what follows this fault"))],
            legal[0].value,
        )
        for name, legal in STRATEGIES.items()
    ],
    bases=(_Section,),
    frozen=True,
)


class BreakerSettings(_Section, frozen=True):
    """When an upstream's circuit opens and how it closes. Origin of the numbers: DESIGN section 8."""

    mode: Annotated[
        Literal["on", "disabled", "metrics_only", "forced_open"],
        _text("disabled admits everything, metrics_only counts but never refuses, forced_open refuses everything"),
    ] = _BREAKER.mode
    window: Annotated[float, _duration("sliding window in which calls are counted")] = _BREAKER.window
    buckets: Annotated[int, _count("parts of the window; it slides by one part", "parts")] = _BREAKER.buckets
    minimum_calls: Annotated[int, _count("below it the failure rate opens nothing", "calls")] = _BREAKER.minimum_calls
    failure_rate: Annotated[
        float, Meta(description="share of failed calls in the window that opens", extra={"unit": "share"}, gt=0, le=1)
    ] = _BREAKER.failure_rate
    consecutive_failures: Annotated[int, _count("so many failures in a row open, whatever the rate; 0 is off", "calls", ge=0)] = (
        _BREAKER.consecutive_failures
    )
    slow_rate: Annotated[float, _share("share of slow calls that opens; 0 is off")] = _BREAKER.slow_rate
    slow_first_token: Annotated[float, _seconds("a stream whose first token takes so long is slow")] = _BREAKER.slow_first_token
    slow_tokens_per_second: Annotated[
        float, Meta(description="a stream that brings less is slow; each event counts as a token; 0 is off", extra={"unit": "1/s"}, ge=0)
    ] = _BREAKER.slow_tokens_per_second
    open_base: Annotated[float, _duration("first open time; doubles with each opening in a row")] = _BREAKER.open_base
    open_max: Annotated[float, _duration("longest open time")] = _BREAKER.open_max
    jitter: Annotated[
        float, Meta(description="spread of the open time, so that many do not probe together", extra={"unit": "share"}, ge=0, lt=1)
    ] = _BREAKER.jitter
    probes: Annotated[int, _count("calls admitted at once while half-open", "calls")] = _BREAKER.probes
    successes: Annotated[int, _count("good probes in a row that close it", "calls")] = _BREAKER.successes
    half_open_max: Annotated[float, _seconds("a probe that says nothing for so long opens it again; 0 leaves it to the timers")] = (
        _BREAKER.half_open_max
    )
    alone_open_max: Annotated[float, _seconds("longest open time where the route has no other upstream")] = _BREAKER.alone_open_max
    pause: Annotated[float, _duration("after a 429 that does not say for how long")] = _BREAKER.pause
    retry_after_max: Annotated[float, _duration("longest Retry-After believed; a typing error up there must not last a day")] = (
        _BREAKER.retry_after_max
    )
    credential_pause: Annotated[float, _duration("after a refused credential; doubles with each further refusal")] = (
        _BREAKER.credential_pause
    )
    credential_pause_max: Annotated[float, _duration("longest pause after refused credentials")] = _BREAKER.credential_pause_max


class StreamingSettings(_Section, frozen=True):
    """Which engine serves a stream, and what becomes of one that is cut."""

    engine: Annotated[Literal["actors", "relay"], _text("actors parses and repairs; relay copies bytes")] = "actors"
    rollout_percent: Annotated[
        float,
        Meta(
            description="share of requests that get the actors engine, the rest relay; sticky per client key, else per request",
            extra={"unit": "%"},
            ge=0,
            le=100,
        ),
    ] = 100.0
    shadow: Annotated[
        bool,
        _text("streams that the relay serves are parsed and judged beside, which changes and delays nothing; `evenflow rollout` compares"),
    ] = False
    fallback_faults: Annotated[
        int,
        _count("so many faults of the actors' own within fallback_window, and the relay serves all new streams; 0 is off", "faults", ge=0),
    ] = 5
    fallback_window: Annotated[float, _duration("in which they are counted")] = 60.0
    resume: Annotated[
        Literal["off", "prefix", "align"],
        _text(
            "after output was sent: off ends a stream that is cut with an error; prefix has an upstream with `continuation` go on, and "
            "asks again if the request is deterministic; align asks again in any case, which pays the prompt and what was sent once more"
        ),
    ] = "off"
    delivery: Annotated[
        Literal["stream", "whole"],
        _text("whole keeps an answer (up to 8 MiB) until it is complete, so that every failure is retried; header `x-evenflow-delivery`"),
    ] = "stream"


class StutterSettings(_Section, frozen=True):
    """Whether repeated text is looked for, and what is known about the upstream beforehand."""

    mode: Annotated[Literal["off", "observe", "repair"], _text("observe counts what repair would remove")] = "repair"
    profile: Annotated[Literal["generic", "dashscope", "portal"], _text("which upstream's habits count as evidence")] = "generic"
    forget: Annotated[float, _seconds("what an upstream's earlier streams have shown counts for so long; 0 learns nothing")] = 86400.0
    trailer: Annotated[bool, _text("a comment line before [DONE] tells the client what was repaired, or in observe would have been")] = (
        False
    )


class LoopGuardSettings(_Section, frozen=True):
    """What counts as a model that repeats itself endlessly, and what follows. No text tells whether it was asked to."""

    action: Annotated[
        Literal["off", "observe", "warn", "cut"],
        _text("observe counts, warn adds a comment line to the stream, cut ends it with an error and closes the upstream"),
    ] = _LOOPS.action
    window: Annotated[
        int, Meta(description="kept of each text; longer repeated passages are not found", extra={"unit": "characters"}, ge=1024, le=65536)
    ] = _LOOPS.window
    repetitions: Annotated[int, _count("of one passage in a row, at least", "times", ge=3)] = _LOOPS.repetitions
    characters: Annotated[
        int, _count("that the repetitions fill, at least; sixteen times as many of what is no prose", "characters", ge=100)
    ] = _LOOPS.characters


class BufferSettings(_Section, frozen=True):
    """How long ambiguous events may be held. Origin: DESIGN sections 1 and 4."""

    max_events: Annotated[int, _count("events held at most", "events")] = 16
    max_bytes: Annotated[int, _count("bytes held at most", "bytes")] = 65536
    max_age: Annotated[float, _duration("longest hold of an event; below what a reader notices as a pause")] = 0.4


class EdgeSettings(_Section, frozen=True):
    """What the HTTP edge refuses, before any route or key is looked at. Origin: FAULTS B3, where no other is named."""

    allowed_hosts: Annotated[
        tuple[str, ...],
        _text(
            "further names, without port, that a request's Host may carry. Bound to loopback, only localhost, 127.0.0.1, [::1] and "
            "host.docker.internal are answered besides, against DNS rebinding; bound elsewhere, any Host is, unless this is set",
            '["llm.example.com"]',
        ),
    ] = ()
    cors_origins: Annotated[
        tuple[str, ...],
        _text("origins whose pages may read answers, each exactly; none: CORS is off", '["https://chat.example.com"]'),
    ] = ()
    max_headers: Annotated[int, _count("headers of a request; Envoy's limit, and ten times what any client sends", "headers")] = 100
    max_header_bytes: Annotated[int, _count("request line and headers together; as in Node", "bytes", ge=1024)] = 16384
    max_target: Annotated[int, _count("path and query; nginx's limit of a line", "bytes", ge=64)] = 8192
    header_timeout: Annotated[
        float, _duration("from a request's first byte, or from connecting, until its headers are whole; else slow clients hold sockets")
    ] = 5.0
    body_timeout: Annotated[
        float, _duration("silence within a body, and the time a body may take before body_min_rate counts; Apache's value")
    ] = 20.0
    body_min_rate: Annotated[
        int, _count("a body that took longer than body_timeout has to have come so fast; a fifth of a modem", "bytes/s")
    ] = 1024
    keepalive_timeout: Annotated[
        float,
        _duration("an idle connection is kept so long; above the 60 s for which nginx and others keep theirs, so that they close first"),
    ] = 75.0


class AdmissionSettings(_Section, frozen=True):
    """How many requests are served at once, and how the others wait."""

    max_streams: Annotated[
        int,
        _count("served at once, streamed or not; two sockets each, so that 4,096 open files suffice; 0 is no limit", "requests", ge=0),
    ] = _ADMISSION.max_streams
    max_waiting: Annotated[
        int, _count("that wait for their turn or for an upstream's slot; beyond, 503 with Retry-After", "requests", ge=0)
    ] = _ADMISSION.max_waiting
    max_wait: Annotated[
        float, Meta(description="longest wait of one request, all its waits together; then 503", extra={"unit": "s"}, ge=0)
    ] = _ADMISSION.max_wait
    max_body_bytes: Annotated[int, _count("request bodies held at once, a bound on memory; beyond, 503; 0 is no limit", "bytes", ge=0)] = (
        _ADMISSION.max_body_bytes
    )
    max_memory: Annotated[
        float,
        _share(
            "share of the memory it may have (its container's or service's limit, else the machine's) at which new requests get 503 and "
            "/readyz says no, before the kernel ends the process; Linux only; 0 is off"
        ),
    ] = _ADMISSION.max_memory


class LogSettings(_Section, frozen=True):
    """What goes to standard error."""

    format: Annotated[Literal["auto", "json", "text"], _text("auto is text on a terminal, JSON otherwise")] = "auto"
    level: Annotated[Literal["debug", "info", "warning", "error"], _text("least severity that is written")] = "info"


class RecorderSettings(_Section, frozen=True):
    """The flight recorder: what the last streams did, chunk by chunk, in files for `evenflow replay`."""

    directory: Annotated[
        str, _text("where the files go, readable by this user alone; none: nothing is recorded", "/var/lib/evenflow/flights")
    ] = ""
    streams: Annotated[int, _count("files kept; the oldest is removed", "files")] = 200
    max_bytes: Annotated[int, _count("kept of one stream's chunks; of further ones the length", "bytes", ge=0)] = 262144
    text: Annotated[
        Literal["redacted", "full"], _text("redacted replaces every letter and digit of every text; full keeps what models and users said")
    ] = "redacted"


class TracingSettings(_Section, frozen=True):
    """OpenTelemetry: one span per stream, by OTLP over HTTP. Needs `pip install 'evenflow[otel]'`."""

    endpoint: Annotated[str, _text("where spans are sent; none: nothing is traced", "http://127.0.0.1:4318/v1/traces")] = ""
    share: Annotated[float, _share("of the streams that belong to no trace of their client; those that do are traced as it says")] = 1.0
    service_name: Annotated[str, _text("`service.name` of every span")] = "evenflow"
    headers: Annotated[dict[str, Secret], _text("added to every export; a value is the text or `env:NAME`")] = field(default_factory=dict)
    timeout: Annotated[float, _duration("of one export; spans wait meanwhile, streams never do")] = 10.0


class UpstreamSettings(_Section, frozen=True, kw_only=True):
    """One base URL with one credential; two keys are two upstreams."""

    base_url: Annotated[str, _text("with scheme and path, as an OpenAI client would be given it", "http://127.0.0.1:11434/v1")]
    key_env: Annotated[str | None, _text("name of the environment variable that holds the key", "OPENAI_API_KEY")] = None
    key_file: Annotated[str | None, _text("file that holds the key, readable by its owner alone", "/run/secrets/openai")] = None
    # Found from key_env, key_file or EVENFLOW_UPSTREAM_KEY; no name in the file, where keys do not belong.
    key: Annotated[Secret | None, Meta(extra={"internal": True})] = None
    auth: Annotated[Literal["configured", "client"], _text("client forwards the caller's own Authorization instead of a key")] = (
        "configured"
    )
    headers: Annotated[dict[str, Secret], _text("added to every request; a value is the text or `env:NAME`")] = field(default_factory=dict)
    ca_file: Annotated[str | None, _text("PEM bundle to trust instead of the system's")] = None
    proxy: Annotated[
        Secret | None, _text("URL of a forward proxy, or `env:NAME`; HTTP_PROXY and the like are not read", "http://proxy:3128")
    ] = None
    transport: Annotated[Literal["own", "httpx"], _text("evenflow's own, or httpx's: slower, and always used with a proxy")] = "own"
    http2: Annotated[bool, _text("ask for HTTP/2 over TLS, one stream per connection; a server that has none is asked over HTTP/1.1")] = (
        False
    )
    continuation: Annotated[
        Literal["none", "continue_final_message", "partial", "prefix"],
        _text(
            "how it is told to go on from the beginning of an answer: continue_final_message (vLLM), partial (DashScope, Moonshot), prefix "
            "(DeepSeek's /beta, Mistral); needed for resume"
        ),
    ] = "none"
    models: Annotated[tuple[str, ...], _text("model names that /v1/models lists while the upstream is down", '["qwen3:8b"]')] = ()
    slots: Annotated[
        int,
        _count("it serves at once (llama.cpp: --parallel, Ollama: OLLAMA_NUM_PARALLEL); the others wait here; 0 is any", "requests", ge=0),
    ] = 0
    breaker_per_model: Annotated[
        bool, _text("a circuit for each model that `models` or a route names here, so that one that fails stops no other")
    ] = False
    timers: Annotated[dict[str, float], Meta(extra={"table": TimersSettings, "partial": True})] = field(default_factory=dict)
    breaker: Annotated[dict[str, int | float | str], Meta(extra={"table": BreakerSettings, "partial": True})] = field(default_factory=dict)
    stutter: Annotated[dict[str, str | float | bool], Meta(extra={"table": StutterSettings, "partial": True})] = field(default_factory=dict)
    buffer: Annotated[dict[str, int | float], Meta(extra={"table": BufferSettings, "partial": True})] = field(default_factory=dict)
    loop_guard: Annotated[dict[str, int | str], Meta(extra={"table": LoopGuardSettings, "partial": True})] = field(default_factory=dict)


class UpstreamRef(_Section, frozen=True):
    """An upstream in a route, asked for another model than the client named."""

    upstream: str
    model: str | None = None


class RouteSettings(_Section, frozen=True, kw_only=True):
    """Which upstreams serve a model, in order."""

    model: Annotated[str, _text("a model name, a glob or `*`; an exact name goes before a glob, a glob before `*`", "qwen*")]
    upstreams: Annotated[
        tuple[str | UpstreamRef, ...],
        _text("in the order in which they are asked; a table renames the model", '["main", {upstream = "spare", model = "other"}]'),
    ]
    timers: Annotated[dict[str, float], Meta(extra={"table": TimersSettings, "partial": True})] = field(default_factory=dict)
    recovery: Annotated[dict[str, str], Meta(extra={"table": RecoverySettings, "partial": True})] = field(default_factory=dict)
    retry: Annotated[dict[str, int | float], Meta(extra={"table": RouteRetrySettings, "partial": True})] = field(default_factory=dict)
    resume: Annotated[Literal["off", "prefix", "align"] | None, _text("goes before `streaming.resume`")] = None
    delivery: Annotated[Literal["stream", "whole"] | None, _text("goes before `streaming.delivery`")] = None
    hedge_after: Annotated[
        float, _seconds("silence after which the next upstream is asked too; the first to answer is kept, both may be billed; 0 is off")
    ] = 0.0

    @property
    def refs(self) -> tuple[UpstreamRef, ...]:
        """`upstreams`, each as a table."""
        return tuple(UpstreamRef(entry) if isinstance(entry, str) else entry for entry in self.upstreams)


class Settings(_Section, frozen=True, kw_only=True):
    """All settings of one process. Build it with `settings_sources.load`, or in code for tests and `evenflow dev`."""

    bind: Annotated[str, _text("HOST:PORT of the listener for clients; port 0 takes a free one", "0.0.0.0:8143")] = "127.0.0.1:8143"
    admin_bind: Annotated[str, _text("HOST:PORT of metrics, status and breaker control", "127.0.0.1:8144")] = "127.0.0.1:8144"
    client_keys: Annotated[
        tuple[Secret, ...], _text("keys that clients must send as Bearer or x-api-key; each is the key or `env:NAME`", '["env:EVEN_KEY"]')
    ] = ()
    admin_keys: Annotated[
        tuple[Secret, ...],
        _text(
            "keys that the admin listener asks for; needed where it is bound off loopback; client_keys do not open it", '["env:OPS_KEY"]'
        ),
    ] = ()
    allow_anonymous: Annotated[bool, _text("lets the main listener be bound off loopback without client_keys; never the admin one")] = False
    max_request_body: Annotated[int, _count("longest request body; images in base64 are long", "bytes")] = 32 * 1024 * 1024
    max_event: Annotated[int, _count("longest single event of an upstream, a bound on memory", "bytes")] = 10 * 1024 * 1024
    drain: Annotated[float, _seconds("how long running streams may go on after SIGTERM")] = 30.0
    drain_notice: Annotated[
        float, _seconds("after SIGTERM, new requests are still taken for so long while /readyz says no; for slow load balancers")
    ] = 0.0
    backlog: Annotated[int, _count("connections the kernel may queue; 100 overflows when a thousand clients come at once", "sockets")] = (
        4096
    )
    workers: Annotated[
        int, _count("that serve side by side, at most one per core; limits, circuits and what was learned are each one's own", "processes")
    ] = 1
    timers: TimersSettings = field(default_factory=TimersSettings)
    retry: RetrySettings = field(default_factory=RetrySettings)
    recovery: Annotated[dict[str, str], Meta(extra={"table": RecoverySettings})] = field(default_factory=dict)
    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    streaming: StreamingSettings = field(default_factory=StreamingSettings)
    stutter: StutterSettings = field(default_factory=StutterSettings)
    loop_guard: LoopGuardSettings = field(default_factory=LoopGuardSettings)
    buffer: BufferSettings = field(default_factory=BufferSettings)
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    edge: EdgeSettings = field(default_factory=EdgeSettings)
    log: LogSettings = field(default_factory=LogSettings)
    recorder: RecorderSettings = field(default_factory=RecorderSettings)
    tracing: TracingSettings = field(default_factory=TracingSettings)
    configured_upstreams: dict[str, UpstreamSettings] = field(default_factory=dict, name="upstreams")
    configured_routes: tuple[RouteSettings, ...] = field(default=(), name="routes")

    def upstreams(self) -> tuple[Upstream, ...]:
        """The upstreams in file order."""
        return tuple(self._upstream(name) for name in self.configured_upstreams)

    def breaker_policies(self) -> dict[str, BreakerPolicy]:
        """The breaker policy of each circuit, by its name: one per upstream, and one per known model where that is asked for."""
        names = list(self.configured_upstreams)
        names += [circuit_name(name, model) for name in self.configured_upstreams for model in sorted(self._own_circuits(name))]
        return {name: self.breaker_of(upstream_of(name)) for name in names}

    def admission_policy(self) -> AdmissionPolicy:
        """How many requests are served at once, and how the others wait."""
        return AdmissionPolicy(**msgspec.structs.asdict(self.admission))

    def retry_budget(self) -> RetryBudgetPolicy:
        """The budget that the retries of all requests share."""
        return RetryBudgetPolicy(share=self.retry.budget_ratio, floor=self.retry.budget_floor)

    def breaker_of(self, upstream: str) -> BreakerPolicy:
        merged = msgspec.structs.replace(self.breaker, **self.configured_upstreams[upstream].breaker)
        return BreakerPolicy(**msgspec.structs.asdict(merged))

    def models_of(self, upstream: str) -> tuple[str, ...]:
        """The models that the configuration names at an upstream; those it is said to serve come first."""
        asked_for = [
            ref.model or route.model
            for route in self.configured_routes
            for ref in route.refs
            if ref.upstream == upstream and (ref.model or not is_glob(route.model))
        ]
        return (*self.configured_upstreams[upstream].models, *asked_for)

    def _own_circuits(self, upstream: str) -> frozenset[str]:
        """The models that are judged apart at an upstream: those that the configuration names, so that no client can add one."""
        return frozenset(self.models_of(upstream) if self.configured_upstreams[upstream].breaker_per_model else ())

    def stutter_of(self, upstream: str) -> StutterSettings:
        """What is looked for in the streams of one upstream."""
        return msgspec.structs.replace(self.stutter, **self.configured_upstreams[upstream].stutter)

    def buffer_of(self, upstream: str) -> BufferSettings:
        """How long events of one upstream may be held."""
        return msgspec.structs.replace(self.buffer, **self.configured_upstreams[upstream].buffer)

    def loop_guard_of(self, upstream: str) -> LoopGuardSettings:
        """What counts as a loop in the streams of one upstream."""
        return msgspec.structs.replace(self.loop_guard, **self.configured_upstreams[upstream].loop_guard)

    def routes(self) -> tuple[RouteSettings, ...]:
        """The routes; without any, `*` over all upstreams in file order."""
        if self.configured_routes or not self.configured_upstreams:
            return self.configured_routes
        return (RouteSettings(model="*", upstreams=tuple(self.configured_upstreams)),)

    def route_table(self) -> RouteTable:
        """The routes with everything resolved: a route's own value before its upstream's before the general one."""
        return RouteTable(self._route(route) for route in self.routes())

    def _route(self, route: RouteSettings) -> Route:
        candidates = []
        for ref in route.refs:
            timers = {**self.configured_upstreams[ref.upstream].timers, **route.timers}
            candidates.append(Candidate(self._upstream(ref.upstream), ref.model, self._timers(timers)))
        # The timers of the stream as a whole (total, keep-alive, client stall) outlive any one attempt: the first upstream's count.
        return Route(
            route.model,
            tuple(candidates),
            candidates[0].timers,
            self._recovery(route),
            hedge_after=seconds_or_off(route.hedge_after),
            resume=route.resume or self.streaming.resume,
            delivery=route.delivery or self.streaming.delivery,
        )

    def _timers(self, overrides: dict[str, float]) -> Timers:
        merged = msgspec.structs.replace(self.timers, **overrides)
        return Timers(**{name: seconds_or_off(value) for name, value in msgspec.structs.asdict(merged).items()})

    def _recovery(self, route: RouteSettings) -> RecoveryPolicy:
        spent = msgspec.structs.replace(self.retry, **route.retry)
        strategies = {name: Strategy(value) for name, value in {**self.recovery, **route.recovery}.items()}
        return RecoveryPolicy(
            **{name: getattr(spent, name) for name in RouteRetrySettings.__struct_fields__},
            strategies={name: value for name, value in strategies.items() if value is not STRATEGIES[name][0]},
        )

    def _upstream(self, name: str) -> Upstream:
        table = self.configured_upstreams[name]
        return Upstream(
            name=name,
            base_url=table.base_url.rstrip("/"),
            key=table.key,
            auth=table.auth,
            headers=tuple((header, value.reveal()) for header, value in table.headers.items()),
            ca_file=table.ca_file,
            proxy=table.proxy.reveal() if table.proxy is not None else None,
            transport=table.transport,
            http2=table.http2,
            continuation=table.continuation,
            breaker=self.breaker_of(name),
            slots=table.slots,
            own_circuits=self._own_circuits(name),
        )


@dataclass(frozen=True, slots=True)
class Address:
    """HOST:PORT of a listener; IPv6 hosts stand in brackets. Port 0 lets the kernel choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read HOST:PORT.

        Raises:
          ValueError: it is none; the text says what to write instead.
        """
        host, colon, port = text.strip().rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"{text!r} is not HOST:PORT with a port of 0 to 65535; write for example 127.0.0.1:8143")
        if not host:
            raise ValueError(f"{text!r} has no host; write 127.0.0.1:{port}, or 0.0.0.0:{port} for every interface")
        if host.startswith("[") and host.endswith("]"):
            try:
                return cls(str(ipaddress.IPv6Address(host[1:-1])), int(port))
            except ValueError:
                raise ValueError(f"{text!r} has no IPv6 address in its brackets; write for example [::1]:{port}") from None
        if ":" in host or "[" in host or "]" in host:
            raise ValueError(f"{text!r} looks like IPv6; write the address in brackets, for example [::1]:8143")
        if "/" in host or "@" in host or not host.isprintable() or " " in host:
            raise ValueError(f"{text!r} is not HOST:PORT; write for example 127.0.0.1:8143, without scheme or path")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than localhost may resolve to anything: no."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

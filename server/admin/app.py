"""The admin listener: metrics, status, and the switches of the circuit breaker.

Owns who may use them and how they answer. It listens apart from the proxy (127.0.0.1:8144), so that whoever may talk to a model
cannot look at the others' traffic or open a circuit. A page in the operator's own browser counts as an enemy too: it can send
requests to 127.0.0.1, by DNS rebinding even as the same origin. Hence the list of host names, the Origin check, and changes by
POST with a JSON content type only, which no plain form can send. Answers are JSON, errors in OpenAI's form, except `/` and `/metrics`.

What a status says and what a breaker does is decided by those who are handed in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol
from urllib.parse import urlsplit

import msgspec
import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from actors import MODES, BreakerGone, Mode, error_json

from ..client_keys import KeyRing
from ..edge_origins import THIS_MACHINE
from ..log import printable, redact
from .dashboard import PAGE, add_dashboard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from actors import BreakerStatistics, Learned, Secret

    from ..metrics import Metrics

#: Largest request body, in bytes; they say `{"state": "..."}` or `{"percent": ...}`.
_MOST_BODY: Final = 4096

#: Both listeners, for those who generate clients and for schemathesis, which the tests hold them to it with.
_DESCRIPTION: Final = Path(__file__).with_name("openapi.json")

#: Probes of a container platform come by the container's address and without a key, and learn nothing but yes or no.
_OPEN_TO_ALL: Final = frozenset({"/healthz", "/readyz"})

_INDEX: Final = """\
evenflow, admin listener; in a browser: {base}/dashboard

  curl {base}/metrics                 metrics for Prometheus
  curl {base}/status                  version, engine, streams, circuits, routes
  curl {base}/rollout                 the engines side by side
  curl {base}/healthz                 200 while the process answers
  curl {base}/readyz                  200 while it takes new requests, else 503
  curl {base}/openapi.json            this listener and the main one, described

  curl -X POST -H 'content-type: application/json' {base}/breaker/UPSTREAM/reset
  curl -X POST -H 'content-type: application/json' -d '{{"state": "forced_open"}}' {base}/breaker/UPSTREAM/force
      state: forced_open (nobody goes there), disabled (everybody does, nothing is counted),
      metrics_only (counts, never refuses), on (back to normal)
  curl -X POST -H 'content-type: application/json' -d '{{"percent": 10}}' {base}/rollout
      the share of new streams that the actors engine serves, until the next reload; ends a fallback
"""


class BreakerControl(Protocol):
    """What is needed of the circuit breaker's handle. `reset` and `force` raise KeyError for an upstream that does not exist."""

    def statistics(self) -> BreakerStatistics: ...

    async def reset(self, name: str, /) -> None: ...

    async def force(self, name: str, mode: Mode, /) -> None: ...


class RolloutControl(Protocol):
    """What is needed of the roll-out: its report, and another percentage."""

    def report(self) -> Mapping[str, object]: ...

    def set_percent(self, percent: float, /) -> None: ...


class _Percent(msgspec.Struct, forbid_unknown_fields=True):
    percent: Annotated[float, msgspec.Meta(ge=0, le=100)]


class _Force(msgspec.Struct, forbid_unknown_fields=True):
    state: Mode


def create_admin_app(
    *,
    metrics: Metrics,
    status: Callable[[], Mapping[str, object]],
    breaker: BreakerControl,
    rollout: RolloutControl,
    ready: Callable[[], bool],
    feed: Callable[[int], dict[str, Any]],
    catch_up: Callable[[], Awaitable[None]],
    learned: Callable[[], Mapping[str, Learned]] = dict,
    keys: Sequence[Secret] = (),
    allowed_hosts: Iterable[str] = (),
) -> QuartTrio:
    """Build the admin listener's application.

    Args:
      status: called for each `GET /status`; what it returns is shown with the circuits added as `upstreams`. It must hold no secret.
      rollout: which engine serves what.
      ready: whether new requests are taken.
      feed: what the dashboard shows, from a serial number on.
      catch_up: waited for before anything of all that is asked: then what has ended is counted.
      learned: what is known of each upstream's stutter, shown as its `stutter`.
      keys: whoever asks must present one of them; needed where the listener is bound off loopback.
      allowed_hosts: names (without port) by which the listener may be addressed besides localhost and loopback addresses. With keys,
        any IP address will do as well: it cannot be rebound, and a page that guesses it has no key.
    """
    app = QuartTrio(__name__, static_folder=None)
    app.config["RESPONSE_TIMEOUT"] = None
    app.config["MAX_CONTENT_LENGTH"] = _MOST_BODY
    ring = KeyRing(keys)
    hosts = frozenset(host.lower() for host in allowed_hosts)

    @app.before_request
    async def guard() -> Response | None:
        if request.path in _OPEN_TO_ALL:
            return None
        host = request.headers.get("host", "")
        if not _is_expected_host(host, hosts, any_address=bool(ring)):
            return _error(
                421, f"host '{printable(host)}' is none of this listener's names; ask by 127.0.0.1, or see edge.allowed_hosts", "wrong_host"
            )
        if request.path in PAGE:
            return None
        if ring and ring.check({name.lower(): value for name, value in request.headers.items()}) is None:
            refusal = _error(401, "the admin listener wants one of admin_keys, as 'Authorization: Bearer KEY'", "invalid_api_key")
            refusal.headers["www-authenticate"] = 'Bearer realm="evenflow admin"'
            return refusal
        if request.method == "POST":
            origin = request.headers.get("origin")
            if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
                return _error(403, f"requests from pages of '{printable(origin)}' are refused", "foreign_origin")
            if request.mimetype != "application/json":
                return _error(415, "send it with 'content-type: application/json'", "unsupported_media_type")
        await catch_up()
        return None

    @app.after_request
    async def harden(response: Response) -> Response:
        response.headers["cache-control"] = "no-store"
        response.headers["x-content-type-options"] = "nosniff"
        return response

    @app.get("/")
    async def index() -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return Response("", 302, {"location": "dashboard"})
        return Response(_INDEX.format(base=f"http://{request.headers['host']}"), content_type="text/plain; charset=utf-8")

    @app.get("/metrics")
    async def show_metrics() -> Response:
        body, content_type = metrics.render(request.headers.get("accept", ""))
        return Response(body, content_type=content_type)

    @app.get("/status")
    async def show_status() -> Response:
        statistics = breaker.statistics()
        others = {name: value for name, value in msgspec.to_builtins(statistics, enc_hook=_plain).items() if name != "upstreams"}
        circuits = {name: _circuit(statistics, name) for name in statistics.upstreams}
        for name, known in learned().items():
            circuits[name]["stutter"] = msgspec.to_builtins(known)
        return _json({**status(), "upstreams": circuits, "breaker": others})

    @app.get("/healthz")
    async def healthz() -> Response:
        return _json({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        return _json({"status": "ready"}) if ready() else _error(503, "no new requests are taken now", "not_ready")

    @app.get("/openapi.json")
    async def describe() -> Response:
        return Response(_DESCRIPTION.read_bytes(), content_type="application/json")

    @app.post("/breaker/<upstream>/reset")
    async def reset(upstream: str) -> Response:
        try:
            await breaker.reset(upstream)
        except KeyError:
            return _unknown(upstream, breaker)
        return _json(_circuit(breaker.statistics(), upstream))

    @app.post("/breaker/<upstream>/force")
    async def force(upstream: str) -> Response:
        try:
            order = msgspec.json.decode(await request.get_data(), type=_Force)
        except (msgspec.DecodeError, RecursionError) as error:
            wanted = " | ".join(f'"{mode}"' for mode in MODES)
            return _error(400, f'the body must be {{"state": {wanted}}}: {printable(str(error))}', "invalid_state")
        try:
            await breaker.force(upstream, order.state)
        except KeyError:
            return _unknown(upstream, breaker)
        return _json(_circuit(breaker.statistics(), upstream))

    @app.get("/rollout")
    async def show_rollout() -> Response:
        return _json(rollout.report())

    @app.post("/rollout")
    async def change_rollout() -> Response:
        try:
            order = msgspec.json.decode(await request.get_data(), type=_Percent)
        except (msgspec.DecodeError, RecursionError) as error:
            return _error(400, f'the body must be {{"percent": 0 to 100}}: {printable(str(error))}', "invalid_percent")
        rollout.set_percent(order.percent)
        return _json(rollout.report())

    add_dashboard(app, feed, ready, catch_up)

    @app.errorhandler(HTTPException)
    async def http_error(error: HTTPException) -> Response:
        response = _error(error.code or 500, error.description or error.name, error.name.lower().replace(" ", "_"))
        for name, value in error.get_headers():
            if name.lower() in ("allow", "retry-after"):
                response.headers[name] = value
        return response

    @app.errorhandler(BreakerGone)
    async def breaker_gone(_error_: BreakerGone) -> Response:
        return _error(503, "the circuit breaker does not answer; the process is stopping", "breaker_gone")

    return app


def _is_expected_host(header: str, configured: frozenset[str], *, any_address: bool) -> bool:
    try:
        parts = urlsplit(f"//{header}")
        name, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if name is None or parts.netloc != header or "@" in header:
        return False
    if name in THIS_MACHINE or name in configured:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return any_address or address.is_loopback


def _circuit(statistics: BreakerStatistics, name: str) -> dict[str, object]:
    """One circuit as an operator reads it: the seconds that are left instead of a moment of a clock that only this process knows."""
    circuit = statistics.upstreams[name]
    shown: dict[str, object] = msgspec.to_builtins(circuit)
    del shown["until"]
    return shown | {"seconds_left": round(circuit.seconds_left(trio.current_time()), 1)}


def _plain(value: object) -> object:
    """What msgspec does not know: read-only mappings, and whatever can only be named."""
    return dict(value) if isinstance(value, Mapping) else str(value)


def _json(document: object, status: int = 200) -> Response:
    """Indented, since people read it in a terminal. Infinity becomes null."""
    text = msgspec.json.format(msgspec.json.encode(document, enc_hook=_plain), indent=2).decode()
    return Response(redact(text) + "\n", status, content_type="application/json")


def _error(status: int, message: str, code: str) -> Response:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return Response(redact(error_json(message, kind, code).decode()) + "\n", status, content_type="application/json")


def _unknown(upstream: str, breaker: BreakerControl) -> Response:
    existing = ", ".join(f"'{name}'" for name in sorted(breaker.statistics().upstreams)) or "none"
    return _error(404, f"no upstream '{printable(upstream)}'; there are: {existing}", "upstream_not_found")

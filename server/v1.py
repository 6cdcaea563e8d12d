"""All POST /v1/* as plain ASGI: reads the body once, then streams or answers whole.

Owns the order of checks before an upstream is asked, and what is counted and told when a request has ended. Quart is not involved: its
response generator, its 60 s timeout and its body rules have no place on the hot path.
"""

from __future__ import annotations

import math
import random
import re
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import trio

from actors import (
    Attempts,
    BadRequest,
    FirstLook,
    RelayProcessor,
    RequestFacts,
    ResponseHeaders,
    Shadow,
    StreamMachine,
    StreamPolicy,
    StreamProcessor,
    Tally,
    UpstreamRequest,
    error_json,
    read_request,
    strategies_for,
    to_upstream,
)

from .bookkeeping import TRACE_CONTEXT, open_booking
from .buffers import guard_factory
from .flights import RecordedMachine
from .hops import CODE, MOST, TOO_MANY, hops_of, next_hop
from .outlets import exchange_of, run_processor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from actors import Outcome, Rejection, Route, Visit

    from .bookkeeping import Booking
    from .edge_exchange import Exchange
    from .flights import Flight
    from .services import Services
    from .settings import Settings

    Receive = Callable[[], Awaitable[Any]]
    Send = Callable[[Any], Awaitable[None]]

#: Answered as SSE when `stream` is true; only these go through the pipeline (DESIGN section 4).
COMPLETIONS: Final = ("/v1/chat/completions", "/v1/completions")

#: What goes up for them, below an upstream's base_url.
_TARGETS: Final = {path.encode(): path.removeprefix("/v1") for path in COMPLETIONS}
_CLOSE: Final = ((b"connection", b"close"),)
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(eq=False)
class Refusal(Exception):
    """A request that is answered without asking an upstream."""

    status: int
    message: str
    code: str | None
    error_type: str = "invalid_request_error"
    param: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Disconnected(Exception):
    """The client left before its request was complete."""


class V1:
    """The ASGI application of POST /v1/*.

    Args:
      services: shared by all requests.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._open_guard = guard_factory(services.settings)
        self._policies: dict[tuple[object, ...], StreamPolicy] = {}

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        with self._services.admission.visit() as visit:
            await self._answer(scope, receive, send, visit)

    async def _answer(self, scope: dict[str, Any], receive: Receive, send: Send, visit: Visit) -> None:
        headers = scope["headers"]
        exchange = exchange_of(scope)
        if exchange is None:  # else they are as we want them
            headers = [(bytes(name).lower(), bytes(value)) for name, value in headers]
        text = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        path = scope["path"].rstrip("/") if scope["path"] != "/v1/" else scope["path"]
        request_id = _request_id(text.get("x-request-id", ""))
        try:
            client = self._authenticate(text)
            if (hops := hops_of(text.get("x-evenflow-hops", ""))) >= MOST:
                raise Refusal(508, TOO_MANY, CODE, "server_error")
            _check_coding(headers, text, path)
            target = _target(scope, path)
            if exchange is not None and not exchange.missing:
                body = _take_body(exchange, self._services.settings, visit)
            else:
                body = await _read_body(receive, text, self._services.settings, visit)
            facts = _facts(body, text, path)
            route = self._route(facts)
            delivery = _delivery(text, route)
            if (busy := visit.knock(client or _address(scope))) is not None:
                raise _busy(busy)
        except Refusal as refusal:
            self._services.metrics.request_answered(endpoint=path, status=refusal.status)
            await _refuse(refusal, request_id, send)
            return
        except Disconnected:
            self._services.metrics.request_answered(endpoint=path, status=499)
            return
        streamed = facts.stream and path in COMPLETIONS
        engine = self._services.rollout.engine(client or request_id) if streamed else "relay"
        shadow = self._shadow(facts, route) if streamed and engine == "relay" and self._services.rollout.shadowing else None
        booking = open_booking(
            self._services, request_id, path, facts, route=route.pattern, engine=engine, client=client, streamed=streamed, headers=text
        )
        request = self._request(target, headers, next_hop(hops), body, booking)
        processor = self._processor(request, facts, route, booking, visit, shadow, retrying=_is_retry(text), whole=delivery == "whole")
        booking.begin(processor)
        outcome: Outcome | None = None
        try:
            async with nullcontext() if shadow is None else _running(shadow):
                outcome = await run_processor(processor, route.timers.client_stall, scope, receive, send)
                if shadow is not None:
                    self._services.rollout.compared(outcome, await shadow.finish())
        finally:
            booking.end(outcome if outcome is not None else processor.outcome())

    def _authenticate(self, headers: dict[str, str]) -> str | None:
        if not self._services.keys:
            return None
        client = self._services.keys.check(headers)
        if client is None:
            message = "the API key is missing or wrong; send one of this proxy's client_keys as Authorization: Bearer or x-api-key"
            raise Refusal(401, message, "invalid_api_key", headers=((b"www-authenticate", b"Bearer"),))
        return client

    def _request(
        self, target: str, headers: list[tuple[bytes, bytes]], hop: tuple[bytes, bytes], body: bytes, booking: Booking
    ) -> UpstreamRequest:
        """What goes up. Where streams are traced, our own span is the parent of whatever the upstream does."""
        passed = to_upstream(headers)
        if context := booking.trace_headers():
            passed = [*(header for header in passed if header[0] not in TRACE_CONTEXT), *context]
        authorization = next((value for name, value in headers if name == b"authorization"), None)
        return UpstreamRequest("POST", target, (*passed, hop), body, authorization)

    def _route(self, facts: RequestFacts) -> Route:
        route = self._services.routes.find(facts.model)
        if route is None:
            known = ", ".join(route.pattern for route in self._services.routes.routes)
            raise Refusal(
                404, f"no route serves the model {facts.model[:200]!r}; there are routes for: {known}", "model_not_found", param="model"
            )
        return route

    def _policy(self, facts: RequestFacts, route: Route, path: str, *, whole: bool) -> StreamPolicy:
        """What a stream may do; kept, for there are but a few kinds of request."""
        kind = (route.pattern, path, whole, facts.choices, facts.deterministic, facts.structured)
        if (policy := self._policies.get(kind)) is None:
            policy = self._policies[kind] = StreamPolicy(
                choices=facts.choices,
                replay_reasoning=route.recovery.strategy("reasoning_cut") == "replay",
                resume=strategies_for(route.resume, facts, continuable=path == COMPLETIONS[0] and route.continuable),
                whole=whole,
                skip_bad_chunks=route.recovery.strategy("bad_chunk") == "skip",
                keepalive_after=route.timers.keepalive_after,
                keepalive_interval=route.timers.keepalive_interval,
                total=route.timers.total,
            )
        return policy

    def _machine(self, policy: StreamPolicy, tally: Tally, now: float, flight: Flight | None) -> StreamMachine:
        buffers = self._services.buffers
        if flight is None:
            return StreamMachine(policy, buffers, tally, now, open_guard=self._open_guard)
        return RecordedMachine(policy, lambda upstream: buffers(upstream, flight), tally, now, flight, self._open_guard)

    def _shadow(self, facts: RequestFacts, route: Route) -> Shadow:
        """What looks at a relayed stream as the actors would; the relay keeps the time."""
        services = self._services
        policy = StreamPolicy(
            choices=facts.choices,
            skip_bad_chunks=route.recovery.strategy("bad_chunk") == "skip",
            keepalive_after=math.inf,
            keepalive_interval=math.inf,
            total=math.inf,
        )

        def open_machine(tally: Tally) -> StreamMachine:
            return StreamMachine(policy, services.buffers, tally, tally.started, open_guard=self._open_guard)

        return Shadow(open_machine, max_event=services.settings.max_event)

    def _processor(
        self,
        request: UpstreamRequest,
        facts: RequestFacts,
        route: Route,
        booking: Booking,
        visit: Visit,
        shadow: Shadow | None,
        *,
        retrying: bool,
        whole: bool,
    ) -> StreamProcessor | RelayProcessor:
        services, engine, path = self._services, booking.engine, booking.path
        now = trio.current_time()
        tally = Tally(started=now)
        if engine == "actors":
            look = FirstLook.MEANINGFUL_FRAME
        elif path not in COMPLETIONS:
            look = FirstLook.HEAD
        else:
            look = FirstLook.FIRST_BYTE if facts.stream else FirstLook.WHOLE
        attempts = Attempts(
            request,
            facts.model,
            route,
            look,
            client=services.client,
            breaker=services.breaker,
            tally=tally,
            client_is_retrying=retrying,
            random=services.random,
            visit=visit,
        )
        headers = ResponseHeaders(booking.request_id, engine, booking.trace_response())
        if engine != "actors":
            return RelayProcessor(attempts, headers, route.timers, stream=facts.stream, tally=tally, shadow=shadow)
        machine = self._machine(self._policy(facts, route, path, whole=whole), tally, now, booking.flight)
        return StreamProcessor(attempts, machine, headers, max_event=services.settings.max_event, tally=tally, alarms=services.alarms)


@asynccontextmanager
async def _running(shadow: Shadow) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shadow.run)
        yield
        nursery.cancel_scope.cancel()


def _request_id(theirs: str) -> str:
    """The client's own request id if it is harmless, else a new one."""
    return theirs if _REQUEST_ID.fullmatch(theirs) else f"ev-{random.getrandbits(128):032x}"


def _is_retry(headers: dict[str, str]) -> bool:
    """openai-python and openai-node say so when a request is itself a retry."""
    count = headers.get("x-stainless-retry-count", "0")
    return count.isascii() and count.isdigit() and int(count) > 0


def _delivery(headers: dict[str, str], route: Route) -> str:
    """How the answer is delivered: as the request says, else as the route does."""
    asked = headers.get("x-evenflow-delivery", route.delivery)
    if asked not in ("stream", "whole"):
        raise Refusal(400, "x-evenflow-delivery must be stream or whole", None)
    return asked


def _target(scope: dict[str, Any], path: str) -> str:
    """Path and query as they go up, below an upstream's base_url: as they came, still encoded, so that nothing in them means more up there.

    Args:
      path: the decoded one, by which the request is judged.
    """
    query = scope.get("query_string", b"")
    if not query and (target := _TARGETS.get(scope["raw_path"])) is not None:
        return target
    raw: str = scope["raw_path"].decode("ascii").rstrip("/")
    # Many servers take "\\" for "/". A path that led out of the base_url would reach, with its credential, what nobody configured.
    if {".", ".."} & set(re.split(r"[/\\]", path)) or not path.isprintable() or not f"{raw}/".startswith("/v1/"):
        raise Refusal(400, "the path must be plain: no '.' or '..' in it, no control character, and /v1 not encoded", "invalid_path")
    return (path if path in COMPLETIONS else raw).removeprefix("/v1") + (f"?{query.decode('latin-1')}" if query else "")


def _check_coding(fields: list[tuple[bytes, bytes]], headers: dict[str, str], path: str) -> None:
    if "content-encoding" in headers and any(
        name == b"content-encoding" and value.lower() not in (b"", b"identity") for name, value in fields
    ):
        raise Refusal(415, "a compressed request body is not accepted; send it without content-encoding", None)
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if path in COMPLETIONS and media_type != "application/json":
        # Asking for this type also makes a browser send a preflight first; elsewhere edge_origins.py keeps foreign pages out.
        raise Refusal(415, f"content-type must be application/json, not {media_type[:80] or 'absent'!r}", None)


def _address(scope: dict[str, Any]) -> str:
    """Where a request comes from, which stands for whose it is where there are no client keys."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _busy(rejection: Rejection, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Refusal:
    wait = (b"retry-after", b"%d" % math.ceil(rejection.retry_after))
    return Refusal(503, rejection.message, "server_busy", "server_error", headers=(wait, *headers))


def _take_body(exchange: Exchange, settings: Settings, visit: Visit) -> bytes:
    """The request's body where all of it is here, as with most requests: nothing waits, and no deadline is needed."""
    body = exchange.take()
    if len(body) > settings.max_request_body:
        raise _too_large(settings.max_request_body, _CLOSE)
    if (busy := visit.look_in() or visit.hold_bytes(len(body))) is not None:
        raise _busy(busy, _CLOSE)
    return body


async def _read_body(receive: Receive, headers: dict[str, str], settings: Settings, visit: Visit) -> bytes:
    """The request's body as it comes."""
    limit, edge = settings.max_request_body, settings.edge
    announced = headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit, _CLOSE)
    parts, size, more = [], 0, True
    held = int(announced) if announced.isdigit() else 0
    if (busy := visit.look_in() or visit.hold_bytes(held)) is not None:
        raise _busy(busy, _CLOSE)
    start = trio.current_time()
    with trio.CancelScope(deadline=start + edge.body_timeout) as waiting:
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise _too_large(limit, _CLOSE)
            if size > held:
                if (busy := visit.hold_bytes(size - held)) is not None:
                    raise _busy(busy, _CLOSE)
                held = size
            parts.append(part)
            more = message.get("more_body", False)
            if more:
                waiting.deadline = edge.body_timeout + min(trio.current_time(), start + size / edge.body_min_rate)
    if waiting.cancelled_caught:
        told = f"the request body stalled for edge.body_timeout = {edge.body_timeout:g} s, or came slower than edge.body_min_rate"
        raise Refusal(408, told, "request_timeout", headers=_CLOSE)
    return b"".join(parts)


def _too_large(limit: int, headers: tuple[tuple[bytes, bytes], ...]) -> Refusal:
    return Refusal(413, f"the request body is larger than max_request_body = {limit} bytes", "request_too_large", headers=headers)


def _facts(body: bytes, headers: dict[str, str], path: str) -> RequestFacts:
    """What decides the handling. An endpoint we do not know may carry anything; its model counts if it has one."""
    try:
        return read_request(body)
    except BadRequest as bad:
        if path in COMPLETIONS:
            raise Refusal(400, str(bad), bad.code, param=bad.param) from None
    return RequestFacts(model="", stream="text/event-stream" in headers.get("accept", ""), choices=1)


async def _refuse(refusal: Refusal, request_id: str, send: Send) -> None:
    body = error_json(refusal.message, refusal.error_type, refusal.code, refusal.param)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        *refusal.headers,
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})

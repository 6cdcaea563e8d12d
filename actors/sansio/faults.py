"""What can go wrong with an upstream: the taxonomy, and the classification of what an upstream said.

A `Fault` is a value. It is made once, where the failure is first seen, and carries everything that anybody later needs: what
the client will be told (status, code, message), what the circuit breaker will be told (verdict), and which setting may change
what is tried (`recovery`). What follows a fault is decided in error_recovery.py.
"""

from __future__ import annotations

import email.utils
import json
import math
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from ..errors import (
    UpstreamConnectError,
    UpstreamDisconnected,
    UpstreamDnsError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamTlsError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .chunks import InBandError


class Verdict(StrEnum):
    """What one attempt means for its upstream's circuit breaker (DESIGN section 6)."""

    SUCCESS = "success"
    FAILURE = "failure"
    SLOW = "slow"
    EXCLUDED = "excluded"  # the client's fault, or ours: the permit goes back, nothing is counted
    PAUSE = "pause"  # the upstream asked for a pause (429): no failure, but nobody goes there until it ends
    DEAD_CREDENTIAL = "dead_credential"  # 401, 402, 403, permanent quota: paused for growing times, loudly


class FaultKind(StrEnum):
    """Every way an attempt can fail. The value is the `kind` in logs and metrics."""

    CONNECT = "connect"
    DNS = "dns"
    TLS = "tls"
    CONNECT_TIMEOUT = "connect_timeout"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    DISCONNECTED = "disconnected"
    PROTOCOL = "protocol"
    TRUNCATED = "truncated"
    BAD_CHUNK = "bad_chunk"
    EVENT_TOO_LARGE = "event_too_large"
    BAD_RESPONSE = "bad_response"
    REDIRECT = "redirect"
    SERVER_ERROR = "server_error"
    RATE_LIMITED = "rate_limited"
    QUOTA = "quota"
    AUTH = "auth"
    BAD_REQUEST = "bad_request"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    IN_BAND_ERROR = "in_band_error"
    LOOP = "loop"
    UNAVAILABLE = "unavailable"
    SHUTDOWN = "shutdown"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class _Rule:
    """One row of the taxonomy: the client's status and code, the breaker's verdict, the setting that may change what is tried."""

    status: int
    code: str
    verdict: Verdict
    setting: str | None = None


_RULES: Final[Mapping[FaultKind, _Rule]] = MappingProxyType(
    {
        FaultKind.CONNECT: _Rule(502, "upstream_connect_error", Verdict.FAILURE, "connect"),
        FaultKind.DNS: _Rule(502, "upstream_dns_error", Verdict.FAILURE, "connect"),
        # A certificate does not mend itself within a back-off: straight to the next upstream (FAULTS row 3).
        FaultKind.TLS: _Rule(502, "upstream_tls_error", Verdict.FAILURE, "tls"),
        FaultKind.CONNECT_TIMEOUT: _Rule(504, "upstream_timeout", Verdict.FAILURE, "connect"),
        FaultKind.FIRST_TOKEN_TIMEOUT: _Rule(504, "upstream_timeout", Verdict.FAILURE, "first_token_timeout"),
        FaultKind.IDLE_TIMEOUT: _Rule(504, "upstream_timeout", Verdict.FAILURE, "cut"),
        FaultKind.TOTAL_TIMEOUT: _Rule(504, "stream_too_long", Verdict.EXCLUDED),
        FaultKind.DISCONNECTED: _Rule(502, "upstream_disconnected", Verdict.FAILURE, "cut"),
        FaultKind.PROTOCOL: _Rule(502, "upstream_disconnected", Verdict.FAILURE, "cut"),
        FaultKind.TRUNCATED: _Rule(502, "upstream_truncated", Verdict.FAILURE, "cut"),
        FaultKind.BAD_CHUNK: _Rule(502, "upstream_bad_chunk", Verdict.FAILURE, "cut"),
        FaultKind.EVENT_TOO_LARGE: _Rule(502, "event_too_large", Verdict.FAILURE),
        FaultKind.BAD_RESPONSE: _Rule(502, "upstream_bad_response", Verdict.FAILURE, "server_error"),
        FaultKind.REDIRECT: _Rule(502, "upstream_redirect", Verdict.FAILURE),
        FaultKind.SERVER_ERROR: _Rule(502, "upstream_error", Verdict.FAILURE, "server_error"),
        FaultKind.RATE_LIMITED: _Rule(429, "rate_limit_exceeded", Verdict.PAUSE, "rate_limited"),
        FaultKind.QUOTA: _Rule(429, "insufficient_quota", Verdict.DEAD_CREDENTIAL, "auth"),
        FaultKind.AUTH: _Rule(502, "upstream_auth_error", Verdict.DEAD_CREDENTIAL, "auth"),
        FaultKind.BAD_REQUEST: _Rule(400, "invalid_request_error", Verdict.EXCLUDED),
        FaultKind.CONTEXT_LENGTH: _Rule(400, "context_length_exceeded", Verdict.EXCLUDED, "context_length"),
        FaultKind.CONTENT_FILTER: _Rule(400, "content_filter", Verdict.EXCLUDED),
        FaultKind.IN_BAND_ERROR: _Rule(502, "upstream_error", Verdict.FAILURE, "server_error"),
        # A model that repeats itself says nothing about its upstream's health: a success for the breaker, with counters of its own.
        FaultKind.LOOP: _Rule(502, "repetition_loop", Verdict.SUCCESS),
        FaultKind.UNAVAILABLE: _Rule(503, "upstream_unavailable", Verdict.EXCLUDED),
        FaultKind.SHUTDOWN: _Rule(503, "server_shutdown", Verdict.EXCLUDED),
        FaultKind.INTERNAL: _Rule(500, "internal_error", Verdict.EXCLUDED),
    }
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One classified failure of one attempt.

    Args:
      kind: what happened.
      message: one sentence for the client and the log; never holds a credential.
      status: the HTTP status for the client if no head was sent yet; 0 takes the kind's own.
      upstream: configured name of the upstream, "" where none was involved.
      retry_after: seconds the upstream (or our breaker) asks to wait, None if it did not say.
      upstream_code: the upstream's own `error.code`, kept for the client where it says more than ours.
      body: the upstream's own JSON error body if it goes to the client unchanged, else None.
      setting: dotted name of the setting that fired or that mends this, "" if none.
    """

    kind: FaultKind
    message: str
    status: int = 0
    upstream: str = ""
    retry_after: float | None = None
    upstream_code: str = ""
    body: bytes | None = None
    setting: str = ""

    @property
    def http_status(self) -> int:
        return self.status or _RULES[self.kind].status

    @property
    def code(self) -> str:
        return self.upstream_code or _RULES[self.kind].code

    @property
    def verdict(self) -> Verdict:
        return _RULES[self.kind].verdict

    @property
    def recovery(self) -> str | None:
        """Name of the `recovery.<name>` setting that governs it, None if it is never repeated."""
        return _RULES[self.kind].setting

    @property
    def error_type(self) -> str:
        """OpenAI's `error.type`."""
        match self.kind:
            case FaultKind.BAD_REQUEST | FaultKind.CONTEXT_LENGTH | FaultKind.CONTENT_FILTER:
                return "invalid_request_error"
            case FaultKind.RATE_LIMITED:
                return "rate_limit_error"
            case FaultKind.QUOTA:
                return "insufficient_quota"
            case FaultKind.INTERNAL | FaultKind.SHUTDOWN | FaultKind.UNAVAILABLE:
                return "server_error"
            case _:
                return "upstream_error"

    def to_json(self) -> bytes:
        """The OpenAI-style error body; the upstream's own where that goes through unchanged."""
        if self.body is not None:
            return self.body
        return error_json(self.message, self.error_type, self.code)

    def to_frame(self) -> bytes:
        """The error frame of a stream whose head was sent. No [DONE] follows it (DESIGN section 4)."""
        return b"data: " + error_json(self.message, self.error_type, self.code) + b"\n\n"


def error_json(message: str, error_type: str, code: str | None, param: str | None = None) -> bytes:
    """An OpenAI-style error object, the form that openai-python, openai-node, AI SDK, LangChain and LiteLLM read."""
    error = {"message": message, "type": error_type, "param": param, "code": code}
    return json.dumps({"error": error}, ensure_ascii=True).encode()


# ---- classification -------------------------------------------------------------------------------------------------

#: Upstream statuses that mean "try again", FAULTS row 10. 408 and 425 are the server's own retry invitations (RFC 9110, 8470).
_TRANSIENT_STATUSES: Final = frozenset({408, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})

# DashScope says `insufficient_quota` for an allocation limit that clears within a minute (RIVALS issue 20), so its own code
# is looked at first; a plan that "will reset at" some later time is gone for good as far as one request is concerned.
_MOMENTARY = ("throttling", "ratequota", "allocationquota", "rate_limit", "rate limit", "too many requests", "per minute", "tpm", "rpm")
_PERMANENT_QUOTA = (
    "insufficient_quota",
    "exceeded your current quota",
    "will reset at",
    "billing",
    "credit balance",
    "arrears",
    "out of credits",
)
_CONTEXT_LENGTH = (
    "context_length_exceeded",
    "maximum context length",
    "context length",
    "context window",
    "prompt is too long",
    "exceed_context_size",
    "input length should be",
    "too many tokens",
)
_CONTENT_FILTER = ("content_filter", "content_policy", "content policy", "data_inspection_failed", "responsibleaipolicy", "moderation")


def classify_exception(error: UpstreamError, upstream: str) -> Fault:
    """The fault that an exception of the HTTP client's seam stands for."""
    kind, setting, text = FaultKind.PROTOCOL, "", str(error)
    match error:
        case UpstreamTimeout(setting=setting):
            kind = {
                "timers.connect": FaultKind.CONNECT_TIMEOUT,
                "timers.first_token": FaultKind.FIRST_TOKEN_TIMEOUT,
                "timers.idle": FaultKind.IDLE_TIMEOUT,
                "timers.total": FaultKind.TOTAL_TIMEOUT,
            }[setting]
            text = f"no answer in time ({text})"
        case UpstreamDnsError():
            kind = FaultKind.DNS
        case UpstreamTlsError():
            kind = FaultKind.TLS
        case UpstreamConnectError():
            kind = FaultKind.CONNECT
        case UpstreamDisconnected():
            kind = FaultKind.DISCONNECTED
        case UpstreamProtocolError():
            kind = FaultKind.PROTOCOL
    return Fault(kind, f"upstream '{upstream}': {text}", upstream=upstream, setting=setting)


def classify_response(
    status: int, headers: Mapping[str, str], body: bytes, upstream: str, *, now_wall: float, client_credential: bool = False
) -> Fault:
    """The fault that an HTTP answer of 300 or above stands for.

    Args:
      headers: lower-case names.
      body: the answer's body, at most the first 64 KiB.
      now_wall: seconds since the epoch, for a Retry-After given as a date.
      client_credential: the caller's own credential went up (`auth = "client"`): its 401, 402, 403 and 429 are the caller's business.
    """
    error = _error_object(body)
    message, code = _text_of(error), _code_of(error)
    haystack = f"{code} {error.get('type', '')} {message}".lower() if error else ""
    retry_after = parse_retry_after(headers, now_wall)
    said = message or _plain_text(body, headers.get("content-type", ""))
    text = f"upstream '{upstream}' answered {status}" + (f": {said}" if said else "")
    passed = body if error else None
    fault = Fault(FaultKind.SERVER_ERROR, text, status, upstream, retry_after, code, passed)
    if 300 <= status < 400:
        return Fault(FaultKind.REDIRECT, f"{text}; redirects are not followed, correct base_url", 0, upstream)
    if status == 429:
        if _says(haystack, _PERMANENT_QUOTA) and not _says(haystack, _MOMENTARY):
            return replace(fault, kind=FaultKind.QUOTA)
        return replace(fault, kind=FaultKind.RATE_LIMITED)
    if status in (401, 402, 403):
        if client_credential:
            return replace(fault, kind=FaultKind.BAD_REQUEST)
        if status == 403 and _says(haystack, _MOMENTARY):
            return replace(fault, kind=FaultKind.RATE_LIMITED, status=429)
        told = f"upstream '{upstream}' refused the configured credential ({status}); check upstreams.{upstream}.key_env or key_file"
        return Fault(FaultKind.AUTH, told, 0, upstream, setting=f"upstreams.{upstream}.key_env")
    if status in _TRANSIENT_STATUSES or status >= 500:
        return fault
    if _says(haystack, _CONTEXT_LENGTH):
        return replace(fault, kind=FaultKind.CONTEXT_LENGTH)
    if _says(haystack, _CONTENT_FILTER):
        return replace(fault, kind=FaultKind.CONTENT_FILTER)
    return replace(fault, kind=FaultKind.BAD_REQUEST)


def classify_in_band(error: InBandError, upstream: str) -> Fault:
    """The fault that an error object inside a 200 stands for, restated with its proper status."""
    return _in_band(error.message, error.type, error.code, error.status, upstream)


def _in_band(message: str, error_type: str, code: str, status: int, upstream: str) -> Fault:
    haystack = f"{code} {error_type} {message}".lower()
    text = f"upstream '{upstream}': {message or error_type or 'error without a message'}"
    fault = Fault(FaultKind.IN_BAND_ERROR, text, status, upstream, upstream_code="" if code.isdigit() else code)
    if status == 429 or _says(haystack, _MOMENTARY):
        return replace(fault, kind=FaultKind.RATE_LIMITED)
    if _says(haystack, _PERMANENT_QUOTA):
        return replace(fault, kind=FaultKind.QUOTA)
    if _says(haystack, _CONTEXT_LENGTH):
        return replace(fault, kind=FaultKind.CONTEXT_LENGTH)
    if _says(haystack, _CONTENT_FILTER):
        return replace(fault, kind=FaultKind.CONTENT_FILTER)
    if status in (401, 402, 403):
        return replace(fault, kind=FaultKind.AUTH, status=0)
    if 400 <= status < 500 and status not in _TRANSIENT_STATUSES:
        return replace(fault, kind=FaultKind.BAD_REQUEST)
    return fault


def classify_whole(body: bytes, upstream: str) -> Fault | None:
    """The fault that a 200 with a whole body hides: an error object, or nothing at all (FAULTS row 12). None if it is an answer."""
    if not body.strip():
        return Fault(FaultKind.BAD_RESPONSE, f"upstream '{upstream}' answered 200 with an empty body", upstream=upstream)
    if b'"error"' not in body:
        return None
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict) or not answer.get("error") or "choices" in answer:
        return None
    error = _error_object(body)
    code = error.get("code")
    status = code if isinstance(code, int) and 400 <= code <= 599 else 0
    return _in_band(_text_of(error), str(error.get("type") or ""), _code_of(error), status, upstream)


def parse_retry_after(headers: Mapping[str, str], now_wall: float) -> float | None:
    """Seconds to wait as the upstream states them, or None.

    Reads `retry-after-ms` (OpenAI, Azure), then `Retry-After` as seconds or as an HTTP date (RFC 9110, 10.2.3). A date in the past
    and a negative number are 0; what cannot be read is None, so that the default back-off applies (FAULTS row 9). The ceiling is
    the caller's: `retry.retry_after_max`.
    """
    if milliseconds := _number(headers.get("retry-after-ms")):
        return max(0.0, milliseconds / 1000)
    value = headers.get("retry-after")
    if value is None:
        return None
    if (seconds := _number(value)) is not None:
        return max(0.0, seconds)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now_wall)
    except (ValueError, TypeError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _says(haystack: str, words: tuple[str, ...]) -> bool:
    return any(word in haystack for word in words)


def _error_object(body: bytes) -> dict[str, Any]:
    """The error object of a JSON body: {"error": {...}}, {"error": "..."}, {"message": ..., "code": ...} or a list of one of these."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(value, list) and value:  # Google's OpenAI-compatible endpoint
        value = value[0]
    if not isinstance(value, dict):
        return {}
    error = value.get("error", value)
    if isinstance(error, str):
        return {"message": error, "code": value.get("code")}
    return error if isinstance(error, dict) else {}


def _text_of(error: Mapping[str, Any]) -> str:
    for name in ("message", "detail", "error_msg", "msg"):
        if isinstance(text := error.get(name), str):
            return text[:500]
    return ""


def _code_of(error: Mapping[str, Any]) -> str:
    code = error.get("code")
    return code[:100] if isinstance(code, str) and not code.isdigit() else ""


def _plain_text(body: bytes, content_type: str) -> str:
    """At most 200 characters of a body that is no JSON, tags and control characters removed (FAULTS row 11)."""
    text = body[:8192].decode("utf-8", "replace")
    if "html" in content_type or text.lstrip()[:1] == "<":
        parts, depth = [], 0
        for character in text:
            depth += (character == "<") - (character == ">" and depth > 0)
            parts.append(" " if depth or character == ">" else character)
        text = "".join(parts)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]

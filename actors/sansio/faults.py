"""What can go wrong with an upstream: the taxonomy, and what each kind means for the client, the breaker and the next try.

A `Fault` is a value. It is made once, where the failure is first seen, and carries everything that anybody later needs: what
the client will be told (status, code, message), what the circuit breaker will be told (verdict), and which setting may change
what is tried (`recovery`). Which kind it is, is decided in classifier.py; what follows a fault, in error_recovery.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


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
    MODEL_ACCESS = "model_access"
    BAD_REQUEST = "bad_request"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    IN_BAND_ERROR = "in_band_error"
    LOOP = "loop"
    DIFFERED = "differed"
    UNAVAILABLE = "unavailable"
    BUSY = "busy"
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
        # The credential works, only not for this model: the client is told the same, the upstream goes on serving the others.
        FaultKind.MODEL_ACCESS: _Rule(502, "upstream_auth_error", Verdict.EXCLUDED, "auth"),
        FaultKind.BAD_REQUEST: _Rule(400, "invalid_request_error", Verdict.EXCLUDED),
        FaultKind.CONTEXT_LENGTH: _Rule(400, "context_length_exceeded", Verdict.EXCLUDED, "context_length"),
        FaultKind.CONTENT_FILTER: _Rule(400, "content_filter", Verdict.EXCLUDED),
        FaultKind.IN_BAND_ERROR: _Rule(502, "upstream_error", Verdict.FAILURE, "server_error"),
        # A model that repeats itself says nothing about its upstream's health: a success for the breaker, with counters of its own.
        FaultKind.LOOP: _Rule(502, "repetition_loop", Verdict.SUCCESS),
        # It was asked to take up an answer and said another thing: its right, and no client is told.
        FaultKind.DIFFERED: _Rule(502, "upstream_differed", Verdict.EXCLUDED),
        FaultKind.UNAVAILABLE: _Rule(503, "upstream_unavailable", Verdict.EXCLUDED),
        FaultKind.BUSY: _Rule(503, "server_busy", Verdict.EXCLUDED),
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
    def nobody_asked(self) -> bool:
        """Evenflow itself refused before an upstream was asked: moving on costs nobody anything."""
        return self.kind in (FaultKind.UNAVAILABLE, FaultKind.BUSY)

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
            case FaultKind.INTERNAL | FaultKind.SHUTDOWN | FaultKind.UNAVAILABLE | FaultKind.BUSY:
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


def shutdown_fault() -> Fault:
    """What is told to whoever is still waiting when this process ends. A second later another process may serve them."""
    return Fault(FaultKind.SHUTDOWN, "evenflow is shutting down and could not wait for the end of this answer; ask again", retry_after=1.0)


def error_json(message: str, error_type: str, code: str | None, param: str | None = None) -> bytes:
    """An OpenAI-style error object, the form that openai-python, openai-node, AI SDK, LangChain and LiteLLM read."""
    error = {"message": message, "type": error_type, "param": param, "code": code}
    return json.dumps({"error": error}, ensure_ascii=True).encode()

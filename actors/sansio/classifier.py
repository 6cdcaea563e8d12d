"""What an upstream said, as a fault: statuses, error bodies, errors inside a 200, exceptions of the HTTP client's seam.

Owns which words mean what. A status decides where it is clear; the text decides between the kinds that providers put behind one
status: a limit that clears within a minute and a quota that is used up are both a 429, a key without a right to one model and a
key without any are both a 403. What follows from a kind stands in faults.py.

Words that pause an upstream count only where the client cannot have put them there: servers quote a bad request in their 400.
"""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ..errors import (
    OutOfDescriptors,
    UpstreamConnectError,
    UpstreamDisconnected,
    UpstreamDnsError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamTlsError,
)
from .error_body import code_of, error_object, plain_text, text_of
from .faults import Fault, FaultKind
from .retry_after import parse_retry_after, wait_in_body

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .chunks import InBandError

#: Upstream statuses that mean "try again", FAULTS row 10. 408 and 425 are the server's own retry invitations (RFC 9110, 8470).
_TRANSIENT_STATUSES: Final = frozenset({408, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
#: A 4xx that is about the request itself; its text may quote the request.
_ABOUT_THE_REQUEST: Final = frozenset(range(400, 500)) - _TRANSIENT_STATUSES - {401, 402, 403, 429}
#: Statuses of errors inside a 200 that name only a type: Anthropic's types, and what vLLM calls a 400.
_STATUS_OF_TYPE: Final[Mapping[str, int]] = MappingProxyType(
    {
        "overloaded_error": 503,
        "engine_overloaded_error": 503,
        "rate_limit_error": 429,
        "authentication_error": 401,
        "permission_error": 403,
        "not_found_error": 404,
        "request_too_large": 413,
        "timeout_error": 504,
        "badrequesterror": 400,
    }
)

#: One request that is larger than what a limit gives in a whole minute (OpenAI, Groq): waiting never helps, another model may.
_TOO_LARGE_FOR_LIMIT: Final = ("request too large for",)
#: A quota that is gone until a date, a payment or a change of plan, whatever else the text says.
_LASTING: Final = (
    "will reset at",
    "will reset on",
    "freetieronly",
    "arrear",
    "insufficient balance",
    "insufficient credits",
    "credit balance",
    "out of credits",
    "recharge",
    "overdue",
    "suspended",
)
# DashScope says `insufficient_quota` and OpenAI's own words for an allocation limit that clears within a minute (RIVALS issue 20);
# its code or the anchor of the page it links to tell the two apart, so these are looked at before the words that OpenAI means.
_MOMENTARY: Final = (
    "throttling",
    "ratequota",
    "allocationquota",
    "rate_limit",
    "rate limit",
    "ratelimit",
    "too many requests",
    "per minute",
    "per second",
    "per min ",
    "tpm",
    "rpm",
    "concurren",
    "#token-limit",
    "#rate-limit",
)
_QUOTA: Final = ("insufficient_quota", "exceeded your current quota", "exceeded_current_quota", "billing", "quota exceeded", "usage limit")
_CONTEXT_LENGTH: Final = (
    "context_length_exceeded",
    "maximum context length",
    "context length",
    "context window",
    "context limit",
    "prompt is too long",
    "exceed_context_size",
    "available context size",
    "input length should be",
    "input token count",
    "too many tokens",
    "string_above_max_length",
)
_CONTENT_FILTER: Final = (
    "content_filter",
    "content_policy",
    "content policy",
    "content management policy",
    "data_inspection_failed",
    "datainspectionfailed",
    "responsibleaipolicy",
    "moderation",
    "safety system",
    "inappropriate content",
)
#: What a 403 is about if it is not one model: the key, the account, or where the request comes from.
_WHOLE_CREDENTIAL: Final = (
    "invalid api key",
    "invalid_api_key",
    "incorrect api key",
    "billing",
    "account",
    "country",
    "region",
    "ip address",
)
#: A 400 that is really about the key (Gemini, xAI) or the account (DashScope). Only at a text's beginning: further in, it may be quoted.
_CREDENTIAL_BEGINS: Final = ("api key not valid", "incorrect api key", "invalid api key", "access denied, please make sure your account")
_CREDENTIAL_CODES: Final = frozenset({"invalid_api_key", "arrearage"})


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
        case OutOfDescriptors():
            # Ours alone: no other upstream would be reached either, and this one is not to blame.
            return Fault(FaultKind.UNAVAILABLE, f"upstream '{upstream}': {text}", upstream=upstream, retry_after=1.0)
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
    error = error_object(body)
    message, code = text_of(error), code_of(error)
    said = f"{code} {error.get('type', '')} {message}".lower() if error else ""
    retry_after = parse_retry_after(headers, now_wall)
    if retry_after is None and error:
        retry_after = wait_in_body(error, message)
    shown = message or plain_text(body, headers.get("content-type", ""))
    text = f"upstream '{upstream}' answered {status}" + (f": {shown}" if shown else "")
    fault = Fault(FaultKind.SERVER_ERROR, text, status, upstream, retry_after, code, body if error else None)
    if 300 <= status < 400:
        return Fault(FaultKind.REDIRECT, f"{text}; redirects are not followed, correct base_url", 0, upstream)
    if status == 429:
        return replace(fault, kind=_limit(said))
    if status in (401, 402, 403):
        if client_credential:
            return replace(fault, kind=FaultKind.BAD_REQUEST)
        return _refused(fault, said)
    if status == 508 and code == "loop_detected":
        # An evenflow in front of another, and a loop: each would repeat it, and eight of them 3 to the power of 8 times.
        return replace(fault, kind=FaultKind.BAD_REQUEST)
    if status in _TRANSIENT_STATUSES or status >= 500:
        return fault
    if not client_credential and _is_about_credential(message, code):
        return _refused_credential(status, upstream)
    return replace(fault, kind=_rejection(said))


def classify_in_band(error: InBandError, upstream: str) -> Fault:
    """The fault that an error object inside a 200 stands for, restated with its proper status."""
    return _in_band(error.message, error.type, error.code, error.status, upstream)


def classify_whole(body: bytes, upstream: str) -> Fault | None:
    """The fault that a 200 with a whole body hides: an error object, a page, or nothing at all (FAULTS row 12). None if it is an answer."""
    start = body[:64].lstrip()
    if not start and not body.strip():
        return Fault(FaultKind.BAD_RESPONSE, f"upstream '{upstream}' answered 200 with an empty body", upstream=upstream)
    if start.startswith(b"<"):
        text = f"upstream '{upstream}' answered 200 with a page: {plain_text(body, 'text/html')}"
        return Fault(FaultKind.BAD_RESPONSE, text, upstream=upstream)
    if b'"error"' not in body:
        return None
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict) or not answer.get("error") or "choices" in answer:
        return None
    error = error_object(body)
    code = error.get("code")
    status = code if isinstance(code, int) and 400 <= code <= 599 else 0
    return _in_band(text_of(error), str(error.get("type") or ""), code_of(error), status, upstream)


def _in_band(message: str, error_type: str, code: str, status: int, upstream: str) -> Fault:
    status = status or _STATUS_OF_TYPE.get(error_type.lower(), 0)
    said = f"{code} {error_type} {message}".lower()
    text = f"upstream '{upstream}': {message or error_type or 'error without a message'}"
    upstream_code = "" if code.isdigit() else code
    fault = Fault(FaultKind.IN_BAND_ERROR, text, status, upstream, wait_in_body({}, message), upstream_code)
    if status in _ABOUT_THE_REQUEST:
        return replace(fault, kind=_rejection(said))
    if status == 429:
        return replace(fault, kind=_limit(said))
    if status in (401, 402, 403):
        return _refused(fault, said)
    if _says(said, _LASTING):
        return replace(fault, kind=FaultKind.QUOTA)
    if _says(said, _MOMENTARY):
        return replace(fault, kind=FaultKind.RATE_LIMITED)
    if _says(said, _QUOTA):
        return replace(fault, kind=FaultKind.QUOTA)
    rejection = _rejection(said)
    return fault if rejection is FaultKind.BAD_REQUEST else replace(fault, kind=rejection)


def _limit(said: str) -> FaultKind:
    """What a 429 is about."""
    if _says(said, _TOO_LARGE_FOR_LIMIT):
        return FaultKind.CONTEXT_LENGTH
    if _says(said, _LASTING) or (_says(said, _QUOTA) and not _says(said, _MOMENTARY)):
        return FaultKind.QUOTA
    return FaultKind.RATE_LIMITED


def _rejection(said: str) -> FaultKind:
    """What a rejection of the request itself is about."""
    if _says(said, _CONTEXT_LENGTH) or _says(said, _TOO_LARGE_FOR_LIMIT):
        return FaultKind.CONTEXT_LENGTH
    return FaultKind.CONTENT_FILTER if _says(said, _CONTENT_FILTER) else FaultKind.BAD_REQUEST


def _refused(fault: Fault, said: str) -> Fault:
    """What a 401, 402 or 403 to the configured credential is about."""
    status, upstream = fault.http_status, fault.upstream
    if status == 403:
        if _says(said, _CONTENT_FILTER):
            return replace(fault, kind=FaultKind.CONTENT_FILTER)
        # The free tier is counted per model, so its end leaves the others alone (DashScope).
        if "freetieronly" in said or ("model" in said and not _says(said, _WHOLE_CREDENTIAL)):
            setting = f"upstreams.{upstream}.key_env"
            told = f"upstream '{upstream}' does not allow this model to the configured credential (403); check what {setting} may use"
            return Fault(FaultKind.MODEL_ACCESS, told, 0, upstream, setting=setting)
        if _says(said, _MOMENTARY) and not _says(said, _LASTING):
            return replace(fault, kind=FaultKind.RATE_LIMITED, status=429)
    return _refused_credential(status, upstream)


def _refused_credential(status: int, upstream: str) -> Fault:
    # Not what the upstream said: such texts quote keys.
    told = f"upstream '{upstream}' refused the configured credential ({status}); check upstreams.{upstream}.key_env or key_file"
    return Fault(FaultKind.AUTH, told, 0, upstream, setting=f"upstreams.{upstream}.key_env")


def _is_about_credential(message: str, code: str) -> bool:
    return code.lower() in _CREDENTIAL_CODES or message.lower().startswith(_CREDENTIAL_BEGINS)


def _says(haystack: str, words: tuple[str, ...]) -> bool:
    return any(word in haystack for word in words)

"""Answers that refuse: HTTP statuses with their bodies and Retry-After, errors inside a 200, answers of the wrong kind.

Bodies follow what providers were seen to send (OpenAI, DashScope, llama.cpp); FAULTS rows 6 to 14.
"""

from __future__ import annotations

import email.utils
import time
from typing import TYPE_CHECKING, Final

from .ask import Ask, Model
from .envelopes import encode
from .streams import begun_of, deliver, event, head_of, middle, ok, parts_of, script_of
from .wire import JSON, LAST_CHUNK, Answer, Headers, Send, response_head, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

_TELLING: Final[Mapping[int, tuple[str, str, str | None]]] = {
    400: ("The request could not be understood.", "invalid_request_error", None),
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    402: ("Payment is required for this account.", "invalid_request_error", "payment_required"),
    403: ("This key may not use that model.", "invalid_request_error", "access_denied"),
    404: ("The model does not exist or you have no access to it.", "invalid_request_error", "model_not_found"),
    413: ("The request body is too large.", "invalid_request_error", "request_too_large"),
    422: ("messages.0.role: unknown role.", "invalid_request_error", "unprocessable"),
    429: ("Rate limit reached for requests per minute.", "rate_limit_error", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request.", "server_error", None),
    502: ("Bad gateway.", "server_error", None),
    503: ("The engine is currently overloaded, please try again later.", "server_error", "overloaded"),
    504: ("The gateway timed out.", "server_error", None),
    529: ("Overloaded.", "overloaded_error", None),
}


def error_body(message: str, error_type: str, code: str | None, param: str | None = None) -> bytes:
    """An error object as OpenAI writes it."""
    return encode({"error": {"message": message, "type": error_type, "param": param, "code": code}})


def rejection(status: int, headers: Headers = ()) -> Answer:
    message, error_type, code = _TELLING.get(status, (f"The server answered {status}.", "server_error", None))
    return whole(status, error_body(message, error_type, code), JSON + headers)


def _retry_after(value: str) -> Headers:
    """`value` as it stands; `date` and `past` are HTTP dates 2 s ahead and an hour ago; "" is no header."""
    if value in ("date", "past"):
        value = email.utils.formatdate(time.time() + (2 if value == "date" else -3600), usegmt=True)
    return (("retry-after", value),) if value else ()


def _http(ask: Ask) -> Answer:
    extra = _retry_after(ask.word("retry_after"))
    if milliseconds := ask.word("retry_after_ms"):
        extra += (("retry-after-ms", milliseconds),)
    status = ask.count("status")
    return rejection(status if 200 <= status <= 999 else 500, extra)


def _flaky(ask: Ask) -> Answer:
    return rejection(503) if ask.nth < ask.count("fails") else ok(ask)


def _flap(ask: Ask) -> Answer:
    over = 0 < ask.number("lasts") <= ask.elapsed
    return ok(ask) if over or int(ask.elapsed / max(ask.number("period"), 0.001)) % 2 == 0 else rejection(503)


def _html(ask: Ask) -> Answer:
    title = b"502 Bad Gateway"
    page = b"<html>\r\n<head><title>%b</title></head>\r\n<body>\r\n<center><h1>%b</h1></center>\r\n</body>\r\n</html>\r\n" % (title, title)
    return whole(ask.count("status"), page, (("content-type", "text/html"),))


def _json_in_200(ask: Ask) -> Answer:
    return whole(200, error_body("The backend failed before it said anything.", "server_error", "backend_failed"))


def _error_first(ask: Ask) -> Answer:
    if not ask.stream:
        return _json_in_200(ask)
    error = encode({"error": {"message": "The backend refused the job.", "type": "server_error", "param": None, "code": ask.count("code")}})
    return Answer(deliver(ask, [event(error)]))


def _error_mid(ask: Ask) -> Answer:
    if not ask.stream:
        return rejection(500)
    parts = parts_of(ask, script_of(ask))
    error = event(error_body("The backend failed in the middle of the answer.", "server_error", "backend_failed"))
    return Answer(deliver(ask, [*parts[: middle(ask, parts)], error]))


def _error_field(ask: Ask) -> Answer:
    if not ask.stream:
        return rejection(500)
    parts = parts_of(ask, script_of(ask))
    error = encode({"code": 500, "message": "failed to decode, try again, reducing the context", "type": "server_error"})
    return Answer(deliver(ask, [*parts[: middle(ask, parts)], b"error: " + error + b"\n\n"]))


def _context_length(ask: Ask) -> Answer:
    told = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens. Please reduce their length."
    return whole(400, error_body(told, "invalid_request_error", "context_length_exceeded", "messages"))


def _no_prefix(ask: Ask) -> Answer:
    if begun_of(ask) is None:
        return ok(ask)
    return whole(400, error_body("The last message must have the role user or tool.", "invalid_request_error", None, "messages"))


def _content_filter(ask: Ask) -> Answer:
    told = "The response was filtered due to the prompt triggering a content management policy."
    return whole(400, error_body(told, "invalid_request_error", "content_filter", "prompt"))


def _quota(ask: Ask) -> Answer:
    told = "You exceeded your current quota, please check your plan and billing details."
    return whole(429, error_body(told, "insufficient_quota", "insufficient_quota"))


def _quota_momentary(ask: Ask) -> Answer:
    told = "Allocated quota exceeded, please increase your quota limit. Requests rate limit exceeded, please try again later."
    return whole(429, error_body(told, "insufficient_quota", "Throttling.AllocationQuota"))


def _redirect(ask: Ask) -> Answer:
    return whole(ask.count("status"), b"", (("location", "http://127.0.0.1:9/v1/chat/completions"),))


def _content_type(ask: Ask) -> Answer:
    parts = parts_of(ask, script_of(ask))
    steps = deliver(ask, parts)
    kind = ask.word("type")
    wrong: Headers = () if kind == "none" else (("content-type", kind),)
    framing: Headers = (("transfer-encoding", "chunked"),) if ask.stream else (("content-length", str(sum(map(len, parts)))),)
    return Answer([Send(response_head(200, wrong + framing)), *steps[1:]])


def _empty_body(ask: Ask) -> Answer:
    if ask.stream:
        return Answer([Send(head_of(ask, ())), Send(LAST_CHUNK)])
    return whole(200, b"")


def _many_headers(ask: Ask) -> Answer:
    odd: Headers = (
        ("set-cookie", "session=simulator-cookie; Path=/"),
        ("connection", "x-hop, keep-alive"),
        ("x-hop", "must-not-pass"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
        ("x-request-id", f"req-sim-{ask.serial}"),
        ("openai-processing-ms", "12"),
    )
    return Answer(deliver(ask, parts_of(ask, script_of(ask)), extra=odd))


_STATUSES: Final = (400, 401, 402, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504, 529)
_NO_HINT: Final[Mapping[str, str | int]] = {"retry_after": "", "retry_after_ms": ""}

MODELS: Final[Mapping[str, Model]] = {
    "http": Model("any status; `retry_after` is sent as it stands, or `date`, `past`", _http, {"status": 500, **_NO_HINT}, "status"),
    **{f"http-{status}": Model(f"HTTP {status}", _http, {"status": status, **_NO_HINT}, "retry_after") for status in _STATUSES},
    "http-429-seconds": Model("HTTP 429, Retry-After: 1", _http, {"status": 429, **_NO_HINT, "retry_after": "1"}, "retry_after"),
    "http-429-date": Model("HTTP 429, Retry-After as a date 2 s ahead", _http, {"status": 429, **_NO_HINT, "retry_after": "date"}),
    "http-429-past": Model("HTTP 429, Retry-After as a date an hour ago", _http, {"status": 429, **_NO_HINT, "retry_after": "past"}),
    "http-429-garbage": Model("HTTP 429, Retry-After: soon", _http, {"status": 429, **_NO_HINT, "retry_after": "soon"}),
    "flaky": Model("503 to the first `fails` of the same request, then ok", _flaky, {"fails": 1}, "fails"),
    "flap": Model(
        "up for `period` seconds, then down (503) as long, and so on for `lasts` seconds; 0 for ever",
        _flap,
        {"period": 2.0, "lasts": 0.0},
        "period",
    ),
    "html-error": Model("an HTML error page", _html, {"status": 502}, "status"),
    "json-error-200": Model("HTTP 200 with a JSON error instead of an answer", _json_in_200),
    "error-first": Model("HTTP 200 whose first event is an error", _error_first, {"code": 503}, "code"),
    "error-mid": Model("an error event after some of the answer", _error_mid, {"after": 6}, "after"),
    "error-field": Model("llama.cpp's `error:` field after some of the answer", _error_field, {"after": 6}, "after"),
    "context-length": Model("400, the prompt does not fit the context", _context_length),
    "no-prefix": Model("400 where the request carries the beginning of its answer, else a good one", _no_prefix),
    "content-filter": Model("400, the prompt was filtered", _content_filter),
    "quota": Model("429 insufficient_quota that lasts: the plan is used up", _quota),
    "quota-momentary": Model("429 insufficient_quota that passes: DashScope's allocation limit", _quota_momentary),
    "redirect": Model("a redirect elsewhere", _redirect, {"status": 307}, "status"),
    "wrong-content-type": Model(
        "a good stream under the wrong content-type; `none` sends none", _content_type, {"type": "application/json"}, "type"
    ),
    "empty-body": Model("HTTP 200 and not one byte of body", _empty_body),
    "odd-headers": Model("a good answer with a cookie, hop-by-hop headers and a request id", _many_headers),
}

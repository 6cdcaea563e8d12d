"""What providers really answer, in their shapes and (nearly) their words, and what evenflow makes of it.

Each row is one answer: where it was seen, status, headers, body, and the kind it has to be. Bodies keep the providers' codes and the
phrases that decide; names, numbers and the rest are ours.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as hs

from actors import Fault, FaultKind
from actors.sansio.classifier import classify_in_band, classify_response, classify_whole
from actors.sansio.event_json import find_error
from actors.sansio.faults import Verdict
from actors.sansio.retry_after import parse_retry_after, wait_in_body

K = FaultKind
NOW: Final = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
WALL: Final = NOW.timestamp()


def openai(message: str, type: str = "invalid_request_error", code: str | int | None = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": None, "code": code, **more}}


def anthropic(type: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": type, "message": message}, "request_id": "req_1"}


def dashscope(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": message, "request_id": "0a1b"}


class Row(NamedTuple):
    where: str
    status: int
    body: dict[str, Any] | list[Any] | str
    kind: FaultKind
    wait: float | None = None
    headers: dict[str, str] = {}  # noqa: RUF012  # a tuple's default, never written to


RATE: Final = "Rate limit reached for model-x in organization org-1 on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000."
PLAN: Final = "You exceeded your current quota, please check your plan and billing details."
TIER: Final = "The free tier of the model has been exhausted; disable the free-tier-only mode to go on with a paid plan."

LIMITS: Final = [
    Row("OpenAI, minute", 429, openai(f"{RATE} Please try again in 1.5s.", "tokens", "rate_limit_exceeded"), K.RATE_LIMITED, 1.5),
    Row("OpenAI, plan", 429, openai(PLAN, "insufficient_quota", "insufficient_quota"), K.QUOTA),
    Row("OpenAI, one too large", 429, openai(f"Request too large for model-x. {RATE}", "tokens", "rate_limit_exceeded"), K.CONTEXT_LENGTH),
    Row("Groq, one too large", 413, openai(f"Request too large for model `x`. {RATE}", "tokens", "rate_limit_exceeded"), K.CONTEXT_LENGTH),
    Row(
        "Azure", 429, openai("Requests have exceeded the call rate limit. Please retry after 14 seconds.", "", "429"), K.RATE_LIMITED, 14.0
    ),
    Row(
        "DashScope, allocation",
        429,
        openai("Allocated quota exceeded.", "insufficient_quota", "Throttling.AllocationQuota"),
        K.RATE_LIMITED,
    ),
    Row(
        "DashScope, own form",
        429,
        dashscope("Throttling.RateQuota", "Requests rate limit exceeded, please try again later."),
        K.RATE_LIMITED,
    ),
    Row(
        "DashScope, tokens per minute",
        429,
        openai(f"{PLAN} See error-code#token-limit", "insufficient_quota", "insufficient_quota"),
        K.RATE_LIMITED,
    ),
    Row("DashScope, burst", 429, dashscope("Throttling.BurstRate", "Request rate increased too quickly."), K.RATE_LIMITED),
    Row(
        "DashScope, plan's week",
        429,
        openai("week quota used up; it will reset at 2026-01-05 00:00", "", "Throttling.AllocationQuota"),
        K.QUOTA,
    ),
    Row("DashScope, free tier", 403, dashscope("AllocationQuota.FreeTierOnly", TIER), K.MODEL_ACCESS),
    Row("DashScope, arrears", 400, dashscope("Arrearage", "Access denied, please make sure your account is in good standing."), K.AUTH),
    Row(
        "Anthropic",
        429,
        anthropic("rate_limit_error", "This request would exceed your rate limit."),
        K.RATE_LIMITED,
        7.0,
        {"retry-after": "7"},
    ),
    Row("Anthropic, credit", 400, anthropic("invalid_request_error", "Your credit balance is too low."), K.BAD_REQUEST),
    Row(
        "Moonshot, busy",
        429,
        openai("The engine is currently overloaded, please try again later", "engine_overloaded_error"),
        K.RATE_LIMITED,
    ),
    Row("Moonshot, account", 429, openai("Your account is suspended, recharge it.", "exceeded_current_quota_error"), K.QUOTA),
    Row("Zhipu, balance", 429, openai("Insufficient balance or no resource package. Please recharge.", "", "1113"), K.QUOTA),
    Row("Zhipu, concurrency", 429, openai("Too much concurrency for this API.", "", "1302"), K.RATE_LIMITED),
    Row(
        "Gemini",
        429,
        [
            {
                "error": {
                    "code": 429,
                    "message": "Resource has been exhausted",
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}],
                }
            }
        ],
        K.RATE_LIMITED,
        34.0,
    ),
    Row("DeepSeek, balance", 402, openai("Insufficient Balance", "unknown_error", "invalid_request_error"), K.AUTH),
    Row("nginx in between", 429, "<html><title>429 Too Many Requests</title></html>", K.RATE_LIMITED),
    Row("nothing said", 429, "", K.RATE_LIMITED),
]

CREDENTIALS: Final = [
    Row("OpenAI, key", 401, openai("Incorrect API key provided: sk-a***z.", code="invalid_api_key"), K.AUTH),
    Row("OpenAI, project", 403, openai("Project `proj_1` does not have access to model `x`", code="model_not_found"), K.MODEL_ACCESS),
    Row(
        "OpenAI, country",
        403,
        openai("Country, region, or territory not supported", "request_forbidden", "unsupported_country_region_territory"),
        K.AUTH,
    ),
    Row(
        "Groq, blocked",
        403,
        openai("The model `x` is blocked at the project level.", "permissions_error", "model_permission_blocked_project"),
        K.MODEL_ACCESS,
    ),
    Row("DashScope, model", 403, dashscope("Model.AccessDenied", "Model access denied."), K.MODEL_ACCESS),
    Row(
        "DashScope, account", 403, dashscope("AccessDenied.Unpurchased", "Access to model denied; make sure the account bought it."), K.AUTH
    ),
    Row("DashScope, hurry", 403, dashscope("Throttling.RateQuota", "Request rate increased too quickly."), K.RATE_LIMITED),
    Row("Anthropic, permission", 403, anthropic("permission_error", "Your API key does not have permission to use this."), K.AUTH),
    Row(
        "OpenRouter, moderation",
        403,
        {"error": {"code": 403, "message": "Your input was flagged by moderation", "metadata": {}}},
        K.CONTENT_FILTER,
    ),
    Row("OpenRouter, credits", 402, {"error": {"code": 402, "message": "Insufficient credits. Add more."}}, K.AUTH),
    Row("Volcengine, overdue", 403, openai("The account has an overdue balance.", "Forbidden", "AccountOverdueError"), K.AUTH),
    Row("Gemini, key", 400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}], K.AUTH),
    Row("xAI, key", 400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***z."}, K.AUTH),
    Row("a firewall's page", 403, "<!DOCTYPE html><title>Attention required</title><h1>Blocked</h1>", K.AUTH),
    Row("nothing said", 403, "", K.AUTH),
]

REQUESTS: Final = [
    Row("OpenAI", 400, openai("This model's maximum context length is 8192 tokens.", code="context_length_exceeded"), K.CONTEXT_LENGTH),
    Row("OpenAI, one text", 400, openai("Invalid 'input': string too long.", code="string_above_max_length"), K.CONTEXT_LENGTH),
    Row(
        "vLLM",
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens. However, you requested 5000",
            "type": "BadRequestError",
            "code": 400,
        },
        K.CONTEXT_LENGTH,
    ),
    Row(
        "llama.cpp",
        400,
        openai("the request exceeds the available context size, try increasing it", "exceed_context_size_error", 400, n_ctx=4096),
        K.CONTEXT_LENGTH,
    ),
    Row("DashScope", 400, openai("Range of input length should be [1, 30720]", code="invalid_parameter_error"), K.CONTEXT_LENGTH),
    Row("DashScope, another range", 400, openai("Range of max_tokens should be [1, 8192]", code="invalid_parameter_error"), K.BAD_REQUEST),
    Row("Anthropic", 400, anthropic("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"), K.CONTEXT_LENGTH),
    Row(
        "Anthropic, sum",
        400,
        anthropic("invalid_request_error", "input length and `max_tokens` exceed context limit: 190000 + 20000"),
        K.CONTEXT_LENGTH,
    ),
    Row(
        "Gemini",
        400,
        [{"error": {"code": 400, "message": "The input token count (1200000) exceeds the maximum number of tokens allowed"}}],
        K.CONTEXT_LENGTH,
    ),
    Row(
        "Mistral",
        400,
        {"object": "error", "message": "Prompt contains 40000 tokens, too large for model with 32768 maximum context length"},
        K.CONTEXT_LENGTH,
    ),
    Row(
        "OpenRouter", 400, {"error": {"code": 400, "message": "This endpoint's maximum context length is 131072 tokens."}}, K.CONTEXT_LENGTH
    ),
    Row(
        "OpenAI, policy", 400, openai("Your request was rejected by our safety system.", code="content_policy_violation"), K.CONTENT_FILTER
    ),
    Row(
        "Azure, filter",
        400,
        openai(
            "The response was filtered due to our content management policy.",
            "",
            "content_filter",
            innererror={"code": "ResponsibleAIPolicyViolation"},
        ),
        K.CONTENT_FILTER,
    ),
    Row(
        "DashScope, inspection",
        400,
        openai("Input data may contain inappropriate content.", code="data_inspection_failed"),
        K.CONTENT_FILTER,
    ),
    Row("DashScope, own form", 400, dashscope("DataInspectionFailed", "Input data may contain inappropriate content."), K.CONTENT_FILTER),
    Row(
        "OpenAI, model", 404, openai("The model `x` does not exist or you do not have access to it.", code="model_not_found"), K.BAD_REQUEST
    ),
    Row("Ollama", 404, {"error": "model 'x' not found"}, K.BAD_REQUEST),
    Row("FastAPI", 422, {"detail": [{"loc": ["body", "messages"], "msg": "field required"}]}, K.BAD_REQUEST),
    Row("LM Studio", 400, "Unexpected endpoint or method.", K.BAD_REQUEST),
    # A server that quotes the request: nobody may pause an upstream for the others by what he writes.
    Row("a quoted key", 400, openai("[{'type': 'missing', 'input': 'Incorrect API key provided'}]"), K.BAD_REQUEST),
    Row("a quoted limit", 400, openai("unknown role 'rate limit, billing, will reset at'"), K.BAD_REQUEST),
]

SERVERS: Final = [
    Row("OpenAI", 500, openai("The server had an error while processing your request.", "server_error"), K.SERVER_ERROR),
    Row(
        "OpenAI, overloaded",
        503,
        openai("That model is currently overloaded.", "server_error"),
        K.SERVER_ERROR,
        20.0,
        {"retry-after": "20"},
    ),
    Row("Anthropic", 529, anthropic("overloaded_error", "Overloaded"), K.SERVER_ERROR),
    Row("llama.cpp, loading", 503, openai("Loading model", "unavailable_error", 503), K.SERVER_ERROR),
    Row("Cloudflare", 524, "<html><head><title>524: A timeout occurred</title></head><body>cf-error</body></html>", K.SERVER_ERROR),
    Row("Cloudflare, text", 520, "error code: 520", K.SERVER_ERROR),
    Row("nginx", 502, "<html>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n</html>", K.SERVER_ERROR),
    Row("a load balancer", 503, "upstream connect error or disconnect/reset before headers", K.SERVER_ERROR),
]


def answered(row: Row, *, client_credential: bool = False) -> Fault:
    body = row.body if isinstance(row.body, str) else json.dumps(row.body)
    headers = {"content-type": "text/html" if body.startswith("<") else "application/json", **row.headers}
    return classify_response(row.status, headers, body.encode(), "a", now_wall=WALL, client_credential=client_credential)


def name(row: Row) -> str:
    return f"{row.status} {row.where}"


@pytest.mark.parametrize("row", [*LIMITS, *CREDENTIALS, *REQUESTS, *SERVERS], ids=name)
def test_each_answer_is_its_kind(row: Row) -> None:
    fault = answered(row)
    assert fault.kind is row.kind
    assert fault.retry_after == row.wait
    error = json.loads(fault.to_json())
    if row.kind in (K.AUTH, K.MODEL_ACCESS):
        assert (fault.http_status, error["error"]["code"], fault.setting) == (502, "upstream_auth_error", "upstreams.a.key_env")
    elif isinstance(row.body, str):
        assert fault.http_status == row.status
        assert "<" not in error["error"]["message"]
    else:
        assert error == row.body  # unchanged


@pytest.mark.parametrize("row", [row for row in CREDENTIALS if row.kind is K.MODEL_ACCESS], ids=name)
def test_a_403_about_one_model_pauses_nobody_and_one_about_the_credential_does(row: Row) -> None:
    assert answered(row).verdict is Verdict.EXCLUDED
    assert answered(CREDENTIALS[0]).verdict is Verdict.DEAD_CREDENTIAL


@pytest.mark.parametrize("row", CREDENTIALS, ids=name)
def test_what_the_callers_own_credential_may_not_do_passes_as_it_came(row: Row) -> None:
    fault = answered(row, client_credential=True)
    assert (fault.http_status, fault.verdict) == (row.status, Verdict.EXCLUDED)
    assert isinstance(row.body, str) or json.loads(fault.to_json()) == row.body


@pytest.mark.parametrize("row", [*REQUESTS], ids=name)
def test_no_rejected_request_counts_against_its_upstream(row: Row) -> None:
    assert answered(row).verdict is Verdict.EXCLUDED


# ---- inside a 200 -------------------------------------------------------------------------------------------------------

IN_BAND: Final = [
    ("Anthropic, overloaded", anthropic("overloaded_error", "Overloaded"), K.IN_BAND_ERROR, 503, None),
    ("Anthropic, limit", anthropic("rate_limit_error", "Number of requests has exceeded your limit"), K.RATE_LIMITED, 429, None),
    ("Anthropic, key", anthropic("authentication_error", "invalid x-api-key"), K.AUTH, 502, None),
    ("OpenAI, overloaded", openai("The engine is overloaded", "server_error", 503), K.IN_BAND_ERROR, 503, None),
    ("OpenRouter, provider", openai("Provider returned error", "", 502), K.IN_BAND_ERROR, 502, None),
    ("OpenRouter, limit", openai("Rate limit exceeded; try again in 8s", "", 429), K.RATE_LIMITED, 429, 8.0),
    ("OpenAI, plan", openai(PLAN, "insufficient_quota", "insufficient_quota"), K.QUOTA, 429, None),
    ("DashScope, allocation", dashscope("Throttling.AllocationQuota", "Allocated quota exceeded"), K.RATE_LIMITED, 429, None),
    ("DashScope, plan", dashscope("Throttling.AllocationQuota", "used up; will reset at 2026-01-05"), K.QUOTA, 429, None),
    (
        "DashScope, inspection",
        dashscope("data_inspection_failed", "Output data may contain inappropriate content."),
        K.CONTENT_FILTER,
        400,
        None,
    ),
    (
        "vLLM, context",
        {"object": "error", "message": "maximum context length is 4096", "type": "BadRequestError", "code": 400},
        K.CONTEXT_LENGTH,
        400,
        None,
    ),
    ("vLLM, without a number", {"error": {"message": "unknown role", "type": "BadRequestError"}}, K.BAD_REQUEST, 400, None),
    ("a request that quotes", openai("unknown role 'too many requests per minute'", "", 400), K.BAD_REQUEST, 400, None),
    ("one model", openai("this key may not use the model", "", 403), K.MODEL_ACCESS, 502, None),
    ("no reason", {"error": "something broke"}, K.IN_BAND_ERROR, 502, None),
]


@pytest.mark.parametrize(("where", "body", "kind", "status", "wait"), IN_BAND, ids=[row[0] for row in IN_BAND])
def test_an_error_inside_a_200_is_restated(where: str, body: dict[str, Any], kind: FaultKind, status: int, wait: float | None) -> None:
    found = find_error(body, b"")
    assert found is not None
    fault = classify_in_band(found, "a")
    assert (fault.kind, fault.http_status, fault.retry_after) == (kind, status, wait)
    if "error" in body:  # what is not streamed is judged the same
        whole = classify_whole(json.dumps(body).encode(), "a")
        assert whole is not None
        assert (whole.kind, whole.http_status) == (kind, status)


def test_a_page_with_a_200_is_no_answer() -> None:
    fault = classify_whole(b"\n <!DOCTYPE html><p>Please sign in</p>", "a")
    assert fault is not None
    assert (fault.kind, fault.http_status) == (K.BAD_RESPONSE, 502)
    assert "Please sign in" in fault.message


# ---- how long to wait (FAULTS rows 8 and 9) -----------------------------------------------------------------------------

SOON: Final = NOW + timedelta(seconds=30)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (format_datetime(SOON, usegmt=True), 30.0),
        (SOON.strftime("%A, %d-%b-%y %H:%M:%S GMT"), 30.0),  # RFC 850's form
        (SOON.strftime("%a %b %e %H:%M:%S %Y"), 30.0),  # asctime()'s, which names no zone
        ("20s", 20.0),
        ("1m30s", 90.0),
        ("1h", 3600.0),
        ("500ms", 0.5),
        ("6m0.5s", 360.5),
        ("", None),
        ("s", None),
        ("1 minute", None),
        ("5x", None),
        ("-5s", None),
    ],
)
def test_row_09_retry_after_in_its_rarer_forms(value: str, seconds: float | None) -> None:
    assert parse_retry_after({"retry-after": value}, WALL) == seconds


@pytest.mark.parametrize(
    ("error", "message", "seconds"),
    [
        ({}, "Please try again in 20s.", 20.0),
        ({}, "Please try again in 340ms. Visit", 0.34),
        ({}, "Please try again in 1m2.5s. Visit", 62.5),
        ({}, "Please retry after 14 seconds.", 14.0),
        ({}, "Please retry in 32.5s.", 32.5),
        ({}, "try again in 5 ms", 0.005),
        ({}, "please try again in a while", None),
        ({}, "please try again in 5 parsecs", None),
        ({}, "please try again in h", None),
        ({}, "", None),
        ({"retry_after": 3}, "", 3.0),
        ({"retry_after": -3}, "", 0.0),
        ({"retry_after": "3"}, "", None),
        ({"retry_after": True}, "", None),
        ({"retry_after": float("inf")}, "", None),
        ({"details": [{"@type": "BadRequest"}, {"retryDelay": "1.5s"}]}, "", 1.5),
        ({"details": [{"retryDelay": 7}]}, "", None),
        ({"details": "none"}, "", None),
    ],
)
def test_a_wait_that_stands_in_the_body(error: dict[str, Any], message: str, seconds: float | None) -> None:
    assert wait_in_body(error, message) == seconds


def test_the_header_goes_before_the_words() -> None:
    row = Row("both", 429, openai("please try again in 5s"), K.RATE_LIMITED, headers={"retry-after": "2"})
    assert answered(row).retry_after == 2.0


@given(hs.text(max_size=60) | hs.from_regex(r"try again in [\dhms.]{0,12} ?(s|ms|seconds)?", fullmatch=True))
def test_no_words_are_too_strange(message: str) -> None:
    seconds = wait_in_body({}, message)
    assert seconds is None or seconds >= 0.0


_NAMES: Final = ["error", "message", "code", "type", "details", "retryDelay", "retry_after"]
JSON = hs.recursive(
    hs.none() | hs.booleans() | hs.floats() | hs.text(max_size=8),
    lambda v: hs.lists(v, max_size=3) | hs.dictionaries(hs.sampled_from(_NAMES), v, max_size=4),
    max_leaves=12,
)


@given(hs.integers(300, 599), JSON)
def test_no_body_is_too_strange(status: int, value: object) -> None:
    fault = classify_response(status, {}, json.dumps(value).encode(), "a", now_wall=WALL)
    assert 400 <= fault.http_status <= 599
    json.loads(fault.to_json())
    classify_whole(json.dumps(value).encode(), "a")

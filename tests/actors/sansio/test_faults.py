"""What an upstream said, as a fault: kind, the client's status and code, the breaker's verdict (DESIGN section 6, FAULTS B5)."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as hs

from actors import Fault, FaultKind, UpstreamError, error_json
from actors.errors import (
    UpstreamConnectError,
    UpstreamDisconnected,
    UpstreamDnsError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamTlsError,
)
from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import InBandError
from actors.sansio.classifier import classify_exception, classify_in_band, classify_response, classify_whole
from actors.sansio.error_recovery import STRATEGIES
from actors.sansio.faults import Verdict
from actors.sansio.retry_after import parse_retry_after

K = FaultKind
V = Verdict
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
WALL = NOW.timestamp()


def answered(status: int, body: bytes | dict[str, Any] = b"", *, own_key: bool = False, **headers: str) -> Fault:
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return classify_response(status, named, data, "a", now_wall=WALL, client_credential=own_key)


def error(message: str = "no", code: object = None, type: str = "") -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "code": code}}


def told(fault: Fault) -> dict[str, Any]:
    """What the client reads."""
    return json.loads(fault.to_json())["error"]  # type: ignore[no-any-return]


# ---- every kind ---------------------------------------------------------------------------------------------------------

VERDICTS = {
    K.CONNECT: V.FAILURE,
    K.DNS: V.FAILURE,
    K.TLS: V.FAILURE,
    K.CONNECT_TIMEOUT: V.FAILURE,
    K.FIRST_TOKEN_TIMEOUT: V.FAILURE,
    K.IDLE_TIMEOUT: V.FAILURE,
    K.DISCONNECTED: V.FAILURE,
    K.PROTOCOL: V.FAILURE,
    K.TRUNCATED: V.FAILURE,
    K.BAD_CHUNK: V.FAILURE,
    K.EVENT_TOO_LARGE: V.FAILURE,
    K.BAD_RESPONSE: V.FAILURE,
    K.REDIRECT: V.FAILURE,
    K.SERVER_ERROR: V.FAILURE,
    K.IN_BAND_ERROR: V.FAILURE,
    K.RATE_LIMITED: V.PAUSE,
    K.QUOTA: V.DEAD_CREDENTIAL,
    K.AUTH: V.DEAD_CREDENTIAL,
    K.MODEL_ACCESS: V.EXCLUDED,
    K.BAD_REQUEST: V.EXCLUDED,
    K.CONTEXT_LENGTH: V.EXCLUDED,
    K.CONTENT_FILTER: V.EXCLUDED,
    K.LOOP: V.SUCCESS,
    K.DIFFERED: V.EXCLUDED,
    K.TOTAL_TIMEOUT: V.EXCLUDED,
    K.UNAVAILABLE: V.EXCLUDED,
    K.BUSY: V.EXCLUDED,
    K.SHUTDOWN: V.EXCLUDED,
    K.INTERNAL: V.EXCLUDED,
}


@pytest.mark.parametrize("kind", FaultKind)
def test_every_kind_has_its_verdict_a_status_and_a_body_that_clients_read(kind: FaultKind) -> None:
    fault = Fault(kind, 'so "it"\nwas \u6f22')
    assert fault.verdict is VERDICTS[kind]
    assert 400 <= fault.http_status <= 599
    assert fault.recovery is None or fault.recovery in STRATEGIES
    assert told(fault) == {"message": 'so "it"\nwas \u6f22', "type": fault.error_type, "param": None, "code": fault.code}
    (frame,) = ChunkParser().feed(fault.to_frame())
    assert isinstance(frame, InBandError)
    assert (frame.message, frame.code) == ('so "it"\nwas \u6f22', fault.code)


def test_an_error_is_ascii_so_that_nobody_can_cut_it_wrongly() -> None:
    assert error_json("\u2028\u6f22", "t", None).isascii()


# ---- exceptions of the client's seam --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "kind", "code"),
    [
        (UpstreamConnectError("refused"), K.CONNECT, "upstream_connect_error"),
        (UpstreamDnsError("does not resolve"), K.DNS, "upstream_dns_error"),
        (UpstreamTlsError("expired"), K.TLS, "upstream_tls_error"),
        (UpstreamDisconnected("reset"), K.DISCONNECTED, "upstream_disconnected"),
        (UpstreamProtocolError("garbage"), K.PROTOCOL, "upstream_disconnected"),
        (UpstreamError("something"), K.PROTOCOL, "upstream_disconnected"),
        (UpstreamTimeout("timers.connect", 5.0), K.CONNECT_TIMEOUT, "upstream_timeout"),
        (UpstreamTimeout("timers.first_token", 5.0), K.FIRST_TOKEN_TIMEOUT, "upstream_timeout"),
        (UpstreamTimeout("timers.idle", 5.0), K.IDLE_TIMEOUT, "upstream_timeout"),
        (UpstreamTimeout("timers.total", 5.0), K.TOTAL_TIMEOUT, "stream_too_long"),
    ],
)
def test_each_exception_is_one_kind(raised: UpstreamError, kind: FaultKind, code: str) -> None:
    fault = classify_exception(raised, "a")
    assert (fault.kind, fault.code, fault.upstream) == (kind, code, "a")
    assert str(raised) in fault.message
    assert fault.message.startswith("upstream 'a'")
    assert fault.setting == (raised.setting if isinstance(raised, UpstreamTimeout) else "")


# ---- statuses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "client"),
    [
        (301, K.REDIRECT, 502),
        (308, K.REDIRECT, 502),
        (400, K.BAD_REQUEST, 400),
        (404, K.BAD_REQUEST, 404),
        (409, K.BAD_REQUEST, 409),
        (413, K.BAD_REQUEST, 413),
        (422, K.BAD_REQUEST, 422),
        (401, K.AUTH, 502),
        (402, K.AUTH, 502),
        (403, K.AUTH, 502),
        (408, K.SERVER_ERROR, 408),
        (425, K.SERVER_ERROR, 425),
        (429, K.RATE_LIMITED, 429),
        (500, K.SERVER_ERROR, 500),
        (503, K.SERVER_ERROR, 503),
        (529, K.SERVER_ERROR, 529),
        (599, K.SERVER_ERROR, 599),
    ],
)
def test_each_status_is_one_kind(status: int, kind: FaultKind, client: int) -> None:
    for body in (b"", b"<html>", error()):
        fault = answered(status, body)
        assert (fault.kind, fault.http_status, fault.upstream) == (kind, client, "a")
        assert "upstream 'a'" in fault.message


@pytest.mark.parametrize("status", [400, 404, 422, 500])
def test_a_json_error_goes_to_the_client_as_it_came(status: int) -> None:
    body = b'{ "error": {"message": "bad \\u00fc", "code": "c", "extra": [1.50]} }'
    fault = answered(status, body)
    assert fault.to_json() == body
    assert "bad \u00fc" in fault.message


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refused_credential_of_ours_names_the_setting_and_not_what_the_upstream_said(status: int) -> None:
    fault = answered(status, error("Incorrect API key provided: sk-secret-key"))
    assert fault.code == "upstream_auth_error"
    assert "upstreams.a.key_env" in fault.message
    assert "sk-secret" not in fault.message
    assert b"sk-secret" not in fault.to_json()


@pytest.mark.parametrize("status", [401, 402, 403])
def test_the_callers_own_credential_is_the_callers_business(status: int) -> None:
    fault = answered(status, error("your key is wrong"), own_key=True)
    assert (fault.http_status, fault.verdict, fault.recovery) == (status, V.EXCLUDED, None)
    assert told(fault)["message"] == "your key is wrong"


def test_a_redirect_is_not_followed_and_says_what_to_correct() -> None:
    fault = answered(307, location="http://elsewhere.invalid/")
    assert "base_url" in fault.message
    assert fault.recovery is None


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, error("This model's maximum context length is 8192 tokens", "context_length_exceeded"), K.CONTEXT_LENGTH),
        (400, error("prompt is too long: 9 tokens > 8"), K.CONTEXT_LENGTH),
        (413, error("the request exceeds the available context size", type="exceed_context_size_error"), K.CONTEXT_LENGTH),
        (400, error("flagged", "content_filter"), K.CONTENT_FILTER),
        (400, error("Output data may contain inappropriate content.", "data_inspection_failed"), K.CONTENT_FILTER),
        (429, error("You exceeded your current quota, please check your plan and billing details.", "insufficient_quota"), K.QUOTA),
        (429, error("Rate limit reached for requests per minute", "rate_limit_exceeded"), K.RATE_LIMITED),
        (429, error("Allocated quota exceeded", "insufficient_quota", "AllocationQuota"), K.RATE_LIMITED),  # DashScope: momentary
        (403, error("Throttling: request rate increased too quickly", "Throttling.RateQuota"), K.RATE_LIMITED),
    ],
)
def test_the_text_of_an_error_tells_some_kinds_apart(status: int, body: dict[str, Any], kind: FaultKind) -> None:
    fault = answered(status, body)
    assert fault.kind is kind
    assert told(fault)["message"] == body["error"]["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": "model not found"}', "model not found"),
        (b'{"message": "too busy", "code": "busy"}', "too busy"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'[{"error": {"message": "google says no", "code": 400}}]', "google says no"),
        (b"plain words", "plain words"),
        (b"{not json", "{not json"),
    ],
)
def test_every_usual_shape_of_an_error_body_is_read(body: bytes, message: str) -> None:
    assert answered(500, body).message == f"upstream 'a' answered 500: {message}"


def test_an_html_error_becomes_json_with_little_harmless_text() -> None:
    page = b"<html><head><title>502 Bad Gateway</title></head><body><h1>Bad\x00 Gateway</h1>" + b"<p>nginx &amp; more</p>" * 200
    fault = answered(502, page, content_type="text/html")
    assert fault.http_status == 502
    said = told(fault)["message"].partition(": ")[2]
    assert said.startswith("502 Bad Gateway Bad Gateway")
    assert len(said) <= 200
    assert "<" not in said
    assert said.isprintable()


def test_a_message_is_bounded() -> None:
    assert len(answered(500, error("x" * 100_000)).message) < 600


# ---- errors inside a 200 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("in_band", "kind", "status"),
    [
        (InBandError(b"", "overloaded", "server_error", "", 503), K.IN_BAND_ERROR, 503),
        (InBandError(b"", "it broke"), K.IN_BAND_ERROR, 502),
        (InBandError(b"", ""), K.IN_BAND_ERROR, 502),
        (InBandError(b"", "slow down", "", "429", 429), K.RATE_LIMITED, 429),
        (InBandError(b"", "Rate limit reached"), K.RATE_LIMITED, 429),
        (InBandError(b"", "You exceeded your current quota", "insufficient_quota"), K.QUOTA, 429),
        (InBandError(b"", "the prompt is too long"), K.CONTEXT_LENGTH, 400),
        (InBandError(b"", "", "", "content_filter"), K.CONTENT_FILTER, 400),
        (InBandError(b"", "bad field", "", "400", 400), K.BAD_REQUEST, 400),
        (InBandError(b"", "try again", "", "408", 408), K.IN_BAND_ERROR, 408),
    ],
)
def test_an_error_inside_a_stream_gets_its_proper_status(in_band: InBandError, kind: FaultKind, status: int) -> None:
    fault = classify_in_band(in_band, "a")
    assert (fault.kind, fault.http_status, fault.upstream) == (kind, status, "a")
    assert in_band.message in fault.message
    assert not fault.code.isdigit()


def test_a_refused_credential_inside_a_stream_is_told_as_outside() -> None:
    assert classify_in_band(InBandError(b"", "bad key sk-secret", "", "401", 401), "a") == answered(401, error("bad key sk-secret"))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", K.BAD_RESPONSE),
        (b" \n", K.BAD_RESPONSE),
        (b'{"error":{"message":"no","code":503}}', K.IN_BAND_ERROR),
        (b'{"error":"no such model"}', K.IN_BAND_ERROR),
        (b'{"error":{"message":"wait","code":429}}', K.RATE_LIMITED),
        (b'{"choices":[],"error":null}', None),
        (b'{"choices":[{}],"error":{"message":"partly"}}', None),
        (b'{"data":"\\"error\\""}', None),
        (b'["error"]', None),
        (b'{"error"', None),
        (b"[" * 100_000 + b'"error"', None),
        (b"\x00\x01binary", None),
    ],
)
def test_a_whole_200_is_an_answer_unless_it_says_otherwise(body: bytes, kind: FaultKind | None) -> None:
    fault = classify_whole(body, "a")
    assert (fault and fault.kind) == kind


# ---- Retry-After (FAULTS rows 8 and 9) --------------------------------------------------------------------------------------


def date(moment: datetime) -> str:
    return format_datetime(moment.astimezone(UTC), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": " 2 "}, 2.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "1000000000"}, 1e9),  # the ceiling is the caller's
        ({"retry-after": date(NOW + timedelta(seconds=30))}, 30.0),
        ({"retry-after": date(NOW - timedelta(days=400))}, 0.0),
        ({"retry-after": format_datetime((NOW + timedelta(seconds=30)).astimezone(timezone(timedelta(hours=5))))}, 30.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "Mon, 01 Jan 0100 00:00:00 -0000"}, 0.0),
        ({"retry-after": "Mon, 01 Jan 99999 00:00:00 GMT"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "-1"}, 0.0),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers, WALL) == seconds


@given(hs.text(max_size=40) | hs.from_regex(r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,6} \d\d:\d\d:\d\d [-+A-Z]{1,2}\d{0,6}"))
def test_no_retry_after_is_too_strange(value: str) -> None:
    seconds = parse_retry_after({"retry-after": value}, WALL)
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)


@given(hs.integers(300, 599), hs.binary(max_size=80) | hs.text(max_size=80).map(str.encode), hs.booleans())
def test_no_answer_is_too_strange(status: int, body: bytes, own_key: bool) -> None:
    fault = answered(status, body, own_key=own_key)
    assert 400 <= fault.http_status <= 599
    json.loads(fault.to_json())

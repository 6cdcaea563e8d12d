"""Which headers cross, in both directions."""

from __future__ import annotations

import pytest

from actors.sansio.headers import to_client, to_upstream

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = [b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-connection", b"proxy-authenticate"]


@pytest.mark.parametrize("name", [*HOP_BY_HOP, b"proxy-authorization", b"proxy-authentication-info", b"proxy-anything"])
def test_hop_by_hop_headers_never_cross(name: bytes) -> None:
    headers = [(name, b"x"), (b"x-kept", b"1")]
    assert to_upstream(headers) == [(b"x-kept", b"1")]
    for same_body in (True, False):
        assert to_client(headers, same_body=same_body) == [(b"x-kept", b"1")]


def test_what_connection_names_does_not_cross_either() -> None:
    headers: Headers = [
        (b"connection", b"close, X-Mine"),
        (b"x-mine", b"1"),
        (b"connection", b"x-Other"),
        (b"x-other", b"2"),
        (b"x-kept", b"3"),
    ]
    assert to_upstream(headers) == [(b"x-kept", b"3")]
    assert to_client(headers, same_body=True) == [(b"x-kept", b"3")]


@pytest.mark.parametrize(
    "name",
    [
        b"host",
        b"content-length",
        b"accept-encoding",
        b"authorization",
        b"x-api-key",
        b"api-key",
        b"x-goog-api-key",
        b"cookie",
        b"x-forwarded-for",
        b"forwarded",
    ],
)
def test_what_is_made_anew_or_secret_does_not_go_up(name: bytes) -> None:
    assert to_upstream([(name, b"secret")]) == []


def test_the_rest_goes_up_in_its_order_duplicates_included() -> None:
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"openai-organization", b"o"),
        (b"x-a", b"1"),
        (b"user-agent", b"u"),
        (b"x-a", b"2"),
    ]
    assert to_upstream(headers) == headers


@pytest.mark.parametrize("name", [b"set-cookie", b"content-encoding", b"alt-svc", b"server", b"date"])
def test_what_is_the_upstreams_own_does_not_go_down(name: bytes) -> None:
    for same_body in (True, False):
        assert to_client([(name, b"x")], same_body=same_body) == []


@pytest.mark.parametrize("name", [b"content-length", b"content-type", b"etag", b"content-md5", b"cache-control"])
def test_what_describes_the_body_goes_down_only_with_that_body(name: bytes) -> None:
    assert to_client([(name, b"x")], same_body=True) == [(name, b"x")]
    assert to_client([(name, b"x")], same_body=False) == []


def test_the_upstreams_request_id_goes_down_under_its_own_name_and_ours_cannot_be_forged() -> None:
    headers: Headers = [(b"x-request-id", b"theirs"), (b"x-evenflow-engine", b"forged"), (b"x-evenflow-upstream-request-id", b"forged")]
    assert to_client(headers, same_body=True) == [(b"x-evenflow-upstream-request-id", b"theirs")]
    assert to_client([(b"x-accel-buffering", b"yes")], same_body=True) == []


def test_limits_that_agents_read_go_down() -> None:
    headers: Headers = [(b"x-ratelimit-remaining-tokens", b"7"), (b"retry-after", b"2")]
    assert to_client(headers, same_body=False) == headers

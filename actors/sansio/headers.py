"""Which headers cross, and which do not.

Hop-by-hop headers (RFC 9110, 7.6.1: `Connection`, every header it names, and the classical set) belong to one connection and
never cross. Credentials and cookies of one side are nobody's business on the other. All names are lower case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP: Final = frozenset({b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings"})
#: What begins so is between two neighbours, credentials among it (FAULTS B4); on the way up also who stood before us.
_STOPPED_UP: Final = (b"proxy-", b"x-forwarded-")
_STOPPED_DOWN: Final = (b"proxy-", b"x-evenflow-")
#: Made anew on the way up, or the caller's secret. `expect` is answered by our own server.
_NOT_UP: Final = _HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"accept-encoding",
    b"authorization",
    b"x-api-key",
    b"api-key",
    b"x-goog-api-key",
    b"cookie",
    b"expect",
    b"forwarded",
    b"x-evenflow-attempt",
    b"x-evenflow-hops",
    b"x-evenflow-delivery",
}
#: Made anew on the way down. `date` and `server` are our server's; alt-svc would send the client past us, what follows it speaks for
#: our whole origin.
_NOT_DOWN: Final = _HOP_BY_HOP | {
    *(b"set-cookie", b"content-encoding", b"date", b"server"),
    *(b"alt-svc", b"strict-transport-security", b"clear-site-data"),
}
_OURS: Final = frozenset({b"x-request-id", b"x-accel-buffering"})


def to_upstream(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The client's headers as they go up, before the configured credential is added."""
    headers = list(headers)
    stopped = _NOT_UP | _named_by_connection(headers)
    return [(name, value) for name, value in headers if name not in stopped and not name.startswith(_STOPPED_UP)]


def to_client(headers: Iterable[tuple[bytes, bytes]], *, same_body: bool) -> Headers:
    """The upstream's headers as they go down.

    Args:
      same_body: the body goes through unchanged and whole, so that its length and type still hold.
    """
    headers = list(headers)
    stopped = _NOT_DOWN | _named_by_connection(headers) | _OURS
    if not same_body:
        stopped |= {b"content-length", b"content-type", b"content-md5", b"digest", b"etag", b"cache-control"}
    kept = [(name, value) for name, value in headers if name not in stopped and not name.startswith(_STOPPED_DOWN)]
    kept += [(b"x-evenflow-upstream-request-id", value) for name, value in headers if name == b"x-request-id"]
    return kept


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    named = (value.lower().split(b",") for name, value in headers if name == b"connection")
    return frozenset(token.strip() for tokens in named for token in tokens)

"""What a request's head must be like to be looked at at all.

Owns the rules against smuggled requests and oversized heads, and the words in which they are told. Works on bytes and fields that
somebody else has read; refuses to know sockets, hypercorn and routes. Why so strict: h11 takes both framings in one request, folded
lines and any version, and whoever stands in front of us may read the same bytes differently; the difference is a request of its own
that nobody checked (FAULTS B3).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from actors import error_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import EdgeSettings

#: Where h11 too sees the end of a head.
_HEAD_END: Final = re.compile(rb"\n\r?\n")
#: A line that continues the one before: obs-fold (RFC 9112, 5.2). A server has to refuse it or to join the lines; h11 joins.
_FOLD: Final = re.compile(rb"\n[ \t]")
#: No part of any value (RFC 9110, 5.5); h11 lets some of them pass, and who reads them otherwise may end a line there.
_CONTROL: Final = re.compile(rb"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")
#: Origin form, absolute form, and the asterisk of OPTIONS (RFC 9112, 3.2). A fragment is no part of any: who cuts it off asks for less.
_TARGET: Final = re.compile(rb"/[^#]*|https?://[^#]*|\*", re.IGNORECASE)


class Refusal(NamedTuple):
    """An answer that ends the connection."""

    status: int
    code: str
    message: str

    def body(self) -> bytes:
        return error_json(self.message, "invalid_request_error", self.code)


class RequestHead(NamedTuple):
    """A request before its body.

    Args:
      raw: the bytes it was read from.
      headers: names in lower case.
    """

    raw: bytes
    method: bytes
    target: bytes
    version: bytes
    headers: Sequence[tuple[bytes, bytes]]


def cut_head(received: bytes) -> bytes:
    """The head that stands at the beginning of `received`, blank line included; all of it if it is not whole yet."""
    end = _HEAD_END.search(received)
    return received[: end.end()] if end is not None else received


def check_head(head: RequestHead, limits: EdgeSettings) -> Refusal | None:
    """Why the request is refused, None if it is not."""
    return _check_protocol(head) or _check_framing(head) or _check_size(head, limits)


def _check_protocol(head: RequestHead) -> Refusal | None:
    if head.version not in (b"1.1", b"1.0"):  # "PRI * HTTP/2.0" among them
        return Refusal(505, "http_version_not_supported", "this listener speaks HTTP/1.1")
    if head.method == b"CONNECT":
        return Refusal(405, "method_not_allowed", "this is no forward proxy: CONNECT is not served")
    if not _TARGET.fullmatch(head.target):
        return Refusal(400, "malformed_request", "the request's target is neither a path nor a URL of this listener")
    if any(name == b"upgrade" for name, _ in head.headers):
        # RFC 9110, 7.8, would let us ignore it. But a proxy in front that passes it on takes the connection for a tunnel.
        told = "this listener speaks HTTP/1.1 and nothing else; send no Upgrade header (Java's HttpClient: version HTTP_1_1)"
        return Refusal(400, "upgrade_not_supported", told)
    return None


def _check_framing(head: RequestHead) -> Refusal | None:
    names = {name for name, _ in head.headers}
    if b"transfer-encoding" in names and b"content-length" in names:
        return Refusal(400, "ambiguous_framing", "the request has both Transfer-Encoding and Content-Length; send one of them")
    if b"transfer-encoding" in names and head.version == b"1.0":
        return Refusal(400, "ambiguous_framing", "HTTP/1.0 knows no Transfer-Encoding; send Content-Length")
    if _CONTROL.search(head.raw):
        return Refusal(400, "malformed_request", "there is a control character in the request's head")
    if _FOLD.search(head.raw):
        return Refusal(400, "folded_header", "a header is continued on a second line; write it on one")
    return None


def _check_size(head: RequestHead, limits: EdgeSettings) -> Refusal | None:
    if len(head.target) > limits.max_target:
        return Refusal(414, "uri_too_long", f"path and query are longer than edge.max_target = {limits.max_target} bytes")
    if len(head.headers) > limits.max_headers:
        return Refusal(431, "too_many_headers", f"the request has more than edge.max_headers = {limits.max_headers} headers")
    if len(head.raw) > limits.max_header_bytes:
        return too_large(limits)
    return None


def too_large(limits: EdgeSettings) -> Refusal:
    """The head does not fit."""
    told = f"request line and headers are longer than edge.max_header_bytes = {limits.max_header_bytes} bytes"
    return Refusal(431, "headers_too_large", told)


def too_slow(limits: EdgeSettings) -> Refusal:
    """The head did not come in time."""
    return Refusal(408, "request_timeout", f"the request's headers were not whole after edge.header_timeout = {limits.header_timeout:g} s")


def unreadable(status: int, limits: EdgeSettings) -> Refusal:
    """h11 could not read it. Its own words are not repeated: they quote the line, and the line may hold a key.

    Args:
      status: what h11 proposes.
    """
    if status == 431:
        return too_large(limits)
    if status == 501:
        return Refusal(501, "transfer_encoding_not_supported", "of the transfer codings only chunked is served")
    return Refusal(400, "malformed_request", "the request is no valid HTTP/1.1")

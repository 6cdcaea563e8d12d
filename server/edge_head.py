"""The head of a request in its plainest form, read in one go.

What OpenAI's clients send hardly ever differs in form: `POST /v1/...`, HTTP/1.1, header lines of visible ASCII ended by CRLF, one Host,
at most one Content-Length. Exactly that is read here, by one expression that matches the whole head or nothing. Whatever deviates in any
byte is no error: it is left to h11 and the rules of edge_guard.py, which take or refuse it as if this module did not exist. So a head is
never read in two ways: what matches here, h11 reads the same (a test holds them against each other), and none of the rules can apply.

Owns that form. Refuses to know sockets and what becomes of the request.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from .settings import EdgeSettings

#: Groups: path, query, header lines. Of a target only characters that mean themselves, so that nothing has to be decoded.
_HEAD: Final = re.compile(
    rb"POST (/v1/[A-Za-z0-9._/~-]*)(?:\?([A-Za-z0-9._/~=&-]*))? HTTP/1\.1\r\n"
    rb"((?:[-!#$%&'*+.^_`|~0-9A-Za-z]+: ?[!-~]+(?: [!-~]+)*\r\n)+)\r\n"
)
_LINE: Final = re.compile(rb"([^:]+): ?([^\r]+)\r\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")
#: A head with one of these is not plain: another framing, another protocol, a question that wants an answer before the body comes.
_NOT_PLAIN: Final = frozenset({b"transfer-encoding", b"upgrade", b"expect", b"proxy-connection"})
_SHORTEST: Final = len(b"POST /v1/ HTTP/1.1\r\nHost: a\r\n\r\n")


class PlainHead(NamedTuple):
    """A request before its body.

    Args:
      headers: names in lower case, in the order in which they came.
      size: bytes of the head, blank line included.
      length: bytes of the body.
      keeps: the connection may serve another request.
    """

    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    size: int
    length: int
    keeps: bool


def read_plain_head(data: bytes, limits: EdgeSettings) -> PlainHead | None:
    """The head at the beginning of `data`, None if it is not whole or not plain."""
    if len(data) < _SHORTEST or (match := _HEAD.match(data, 0, limits.max_header_bytes)) is None:
        return None
    path, query, lines = match.groups()
    headers = [(name.lower(), value) for name, value in _LINE.findall(lines)]
    if len(headers) > limits.max_headers or match.end(2 if query is not None else 1) - len("POST ") > limits.max_target:
        return None
    known = dict(headers)
    length, connection = known.get(b"content-length", b"0"), known.get(b"connection", b"keep-alive").lower()
    if b"host" not in known or not _LENGTH.fullmatch(length) or connection not in (b"keep-alive", b"close"):
        return None
    if len(known) < len(headers):
        names = [name for name, _ in headers]
        if any(names.count(name) > 1 for name in (b"host", b"content-length", b"connection")):
            return None
    if not _NOT_PLAIN.isdisjoint(known):
        return None
    return PlainHead(path, query or b"", headers, match.end(), int(length), connection == b"keep-alive")

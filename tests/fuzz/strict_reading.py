"""HTTP/1.1 requests read by the letter of RFC 9112, to compare the edge with: up to the first that two readers could take differently.

Written without a look at h11's grammar, so that both would have to make the same mistake. What it accepts although the letter forbids
it, FAULTS B3 counts as harmless: a bare LF as a line end of a head.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE: Final = re.compile(rb"(%b) ([!-~]+) HTTP/1\.([01])" % _TOKEN)
_FIELD: Final = re.compile(rb"(%b):[ \t]*((?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*" % _TOKEN)
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(;[\t -~\x80-\xff]*)?\r\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


class Told(NamedTuple):
    """One request that is beyond doubt."""

    method: bytes
    target: bytes
    body: bytes


class Doubt(Exception):
    """From here on two readers may differ, or the bytes are not all there."""


def read_requests(data: bytes) -> list[Told]:
    """The requests that `data`, all that one connection sent, holds beyond doubt."""
    told: list[Told] = []
    try:
        while data:
            one, data = _read(data)
            told.append(one)
    except Doubt:
        pass
    return told


def _read(data: bytes) -> tuple[Told, bytes]:
    end = _HEAD_END.search(data)
    if end is None:
        raise Doubt
    head, rest = data[: end.start()], data[end.end() :]
    first, *lines = (line.removesuffix(b"\r") for line in head.split(b"\n"))
    request = _REQUEST_LINE.fullmatch(first)
    if request is None or request[1] == b"CONNECT":
        raise Doubt
    fields = [(field[1].lower(), field[2]) for field in map(_FIELD.fullmatch, lines) if field is not None]
    if len(fields) < len(lines):
        raise Doubt
    body, rest = _body(fields, request[3], rest)
    return Told(request[1], request[2], body), rest


def _body(fields: list[tuple[bytes, bytes]], minor: bytes, rest: bytes) -> tuple[bytes, bytes]:
    lengths = {value for name, value in fields if name == b"content-length"}
    codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    if any(name == b"upgrade" for name, _ in fields) or len([name for name, _ in fields if name == b"host"]) > 1:
        raise Doubt
    if codings:
        if codings != [b"chunked"] or lengths or minor == b"0":
            raise Doubt
        return _chunks(rest)
    if not lengths:
        return b"", rest
    (value,) = lengths if len(lengths) == 1 else (b"",)
    if not _LENGTH.fullmatch(value) or int(value) > len(rest):
        raise Doubt
    return rest[: int(value)], rest[int(value) :]


def _chunks(rest: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line = _CHUNK.match(rest)
        if line is None:
            raise Doubt
        size, rest = int(line[1], 16), rest[line.end() :]
        if size == 0:
            break
        if rest[size : size + 2] != b"\r\n":
            raise Doubt
        body, rest = body + rest[:size], rest[size + 2 :]
    while not rest.startswith(b"\r\n"):
        trailer, found, rest = rest.partition(b"\r\n")
        if not found or _FIELD.fullmatch(trailer) is None:
            raise Doubt
    return body, rest[2:]

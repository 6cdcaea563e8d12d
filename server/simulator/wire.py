"""What an answer is on the wire: steps that put ready-made bytes on a socket, wait, or break it; and HTTP/1.1 framing.

Owns the vocabulary between those who decide what a misbehaving upstream does (streams, rejections, breakage, dialects) and the
one place that does it (http_server). Knows no JSON, no model, no socket. Bytes are ready-made, so that playing a stream costs
one `send` per event; and nothing checks them, since a broken answer is what this package is for.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

Headers: TypeAlias = "tuple[tuple[str, str], ...]"


class Send(msgspec.Struct, frozen=True, gc=False):
    """Wait `wait` seconds, then write `data` as it is.

    Args:
      events: how many of a stream's events end in these bytes; the observer counts them.
    """

    data: bytes
    wait: float = 0.0
    events: int = 0


class Silence(msgspec.Struct, frozen=True, gc=False):
    """Say nothing more, and keep the connection until the peer leaves."""


class Hangup(msgspec.Struct, frozen=True, gc=False):
    """Close the connection with a FIN, whatever was promised."""


class Reset(msgspec.Struct, frozen=True, gc=False):
    """Close the connection with a RST."""


Step: TypeAlias = Send | Silence | Hangup | Reset


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything that happens on a connection in answer to one request.

    Args:
      steps: played once, in order; may be endless.
      close_after: seconds of idleness after which the connection is closed, 0.0 closes at once, None keeps it.
      drop_next: the next request on this connection is answered by a RST (FAULTS row 35).
    """

    steps: Iterable[Step]
    close_after: float | None = None
    drop_next: bool = False


LAST_CHUNK: Final = b"0\r\n\r\n"
CHUNKED: Final[Headers] = (("transfer-encoding", "chunked"),)
EVENT_STREAM: Final[Headers] = (("content-type", "text/event-stream"), ("cache-control", "no-cache"))
JSON: Final[Headers] = (("content-type", "application/json"),)


def response_head(status: int, headers: Headers) -> bytes:
    """A status line and header section, the blank line included. 529 and the like have no phrase of their own."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unassigned"
    lines = [f"HTTP/1.1 {status} {phrase}", "server: evenflow-simulator", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def chunk(data: bytes) -> bytes:
    """`data` as one chunk of RFC 9112's chunked coding. Empty data would end the body, so it gives nothing."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def whole(status: int, body: bytes, headers: Headers = JSON, *, close: bool = False) -> Answer:
    """A complete answer with a content-length, in one write."""
    framing: Headers = (("content-length", str(len(body))),)
    if close:
        framing += (("connection", "close"),)
    return Answer((Send(response_head(status, headers + framing) + body),), close_after=0.0 if close else None)

"""Clients as cheap as they can be: a request as ready-made bytes, an answer kept as it came and judged when the load is over.

A thousand of them share two cores with what they measure; parsing while streams flow would show up in the proxy's figures.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal, TypeAlias

import trio

Verdict: TypeAlias = Literal["complete", "lost", "reordered"]

_READ: Final = 65_536
_BODY_END: Final = b"\r\n0\r\n\r\n"
_FIRST_TOKEN: Final = b'"content":"1"'  # of the model count:N


def post(address: str, body: dict[str, object], request_id: str) -> bytes:
    """A chat completion request as it stands on the wire.

    Args:
      address: HOST:PORT.
      request_id: goes to the proxy's log and, with the request, to the upstream.
    """
    payload = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n"
        f"x-request-id: {request_id}\r\ncontent-length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


@dataclass(slots=True)
class Received:
    """What one client got.

    Args:
      began, first_token, ended: `time.monotonic`, None if it never happened.
      trouble: why it got no further, "" if nothing was wrong with the connection.
    """

    data: bytearray = field(default_factory=bytearray)
    began: float = 0.0
    first_token: float | None = None
    ended: float | None = None
    trouble: str = ""


async def receive(address: str, request: bytes, received: Received) -> None:
    """Ask, and keep what comes until the body's end. A failure is noted, not raised."""
    host, port = address.split(":")
    received.began = time.monotonic()
    try:
        with trio.socket.socket() as sock:
            await sock.connect((host, int(port)))
            await sock.send(request)  # a few hundred bytes into an empty socket buffer: never partly
            while not received.data.endswith(_BODY_END):
                data = await sock.recv(_READ)
                if not data:
                    received.trouble = "connection closed"
                    return
                received.data += data
                if received.first_token is None and _FIRST_TOKEN in received.data:
                    received.first_token = time.monotonic()
                elif received.data.startswith(b"HTTP/1.1 ") and not received.data.startswith(b"HTTP/1.1 200"):
                    received.trouble = f"status {received.data[9:12].decode('latin-1')}"
                    return
    except OSError as exc:
        received.trouble = exc.strerror or type(exc).__name__
    else:
        received.ended = time.monotonic()


def judge(data: bytes, count: int) -> Verdict:
    """Whether an answer of the model `count:N` came whole and in order.

    Args:
      data: all bytes of the answer.
      count: N.
    """
    numbers: list[int] = []
    finished = done = False
    for block in _unchunked(data.partition(b"\r\n\r\n")[2]).split(b"\n\n"):
        if block == b"data: [DONE]":
            done = True
        elif block.startswith(b"data: "):
            event = json.loads(block[6:])
            for choice in event.get("choices", ()):
                numbers += [int(word) for word in (choice["delta"].get("content") or "").split()]
                finished = finished or choice["finish_reason"] is not None
    if any(later <= earlier for earlier, later in pairwise(numbers)):
        return "reordered"
    return "complete" if numbers == list(range(1, count + 1)) and finished and done else "lost"


def _unchunked(body: bytes) -> bytes:
    """The payload of a chunked body, as far as whole chunks of it came."""
    parts, at = [], 0
    while (line := body.find(b"\r\n", at)) >= 0:
        size = int(body[at:line].partition(b";")[0], 16)
        if size == 0 or line + 2 + size > len(body):
            break
        parts.append(body[line + 2 : line + 2 + size])
        at = line + 2 + size + 2
    return b"".join(parts)

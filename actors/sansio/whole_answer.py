"""A completion that came whole though a stream was asked for, as the stream the client expects.

Some servers ignore `stream: true`. A client that parses SSE reads nothing at all from a JSON body and takes that for an empty
answer, so the body is restated: one chunk with all of it, and [DONE].
"""

from __future__ import annotations

import json

from .faults import Fault, FaultKind


def to_stream(body: bytes, upstream: str) -> bytes | Fault:
    """The SSE bytes that say the same as a whole completion.

    Args:
      body: a JSON object with `choices`.
      upstream: for the fault's text.
    """
    try:
        completion = json.loads(body)
        for position, choice in enumerate(completion["choices"]):
            if "message" in choice:
                choice["delta"] = message = choice.pop("message")
                for index, call in enumerate(message.get("tool_calls") or ()):
                    call.setdefault("index", index)
            choice.setdefault("index", position)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        text = f"upstream '{upstream}' answered with JSON that is no completion"
        return Fault(FaultKind.BAD_RESPONSE, text, upstream=upstream)
    if completion.get("object") == "chat.completion":
        completion["object"] = "chat.completion.chunk"
    return b"data: " + json.dumps(completion, separators=(",", ":")).encode() + b"\n\ndata: [DONE]\n\n"

"""What evenflow reads of a request's body, and the one value in it that it may replace.

The body goes up byte for byte. Read are only the fields that decide the handling; a duplicate key counts with its last value, as
in every JSON parser our upstreams use, and renaming the model replaces each of them, so that no two parsers can disagree.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ..errors import EvenflowError

_QUICK: Final = msgspec.json.Decoder()
#: Deeper JSON is refused before any recursive parser sees it; no client's request is nested beyond a few dozen levels.
MAX_DEPTH: Final = 256
#: Fields beside `response_format` that give the answer's form: vLLM's, llama.cpp's.
_FORMS: Final = ("structured_outputs", "grammar", "json_schema")


class BadRequest(EvenflowError):
    """The request cannot be served as it is. The text tells the client what to change.

    Args:
      param: the request's field at fault, None if it is the body as a whole.
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What decides how a request is handled.

    Args:
      model: as the client named it.
      stream: a stream is asked for.
      choices: `n`, 1 if absent.
      deterministic: it asks for the same answer each time: temperature 0, or a seed.
      structured: it asks for an answer of a given form, which no second answer may be spliced into.
    """

    model: str
    stream: bool
    choices: int
    deterministic: bool = False
    structured: bool = False


def read_request(body: bytes) -> RequestFacts:
    """Read the fields that decide the handling.

    Raises:
      BadRequest: the body is no JSON object, or one of these fields has the wrong type (FAULTS rows 46 to 49).
    """
    fields = _object(body)
    model = fields.get("model")
    if model is None or model == "":
        raise BadRequest("you must provide a model parameter", "model")
    if not isinstance(model, str):
        raise BadRequest("model must be a string", "model")
    stream = fields.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest("stream must be true, false or null", "stream")
    n = fields.get("n")
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 128):
        raise BadRequest("n must be an integer from 1 to 128", "n")
    temperature = fields.get("temperature")
    deterministic = fields.get("seed") is not None or (temperature == 0 and not isinstance(temperature, bool))
    return RequestFacts(model, bool(stream), n or 1, deterministic, _is_structured(fields))


def _is_structured(fields: dict[str, Any]) -> bool:
    response_format = fields.get("response_format")
    if response_format is not None and response_format != {"type": "text"}:
        return True
    return any(fields[name] for name in fields if name in _FORMS or name.startswith("guided_"))


def _object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        raise BadRequest("the request body is empty; send a JSON object")
    if _depth_exceeds(body, MAX_DEPTH):
        raise BadRequest(f"the request body is nested deeper than {MAX_DEPTH} levels")
    try:
        value = _read(body)
    except json.JSONDecodeError as exc:
        raise BadRequest(f"the request body is not valid JSON: {exc.msg} at line {exc.lineno} column {exc.colno}") from exc
    except ValueError as exc:  # bad UTF-8, or an integer of more digits than Python reads
        raise BadRequest(f"the request body is not valid JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise BadRequest("the request body must be a JSON object")
    return value


def _read(body: bytes) -> Any:
    """What JSON says. msgspec takes a quarter of the time, and the stdlib takes a little more: NaN, half a surrogate pair, 1e400."""
    try:
        return _QUICK.decode(body)
    except (msgspec.DecodeError, ValueError):
        return json.loads(body.decode())


def _depth_exceeds(body: bytes, limit: int) -> bool:
    """Whether brackets nest deeper than `limit`. Strings may hold brackets too, so the cheap count only acquits."""
    if body.count(b"{") + body.count(b"[") <= limit:
        return False
    depth = 0
    position, end = 0, len(body)
    while position < end:
        byte = body[position]
        if byte == 0x22:
            position = _string_end(body, position)
            continue
        if byte in b"{[":
            depth += 1
            if depth > limit:
                return True
        elif byte in b"}]":
            depth -= 1
        position += 1
    return False


def _string_end(body: bytes, start: int) -> int:
    """The position after the string that opens at `start`; the end of the body if it never closes."""
    position = start + 1
    while True:
        quote = body.find(b'"', position)
        if quote < 0:
            return len(body)
        backslashes = 0
        while body[quote - 1 - backslashes] == 0x5C:
            backslashes += 1
        if backslashes % 2 == 0:
            return quote + 1
        position = quote + 1


def replace_model(body: bytes, model: str) -> bytes:
    """The same body asking for another model: each top-level `model` value is replaced, every other byte stays.

    Args:
      body: a JSON object that `read_request` accepted.
    """
    spans = top_level_values(body, b"model")
    for start, end in reversed(spans):
        body = body[:start] + json.dumps(model).encode() + body[end:]
    return body


def top_level_values(body: bytes, key: bytes) -> list[tuple[int, int]]:
    """Spans of the values of one key of the outermost object. An escaped spelling of the key counts as the key."""
    spans = []
    depth, position, expecting_key = 0, 0, False
    begun = -1  # where a value of the key begins, -1 outside of one
    while position < len(body):
        byte = body[position]
        if byte == 0x22:
            end = _string_end(body, position)
            if depth == 1 and expecting_key:
                name = body[position:end]
                if json.loads(name) == key.decode():
                    end = begun = _skip_space(body, body.index(b":", end) + 1)
                expecting_key = False
            position = end
            continue
        if begun >= 0 and depth == 1 and byte in b",}":
            spans.append((begun, len(body[:position].rstrip())))
            begun = -1
        if byte in b"{[":
            depth += 1
            expecting_key = depth == 1
        elif byte in b"}]":
            depth -= 1
        elif byte == 0x2C:
            expecting_key = depth == 1
        position += 1
    return spans


def _skip_space(body: bytes, position: int) -> int:
    while body[position] in b" \t\r\n":
        position += 1
    return position

"""Texts out, structure in: a chunk with every letter and digit of its texts replaced, so that its form, length and timing stay.

Nothing is trusted to be harmless but the values of keys that are listed here. What a chunk's JSON says nowhere else, such as a
comment or a torn event, is replaced as a whole.
"""

from __future__ import annotations

import unicodedata
from typing import Any, Final

import msgspec

#: Keys whose strings say how a stream works, and never what it says.
_STRUCTURE: Final = frozenset(
    {"id", "object", "model", "role", "finish_reason", "native_finish_reason", "type", "system_fingerprint", "service_tier", "provider"}
)
#: Keys whose values spell a text out in numbers: the bytes of a token.
_SPELLED: Final = frozenset({"bytes"})
_DEEPEST: Final = 64


def redact_block(raw: bytes) -> bytes:
    """One SSE block without its texts.

    Args:
      raw: as it came, its blank line included.
    """
    lines = raw.split(b"\n")
    return b"\n".join(_line(line) for line in lines)


def _line(line: bytes) -> bytes:
    name, colon, value = line.partition(b":")
    if name in (b"event", b"retry") or not line.strip():
        return line
    if name != b"data" or not colon:
        return name + colon + _blurred(value)
    body = value.strip()
    if body == b"[DONE]":
        return line
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return name + colon + _blurred(value)
    blank = b" " if value.startswith(b" ") else b""
    end = b"\r" if value.endswith(b"\r") else b""
    return name + colon + blank + msgspec.json.encode(_without_texts(document, 0)) + end


def _without_texts(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        return None
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, list):
        return [_without_texts(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {redact_key(key): _kept(key, item, depth + 1) for key, item in value.items()}
    return value


def _kept(key: str, value: Any, depth: int) -> Any:
    if key in _SPELLED:
        return None
    return value if key in _STRUCTURE and isinstance(value, str) else _without_texts(value, depth)


def redact_key(key: str) -> str:
    """Keys are structure as long as they look like names; a text that somebody made a key is a text."""
    return key if len(key) <= 40 and key.isascii() and key.replace("_", "").replace("-", "").isalnum() else redact_text(key)


def redact_text(text: str) -> str:
    """`text` with x for letters, 0 for digits, and one ideograph for all others; blanks and signs stay, and so does the length."""
    return "".join(map(_blur, text))


def _blurred(value: bytes) -> bytes:
    return redact_text(value.decode("utf-8", "replace")).encode()


def _blur(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] == "L":
        return "x" if ord(character) < 0x2E80 else "\u3007"
    if category[0] == "N":
        return "0"
    # Surrogate halves, marks and private characters could spell something; signs and blanks cannot.
    return character if category[0] in "PZS" or character in "\n\r\t" else "."

"""What an error body says: its error object, the text and the code in it, or the few words that a page comes down to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def error_object(body: bytes) -> dict[str, Any]:
    """The error object of a JSON body: {"error": {...}}, {"error": "..."}, {"message": ..., "code": ...} or a list of one of these."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(value, list) and value:  # Google's OpenAI-compatible endpoint
        value = value[0]
    if not isinstance(value, dict):
        return {}
    error = value.get("error", value)
    if isinstance(error, str):
        return {"message": error, "code": value.get("code")}
    return error if isinstance(error, dict) else {}


def text_of(error: Mapping[str, Any]) -> str:
    """The error's own text, at most 500 characters."""
    for name in ("message", "detail", "error_msg", "msg"):
        if isinstance(text := error.get(name), str):
            return text[:500]
    return ""


def code_of(error: Mapping[str, Any]) -> str:
    """The error's own code where it is a word; a number says no more than the status."""
    code = error.get("code")
    return code[:100] if isinstance(code, str) and not code.isdigit() else ""


def plain_text(body: bytes, content_type: str) -> str:
    """At most 200 characters of a body that is no JSON, tags and control characters removed (FAULTS row 11)."""
    text = body[:8192].decode("utf-8", "replace")
    if "html" in content_type or text.lstrip()[:1] == "<":
        parts, depth = [], 0
        for character in text:
            depth += (character == "<") - (character == ">" and depth > 0)
            parts.append(" " if depth or character == ">" else character)
        text = "".join(parts)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]

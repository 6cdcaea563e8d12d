"""The JSON of one event, judged: an answer's chunk, an error inside the stream, or nothing a client could read.

This module knows the shape of OpenAI's chunks and how the many servers that imitate them deviate. It keeps no memory of earlier events.

The usual chunk is decoded by msgspec into only the fields we ask for, which costs about half a microsecond. Whatever that refuses,
because a type differs, a delta has a key we do not know, or the JSON is of the kind only Python's own decoder takes (lone surrogates,
NaN), is read again with `json` and judged leniently: valid JSON objects pass, whatever is in them.

Within one delta the fields are read in a fixed order (`_LANES`, then function_call and tool_calls); choices and calls come in the order
of the document.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .chunks import Call, Delta, Event, Field, InBandError, Malformed, Weight
from .sse_blocks import HEAD_KEPT

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Most characters taken from an upstream's error text.
_MESSAGE_MAX: Final = 2000
_CODE_MAX: Final = 100

_CONTENT: Final = Field.CONTENT
_NOTHING: Final = Weight.NOTHING
_REASONING: Final = Weight.REASONING
_OUTPUT: Final = Weight.OUTPUT

#: The fields of a delta that hold growing text, in the order in which they are reported.
_LANES: Final = (
    (Field.REASONING_CONTENT, _REASONING),
    (Field.REASONING, _REASONING),
    (Field.CONTENT, _OUTPUT),
    (Field.REFUSAL, _OUTPUT),
)
#: Fields of a delta that carry no part of an answer: Groq's `channel`, the token numbers of Together and vLLM, the gateway's own notes.
_NOTES: Final = frozenset({"role", "channel", "token_id", "token_ids", "provider_metadata"})
#: Spellings of "not finished yet" beside null: gateways that copy DashScope's native protocol send the word.
_UNFINISHED: Final = (None, "", "null")


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    refusal: str | None = None
    function_call: _Function | None = None
    tool_calls: list[_ToolCall] | None = None
    channel: msgspec.Raw = msgspec.Raw()
    token_id: msgspec.Raw = msgspec.Raw()


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    message: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Usage(msgspec.Struct, gc=False):
    completion_tokens: int | None = None


class _Payload(msgspec.Struct, gc=False):
    id: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode: Final = msgspec.json.Decoder(_Payload).decode
_ABSENT: Final = (b"null", b"[]", b"{}")
_FIRST: Final = (0,)
_UNSET: Final = msgspec.UNSET


def _integer(digits: str) -> int:
    # int() refuses more than 4,300 digits; no number that we read is that long.
    return int(digits) if len(digits) < 1000 else 0


_load: Final = json.JSONDecoder(parse_int=_integer).decode


def read_json(data: bytes) -> Any:
    """The value of a JSON text.

    Raises:
      ValueError: it is none, it is no UTF-8, or it nests too deeply to be read.
    """
    try:
        return _load(data.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_event(raw: bytes, data: bytes | memoryview) -> Event | InBandError | Malformed:
    """Judges an event's data. Never raises.

    Args:
      raw: the whole block.
      data: its data, neither empty nor [DONE]; a view of `raw` if it is large and one object.
    """
    try:
        payload = _decode(data)
    except (ValueError, RecursionError):
        return _read_leniently(raw, bytes(data))
    choices = payload.choices
    if not choices or (payload.error is not _UNSET and bytes(payload.error) != b"null"):
        return _read_leniently(raw, bytes(data))
    own = data if isinstance(data, bytes) else None
    only = choices[0]
    told = only.delta
    # One choice that says nothing but some content, as nearly every one does.
    if (
        told is not None
        and (text := told.content)
        and not (told.reasoning_content or told.reasoning or told.refusal or told.function_call or told.tool_calls or only.text)
        and told.reasoning_details is _UNSET
        and only.finish_reason in _UNFINISHED
        and len(choices) == 1
    ):
        number = only.index or 0
        tokens = payload.usage.completion_tokens if payload.usage else None
        return Event(raw, own, (Delta(number, _CONTENT, text),), (number,) if number else _FIRST, (), _OUTPUT, payload.id or "", tokens)
    deltas: list[Delta] = []
    numbers: list[int] = []
    finished: list[int] = []
    calls: list[Call] = []
    weight = _NOTHING
    for position, choice in enumerate(choices):
        number = choice.index or 0
        numbers.append(number)
        if (delta := choice.delta) is not None:
            if (text := delta.reasoning_content) or delta.reasoning or _is_there(delta.reasoning_details):
                weight = max(weight, _REASONING)
                if text:
                    deltas.append(Delta(number, Field.REASONING_CONTENT, text, position))
                if text := delta.reasoning:
                    deltas.append(Delta(number, Field.REASONING, text, position))
            if text := delta.content:
                weight = _OUTPUT
                deltas.append(Delta(number, _CONTENT, text, position))
            if delta.refusal or delta.function_call or delta.tool_calls:
                weight = max(weight, _read_rare_fields(delta, number, position, deltas, calls))
        elif _is_there(choice.message):
            return _read_leniently(raw, bytes(data))
        if text := choice.text:
            weight = _OUTPUT
            deltas.append(Delta(number, Field.TEXT, text, position))
        if choice.finish_reason not in _UNFINISHED:
            weight = _OUTPUT
            finished.append(number)
    tokens = payload.usage.completion_tokens if payload.usage else None
    return Event(raw, own, tuple(deltas), tuple(numbers), tuple(finished), weight, payload.id or "", tokens, tuple(calls))


def _is_there(value: msgspec.Raw | msgspec.UnsetType) -> bool:
    return value is not msgspec.UNSET and bytes(value) not in _ABSENT


def _read_rare_fields(delta: _Delta, number: int, position: int, deltas: list[Delta], calls: list[Call]) -> Weight:
    weight = _NOTHING
    if text := delta.refusal:
        weight = _OUTPUT
        deltas.append(Delta(number, Field.REFUSAL, text, position))
    if function := delta.function_call:
        if function.name or function.arguments:
            weight = _OUTPUT
        if text := function.arguments:
            deltas.append(Delta(number, Field.FUNCTION_ARGUMENTS, text, position))
    for place, call in enumerate(delta.tool_calls or ()):
        weight = _OUTPUT
        index = place if call.index is None else call.index
        text = call.function.arguments or "" if call.function else ""
        name = call.function.name or "" if call.function else ""
        if call.id or name:
            calls.append(Call(number, position, index, place, call.id or "", name, text))
        if text:
            deltas.append(Delta(number, Field.TOOL_ARGUMENTS, text, position, index, place, call.id or None))
    return weight


# ---- the lenient reading --------------------------------------------------------------------------------------------


def _read_leniently(raw: bytes, data: bytes) -> Event | InBandError | Malformed:
    try:
        value = read_json(data)
    except ValueError as problem:
        torn = any(mark in data for mark in (b"{", b"}", b'"'))
        return Malformed(raw[:HEAD_KEPT], f"no JSON: {problem}", may_carry_output=torn)
    if error := find_error(value, raw):
        return error
    if not isinstance(value, dict):
        return Malformed(raw[:HEAD_KEPT], f"JSON, but no object: {type(value).__name__}", may_carry_output=False)
    choices = value.get("choices")
    deltas: list[Delta] = []
    numbers: list[int] = []
    finished: list[int] = []
    calls: list[Call] = []
    weight = _NOTHING
    if not isinstance(choices, list):
        weight, choices = _OUTPUT if choices else _NOTHING, []
    for position, choice in enumerate(choices):
        if not isinstance(choice, dict):
            weight = _OUTPUT if choice else weight
            continue
        number = _number(choice.get("index"), 0)
        numbers.append(number)
        weight = max(weight, _read_choice(choice, number, position, deltas, calls))
        reason = choice.get("finish_reason")
        if not isinstance(reason, str | None) or reason not in _UNFINISHED:
            weight = _OUTPUT
            finished.append(number)
    usage = value.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    tokens = tokens if isinstance(tokens, int) and not isinstance(tokens, bool) else None
    name = value.get("id")
    name = str(name) if isinstance(name, str | int) else ""
    return Event(raw, data, tuple(deltas), tuple(numbers), tuple(finished), weight, name, tokens, tuple(calls))


def _read_choice(choice: dict[str, Any], number: int, position: int, deltas: list[Delta], calls: list[Call]) -> Weight:
    weight = _NOTHING
    delta = choice.get("delta")
    if isinstance(delta, dict):
        weight = _read_delta(delta, number, position, deltas, calls)
    elif delta is None and isinstance(message := choice.get("message"), dict):
        weight = _OUTPUT if any(has_text(value) for name, value in message.items() if name not in _NOTES) else weight
    elif delta:
        weight = _OUTPUT
    text = choice.get("text")
    if text:
        weight = _OUTPUT
        if isinstance(text, str):
            deltas.append(Delta(number, Field.TEXT, text, position))
    return weight


def _read_delta(delta: dict[str, Any], number: int, position: int, deltas: list[Delta], calls: list[Call]) -> Weight:
    weight = _NOTHING
    known = set(_NOTES)
    for field, heaviness in _LANES:
        text = delta.get(field)
        known.add(field)
        if isinstance(text, str) and text:
            weight = max(weight, heaviness)
            deltas.append(Delta(number, field, text, position))
        elif has_text(text):  # Mistral's list of parts: thinking and answer in one field, so it counts as the answer
            weight = _OUTPUT
    function = delta.get("function_call")
    if isinstance(function, dict) and isinstance(text := function.get("arguments"), str) and text:
        deltas.append(Delta(number, Field.FUNCTION_ARGUMENTS, text, position))
    entries = delta.get("tool_calls")
    for place, entry in enumerate(entries if isinstance(entries, list) else []):
        weight = _OUTPUT
        if isinstance(entry, dict):
            call = _read_call(entry, number, position, place)
            if call.id or call.name:
                calls.append(call)
            if call.arguments:
                deltas.append(Delta(number, Field.TOOL_ARGUMENTS, call.arguments, position, call.index, place, call.id or None))
    for key, value in delta.items():
        if key not in known and has_text(value):
            weight = max(weight, _REASONING if key == "reasoning_details" else _OUTPUT)
    return weight


def _read_call(entry: dict[str, Any], number: int, position: int, place: int) -> Call:
    function = entry.get("function")
    told = function if isinstance(function, dict) else {}
    key, name, text = entry.get("id"), told.get("name"), told.get("arguments")
    return Call(
        number,
        position,
        _number(entry.get("index"), place),
        place,
        str(key) if isinstance(key, str | int) and key else "",
        name if isinstance(name, str) else "",
        text if isinstance(text, str) else "",
    )


def has_text(value: object) -> bool:
    """True if a non-empty string is anywhere in a JSON value (names of members aside): numbers and flags are no answer."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text if text:
                return True
            case dict() as members:
                waiting += members.values()
            case list() as elements:
                waiting += elements
    return False


def _number(value: object, default: int) -> int:
    """A choice's or a call's index, also where it is sent as 0.0 or "0"."""
    match value:
        case bool():
            return default
        case int():
            return value
        case float() if value.is_integer():
            return int(value)
        case str() if value.isascii() and value.isdigit() and len(value) < 10:
            return int(value)
    return default


# ---- errors ---------------------------------------------------------------------------------------------------------

_MESSAGE_NAMES: Final = ("message", "detail", "msg", "error_msg")
_STATUS_NAMES: Final = ("code", "status", "status_code", "http_code")
_GOOD_CODES: Final = ("0", "200", "ok", "success")


def find_error(value: object, raw: bytes) -> InBandError | None:
    """The error that a JSON value stands for, None if it is none.

    Known forms: a truthy `error` (an object or a string; null, "" and {} are none, as the SDKs see it too), `object: "error"` (vLLM),
    `code` and `message` without choices (DashScope, iFlytek), a list of one of these (Google).
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return None
    if value.get("error"):
        return make_error(value, raw)
    code = value.get("code")
    bad_code = isinstance(code, str | int) and bool(code) and str(code).lower() not in _GOOD_CODES
    if value.get("object") == "error" or (bad_code and not value.get("choices") and _first_text(value, _MESSAGE_NAMES)):
        return make_error(value, raw)
    return None


def make_error(value: object, raw: bytes) -> InBandError:
    """The error of a value that is known to be one: a text, an error object, or an object that holds it as `error`."""
    outer: Mapping[str, Any] = value if isinstance(value, dict) else {"error": value}
    inner = outer.get("error") or outer
    if not isinstance(inner, dict):
        inner = {"message": inner if isinstance(inner, str) else ""}
    code = inner.get("code")
    if code is None:
        code = outer.get("code")
    return InBandError(
        raw,
        message=(_first_text(inner, _MESSAGE_NAMES) or _first_text(outer, _MESSAGE_NAMES))[:_MESSAGE_MAX],
        type=_first_text(inner, ("type",))[:_CODE_MAX],
        code=str(code)[:_CODE_MAX] if isinstance(code, str | int) and not isinstance(code, bool) else "",
        status=_find_status(inner) or _find_status(outer),
    )


def _first_text(value: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((text for name in names if isinstance(text := value.get(name), str) and text), "")


def _find_status(value: Mapping[str, Any]) -> int:
    return next((number for name in _STATUS_NAMES if 400 <= (number := _number(value.get(name), 0)) <= 599), 0)

"""Replaces the text of single deltas inside an event, takes single labels out, and leaves every other byte of its JSON as it came.

A repaired chunk is not encoded anew: floats, key order, spacing and fields that nobody here knows would change with it. Instead the span of
each value is looked up in the bytes, and the new text is put there. This module decides nothing about which text is right.

The scanner relies on the parser's verdict that the data is JSON; of duplicate names the last counts, as in every decoder used here.
New texts are written in ASCII, everything else escaped: so a surrogate cut off from its other half survives, and characters that some
clients take for line ends (U+2028) stay out of the stream.
"""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from .chunks import Field
from .event_json import has_text, read_json
from .sse_blocks import replace_data

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .chunks import Delta, Event
    from .told_once import RepeatedLabel

_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
#: One member or element: its key if it has one, then a whole string or scalar, or the bracket that opens something larger.
_ENTRY: Final = re.compile(rb"[\s,]*+(?:(%b)\s*+:\s*+)?(%b|[^\s,\[\]{}\"]++|[\[{])" % (_STRING, _STRING), re.DOTALL)
#: What matters while skipping something larger: brackets, and strings, in which brackets mean nothing.
_NESTING: Final = re.compile(rb"%b|[\[\]{}]" % _STRING, re.DOTALL)

#: An edit: the bytes from start to end become others.
_Edit: TypeAlias = tuple[int, int, bytes]
#: `_items` of one event's data, by where they begin. Each is looked for once: one event may have thousands of texts.
_Items: TypeAlias = "Callable[[int], list[_Item]]"


class _Item(msgspec.Struct, frozen=True, gc=False):
    """One member of an object, or element of an array (then key is None). `start` includes the key, `value` does not."""

    key: str | None
    start: int
    value: int
    end: int


def rewrite(
    event: Event,
    texts: Mapping[int, str],
    envelope: Mapping[str, object] | None = None,
    *,
    drop_role: bool = False,
    labels: Sequence[RepeatedLabel] = (),
) -> bytes | None:
    """The event's block with other texts, None if nothing is left in it that a client could use.

    Args:
      texts: the new text of `event.deltas[i]` by i; an absent one stays.
      envelope: new values for top-level scalars that exist (`id`, `created`, `model`, ...), for a stream resumed on another upstream.
      drop_role: removes `role` from every delta; a client has it from the first attempt already.
      labels: ids and names to remove from entries of `tool_calls`, member and comma, which leaves a fragment as OpenAI writes its later
        ones; every client reads those, while null or "" would meet stricter schemas.

    Returns:
      None only if something was emptied or dropped, and the event has no text, finish_reason, usage, role, log probabilities
      and no unknown field with a value inside a delta.
    """
    data = event.data
    edits: list[_Edit] = []
    items: _Items = functools.cache(functools.partial(_items, data))
    top = items(data.index(b"{"))
    choices = items(_last(top, "choices").value) if texts or drop_role or labels else []
    for number, text in texts.items():
        item = _find(items, choices, event.deltas[number])
        edits.append((item.value, item.end, json.dumps(text).encode()))
    if drop_role:
        for choice in choices:
            delta = next((item for item in reversed(items(choice.value)) if item.key == "delta"), None)
            edits += _drop(items(delta.value), "role") if delta else []
    for label in labels:
        call = _find_call(items, choices, label.call.position, label.call.call_position)
        edits += _drop(call, "id") if label.id else []
        edits += _drop(items(_last(call, "function").value), "name") if label.name else []
    for name, value in (envelope or {}).items():
        edits += [(item.value, item.end, json.dumps(value).encode()) for item in top if item.key == name and data[item.value] not in b"{["]
    changed = _apply(data, edits)
    if (
        (drop_role or texts or labels)
        and not any(texts.get(i, delta.text) for i, delta in enumerate(event.deltas))
        and not _matters(changed)
    ):
        return None
    return event.raw if changed == data else replace_data(event.raw, changed)


def _apply(data: bytes, edits: list[_Edit]) -> bytes:
    pieces: list[bytes] = []
    position = 0
    for start, end, replacement in sorted(edits):
        pieces += (data[position:start], replacement)
        position = end
    return b"".join((*pieces, data[position:]))


def _find(items: _Items, choices: list[_Item], delta: Delta) -> _Item:
    choice = items(choices[delta.position].value)
    if delta.field is Field.TEXT:
        return _last(choice, "text")
    members = items(_last(choice, "delta").value)
    match delta.field:
        case Field.FUNCTION_ARGUMENTS:
            return _last(items(_last(members, "function_call").value), "arguments")
        case Field.TOOL_ARGUMENTS:
            call = _find_call(items, choices, delta.position, delta.call_position)
            return _last(items(_last(call, "function").value), "arguments")
        case _:
            return _last(members, delta.field)


def _find_call(items: _Items, choices: list[_Item], position: int, call_position: int) -> list[_Item]:
    """The members of one entry of `tool_calls`."""
    delta = items(_last(items(choices[position].value), "delta").value)
    return items(items(_last(delta, "tool_calls").value)[call_position].value)


def _drop(members: list[_Item], key: str) -> list[_Edit]:
    """Removes every member of that name from an object, each with one comma."""
    edits: list[_Edit] = []
    kept_before = False
    for place, member in enumerate(members):
        if member.key != key:
            kept_before = True
        elif kept_before:
            edits.append((members[place - 1].end, member.end, b""))
        else:
            following = members[place + 1].start if place + 1 < len(members) else member.end
            edits.append((member.start, following, b""))
    return edits


# ---- what is left ---------------------------------------------------------------------------------------------------

#: Members of a tool call or function call that name or number it but do nothing on their own.
_LABELS: Final = frozenset({"index", "type"})


def _matters(data: bytes) -> bool:
    """True if an event whose texts are all empty still tells a client something."""
    try:
        event: dict[str, Any] = read_json(data)
    except ValueError:  # how deep JSON may nest depends on the caller's own depth; in doubt it stays
        return True
    return bool(event.get("usage")) or any(_choice_matters(choice) for choice in event.get("choices") or [])


def _choice_matters(choice: Any) -> bool:
    if not isinstance(choice, dict):
        return choice is not None
    delta = choice.get("delta") or {}
    if choice.get("finish_reason") or has_text(choice.get("logprobs")) or not isinstance(delta, dict):
        return True
    return any(_member_matters(name, value) for name, value in delta.items())


def _member_matters(name: str, value: Any) -> bool:
    if name == "tool_calls" and isinstance(value, list):
        return any(_call_matters(call) for call in value)
    if name == "function_call" and isinstance(value, dict):
        return _call_matters(value)
    return value not in (None, "", [], {})


def _call_matters(call: Any) -> bool:
    if not isinstance(call, dict):
        return True
    return any(has_text(value) for name, value in call.items() if name not in _LABELS)


# ---- the scanner ----------------------------------------------------------------------------------------------------


def _items(data: bytes, start: int) -> list[_Item]:
    """The members or elements of the object or array that begins at `start`; none for any other value."""
    items: list[_Item] = []
    if data[start] not in b"{[":
        return items
    position = start + 1
    while match := _ENTRY.match(data, position):
        value, position = match.span(2)
        if data[value] in b"{[":
            position = _end_of(data, value)
        key = match[1]
        if key is None:
            items.append(_Item(None, value, value, position))
        else:
            name = read_json(key) if b"\\" in key else key[1:-1].decode()
            items.append(_Item(name, match.start(1), value, position))
    return items


def _end_of(data: bytes, start: int) -> int:
    """The position behind the object or array that begins at `start`. Works without recursion."""
    depth = 0
    for match in _NESTING.finditer(data, start):
        token = match[0]
        depth += (token in (b"{", b"[")) - (token in (b"}", b"]"))
        if not depth:
            return match.end()
    raise AssertionError("the parser took it for JSON")


def _last(items: list[_Item], key: str) -> _Item:
    return next(item for item in reversed(items) if item.key == key)

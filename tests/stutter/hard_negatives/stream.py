"""What a hard negative is made of, and how its bytes are written.

A `Negative` is a list of events; an event adds texts to lanes and may fix parts of its envelope (id, usage, nonce, finish). What it
does not fix comes from the envelope styles, so that one negative is run in all of them. Knows nothing of the detector.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What servers put around the same delta. Each is run for every negative that does not name its own.
STYLES: Final = (
    "constant",  # nothing but the delta changes
    "obfuscation",  # OpenAI, Azure: random padding in every event
    "padding",  # Mistral: `p`, the alphabet's beginning of random length
    "usage",  # completion_tokens rises with every event
    "usage null",  # DashScope, vLLM: the key is there, nothing in it
    "usage zero",  # a gateway that never fills its counters
    "usage last",  # one event without choices at the end
    "dashscope",  # the first text's keys in another order than the later ones'
    "rotating ids",  # Copilot: another id in every event
    "role always",  # OpenRouter: role, and `content` beside other fields, in every event
    "logprobs",  # another number for every token
    "shuffled keys",  # an object's keys come in any order (gateways in Lua, Rust, Go maps)
    "nulls",  # every field of the delta, null where it says nothing
)
#: Styles in which every event proves that its text is new.
PROVING: Final = ("obfuscation", "usage", "rotating ids", "logprobs")
#: Milliseconds between two events, in turn: one write or a burst; usual; large chunks.
GAPS: Final = {"burst": (0.0, 0.2, 5.0), "normal": (20.0, 60.0, 35.0), "slow": (250.0, 500.0, 420.0)}
#: `StutterPolicy.profile` of the runs.
PROFILES: Final = ("generic", "dashscope", "portal")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@dataclass(frozen=True, slots=True)
class Part:
    """What one event adds to one lane.

    Args:
      lane: "content", "reasoning", "reasoning_content", "refusal", "text" (legacy), "function" or "tool" (arguments).
      index: of the tool call.
      call, name: id and name of the call where this fragment says them.
    """

    text: str
    lane: str = "content"
    choice: int = 0
    index: int = 0
    call: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One event. What is None comes from the style.

    Args:
      parts: none for an event that carries no text.
      id: of the completion.
      usage: completion_tokens.
      finish: finish_reason of every choice in it.
      logprobs: of the tokens of its only text.
      split: every part has an entry of its own in `choices`, even within one choice.
      extra: further top-level fields.
      keys: order of the keys of a choice.
      comment: a comment line in front of it, "" for none.
      choices: False writes `"choices": []`.
      message: all text so far, which Perplexity sends beside the delta.
    """

    parts: tuple[Part, ...] = ()
    id: str | None = None
    usage: int | None = None
    finish: str | None = None
    logprobs: tuple[float, ...] | None = None
    split: bool = False
    extra: tuple[tuple[str, str], ...] = ()
    keys: tuple[str, ...] = ()
    comment: str = ""
    choices: bool = True
    message: str = ""


@dataclass(frozen=True, slots=True)
class Negative:
    """A legitimate stream that looks like stutter.

    Args:
      rule: what would have to be believed to damage it.
      events: without the role event in front and the finish event behind, unless `bare`.
      report: the public report it comes from, as STUTTER names it.
      styles: the envelopes in which it is legitimate; fewer than all only where the events fix the envelope themselves, or where
        nothing but the envelope tells it from a fault (then the reason stands beside it).
      profiles: upstream profiles under which it must pass.
      bare: the events are the whole stream, finish included.
    """

    name: str
    rule: str
    events: tuple[Event, ...]
    report: str = ""
    styles: tuple[str, ...] = STYLES
    profiles: tuple[str, ...] = PROFILES
    bare: bool = False


def text(
    name: str,
    rule: str,
    *deltas: str,
    lane: str = "content",
    report: str = "",
    styles: tuple[str, ...] = STYLES,
    profiles: tuple[str, ...] = PROFILES,
) -> Negative:
    """A negative of one lane, one delta an event."""
    return Negative(name, rule, tuple(Event((Part(delta, lane),)) for delta in deltas), report, styles, profiles)


def split(name: str, rule: str, joined: str, *, report: str = "", styles: tuple[str, ...] = STYLES) -> Negative:
    """The same, its deltas written in one string with a bar between them."""
    return text(name, rule, *joined.split("|"), report=report, styles=styles)


def arguments(name: str, rule: str, *deltas: str, report: str = "", styles: tuple[str, ...] = STYLES) -> Negative:
    """A negative of one tool call's arguments; an event with its id and name and no arguments comes first, as OpenAI sends it."""
    first = Event((Part("", "tool", call="call_1", name="f"),))
    return Negative(name, rule, (first, *(Event((Part(delta, "tool"),)) for delta in deltas)), report, styles)


def write(negative: Negative, style: str) -> list[bytes]:
    """Its SSE blocks in one envelope, [DONE] last."""
    rng = random.Random(f"{negative.name} {style}")
    events = list(negative.events)
    role = Event((Part(""),))
    if not negative.bare:
        finish = "tool_calls" if any(part.lane == "tool" for event in events for part in event.parts) else "stop"
        last = max((part.choice for event in events for part in event.parts), default=0)
        events = [role, *events, *(Event((Part("", choice=choice),), finish=finish) for choice in range(last + 1))]
    blocks, tokens, heads = [], 0, 0
    for place, event in enumerate(events):
        said = any(part.text for part in event.parts)
        tokens += rng.randint(1, 3) * said
        heads += said
        body = _body(event, style, rng, place, tokens, head=said and heads == 1, first=place == 0 and not negative.bare)
        comment = f": {event.comment}\n\n" if event.comment else ""
        blocks += [comment.encode()] * bool(comment) + [b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"]
    if style == "usage last":
        usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}
        closing = {
            "id": "chatcmpl-0",
            "object": "chat.completion.chunk",
            "created": 1756618477,
            "model": "m",
            "choices": [],
            "usage": usage,
        }
        blocks.append(b"data: " + json.dumps(closing).encode() + b"\n\n")
    return [*blocks, b"data: [DONE]\n\n"]


def _body(event: Event, style: str, rng: random.Random, place: int, tokens: int, *, head: bool, first: bool) -> dict[str, Any]:
    name = event.id if event.id is not None else "chatcmpl-0"
    if style == "rotating ids" and event.id is None:
        name = "".join(rng.choices(_LETTERS, k=24))
    body: dict[str, Any] = {"id": name, "object": "chat.completion.chunk", "created": 1756618477, "model": "m"}
    body["choices"] = _choices(event, style, rng, head=head, first=first)
    counted = event.usage
    if counted is None:
        counted = {"usage": tokens, "usage zero": 0}.get(style)
    if counted is not None:
        body["usage"] = {"prompt_tokens": 9, "completion_tokens": counted, "total_tokens": 9 + counted}
    elif style == "usage null":
        body["usage"] = None
    if style == "obfuscation":
        body["obfuscation"] = "".join(rng.choices(_LETTERS, k=rng.randint(6, 14)))
    elif style == "padding":
        body["p"] = "abcdefghijklmnopqrstuvwxyz0123456789"[: 1 + 11 * place % 36]  # neighbours differ; chance has rows of its own
    body.update(event.extra)
    return body


def _choices(event: Event, style: str, rng: random.Random, *, head: bool, first: bool) -> list[dict[str, Any]]:
    groups: list[tuple[int, list[Part]]] = []
    for part in event.parts if event.choices else ():
        known = [group for group in groups if group[0] == part.choice]
        if known and not event.split:
            known[0][1].append(part)
        else:
            groups.append((part.choice, [part]))
    entries = []
    for number, parts in groups:
        legacy = [part.text for part in parts if part.lane == "text"]
        entry: dict[str, Any] = {"index": number}
        if legacy:
            entry["text"] = legacy[0]
        else:
            entry["delta"] = _delta(parts, style, first=first, closing=event.finish is not None)
        if event.message:
            entry["message"] = {"role": "assistant", "content": event.message}
        entry["logprobs"] = _logprobs(event, parts, style, rng)
        entry["finish_reason"] = event.finish
        entries.append(_in_order(entry, event, style, rng, head=head))
    return entries


def _delta(parts: Sequence[Part], style: str, *, first: bool, closing: bool) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if first or (style == "role always" and not closing):
        delta = {"role": "assistant", "content": ""}
    if style == "nulls" and not closing:
        delta = {"role": None, "content": None, "reasoning_content": None, "refusal": None, "tool_calls": None, **delta}
    calls: list[dict[str, Any]] = []
    for part in parts:
        if part.lane == "function":
            delta["function_call"] = {"arguments": part.text} | ({"name": part.name} if part.name is not None else {})
        elif part.lane == "tool":
            function = ({"name": part.name} if part.name is not None else {}) | {"arguments": part.text}
            call = {"id": part.call, "type": "function"} if part.call is not None else {}
            calls.append({"index": part.index, **call, "function": function})
        elif part.text:
            delta[part.lane] = part.text
    if calls:
        delta["tool_calls"] = calls
    return delta


def _logprobs(event: Event, parts: Sequence[Part], style: str, rng: random.Random) -> dict[str, Any] | None:
    said = "".join(part.text for part in parts if part.lane == "content")
    numbers = event.logprobs
    if numbers is None and style == "logprobs" and said:
        numbers = (-rng.uniform(0.01, 6.0),)
    if numbers is None:
        return None
    return {"content": [{"token": said, "logprob": number, "top_logprobs": []} for number in numbers], "refusal": None}


def _in_order(entry: dict[str, Any], event: Event, style: str, rng: random.Random, *, head: bool) -> dict[str, Any]:
    keys = list(event.keys)
    if not keys and style == "dashscope":
        keys = ["finish_reason", "logprobs", "delta", "index"] if head else ["delta", "finish_reason", "index", "logprobs"]
    elif not keys and style == "shuffled keys":
        keys = rng.sample(sorted(entry), len(entry))
        if keys[0] == "finish_reason":  # two heads in DashScope's order and then another would be its own proof of a repeat
            keys.reverse()
    return {key: entry[key] for key in keys if key in entry} | {key: value for key, value in entry.items() if key not in keys}


def arrivals(count: int, speed: str) -> list[float]:
    """Seconds at which so many blocks arrive."""
    now, times = 0.0, []
    for number in range(count):
        times.append(now)
        now += GAPS[speed][number % 3] / 1000
    return times

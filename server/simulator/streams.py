"""Good answers: what an upstream says when it does not misbehave, and the steps that deliver it.

The other modules of answers are built on `parts_of` and `deliver`: they leave out, repeat, cut or spell differently what is made
here. A part is one SSE event of a stream, or one of the two halves of a whole answer, so that every fault has a middle in both.
"""

from __future__ import annotations

from itertools import chain, repeat
from typing import TYPE_CHECKING, Final

import msgspec

from .ask import Ask, BadRequest, Model
from .envelopes import encode
from .scripts import PARAGRAPH_ZH, THOUGHTS, USAGE_ONLY, Piece, counted, speech, tokens_of, tool_calls
from .wire import CHUNKED, EVENT_STREAM, JSON, LAST_CHUNK, Answer, Headers, Send, chunk, response_head

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .scripts import Script
    from .wire import Step

DONE: Final = b"data: [DONE]\n\n"


def event(data: bytes) -> bytes:
    """One SSE event as nearly every server spells it."""
    return b"data: " + data + b"\n\n"


def script_of(ask: Ask, tokens: Sequence[str] | None = None, *, thoughts: str = "", thoughts_field: str = "reasoning_content") -> Script:
    """The pieces that answer `ask` in words: its own text, or `tokens`; every choice that `n` asked for."""
    first = tokens_of(ask.text) if tokens is None else tokens
    answers = [first, *([f"({i + 1}) ", *first] for i in range(1, ask.choices))]
    return speech(answers, ask.chance, thoughts=tokens_of(thoughts) if ask.chat else (), thoughts_field=thoughts_field)


def parts_of(ask: Ask, script: Script) -> list[bytes]:
    """`script` as the parts of a body: one event each and the closing [DONE], or the whole completion in two halves."""
    envelope = ask.envelope
    if not ask.stream:
        body = envelope.completion(script) if ask.payload is None else ask.payload
        return [body[: len(body) // 2], body[len(body) // 2 :]]
    if not ask.chat or envelope.style == "dashscope":
        # The legacy endpoint has no role, and the recorded stutter of DashScope begins with content.
        script = [piece for piece in script if not piece.role]
    if ask.usage_at_end:
        script = [*script, Piece(choice=USAGE_ONLY, tokens=max(piece.tokens for piece in script))]
    return [*(event(envelope.write(piece)) for piece in script), DONE]


def head_of(ask: Ask, parts: Iterable[bytes], extra: Headers = ()) -> bytes:
    """The head that goes with `parts`: chunked events, or JSON of a stated length."""
    if ask.stream:
        return response_head(200, EVENT_STREAM + CHUNKED + extra)
    return response_head(200, (*JSON, ("content-length", str(sum(map(len, parts)))), *extra))


def frame(ask: Ask, data: bytes) -> bytes:
    """Bytes of a body as they stand on the wire."""
    return chunk(data) if ask.stream else data


def body_steps(ask: Ask, parts: Iterable[bytes], *, first_wait: float = 0.0) -> Iterator[Step]:
    """The parts of a body at the asked pace, without its end. A whole answer has no pace: it is written when it is known."""
    pace = ask.pace if ask.stream else 0.0
    wait = first_wait
    for part in parts:
        yield Send(frame(ask, part), wait, events=1)
        wait = pace


def deliver(
    ask: Ask,
    parts: Sequence[bytes],
    *,
    upto: int | None = None,
    first_wait: float = 0.0,
    ending: Iterable[Step] | None = None,
    extra: Headers = (),
) -> list[Step]:
    """Head, body and end of an answer.

    Args:
      upto: how many parts are sent before the ending, None for all.
      first_wait: seconds between head and first part.
      ending: what follows the parts; None is the proper end of the body.
    """
    if ending is None:
        ending = (Send(LAST_CHUNK),) if ask.stream else ()
    sent = parts if upto is None else parts[: max(upto, 0)]
    return [Send(head_of(ask, parts, extra)), *body_steps(ask, sent, first_wait=first_wait), *ending]


def middle(ask: Ask, parts: Sequence[bytes]) -> int:
    """After how many parts a fault in the middle strikes: `after`, but always between the first part and the last."""
    return max(0, min(ask.count("after"), len(parts) - 1)) if ask.stream else 1


def say(ask: Ask, script: Script) -> Answer:
    """The plain, good delivery of `script`."""
    return Answer(deliver(ask, parts_of(ask, script)))


# ---- the good models ------------------------------------------------------------------------------------------------


def ok(ask: Ask) -> Answer:
    return say(ask, script_of(ask))


def _ok_zh(ask: Ask) -> Answer:
    return say(ask, script_of(ask, tokens_of(ask.word("text") or PARAGRAPH_ZH)))


def _count(ask: Ask) -> Answer:
    return say(ask, script_of(ask, counted(ask.count("count"))))


def _repeat(ask: Ask) -> Answer:
    return say(ask, script_of(ask, [ask.word("text") or "ha "] * ask.count("count")))


def _echo(ask: Ask) -> Answer:
    messages = ask.body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) else ask.body.get("prompt")
    return say(ask, script_of(ask, tokens_of(content if isinstance(content, str) else encode(content).decode())))


def begun_of(ask: Ask) -> str | None:
    """The beginning of the answer where the request carries one: a last message of the assistant."""
    messages = ask.body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) and last.get("role") == "assistant" else None
    return content if isinstance(content, str) else None


def _continues(ask: Ask) -> Answer:
    begun = begun_of(ask) or ""
    rest = ask.text.removeprefix(begun)
    return say(ask, script_of(ask, tokens_of(begun + rest if ask.count("echo") else rest)))


def _reasoning(ask: Ask) -> Answer:
    return say(ask, script_of(ask, thoughts=THOUGHTS, thoughts_field=ask.word("field")))


def _refusal(ask: Ask) -> Answer:
    refused = tokens_of(ask.word("text") or "I cannot help with that.")
    return say(ask, speech([()] * ask.choices, ask.chance, thoughts=refused, thoughts_field="refusal" if ask.chat else "content"))


def _empty(ask: Ask) -> Answer:
    return say(ask, script_of(ask, ()))


CALLS: Final = (
    ("get_weather", '{"city":"Kraków","unit":"celsius","days":[1,2,3]}'),
    ("get_time", '{"zone":"Europe/Warsaw","format":"%H:%M"}'),
)


def _tools(ask: Ask) -> Answer:
    if not ask.chat:
        return say(ask, script_of(ask))
    calls = ((ask.word("name"), ask.word("arguments")),) if ask.word("name") else CALLS[: ask.count("calls")]
    return say(ask, tool_calls(calls, ask.chance))


def _choices(ask: Ask) -> Answer:
    first = tokens_of(ask.text)
    return say(ask, speech([first, *([f"({i + 1}) ", *first] for i in range(1, ask.count("n")))], ask.chance))


def _finish(ask: Ask) -> Answer:
    reason = ask.word("reason")
    return say(ask, [msgspec.structs.replace(piece, finish=reason) if piece.finish else piece for piece in script_of(ask)])


def _big(ask: Ask) -> Answer:
    """Many large events, the same bytes again and again: for a slow reader, and for measuring throughput."""
    piece = Piece("x" * ask.count("size"), tokens=1)
    if not ask.stream:
        return say(ask, [piece, Piece(finish="stop", tokens=1)])
    envelope = ask.envelope
    told, finish = event(envelope.write(piece)), event(envelope.write(Piece(finish="stop", tokens=1)))
    return Answer(
        chain([Send(head_of(ask, ()))], body_steps(ask, chain(repeat(told, ask.count("events")), [finish, DONE])), [Send(LAST_CHUNK)])
    )


def _endless(ask: Ask) -> Answer:
    """Tokens for ever; without `stream`, the head and then a blank at the pace, which JSON allows for ever as well."""
    if not ask.stream:
        blank = Send(chunk(b" "), ask.pace)
        return Answer(chain([Send(response_head(200, JSON + CHUNKED))], repeat(blank)))
    told = event(ask.envelope.write(Piece(ask.word("text") or "on and ", tokens=1)))
    return Answer(chain([Send(head_of(ask, ()))], body_steps(ask, repeat(told))))


def _recording(ask: Ask) -> Answer:
    """A recorded body as it came, one block per event; always a stream, since that is what was recorded."""
    name = ask.word("name")
    if (recorded := ask.recordings.get(name)) is None:
        known = ", ".join(sorted(ask.recordings)) or "none"
        raise BadRequest(404, "model_not_found", f"there is no recording '{name[:100]}'; loaded: {known[:2000]}")
    head = Send(response_head(200, EVENT_STREAM + CHUNKED))
    count = len(recorded.blocks)
    asked = ask.number("pace") >= 0  # whoever names a pace does not want the original one
    waits = (0.0, *[ask.pace] * (count - 1)) if recorded.waits is None or asked else recorded.waits
    blocks = [Send(chunk(block), wait, events=1) for block, wait in zip(recorded.blocks, waits, strict=False)]
    return Answer([head, *blocks, Send(LAST_CHUNK)])


MODELS: Final[Mapping[str, Model]] = {
    "ok": Model("a pleasant paragraph, told well; `text` says another one", ok),
    "vendor/ok": Model("the same, under an id with a slash", ok),
    "ok-zh": Model("Chinese text, two characters at a time", _ok_zh),
    "count": Model("the numbers 1 to N, one token each, so that loss and disorder show", _count, {"count": 40}, "count"),
    "repeat": Model("a model that truly repeats itself (ha ha ha): nothing may be removed", _repeat, {"count": 30}, "count"),
    "echo": Model("says the last message back", _echo),
    "continues": Model(
        "goes on where the request carries the beginning of its answer (`prefix`, `partial`); `echo=1` says that again first",
        _continues,
        {"echo": 0},
        "echo",
    ),
    "reasoning": Model("reasoning first, then content", _reasoning, {"field": "reasoning_content"}, "field"),
    "refusal": Model("a refusal instead of content", _refusal),
    "empty": Model("no text at all: role, finish_reason, [DONE]", _empty),
    "tools": Model(
        "one tool call, its arguments in fragments; `name` and `arguments` say another one",
        _tools,
        {"calls": 1, "name": "", "arguments": "{}"},
    ),
    "parallel-tools": Model("two parallel tool calls, their arguments in fragments", _tools, {"calls": 2, "name": "", "arguments": "{}"}),
    "choices": Model("several choices, interleaved, whatever `n` asked for", _choices, {"n": 3}, "n"),
    "finish": Model("ends with another finish_reason", _finish, {"reason": "length"}, "reason"),
    "logprobs": Model("every text event tells its token's log probability", ok, {"logprobs": 1}),
    "usage-each": Model("every event tells the usage so far", ok, {"envelope": "usage"}),
    "usage-end": Model("usage in an event of its own with empty choices, asked for or not", ok, {"usage_at_end": 1}),
    "nonce": Model("every event carries a random `obfuscation`", ok, {"envelope": "nonce"}),
    "dashscope": Model(
        "the key order by which DashScope's serialiser tells the first event from the later ones", ok, {"envelope": "dashscope"}
    ),
    "big": Model("many large events, as fast as they are read", _big, {"events": 1000, "size": 10_000, "pace": 0.0}),
    "endless": Model("a stream that never ends", _endless),
    "recording": Model(
        "a recorded stream by its name, at its original pace where that is known, else at the simulator's", _recording, {"name": ""}, "name"
    ),
}

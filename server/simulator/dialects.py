"""Answers spelled strangely: line ends, comments, byte order marks, bytes that are no text, events that are no JSON.

Some are legal SSE that a careless parser breaks on, some are broken; the description says which. FAULTS rows 15, 16, 22, 25 to
29, 31, 32. Without `stream` there is no spelling, and the answer is `ok`, but where JSON itself can be torn.
"""

from __future__ import annotations

from itertools import chain, repeat
from typing import TYPE_CHECKING, Final

from .ask import Ask, Model
from .scripts import Piece
from .streams import DONE, deliver, head_of, middle, ok, parts_of, say, script_of
from .wire import LAST_CHUNK, Answer, Send, chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _respelled(respell: Callable[[list[bytes]], list[bytes]]) -> Callable[[Ask], Answer]:
    """A model whose stream is the good one with its parts changed by `respell`."""

    def answer(ask: Ask) -> Answer:
        return Answer(deliver(ask, respell(parts_of(ask, script_of(ask))))) if ask.stream else ok(ask)

    return answer


def _inserted(what: bytes) -> Callable[[Ask], Answer]:
    """A model that puts `what` into the middle of a good stream."""

    def answer(ask: Ask) -> Answer:
        if not ask.stream:
            return ok(ask)
        parts = parts_of(ask, script_of(ask))
        after = middle(ask, parts)
        return Answer(deliver(ask, [*parts[:after], what, *parts[after:]]))

    return answer


def _torn(ask: Ask) -> Answer:
    """One event in the middle lost its second half; the stream goes on as if nothing had happened."""
    parts = parts_of(ask, script_of(ask))
    if not ask.stream:
        return Answer(deliver(ask, [parts[0], b" " * len(parts[1])]))
    after = middle(ask, parts)
    parts[after] = parts[after][: len(parts[after]) // 2] + b"\n\n"
    return Answer(deliver(ask, parts))


def _truncated_json(ask: Ask) -> Answer:
    """The body ends, as HTTP wants it, inside an event's JSON."""
    parts = parts_of(ask, script_of(ask))
    if not ask.stream:
        return Answer(deliver(ask, parts[:1]))
    after = middle(ask, parts)
    return Answer(deliver(ask, [*parts[:after], parts[after][: len(parts[after]) // 2]]))


def _comments(ask: Ask) -> Answer:
    """OpenRouter's habit: comments before the first event and between events."""
    if not ask.stream:
        return ok(ask)
    parts = parts_of(ask, script_of(ask))
    return Answer(deliver(ask, [b": OPENROUTER PROCESSING\n\n", *(told for part in parts for told in (b": ping\n\n", part))]))


def _comment_flood(ask: Ask) -> Answer:
    if not ask.stream:
        return ok(ask)
    parts = parts_of(ask, script_of(ask))
    after, flood = middle(ask, parts), chunk(b": flood\n\n" * 100)
    steps = deliver(ask, parts)
    steps[1 + after : 1 + after] = [Send(flood)] * (ask.count("count") // 100)
    return Answer(steps)


def _comments_for_ever(ask: Ask) -> Answer:
    """Comments instead of tokens: bytes arrive, an answer does not (FAULTS row 29)."""
    if not ask.stream:
        return ok(ask)
    parts = parts_of(ask, script_of(ask))
    comment = Send(chunk(b": still here\n\n"), max(ask.pace, 0.001))
    return Answer(chain(deliver(ask, parts, upto=middle(ask, parts), ending=()), repeat(comment)))


def _mixed_ends(parts: list[bytes]) -> list[bytes]:
    ends = (b"\n", b"\r\n", b"\r")
    return [part.replace(b"\n", ends[i % 3]) for i, part in enumerate(parts)]


def _split_crlf(ask: Ask) -> Answer:
    """CRLF line ends whose two bytes come in different writes (FAULTS row 27)."""
    if not ask.stream:
        return ok(ask)
    steps = [Send(head_of(ask, ()))]
    for part in parts_of(ask, script_of(ask)):
        line = part[:-2]
        steps += [Send(chunk(line + b"\r"), ask.pace), Send(chunk(b"\n\r"), 0.001), Send(chunk(b"\n"), 0.001, events=1)]
    return Answer([*steps, Send(LAST_CHUNK)])


def _invalid_utf8(ask: Ask) -> Answer:
    """One text in the middle has bytes that are no UTF-8, in place of its last character."""
    parts = parts_of(ask, script_of(ask))
    at = middle(ask, parts)
    parts[at] = parts[at].replace(b'"},"', b'\xff\xfe"},"', 1) if ask.stream else parts[at].replace(b"e", b"\xff", 1)
    return Answer(deliver(ask, parts))


def _huge_event(ask: Ask) -> Answer:
    filler = "x" * ask.count("size")
    script = script_of(ask)
    at = min(2, len(script) - 1)
    return say(ask, [*script[:at], Piece(filler, tokens=script[at].tokens), *script[at:]])


def _nul(ask: Ask) -> Answer:
    return say(ask, script_of(ask, ["a NUL ", "\0", " in a text"]))


def _line_breaks(ask: Ask) -> Answer:
    return say(ask, script_of(ask, ["one\u2028", "two\u2029", "three\x85", "four\x0b", "\n\n", "\\n", "data: [DONE]", "\n\n", "end"]))


def _over_lines(parts: list[bytes]) -> list[bytes]:
    """JSON spread over several `data:` lines, which join to the same JSON."""
    return [part if part == DONE else part.replace(b',"', b',\ndata: "', 2) for part in parts]


def _with_fields(parts: list[bytes]) -> list[bytes]:
    return [b"event: message\nid: %d\nretry: 1000\nunknown\n" % i + part for i, part in enumerate(parts)]


_AFTER: Final = {"after": 6}

MODELS: Final[Mapping[str, Model]] = {
    "ping": Model("a harmless `data: ping` in the middle, which is no JSON", _inserted(b"data: ping\n\n"), _AFTER, "after"),
    "torn-chunk": Model("an event in the middle lost its second half", _torn, _AFTER, "after"),
    "truncated-json": Model("a clean end of the body inside an event's JSON", _truncated_json, _AFTER, "after"),
    "duplicate-done": Model("[DONE] twice", _respelled(lambda parts: [*parts, DONE])),
    "data-after-done": Model("more text after [DONE]", _respelled(lambda parts: [*parts, parts[1], parts[2]])),
    "done-without-blank": Model(
        "no blank line after [DONE] (legal to read at a clean end)", _respelled(lambda parts: [*parts[:-1], DONE.rstrip()])
    ),
    "comments": Model("comments before and between the events (legal)", _comments),
    "comment-flood": Model("a flood of comments in the middle (legal)", _comment_flood, {**_AFTER, "count": 10_000}, "count"),
    "comments-for-ever": Model("comments instead of the rest of the answer", _comments_for_ever, _AFTER, "after"),
    "crlf": Model("CRLF line ends (legal)", _respelled(lambda parts: [part.replace(b"\n", b"\r\n") for part in parts])),
    "cr": Model("CR line ends (legal)", _respelled(lambda parts: [part.replace(b"\n", b"\r") for part in parts])),
    "mixed-line-ends": Model("LF, CRLF and CR by turns (legal)", _respelled(_mixed_ends)),
    "split-crlf": Model("CRLF cut between CR and LF (legal)", _split_crlf),
    "bom": Model("a byte order mark before the first event (legal)", _respelled(lambda parts: [b"\xef\xbb\xbf" + parts[0], *parts[1:]])),
    "no-space": Model(
        "`data:` without a blank after it (legal)", _respelled(lambda parts: [part.replace(b"data: ", b"data:", 1) for part in parts])
    ),
    "several-data-lines": Model("JSON spread over several data lines (legal)", _respelled(_over_lines)),
    "all-fields": Model("event, id, retry and an unknown field in every event (legal)", _respelled(_with_fields)),
    "invalid-utf8": Model("a text in the middle with bytes that are no UTF-8", _invalid_utf8, _AFTER, "after"),
    "line-breaks": Model("U+2028, U+2029, U+0085, VT and escaped newlines inside texts (legal)", _line_breaks),
    "nul": Model("an escaped NUL inside a text (legal)", _nul),
    "huge-event": Model("one event with `size` characters of text", _huge_event, {"size": 1_000_000}, "size"),
}

"""Answers that break as transport: silence, slowness, cuts, resets, violated framing, connections closed between requests.

FAULTS rows 4, 5, 16 to 21, 23, 24, 33 to 36.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from .ask import Ask, Model
from .scripts import THOUGHTS, tool_calls
from .streams import CALLS, DONE, body_steps, deliver, frame, head_of, middle, parts_of, script_of
from .wire import LAST_CHUNK, Answer, Hangup, Reset, Send, Silence, response_head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .scripts import Script
    from .wire import Step


def _good_parts(ask: Ask) -> list[bytes]:
    return parts_of(ask, script_of(ask))


def _good_bytes(ask: Ask) -> tuple[bytes, bytes]:
    """Head and body of a good answer, without pace."""
    head, *body = deliver(ask, _good_parts(ask))
    assert isinstance(head, Send)
    return head.data, b"".join(step.data for step in body if isinstance(step, Send))


def _silence(ask: Ask) -> Answer:
    return Answer((Silence(),))


def _slow_headers(ask: Ask) -> Answer:
    return Answer([Send(b"", ask.number("seconds")), *deliver(ask, _good_parts(ask))])


def _headers_byte_by_byte(ask: Ask) -> Answer:
    head, body = _good_bytes(ask)
    wait = ask.number("seconds")
    return Answer([*(Send(head[i : i + 1], wait) for i in range(len(head))), Send(body, events=len(_good_parts(ask)))])


def _slow_first_token(ask: Ask) -> Answer:
    return Answer(deliver(ask, _good_parts(ask), first_wait=ask.number("seconds")))


def _role_then_silence(ask: Ask) -> Answer:
    return Answer(deliver(ask, _good_parts(ask), upto=1, ending=(Silence(),)))


def _stall(ask: Ask) -> Answer:
    parts = _good_parts(ask)
    after, seconds = middle(ask, parts), ask.number("seconds")
    if not seconds:
        return Answer(deliver(ask, parts, upto=after, ending=(Silence(),)))
    rest = body_steps(ask, parts[after:], first_wait=seconds)
    return Answer(deliver(ask, parts, upto=after, ending=[*rest, *((Send(LAST_CHUNK),) if ask.stream else ())]))


def _broken_off(ask: Ask, ending: Step, script: Script | None = None) -> Answer:
    parts = parts_of(ask, script_of(ask) if script is None else script)
    return Answer(deliver(ask, parts, upto=middle(ask, parts), ending=(Send(b"", ask.pace), ending)))


def _cut(ask: Ask) -> Answer:
    return _broken_off(ask, Hangup())


def _reset(ask: Ask) -> Answer:
    return _broken_off(ask, Reset())


def _cut_in_event(ask: Ask) -> Answer:
    parts = _good_parts(ask)
    after = middle(ask, parts)
    torn = parts[after][: len(parts[after]) // 2]
    return Answer(deliver(ask, parts, upto=after, ending=(Send(frame(ask, torn), ask.pace), Hangup())))


def _reset_before_headers(ask: Ask) -> Answer:
    return Answer((Reset(),))


def _close_before_headers(ask: Ask) -> Answer:
    return Answer((Hangup(),))


def _reset_after_headers(ask: Ask) -> Answer:
    return Answer([Send(head_of(ask, _good_parts(ask))), Reset()])


def _violated(ask: Ask, framing: bytes) -> Answer:
    """Bytes that break the chunked coding, then FIN; where nothing is chunked, fewer bytes than promised."""
    if not ask.stream:
        return _cut(ask)
    parts = _good_parts(ask)
    return Answer(deliver(ask, parts, upto=middle(ask, parts), ending=(Send(framing, ask.pace), Hangup())))


def _bad_chunk_size(ask: Ask) -> Answer:
    return _violated(ask, b"zz\r\nno size\r\n")


def _early_end_of_chunk(ask: Ask) -> Answer:
    """A chunk that announces more than comes before the FIN (FAULTS row 20)."""
    return _violated(ask, b"fff\r\ndata: {")


def _truncated(ask: Ask) -> Answer:
    """The body ends as HTTP wants it, but the answer is not over: no finish_reason, no [DONE]."""
    parts = _good_parts(ask)
    if not ask.stream:  # half a JSON document of the length it promises
        return Answer([Send(head_of(ask, parts[:1])), Send(parts[0])])
    return Answer(deliver(ask, parts, upto=middle(ask, parts)))


def _no_done(ask: Ask) -> Answer:
    return Answer(deliver(ask, [part for part in _good_parts(ask) if part != DONE]))


def _reasoning_cut(ask: Ask) -> Answer:
    """Cut inside the reasoning, before any content; after `cuts` of them the whole answer."""
    if ask.nth >= ask.count("cuts"):
        return Answer(deliver(ask, parts_of(ask, script_of(ask, thoughts=THOUGHTS))))
    return _broken_off(ask, Hangup(), script_of(ask, thoughts=THOUGHTS))


def _tools_cut(ask: Ask) -> Answer:
    return _broken_off(ask, Hangup(), tool_calls(CALLS[:1], ask.chance) if ask.chat else None)


def _trickle(ask: Ask) -> Answer:
    wait, after = ask.number("seconds"), ask.count("after")
    parts = _good_parts(ask)
    whole = [Send(frame(ask, part), events=1) for part in parts[:after]]
    drops = (Send(frame(ask, part[i : i + 1]), wait, events=i + 1 == len(part)) for part in parts[after:] for i in range(len(part)))
    return Answer([Send(head_of(ask, parts)), *whole, *drops, *((Send(LAST_CHUNK),) if ask.stream else ())])


def _one_packet(ask: Ask) -> Answer:
    parts = _good_parts(ask)
    body = frame(ask, b"".join(parts)) + (LAST_CHUNK if ask.stream else b"")
    return Answer([Send(head_of(ask, parts) + body, events=len(parts))])


def _split_utf8(ask: Ask) -> Answer:
    """Every part that has a character of several bytes is cut inside the first one."""
    parts = _good_parts(ask)
    steps: list[Step] = [Send(head_of(ask, parts))]
    for part in parts:
        cut = next((i for i, byte in enumerate(part) if byte & 0xC0 == 0x80), 0)
        steps += [Send(frame(ask, part[:cut]), ask.pace), Send(frame(ask, part[cut:]), 0.001, events=1)]
    return Answer([*steps, *((Send(LAST_CHUNK),) if ask.stream else ())])


def _gzip(ask: Ask) -> Answer:
    """Compressed though identity was asked for, flushed after every event as a server that streams does."""
    packer = zlib.compressobj(wbits=31)
    packed = [packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in _good_parts(ask)]
    packed[-1] += packer.flush()
    return Answer(deliver(ask, packed, extra=(("content-encoding", "gzip"),)))


def _connection_close(ask: Ask) -> Answer:
    return Answer(deliver(ask, _good_parts(ask), extra=(("connection", "close"),)), close_after=0.0)


def _idle_close(ask: Ask) -> Answer:
    return Answer(deliver(ask, _good_parts(ask)), close_after=ask.number("seconds"))


def _drop_next(ask: Ask) -> Answer:
    return Answer(deliver(ask, _good_parts(ask)), drop_next=True)


def _informational(ask: Ask) -> Answer:
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n"
    return Answer([Send(hints), *deliver(ask, _good_parts(ask))])


def _until_close(ask: Ask) -> Answer:
    """A body without length or chunks, ended by the FIN alone, as HTTP/1.0 servers and some local ones do."""
    parts = _good_parts(ask)
    kind = "text/event-stream" if ask.stream else "application/json"
    head = response_head(200, (("content-type", kind), ("connection", "close")))
    return Answer([Send(head), *(Send(part, ask.pace if i else 0.0, events=1) for i, part in enumerate(parts))], close_after=0.0)


_AFTER: Final = {"after": 6}

MODELS: Final[Mapping[str, Model]] = {
    "silence": Model("takes the request and never answers", _silence),
    "slow-headers": Model("the head comes late", _slow_headers, {"seconds": 2.0}, "seconds"),
    "headers-byte-by-byte": Model("the head comes one byte every `seconds`", _headers_byte_by_byte, {"seconds": 1.0}, "seconds"),
    "slow-first-token": Model("the head at once, the first event late", _slow_first_token, {"seconds": 2.0}, "seconds"),
    "role-then-silence": Model("an event without output, then nothing", _role_then_silence),
    "stall": Model("silence in the middle; for `seconds`, 0 for ever", _stall, {**_AFTER, "seconds": 0.0}, "after"),
    "cut": Model("FIN in the middle of the chunked body", _cut, _AFTER, "after"),
    "cut-in-event": Model("FIN in the middle of an event", _cut_in_event, _AFTER, "after"),
    "reset": Model("RST in the middle of the body", _reset, _AFTER, "after"),
    "reset-before-headers": Model("RST instead of an answer", _reset_before_headers),
    "close-before-headers": Model("FIN instead of an answer", _close_before_headers),
    "reset-after-headers": Model("RST between head and body", _reset_after_headers),
    "bad-chunk-size": Model("a chunk size that is no number, in the middle", _bad_chunk_size, _AFTER, "after"),
    "short-chunk": Model("FIN inside a chunk that announced more", _early_end_of_chunk, _AFTER, "after"),
    "truncated": Model("a clean end of the body in the middle of the answer", _truncated, _AFTER, "after"),
    "no-done": Model("finished, but without [DONE]", _no_done),
    "reasoning-cut": Model(
        "cut while only reasoning was sent; the first time only (`cuts`)", _reasoning_cut, {**_AFTER, "cuts": 1}, "after"
    ),
    "tools-cut": Model("cut in the middle of a tool call's arguments", _tools_cut, {"after": 4}, "after"),
    "trickle": Model("one byte every `seconds`, behind `after` whole events", _trickle, {"seconds": 1.0, "after": 0}, "seconds"),
    "byte-by-byte": Model("one byte per chunk, as fast as it goes", _trickle, {"seconds": 0.0, "after": 0}),
    "one-packet": Model("head and all events in one write", _one_packet),
    "split-utf8": Model("events cut inside a character", _split_utf8, {"text": "Zażółć gęślą jaźń 河水在磨坊前 🌊 end"}),
    "gzip": Model("gzip though identity was asked for", _gzip),
    "connection-close": Model("a good answer, then FIN; announced", _connection_close),
    "idle-close": Model("a good answer; the idle connection is closed after `seconds`", _idle_close, {"seconds": 0.05}, "seconds"),
    "drop-next": Model("a good answer; the connection is reset when it is used again", _drop_next),
    "informational": Model("100 and 103 before a good answer", _informational),
    "until-close": Model("a good body without length or chunks, ended by FIN", _until_close),
}

"""What the bytes of each fault model must look like: checks over one answer's wire."""

from __future__ import annotations

import email.utils
import json
import time
import zlib
from typing import TYPE_CHECKING, Final, TypeAlias

import pytest

from .raw_client import Wire

if TYPE_CHECKING:
    from collections.abc import Callable

Check: TypeAlias = "Callable[[Wire], None]"

TEXT: Final = "a b c d e f g h"
WORDS: Final = ["a", " b", " c", " d", " e", " f", " g", " h"]
RECORDINGS: Final = {"short": b'data: {"a":1}\r\n\r\n: note\n\ndata: [DONE]'}


def good(words: list[str]) -> Check:
    def check(wire: Wire) -> None:
        assert (wire.status, wire.headers["content-type"], wire.ended, wire.end) == (200, "text/event-stream", True, "fin")
        assert wire.texts() == words
        assert wire.events[-1] == "[DONE]"
        assert [c["finish_reason"] for c in wire.events[-2]["choices"]] == ["stop"]

    return check


def said(words: list[str], *, field: str = "content", done: bool = True) -> Check:
    """Exactly these texts, one event each, and a clean end."""

    def check(wire: Wire) -> None:
        assert wire.texts(field) == words
        assert wire.ended
        assert (wire.events[-1] == "[DONE]") is done

    return check


def refused(status: int, code: str | int | None, **headers: str | None) -> Check:
    def check(wire: Wire) -> None:
        assert wire.status == status
        assert wire.json["error"]["code"] == code
        assert wire.json["error"]["message"]
        for name, value in headers.items():
            assert wire.headers.get(name.replace("_", "-")) == value

    return check


def broken(words: list[str], end: str, tail: bytes = b"") -> Check:
    """The first words, then the connection's end without the body's; `tail` are the last bytes."""

    def check(wire: Wire) -> None:
        assert wire.status == 200
        assert wire.texts() == words
        assert not wire.ended
        assert wire.end == end
        assert wire.raw.endswith(tail)

    return check


def body_has(*pieces: bytes, words: list[str] | None = None) -> Check:
    def check(wire: Wire) -> None:
        assert wire.ended
        for piece in pieces:
            assert piece in wire.body
        if words is not None:
            assert wire.texts() == words

    return check


def no_bytes(end: str) -> Check:
    def check(wire: Wire) -> None:
        assert wire == Wire(b"", end)  # type: ignore[arg-type]

    return check


def error_event(after: list[str], field: bytes = b"data") -> Check:
    def check(wire: Wire) -> None:
        assert wire.texts() == after
        assert wire.body.split(b"\n\n")[-2].startswith(field + b': {"')
        assert b"[DONE]" not in wire.body
        assert wire.ended

    return check


def chunked(sizes: Callable[[list[int]], bool], words: list[str]) -> Check:
    """The good stream, cut into chunks whose sizes hold `sizes`."""

    def check(wire: Wire) -> None:
        good(words)(wire)
        assert sizes([len(chunk) for chunk in wire.chunks[:-1]])

    return check


def check_gzip(wire: Wire) -> None:
    assert wire.headers["content-encoding"] == "gzip"
    plain = zlib.decompress(wire.body, 31)
    assert plain.endswith(b"data: [DONE]\n\n")
    assert plain.count(b"data: ") == len(wire.chunks) - 1  # flushed after each event


def check_dashscope(wire: Wire) -> None:
    orders = [list(event["choices"][0]) for event in wire.events[:-1]]
    assert orders[0] == ["finish_reason", "logprobs", "delta", "index"]
    assert orders[1:-1] == [["delta", "finish_reason", "index", "logprobs"]] * 7
    said(WORDS)(wire)


def check_nonce(wire: Wire) -> None:
    nonces = [event["obfuscation"] for event in wire.events[:-1]]
    assert len(set(nonces)) == len(nonces) == 10


def check_usage_each(wire: Wire) -> None:
    assert [event["usage"]["completion_tokens"] for event in wire.events[:-1]] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8]


def check_usage_end(wire: Wire) -> None:
    assert wire.events[-2]["choices"] == []
    assert wire.events[-2]["usage"]["completion_tokens"] == 8


def check_logprobs(wire: Wire) -> None:
    told = [c["logprobs"] for event in wire.events[:-1] for c in event["choices"] if c["logprobs"]]
    assert [row["content"][0]["token"] for row in told] == WORDS


def check_choices(wire: Wire) -> None:
    assert wire.texts(choice=0) == WORDS
    assert wire.texts(choice=2) == ["(3) ", *WORDS]
    assert sum(c["finish_reason"] == "stop" for event in wire.events[:-1] for c in event["choices"]) == 3


def check_reasoning(wire: Wire) -> None:
    kinds = ["reasoning_content" in e["choices"][0]["delta"] for e in wire.events[1:-2]]
    assert kinds == sorted(kinds, reverse=True)
    assert kinds.count(False) == len(WORDS)
    assert "".join(wire.texts("reasoning_content")).startswith("The question asks")
    said(WORDS)(wire)


def calls(count: int) -> Check:
    def check(wire: Wire) -> None:
        told = [call for e in wire.events[:-1] for c in e["choices"] for call in c["delta"].get("tool_calls", ())]
        assert [call["function"]["name"] for call in told if "id" in call] == ["get_weather", "get_time"][:count]
        for index in range(count):
            json.loads("".join(call["function"]["arguments"] for call in told if call["index"] == index))
        assert wire.events[-2]["choices"][0]["finish_reason"] == "tool_calls"

    return check


def check_split_utf8(wire: Wire) -> None:
    def torn(data: bytes) -> bool:
        try:
            data.decode()
        except UnicodeDecodeError:
            return True
        return False

    assert any(torn(chunk) for chunk in wire.chunks)
    assert "".join(wire.texts()) == "Zażółć gęślą jaźń 河水在磨坊前 🌊 end"


def check_until_close(wire: Wire) -> None:
    assert "content-length" not in wire.headers
    assert "transfer-encoding" not in wire.headers
    assert wire.texts() == WORDS


def check_informational(wire: Wire) -> None:
    first, second, rest = wire.raw.split(b"\r\n\r\n", 2)
    assert first == b"HTTP/1.1 100 Continue"
    assert second.startswith(b"HTTP/1.1 103 ")
    good(WORDS)(Wire(rest, wire.end))


def check_odd_headers(wire: Wire) -> None:
    assert wire.headers["set-cookie"].startswith("session=")
    assert wire.headers["connection"] == "x-hop, keep-alive"
    good(WORDS)(wire)


def check_html(wire: Wire) -> None:
    assert (wire.status, wire.headers["content-type"]) == (502, "text/html")
    assert b"<h1>502 Bad Gateway</h1>" in wire.body


def check_redirect(wire: Wire) -> None:
    assert (wire.status, wire.body) == (307, b"")
    assert wire.headers["location"].startswith("http://127.0.0.1:9/")


def check_content_type(wire: Wire) -> None:
    assert wire.headers["content-type"] == "application/json"
    said(WORDS)(wire)


def check_cr(wire: Wire) -> None:
    assert b"\n" not in wire.body
    assert wire.body.endswith(b"\r\rdata: [DONE]\r\r")


def check_crlf(wire: Wire) -> None:
    assert wire.body.count(b"\n") == wire.body.count(b"\r\n") == 2 * 11


def check_split_crlf(wire: Wire) -> None:
    check_crlf(wire)
    assert wire.chunks[1:3] == [b"\n\r", b"\n"]


def check_mixed_ends(wire: Wire) -> None:
    plain = wire.body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    good(WORDS)(Wire(wire.raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(plain), plain), "fin"))
    assert {b"\r\n" in chunk or b"\r" in chunk for chunk in wire.chunks} == {True, False}


def check_several_lines(wire: Wire) -> None:
    blocks = wire.body.split(b"\n\n")[:-2]
    joined = [json.loads(b"\n".join(line.removeprefix(b"data: ") for line in block.split(b"\n"))) for block in blocks]
    assert all(block.count(b"\ndata: ") == 2 for block in blocks)
    assert [text for event in joined if (text := event["choices"][0]["delta"].get("content"))] == WORDS


def check_all_fields(wire: Wire) -> None:
    assert wire.body.startswith(b"event: message\nid: 0\nretry: 1000\nunknown\ndata: {")


def check_invalid_utf8(wire: Wire) -> None:
    with pytest.raises(UnicodeDecodeError):
        wire.body.decode()
    json.loads(wire.body.split(b"\n\n")[3][6:].decode("utf-8", "replace"))


def check_line_breaks(wire: Wire) -> None:
    assert "\u2028" in "".join(wire.texts())
    assert "\u2028".encode() in wire.body  # as it is, not escaped
    assert "data: [DONE]" in wire.texts()


def check_truncated_json(wire: Wire) -> None:
    assert wire.ended
    last = wire.body.rpartition(b"\n\n")[2]
    assert last.startswith(b"data: {")
    with pytest.raises(json.JSONDecodeError):
        json.loads(last[6:])


def check_torn_chunk(wire: Wire) -> None:
    torn = wire.body.split(b"\n\n")[3]
    with pytest.raises(json.JSONDecodeError):
        json.loads(torn[6:])
    assert wire.body.endswith(b"data: [DONE]\n\n")


def check_after_done(wire: Wire) -> None:
    before, _, after = wire.body.partition(b"data: [DONE]\n\n")
    assert before.count(b"data: ") == 10
    assert after.count(b"data: {") == 2


def check_names_each_time(wire: Wire) -> None:
    told = [call for e in wire.events[:-1] for c in e["choices"] for call in c["delta"].get("tool_calls", ())]
    assert {(call["id"], call["function"]["name"]) for call in told} == {(told[0]["id"], "get_weather")}
    assert len(told) > 3


def check_restart(words: list[str], *, marked: bool) -> Check:
    def check(wire: Wire) -> None:
        assert wire.texts() == words
        assert len({event["id"] for event in wire.events[:-1]}) == (2 if marked else 1)
        assert sum("role" in event["choices"][0]["delta"] for event in wire.events[:-1]) == 2

    return check


def check_finished_twice(wire: Wire) -> None:
    assert wire.events[-2] == wire.events[-3]
    good(WORDS)(wire)


def check_repeat(wire: Wire) -> None:
    assert wire.texts() == ["ha "] * 30


def check_big(wire: Wire) -> None:
    assert wire.texts() == ["x" * 100] * 5
    assert wire.ended


def check_huge(wire: Wire) -> None:
    assert max(map(len, wire.texts())) == 300_000
    assert wire.ended


def check_recording(wire: Wire) -> None:
    assert wire.body == RECORDINGS["short"]
    assert wire.chunks == [b'data: {"a":1}\r\n\r\n', b": note\n\n", b"data: [DONE]", b""]


def check_empty_body(wire: Wire) -> None:
    assert (wire.status, wire.body, wire.ended) == (200, b"", True)


def check_done_without_blank(wire: Wire) -> None:
    assert wire.body.endswith(b"}\n\ndata: [DONE]")


def check_reasoning_cut(wire: Wire) -> None:
    broken([], "fin")(wire)
    assert wire.texts("reasoning_content") == ["The", " question"]


def check_cut_in_event(wire: Wire) -> None:
    whole, torn = wire.chunks[:-1], wire.chunks[-1]
    assert len(whole) == 3
    assert torn.startswith(b"data: {")
    assert b"\n" not in torn
    assert not wire.ended


def check_short_chunk(wire: Wire) -> None:
    broken(["a", " b"], "fin", b"fff\r\ndata: {")(wire)


def prefixes(words: list[str]) -> list[str]:
    return ["".join(words[: i + 1]) for i in range(len(words))]


SNAPSHOTS: Final = prefixes(WORDS)
ARGUMENTS: Final = ['{"city', '":"Kra', 'ków","', 'unit":', '"celsi', 'us","d', 'ays":[', "1,2,3]", "}"]
TWO: Final = ["a", " b"]  # what `after=3` lets through: the role and two words


def arguments(expected: list[str]) -> Check:
    def check(wire: Wire) -> None:
        assert wire.arguments() == expected

    return check


def retry_after(*, ahead: bool) -> Check:
    """A 429 with an HTTP date, ahead or past."""

    def check(wire: Wire) -> None:
        assert wire.status == 429
        date = email.utils.parsedate_to_datetime(wire.headers["retry-after"])
        assert (date.timestamp() > time.time()) is ahead

    return check


def check_bom(wire: Wire) -> None:
    assert wire.body.startswith(b"\xef\xbb\xbfdata: {")

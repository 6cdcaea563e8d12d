"""The parser under arbitrary bytes: never an exception, the same chunks for every cut, bounded memory and time, nothing whole lost."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as hs

from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Done, Event, Malformed

from ..fakes import DONE, content, finish, reasoning, role

if TYPE_CHECKING:
    from actors.sansio.chunks import Chunk

PIECES: Final = hs.sampled_from(
    [
        *(
            b"\n",
            b"\r",
            b"\r\n",
            b"\n\n",
            b"\r\r",
            b"\r\n\r\n",
            b" ",
            b"\0",
            b"\xef\xbb\xbf",
            b"\xff",
            b"\xe2\x80\xa8",
            "é".encode(),
            "🚀".encode(),
        ),
        *(b"data: ", b"data:", b"data", b"event: ", b"event: error", b"id: 1", b"retry: 5", b": ", b":", b"error: ", b"error"),
        *(
            b"{",
            b"}",
            b"[",
            b"]",
            b'"',
            b"\\ud83d",
            b'{"choices":[{"delta":{"content":"a',
            b'"}}]}',
            b"[DONE]",
            b"null",
            b"1e999",
            b"NaN",
            b"9" * 30,
        ),
        *(
            content("a"),
            reasoning("b"),
            role(),
            finish(),
            DONE,
            content("c")[:-1],
            content("d").replace(b"\n", b"\r\n"),
            b"x" * 150,
            b": " + b"y" * 5000,
        ),
        *(
            b'data: {"error":{"message":"no"}}\n\n',
            b'data: {"choices":[\ndata: {"delta":{"content":"e"}}]}\n\n',
            b'error: {"message":"x"}\n\n',
        ),
    ]
)
HOSTILE: Final = hs.lists(PIECES, max_size=14).map(b"".join) | hs.binary(max_size=200)
CUTS: Final = hs.sets(hs.integers(1, 1500), max_size=12)
LIMITS: Final = hs.sampled_from([40, 200, 100_000])


def spelled_alike(chunk: Chunk) -> Chunk:
    """With LF for every line end. A CR at the end of a read ends its line at once, the LF that may follow is then no part of `raw`."""
    raw = chunk.raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return msgspec.structs.replace(chunk, raw=raw[:1000] if isinstance(chunk, Malformed) else raw)


def parse(data: bytes, cuts: set[int], *, limit: int, clean: bool) -> list[Chunk]:
    parser = ChunkParser(limit)
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    chunks = [chunk for one, other in pairwise(edges) for chunk in parser.feed(data[one:other])]
    return [spelled_alike(chunk) for chunk in (*chunks, *parser.close(clean))]


@given(HOSTILE, CUTS, LIMITS, hs.booleans())
def test_every_cut_gives_the_same_chunks(data: bytes, cuts: set[int], limit: int, clean: bool) -> None:
    whole = parse(data, set(), limit=limit, clean=clean)
    assert parse(data, cuts, limit=limit, clean=clean) == whole
    assert parse(data, set(range(len(data))), limit=limit, clean=clean) == whole


@given(HOSTILE, LIMITS)
def test_what_leaves_can_be_read_by_any_client_and_reads_the_same_again(data: bytes, limit: int) -> None:
    for chunk in parse(data, set(), limit=limit, clean=True):
        if isinstance(chunk, Event | Done):
            chunk.raw.decode()
            again = parse(chunk.raw, set(), limit=100_000, clean=True)
            assert [type(one) for one in again] == [type(chunk)]
            assert not isinstance(chunk, Event) or chunk.deltas == getattr(again[0], "deltas", None)


@given(hs.lists(HOSTILE, min_size=1, max_size=5), CUTS)
@example([b"data: {}\ndata: {}\n"], set())  # parts its events by one line end from here on
@example([b"x" * 300, b": " + b"y" * 5000], set())
def test_no_whole_event_is_lost_whatever_stands_between(noise: list[bytes], cuts: set[int]) -> None:
    names = [f"<whole {number}>" for number in range(len(noise))]
    data = b"".join(hostile + b"\n\n" + content(name) for hostile, name in zip(noise, names, strict=True))
    chunks = parse(data, cuts, limit=2000, clean=True)
    texts = [delta.text for chunk in chunks if isinstance(chunk, Event) for delta in chunk.deltas if delta.text.startswith("<whole ")]
    assert texts == names


LIMIT: Final = 32 * 1024
#: Bytes that never end, or are all one event, as small as their parts can be.
FLOODS: Final = {
    "no line end": b"data: " + b"x" * 2000,
    "no blank line": b"data: x\n",
    "empty data lines": b"data:\n",
    "unknown lines": b"a\n",
    "CR": b"a\r",
    "ids": b"id\n",
    "comments": b":\n",
    "one long comment": b":" + b"x" * 2000,
    "comments and data": b":\ndata:\n",
    "bare lines": b"data: {}\n",
    "blank lines": b"\n",
    "events": content("x"),
    "invalid UTF-8": b"data: \xff\n",
}


@pytest.mark.parametrize("name", FLOODS)
def test_row_22_a_flood_costs_bounded_memory(name: str) -> None:
    """Four events' worth of it; what the parser keeps between two reads is never as much as two."""
    flood = FLOODS[name]
    read = (flood * (2048 // len(flood) + 1))[:2048]
    parser, most = ChunkParser(LIMIT), 0
    tracemalloc.start()
    try:
        for _ in range(4 * LIMIT // len(read)):
            parser.feed(read)
            most = max(most, tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert most < 2 * LIMIT


@pytest.mark.parametrize("line", [b"a\n", b"data:\n", b"data:x\n", b"id\n", b"data: {\n", b"event: x\r\n"])
def test_row_22_an_event_of_very_many_lines_is_too_large(line: bytes) -> None:
    """To read the fields of ten megabytes of empty lines took seconds, in which every other stream stood still."""
    parser = ChunkParser()
    chunks = parser.feed(line * 20_000)
    assert [type(chunk) for chunk in chunks] == [Malformed]
    assert isinstance(chunks[0], Malformed)
    assert chunks[0].oversize
    assert chunks[0].may_carry_output
    assert parser.feed(b"\n" + content("after"))[-1].raw == content("after")


def test_an_event_of_many_lines_is_read() -> None:
    lines = (b'{"choices":[{"delta":{"content":"x"}}],"pad":[', *[b"0,"] * 10_000, b"0]}")
    (chunk,) = ChunkParser().feed(b"".join(b"data: %b\n" % line for line in lines) + b"\n")
    assert isinstance(chunk, Event)
    assert chunk.deltas[0].text == "x"

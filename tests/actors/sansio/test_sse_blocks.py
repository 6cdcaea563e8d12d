"""Framing: what the WHATWG rules say about lines, comments and the byte order mark, for every way of cutting the input."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.sansio.sse_blocks import COMMENTS_KEPT, HEAD_KEPT, Block, BlockSplitter, Fields, Oversize, read_fields, replace_data

BOM = b"\xef\xbb\xbf"


def split(*reads: bytes, max_event: int = 1000) -> list[Block]:
    splitter = BlockSplitter(max_event)
    return [block for read in reads for block in splitter.feed(read)]


def cuts(data: bytes, *points: int) -> list[bytes]:
    edges = [0, *sorted(points), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@pytest.mark.parametrize(
    ("data", "blocks"),
    [
        (b"data: a\n\ndata: b\n\n", [b"data: a\n\n", b"data: b\n\n"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"data: a\r\n\r\n", b"data: b\r\n\r\n"]),
        (b"data: a\r\rdata: b\r\r", [b"data: a\r\r", b"data: b\r\r"]),
        (b"data: a\n\r\ndata: b\r\n\ndata: c\r\n\n", [b"data: a\n\r\n", b"data: b\r\n\n", b"data: c\r\n\n"]),
        (b"data: a\rdata: b\ndata: c\r\n\ndata: d", [b"data: a\rdata: b\ndata: c\r\n\n"]),
        (b"\n\ndata: a\n\n\n\ndata: b\n\n", [b"\n", b"\n", b"data: a\n\n", b"\n", b"\n", b"data: b\n\n"]),
        (b": hi\n\ndata: a\n: in\ndata: b\n: end\n\n", [b": hi\n\n", b"data: a\n: in\ndata: b\n: end\n\n"]),
        (b"id: 1\nevent: x\nretry: 5\ndata: a\n\n", [b"id: 1\nevent: x\nretry: 5\ndata: a\n\n"]),
        ("data: a\u2028b\u2029c\x85d\x0b\x0c\x1ce\n\n".encode(), ["data: a\u2028b\u2029c\x85d\x0b\x0c\x1ce\n\n".encode()]),
        (b"data: a\x00b\n\n", [b"data: a\x00b\n\n"]),
        (BOM + b"data: a\n\n" + BOM + b"data: b\n\n", [b"data: a\n\n", BOM + b"data: b\n\n"]),
        (BOM + BOM + b"data: a\n\n", [BOM + b"data: a\n\n"]),
        (b"data: a\n", []),
        (b"", []),
    ],
)
def test_blocks_for_every_cut(data: bytes, blocks: list[bytes]) -> None:
    assert split(data) == blocks
    assert [read_fields(block) for block in split(*cuts(data, *range(1, len(data)))) if isinstance(block, bytes)] == [
        read_fields(block) for block in blocks
    ]
    for a in range(len(data) + 1):
        assert [read_fields(block) for block in split(*cuts(data, a)) if isinstance(block, bytes)] == [read_fields(b) for b in blocks]


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
@given(points=st.sets(st.integers(0, 60)))
def test_consistent_line_ends_come_out_exactly_as_they_went_in(line_end: bytes, points: set[int]) -> None:
    data = b"data: a||: note||||data: bcd|data: e||event: x|data: f||".replace(b"|", line_end)
    blocks = split(*cuts(data, *(point for point in points if point <= len(data))))
    assert b"".join(block for block in blocks if isinstance(block, bytes)) == data
    assert blocks == split(data)


def test_a_carriage_return_ends_a_block_at_once() -> None:
    splitter = BlockSplitter(1000)
    assert splitter.feed(b"data: a\r\r") == [b"data: a\r\r"]
    assert splitter.feed(b"\ndata: b\n\n") == [b"data: b\n\n"]  # the line feed belonged to the line end before
    assert splitter.feed(b"data: c\r\n\r") == [b"data: c\r\n\r\n"]  # after CRLF it is put in early ...
    assert splitter.feed(b"\n") == []  # ... and swallowed when it comes
    assert splitter.feed(b"data: d\r\n\r\n") == [b"data: d\r\n\r\n"]


@pytest.mark.parametrize("read", [b"\xef", b"\xef\xbb", BOM])
def test_a_byte_order_mark_split_at_the_start(read: bytes) -> None:
    assert split(read, BOM[len(read) :], b"data: a\n\n") == [b"data: a\n\n"]


def test_what_only_begins_like_a_byte_order_mark_is_kept() -> None:
    assert split(b"\xef", b"\xbb", b"x\n\n") == [b"\xef\xbbx\n\n"]


def test_close_completes_an_unterminated_block() -> None:
    for data, blocks in [
        (b"data: a", [b"data: a\n\n"]),
        (b"data: a\n", [b"data: a\n\n"]),
        (b"data: z\r\n\r\ndata: a\r\n", [b"data: a\r\n\r\n"]),
        (b"data: z\r\n\r\ndata: a\r", [b"data: a\r\n\r\n"]),
        (b"data: a\n\n", []),
        (b"", []),
    ]:
        splitter = BlockSplitter(1000)
        splitter.feed(data)
        assert splitter.close() == blocks


def test_the_size_limit_is_exact() -> None:
    """FAULTS row 22."""
    assert split(b"data: abc\n\n", max_event=10) == [b"data: abc\n\n"]
    assert split(b"data: abcd\n\ndata: b\n\n", max_event=10) == [Oversize(b"data: abcd"), b"data: b\n\n"]
    assert split(b"data: a\ndata: b\n\ndata: c\n\n", max_event=10) == [Oversize(b"data: a\nda"), b"data: c\n\n"]
    assert split(b"data: abcd", max_event=10) == []  # only its line end makes it too large


@given(points=st.sets(st.integers(0, 90)), line_end=st.sampled_from([b"\n", b"\r", b"\r\n"]))
def test_oversize_is_reported_once_for_every_cut(points: set[int], line_end: bytes) -> None:
    data = b"data: ok||: a comment is free||data: 0123456789|data: x||data: 0123456789012345678|data: y||data: ok||".replace(b"|", line_end)
    assert split(*cuts(data, *(point for point in points if point <= len(data))), max_event=16) == split(data, max_event=16)
    assert [type(block) for block in split(data, max_event=16)] == [bytes, bytes, Oversize, Oversize, bytes]
    for point in range(len(data)):
        assert split(data[:point], data[point:], max_event=16) == split(data, max_event=16)


def test_an_oversize_block_is_reported_before_it_ends_and_kept_in_part() -> None:
    splitter = BlockSplitter(100_000)
    line = b"data: " + b"x" * 200_000
    assert splitter.feed(line) == [Oversize(line[:HEAD_KEPT])]
    assert splitter.feed(b"y" * 100_000) == []
    assert splitter.feed(b"\ndata: more of it\n\ndata: next\n\n") == [b"data: next\n\n"]


@given(points=st.sets(st.integers(0, 3 * COMMENTS_KEPT), max_size=5))
def test_comments_are_kept_up_to_a_bound(points: set[int]) -> None:
    small = b": small\n"
    data = small + b": " + b"x" * COMMENTS_KEPT + b"\ndata: a\n:" + b"y" * (COMMENTS_KEPT - 9) + b"\n: over\n\ndata: b\n\n"
    kept = small + b"data: a\n:" + b"y" * (COMMENTS_KEPT - 9) + b"\n\n"
    assert split(*cuts(data, *(point for point in points if point <= len(data))), max_event=100) == [kept, b"data: b\n\n"]


def test_an_endless_comment_uses_no_memory() -> None:
    splitter = BlockSplitter(1000)
    splitter.feed(b":")
    for _ in range(1000):
        assert splitter.feed(b"x" * 1000) == []
    assert splitter.feed(b"\ndata: a\n\n") == [b"data: a\n\n"]


def test_bare_lines_become_events_of_their_own() -> None:
    """The second line proves it; from then on no event waits for the next one."""
    splitter = BlockSplitter(1000)
    assert splitter.feed(b'data:{"a":1}\n') == []
    assert splitter.feed(b'data:{"b":2}') == []
    assert splitter.feed(b"\n") == [b'data:{"a":1}\n\n', b'data:{"b":2}\n\n']
    assert splitter.feed(b'data:{"c":3}\n') == [b'data:{"c":3}\n\n']
    assert splitter.feed(b"\n") == []  # its blank line was given to it already
    assert splitter.feed(b"data:[DONE]\n\n\n") == [b"data:[DONE]\n\n", b"\n"]


@given(points=st.sets(st.integers(0, 80)), line_end=st.sampled_from([b"\n", b"\r\n"]))
def test_bare_lines_for_every_cut(points: set[int], line_end: bytes) -> None:
    data = b'id: 1|: one|data: {"a":1}|: two|data: {"b":2}|id: 3|data: {"c":|data: 3}|data: [DONE]||'.replace(b"|", line_end)
    expected = [b'id: 1|: one|data: {"a":1}||', b': two|data: {"b":2}||', b'id: 3|data: {"c":|data: 3}||', b"data: [DONE]||"]
    blocks = split(*cuts(data, *(point for point in points if point <= len(data))))
    assert blocks == [block.replace(b"|", line_end) for block in expected]


def test_the_size_of_a_bare_event_counts_from_its_own_start() -> None:
    data = b': a comment of more than twenty bytes\ndata: {"a":1}\ndata: {"b":\ndata: 23456789012345}\n\n'
    assert split(data, max_event=33)[1:] == [Oversize(b'data: {"b":\ndata: 23456789012345}')]
    assert split(data, max_event=34)[1:] == [b'data: {"b":\ndata: 23456789012345}\n\n']


@pytest.mark.parametrize(
    "block", [b'data: {\ndata: "a": 1\ndata: }\n\n', b'data: {"a":[{}\ndata: ,{}\ndata: ]}\n\n', b"data: a}\ndata: b\ndata: {c\n\n"]
)
def test_lines_that_may_be_one_value_stay_one_event(block: bytes) -> None:
    assert split(block) == [block]


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        (b"data\n\n", Fields(b"", b"", None, b"", True)),
        (b"data:\n\n", Fields(b"", b"", None, b"", True)),
        (b"data:  a: b\n\n", Fields(b" a: b", b"", None, b"", True)),
        (b"data: a\r\ndata:b\rdata\n\n", Fields(b"a\nb\n", b"", None, b"", True)),
        (b"event: x\nevent\ndata: a\n\n", Fields(b"a", b"", None, b"", True)),
        (b"event: error\ndata: a\n\n", Fields(b"a", b"error", None, b"", True)),
        (b"id: a\x00b\n\n", Fields(None, b"", None, b"", True)),
        (b"retry: soon\n\n", Fields(None, b"", None, b"", True)),
        (b"error: {}\n\n", Fields(None, b"", b"{}", b"", False)),
        (b"unknown: a\n data: b\nDATA: c\n\n", Fields(None, b"", None, b"", False)),
        (b": a\r\n:b\r\n\r\n", Fields(None, b"", None, b": a\n:b\n", False)),
        (b"\n", Fields(None, b"", None, b"", False)),
    ],
)
def test_read_fields(block: bytes, fields: Fields) -> None:
    assert read_fields(block) == fields


@pytest.mark.parametrize(
    ("block", "data", "expected"),
    [
        (b"data: a\n\n", b"b", b"data: b\n\n"),
        (b"data:a\n\n", b"b", b"data:b\n\n"),
        (b"data: a\r\n\r\n", b"b", b"data: b\n\n"),
        (b"data: a\n\n", b"b\nc", b"data: b\ndata: c\n\n"),
        (b": x\nid: 1\ndata: a\ndata: b\nretry: 5\n\n", b"c", b": x\nid: 1\ndata: c\nretry: 5\n\n"),
        (b"data: a\r\r", b"b", b"data: b\n\n"),
    ],
)
def test_replace_data(block: bytes, data: bytes, expected: bytes) -> None:
    assert replace_data(block, data) == expected


@given(data=st.binary(max_size=200) | st.text('\r\n:data []{}"\ufeff', max_size=200).map(str.encode), points=st.sets(st.integers(0, 200)))
def test_any_bytes_mean_the_same_for_every_cut(data: bytes, points: set[int]) -> None:
    def read(*reads: bytes) -> list[Fields | Oversize]:
        splitter = BlockSplitter(50)
        blocks = [block for piece in reads for block in splitter.feed(piece)] + splitter.close()
        return [read_fields(block) if isinstance(block, bytes) else block for block in blocks]

    whole = read(data)
    assert read(*cuts(data, *(point for point in points if point <= len(data)))) == whole
    assert read(*(data[i : i + 1] for i in range(len(data)))) == whole


@pytest.mark.parametrize("text", [b"data: xxxxxxxxxxxxxxxx", b"data: x\r\n", b": comment\n", b'data:{"a":1}\n', b"data: }\ndata: {\n"])
def test_time_is_linear_in_fragmented_input(text: bytes) -> None:
    """Eight times the input may cost up to 32 times as much; a scanner that starts over would need 64 times."""

    def seconds(size: int) -> float:
        data = (text * size)[:size] if b"\n" in text else text + b"x" * size
        best = float("inf")
        for _ in range(3):
            splitter = BlockSplitter(10**9)
            start = time.process_time()
            for i in range(0, len(data), 2):
                splitter.feed(data[i : i + 2])
            best = min(best, time.process_time() - start)
        return best

    assert seconds(80_000) < 32 * max(seconds(10_000), 0.001)

"""The comment before [DONE] that says what was repaired: opt-in, whole, and never after the end."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from actors.sansio.shapes import SHAPES
from actors.sansio.smart_buffer import BufferPolicy, SmartBuffer
from actors.sansio.stuttering_detector import StutteringDetector, StutterPolicy

from ...fakes import DONE, content, finish, reasoning
from .machine_script import CUT, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

STUTTER = [content(text) for text in ("The capital", "The capital of Norway", "The capital of Norway is", "The capital of Norway is Oslo.")]


def opened(_: str = "", **policy: Any) -> SmartBuffer:
    return SmartBuffer(StutteringDetector(StutterPolicy(**policy)), BufferPolicy())


def buffers(**policy: Any) -> Callable[[str], SmartBuffer]:
    return partial(opened, trailer=True, **policy)


def counts(comment: bytes, words: bytes = b"repaired") -> dict[str, int]:
    head, _, told = comment.partition(b" " + words + b" ")
    assert head == b": evenflow"
    return {shape: int(count) for shape, _, count in (part.partition("=") for part in told.decode().split())}


def test_it_stands_right_before_done_and_names_every_shape() -> None:
    stream = Stream(open_buffer=buffers())
    stream.start()
    stream.data(*STUTTER, finish(), finish(), DONE, now=0.1)
    *_, trailer, done, rest = stream.written.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    told = counts(trailer)
    assert list(told) == list(SHAPES)
    assert {shape: count for shape, count in told.items() if count} == {"A1": 3, "H1": 1}
    assert stream.text() == "The capital of Norway is Oslo."


def test_a_clean_stream_says_so() -> None:
    stream = Stream(open_buffer=buffers())
    stream.start()
    stream.data(content("Hello"), finish(), now=0.1)
    stream.over()
    *_, trailer, done, _ = stream.written.split(b"\n\n")
    assert set(counts(trailer).values()) == {0}
    assert done == b"data: [DONE]"  # also before a [DONE] of our own


def test_observe_says_what_would_have_been() -> None:
    stream = Stream(open_buffer=buffers(mode="observe"))
    stream.start()
    stream.data(*STUTTER, finish(), DONE, now=0.1)
    trailer = stream.written.split(b"\n\n")[-3]
    assert counts(trailer, b"would have repaired")["A1"] == 3
    assert stream.written.replace(trailer + b"\n\n", b"") == b"".join([*STUTTER, finish(), DONE])


def test_repairs_of_an_earlier_attempt_count() -> None:
    stream = Stream(open_buffer=buffers())
    stream.start()
    thoughts = [reasoning(text) for text in ("Let me", "Let me think", "Let me think about", "Let me think about this question")]
    stream.data(*thoughts, now=0.1)
    stream.over(CUT)
    stream.start()
    stream.data(*STUTTER, finish(), DONE, now=0.2)
    assert counts(stream.written.split(b"\n\n")[-3])["A1"] == 6


@pytest.mark.parametrize("policy", [{}, {"trailer": True, "mode": "off"}])
def test_without_being_asked_for_or_with_mode_off_there_is_none(policy: dict[str, Any]) -> None:
    stream = Stream(open_buffer=partial(opened, **policy))
    stream.start()
    stream.data(content("Hello"), finish(), DONE)
    assert stream.written == content("Hello") + finish() + DONE


def test_a_failed_stream_has_none() -> None:
    stream = Stream(open_buffer=buffers())
    stream.start()
    stream.data(*STUTTER, now=0.1)
    stream.over()
    assert b": evenflow repaired" not in stream.written


def test_what_a_stream_was_until_its_client_left_is_counted_once() -> None:
    stream = Stream()
    stream.start()
    stream.data(*STUTTER, now=0.1)
    assert not stream.tally.repairs
    for _ in range(2):
        stream.machine.abandon(0.2)
    assert stream.tally.repairs == {"A1": 3}

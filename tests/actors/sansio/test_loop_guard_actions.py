"""What a stream machine does about a loop, from upstream bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import Complete, FaultKind
from actors.sansio.effects import Finish
from actors.sansio.faults import Verdict
from actors.sansio.loop_guard import BLOCK, LoopGuard, LoopPolicy

from ...fakes import DONE, choice, content, event, finish, reasoning, role
from .machine_script import Stream
from .test_loop_guard import DEFAULT, PROSE, TEXTS, THOUGHT, watch

if TYPE_CHECKING:
    from typing import Literal


def guarded(action: Literal["observe", "warn", "cut"]) -> Stream:
    return Stream(open_guard=lambda _: LoopGuard(LoopPolicy(action=action)))


def said(text: str, size: int = 19) -> list[bytes]:
    return [content(text[at : at + size]) for at in range(0, len(text), size)]


LOOP: Final = said("I hope this helps! " * 300)


def test_observe_counts_once_and_changes_nothing() -> None:
    stream = guarded("observe")
    stream.start()
    stream.data(role(), *LOOP, finish(), DONE)
    assert stream.written == role() + b"".join(LOOP) + finish() + DONE
    assert stream.end == Complete()
    assert stream.tally.loops == {"observe": 1}


def test_warn_adds_one_comment_line() -> None:
    stream = guarded("warn")
    stream.start()
    for block in (role(), *LOOP, finish(), DONE):
        stream.data(block)
    comments = [block for block in stream.written.split(b"\n\n") if block.startswith(b":")]
    assert len(comments) == 1
    assert b": evenflow: the model repeats itself" in comments[0]
    assert stream.written.replace(comments[0] + b"\n\n", b"") == role() + b"".join(LOOP) + finish() + DONE
    assert stream.end == Complete()
    assert stream.tally.loops == {"warn": 1}


@pytest.mark.parametrize("batch", [1, 500])
def test_cut_ends_the_stream_with_an_error_and_the_upstream_without_a_reproach(batch: int) -> None:
    stream = guarded("cut")
    stream.start(upstream="main")
    stream.data(role())
    for at in range(0, len(LOOP), batch):
        stream.data(*LOOP[at : at + batch])
    assert stream.failure.kind is FaultKind.LOOP
    assert stream.failure.verdict is Verdict.SUCCESS
    assert "main" in stream.failure.message
    assert stream.orders == [Finish(stream.failure)]
    assert stream.machine.head_sent
    assert (role() + b"".join(LOOP)).startswith(stream.written)
    assert DEFAULT.characters <= len(stream.text()) <= DEFAULT.characters + 2 * BLOCK
    assert stream.tally.loops == {"cut": 1}
    before = stream.written
    stream.data(*LOOP)
    stream.over()
    assert stream.written == before


def test_a_loop_of_thoughts_is_cut_and_not_replayed() -> None:
    stream = guarded("cut")
    stream.start()
    stream.data(*(reasoning(THOUGHT) for _ in range(50)))
    assert stream.failure.kind is FaultKind.LOOP
    assert stream.orders == [Finish(stream.failure)]


def test_nothing_is_cut_that_the_model_has_finished() -> None:
    stream = guarded("cut")
    stream.start()
    stream.data(event(choice(0, "length", content="I hope this helps! " * 300)), DONE)
    assert stream.end == Complete()


def test_what_was_sent_is_judged_and_not_what_came() -> None:
    truth = PROSE[:59] + "\n"
    truth = truth * 8 + PROSE
    snapshots = [truth[:at] for at in range(490, 570, 10)]
    assert watch(snapshots) is not None
    stream = guarded("cut")
    stream.start()
    stream.data(*map(content, snapshots), finish(), DONE)
    assert stream.text() == snapshots[-1]
    assert (stream.end, stream.tally.loops) == (Complete(), {})


def test_each_attempt_has_the_guard_of_its_upstream() -> None:
    asked = []

    def open_guard(upstream: str) -> LoopGuard | None:
        asked.append(upstream)
        return LoopGuard(LoopPolicy(action="warn")) if upstream == "b" else None

    stream = Stream(open_guard=open_guard)
    stream.start(upstream="a")
    stream.data(*(reasoning(THOUGHT) for _ in range(50)))
    stream.over()
    assert stream.tally.loops == {}
    stream.start(upstream="b")
    stream.data(*LOOP, finish(), DONE)
    assert asked == ["a", "b"]
    assert stream.tally.loops == {"warn": 1}
    assert stream.end == Complete()


@given(text=TEXTS, size=st.sampled_from([3, 50, 2000]), action=st.sampled_from(["observe", "warn", "cut"]))
@settings(max_examples=60, deadline=None)
def test_no_action_edits_what_is_sent(text: str, size: int, action: Literal["observe", "warn", "cut"]) -> None:
    def run(stream: Stream) -> Stream:
        stream.start()
        for block in (role(), *said(text, size), finish(), DONE):
            stream.data(block)
        stream.wake(10.0)
        return stream

    free, watched = run(Stream()), run(guarded(action))
    blocks = watched.written.split(b"\n\n")
    kept = b"\n\n".join(block for block in blocks if not block.startswith(b": evenflow:"))
    if watched.tally.loops.get("cut"):
        assert free.written.startswith(kept)
    else:
        assert kept == free.written
    assert len(blocks) - kept.count(b"\n\n") - 1 == watched.tally.loops["warn"]

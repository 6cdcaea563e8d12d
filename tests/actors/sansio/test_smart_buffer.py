"""What is held, for how long, in which order, and why a hold ended."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Chunk, Comment, Event
from actors.sansio.smart_buffer import BufferPolicy, Released, SmartBuffer
from actors.sansio.stuttering_detector import StutteringDetector, StutterPolicy


def event(text: str | None = None, *, finish: str | None = None, delta: dict[str, Any] | None = None, choice: int = 0) -> Event:
    body = {"id": "c", "choices": [{"index": choice, "delta": delta or ({"content": text} if text else {}), "finish_reason": finish}]}
    (chunk,) = ChunkParser().feed(b"data: " + json.dumps(body).encode() + b"\n\n")
    assert isinstance(chunk, Event)
    return chunk


def buffer(policy: BufferPolicy | None = None, **settings: Any) -> SmartBuffer:
    return SmartBuffer(StutteringDetector(StutterPolicy(**settings)), policy or BufferPolicy())


def chunks(released: list[Released]) -> list[Chunk]:
    return [one.chunk for one in released]


def test_an_event_that_needs_no_repair_leaves_as_its_own_bytes() -> None:
    held = buffer()
    for place, text in enumerate(["The", " cat", " sat"]):
        (one,) = held.add(sent := event(text), 0.02 * place)
        assert one.chunk is sent
        assert one.frame is sent.raw
        assert one.shape == ""
        assert one.held_for == 0
    assert not held.holding
    assert held.deadline == math.inf
    assert not held.flushes


def test_everything_behind_an_ambiguous_event_waits_in_its_place() -> None:
    held = buffer()
    first, second, third = event("The"), event("The"), event("other", choice=1)
    comment = Comment(b": hi\n\n")
    assert chunks(held.add(first, 0.0)) == [first]
    assert held.add(second, 1.0) == []
    assert held.holding
    assert held.deadline == pytest.approx(1.4)
    assert held.add_other(comment, 1.1) == []
    assert held.add(third, 1.2) == []
    released = held.add(last := event(" cat"), 1.3)
    assert chunks(released) == []  # doubled deltas are still possible
    released = held.add(event(" sat"), 1.35)
    assert [one.frame for one in released][:4] == [second.raw, comment.raw, third.raw, last.raw]
    assert [one.held_for for one in released][:4] == pytest.approx([0.35, 0.25, 0.15, 0.05])
    assert held.deadline == math.inf
    assert held.flushes == {"pattern": 1}


def test_only_age_ends_a_hold_that_nothing_else_ends() -> None:
    held = buffer()
    held.add(event("The"), 0.0)
    second = event("The")
    assert held.add(second, 1.0) == []
    assert held.expire(1.39) == []
    (one,) = held.expire(1.4)
    assert one.frame is second.raw
    assert one.held_for == pytest.approx(0.4)
    assert held.flushes == {"age": 1}
    assert held.deadline == math.inf


def test_only_size_ends_a_hold_that_outgrows_its_events() -> None:
    held = buffer(BufferPolicy(events=3))
    held.add(event("The"), 0.0)
    sent = [event("The")] + [event("other", choice=number) for number in (1, 2, 3)]
    assert [held.add(one, 0.1) for one in sent[:3]] == [[], [], []]
    assert chunks(held.add(sent[3], 0.1)) == sent
    assert held.flushes == {"size": 1}


def test_only_size_ends_a_hold_that_outgrows_its_bytes() -> None:
    held = buffer(BufferPolicy(size=1000))
    held.add(event("The"), 0.0)
    second, large = event("The"), event("x" * 1000, choice=1)
    assert held.add(second, 0.1) == []
    assert chunks(held.add(large, 0.1)) == [second, large]
    assert held.flushes == {"size": 1}


def test_only_confidence_ends_a_hold_that_is_proven() -> None:
    held = buffer()
    held.add(event("The"), 0.0)
    assert held.add(event("The cat"), 0.1) == []
    released = held.add(event("The cat sat"), 0.2)
    assert [json.loads(one.frame[6:])["choices"][0]["delta"]["content"] for one in released] == [" cat", " sat"]
    assert [one.shape for one in released] == ["A1", "A1"]
    assert held.flushes == {"confidence": 1}
    assert held.repairs == {"A1": 2}


@pytest.mark.parametrize(
    "ending",
    [
        event(finish="stop"),
        event(" end", finish="length"),
        event(delta={"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]}),
        event(delta={"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}),
    ],
)
def test_only_pattern_ends_a_hold_at_a_finish_or_a_tool_call(ending: Event) -> None:
    held = buffer()
    held.add(event("The"), 0.0)
    second = event("The")
    assert held.add(second, 0.1) == []
    assert chunks(held.add(ending, 0.2)) == [second, ending]
    assert held.flushes == {"pattern": 1}


def test_only_pattern_ends_a_hold_at_the_end() -> None:
    held = buffer()
    held.add(event("The"), 0.0)
    second = event("The")
    assert held.add(second, 0.1) == []
    assert chunks(held.flush(0.2)) == [second]
    assert held.flush(0.3) == []
    assert held.flushes == {"pattern": 1}


def test_another_choice_s_finish_ends_no_hold() -> None:
    held = buffer()
    held.add(event("The"), 0.0)
    held.add(event("The"), 0.1)
    assert held.add(event(finish="stop", choice=1), 0.2) == []


def test_an_event_left_empty_is_dropped_and_one_that_carries_more_is_kept() -> None:
    held = buffer()
    held.add(event("The cat sat"), 0.0)
    held.add(event("The cat sat on"), 0.1)
    held.add(event("The cat sat on the"), 0.2)
    (one,) = held.add(event("The cat sat on the"), 0.3)
    assert one.frame == b""
    (one,) = held.add(event("The cat sat on the", finish="stop"), 0.4)
    assert json.loads(one.frame[6:])["choices"][0]["finish_reason"] == "stop"


def test_observe_changes_and_holds_nothing_but_counts() -> None:
    held = buffer(mode="observe")
    for place, text in enumerate(["The", "The cat", "The cat sat", "The cat sat down"]):
        (one,) = held.add(sent := event(text), 0.1 * place)
        assert one.frame is sent.raw
        assert not held.holding
    comment = Comment(b": x\n\n")
    assert chunks(held.add_other(comment, 0.5)) == [comment]
    assert held.flush(1.0) == []
    assert held.repairs == {"A1": 3}


def test_observe_keeps_the_same_bounds() -> None:
    held = buffer(mode="observe")
    held.add(event("The"), 0.0)
    held.add(event("The"), 0.0)
    assert held.deadline == pytest.approx(0.4)
    assert held.expire(0.4) == []
    assert held.deadline == math.inf
    assert held.flushes == {"age": 1}


def test_off_looks_at_nothing() -> None:
    held = buffer(mode="off")
    for text in ["The", "The cat", "The cat sat"]:
        (one,) = held.add(sent := event(text), 0.0)
        assert one.frame is sent.raw
    assert held.deadline == math.inf
    assert not held.repairs


def test_after_its_hold_a_shadow_holds_nothing_more() -> None:
    held = buffer()
    held.add(event("The"), 0.0)
    held.add(event("The"), 0.1)
    held.expire(0.5)
    (one,) = held.add(sent := event("The"), 0.6)
    assert one.frame is sent.raw


@pytest.mark.parametrize("mode", ["repair", "observe", "off"])
@given(
    said=st.lists(
        st.tuples(st.sampled_from(["The", " cat", " sat", " on", "The cat", "a"]), st.sampled_from([0, 0, 0, 0, 1]), st.booleans()),
        max_size=40,
    ),
    counted=st.booleans(),
    step=st.sampled_from([0.0, 0.02, 0.3]),
)
def test_what_passes_at_a_glance_would_have_passed(mode: str, said: list[tuple[str, int, bool]], counted: bool, step: float) -> None:
    glancing, looking = buffer(mode=mode, threshold=1.0), buffer(mode=mode, threshold=1.0)
    for place, (text, choice, finishes) in enumerate(said):
        now = step * place
        body: dict[str, Any] = {"id": f"c{place // 25}", "choices": [{"index": choice, "delta": {"content": text}}]}
        if finishes and place % 5 == 4:
            body["choices"][0]["finish_reason"] = "stop"
        if counted:
            body["usage"] = {"completion_tokens": place}
        (one,) = ChunkParser().feed(b"data: " + json.dumps(body).encode() + b"\n\n")
        assert isinstance(one, Event)
        assert glancing.expire(now) == looking.expire(now)
        took = glancing.deadline == math.inf and glancing.passes(one, now)
        assert looking.take(one, now) == (None if took else glancing.take(one, now))
    assert glancing.flush(100.0) == looking.flush(100.0)
    assert (glancing.repairs, glancing.flushes, glancing.refused) == (looking.repairs, looking.flushes, looking.refused)

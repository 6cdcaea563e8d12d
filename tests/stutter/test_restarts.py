"""A restart under a new id that differs after all, or ends before it has caught up: what was withheld is given back, as its own bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.sansio import hypotheses
from actors.sansio.smart_buffer import SmartBuffer
from actors.sansio.stuttering_detector import StutteringDetector, StutterPolicy
from server.replay import replay

from .wire import Result, play

TEXT = "Let me look at the second file in that folder, because its name says little. Then I shall try another way: ask."
DONE = b"data: [DONE]\n\n"


def block(id: str, *choices: dict[str, Any], **fields: Any) -> bytes:
    return b"data: " + json.dumps({"id": id, "choices": list(choices), **fields}).encode() + b"\n\n"


def say(id: str, text: str, **fields: Any) -> bytes:
    return block(id, {"index": 0, "delta": {"content": text}, "finish_reason": None}, **fields)


def role(id: str) -> bytes:
    return block(id, {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None})


def finish(id: str) -> bytes:
    return block(id, {"index": 0, "delta": {}, "finish_reason": "stop"})


CALL = {"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}, "finish_reason": None}
ENDS = {
    "finish": [finish("b"), DONE],
    "done": [DONE],
    "cut": [],
    "call": [block("b", CALL), finish("b"), DONE],
    "usage": [block("b", usage={"completion_tokens": 9}), DONE],
}


def words(text: str) -> list[str]:
    first, *others = text.split(" ")
    return [first, *(f" {word}" for word in others)]


def run(*blocks: bytes, gap: float = 0.02) -> Result:
    return play([(gap * place, raw) for place, raw in enumerate(blocks)])


def restarted(second: list[str], end: str = "finish") -> list[bytes]:
    first = [say("a", word) for word in words(TEXT)]
    return [role("a"), *first, role("b"), *(say("b", text) for text in second), *ENDS[end]]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("length", [6, 40, 100, len(TEXT) - 1])
def test_a_beginning_of_the_first_is_given_back(length: int, end: str) -> None:
    blocks = restarted(words(TEXT[:length]), end)
    result = run(*blocks)
    assert result.raw == b"".join(blocks)
    assert result.buffer.repairs.total() == 0


@given(
    st.integers(0, len(TEXT) - 1),
    st.sampled_from(["", "No", " But", "!"]),
    st.integers(1, 30),
    st.sampled_from(sorted(ENDS)),
    st.sampled_from([0.0, 0.001, 0.02, 0.3]),
)
def test_what_differs_sooner_or_later_leaves_as_it_came(shared: int, other: str, size: int, end: str, gap: float) -> None:
    second = TEXT[:shared] + other
    cut = [second[at : at + size] for at in range(0, len(second), size)]
    blocks = restarted(cut, end)
    assert run(*blocks, gap=gap).raw == b"".join(blocks)


@pytest.mark.parametrize("end", ENDS)
def test_a_restart_that_catches_up_is_repaired(end: str) -> None:
    result = run(*restarted([*words(TEXT), " And", " so", " on"], end))
    assert next(iter(result.text.values())) == TEXT + " And so on"
    assert result.buffer.repairs["F1"] == len(words(TEXT))


def test_a_comment_and_a_keep_alive_do_not_wait_for_it() -> None:
    comment = b": keep-alive\n\n"
    blocks = [say("a", word) for word in words(TEXT)] + [role("b"), *(say("b", word) for word in words(TEXT)[:12])]
    result = run(*blocks, comment, say("b", " differs"), finish("b"), DONE)
    assert result.raw.index(comment) < result.raw.index(say("b", "Let"))
    assert sorted(result.raw.split(b"\n\n")) == sorted(b"".join([*blocks, comment, say("b", " differs"), finish("b"), DONE]).split(b"\n\n"))
    assert result.only == TEXT + "".join(words(TEXT)[:12]) + " differs"


def test_events_in_which_another_lane_speaks_are_not_taken() -> None:
    def both(id: str, text: str, other: str) -> bytes:
        return block(id, {"index": 0, "delta": {"content": text}}, {"index": 1, "delta": {"content": other}})

    blocks = [both("a", word, word.upper()) for word in words(TEXT)]
    again = [both("b", word, f" {place}") for place, word in enumerate(words(TEXT)[:12])]
    assert run(*blocks, *again, finish("b"), DONE).raw == b"".join([*blocks, *again, finish("b"), DONE])


def test_of_too_much_only_the_text_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypotheses, "_STASH", 1000)
    blocks = restarted([*words(TEXT)[:-1], " differs", " from it"])
    assert run(*blocks).only == TEXT + "".join(words(TEXT)[:-1]) + " differs from it"


def test_an_error_comes_after_what_was_withheld() -> None:
    blocks = b"".join(restarted(words(TEXT[:100]), "cut"))
    body = replay(blocks + b'data: {"error":{"message":"overloaded"}}\n\n', pace=0.02).body
    assert body.startswith(blocks)
    assert b"overloaded" in body[len(blocks) :]


def test_watching_gives_nothing_back() -> None:
    blocks = restarted(words(TEXT[:100]))
    buffer = SmartBuffer(StutteringDetector(StutterPolicy(mode="observe")))
    assert play([(0.02 * place, raw) for place, raw in enumerate(blocks)], buffer=buffer).raw == b"".join(blocks)
    assert buffer.repairs.total() == 0


THOUGHT = "The user asks what is in that folder; I should look at it myself."


def thought(id: str) -> list[bytes]:
    return [block(id, {"index": 0, "delta": {"reasoning": word}, "finish_reason": None}) for word in words(THOUGHT)]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("answer", ["", "Now", "Let me look elsewhere.", TEXT[:40], TEXT[:70] + "!"])
def test_the_same_thought_with_another_answer_is_another_step(answer: str, end: str) -> None:
    first = [role("a"), *thought("a"), *(say("a", word) for word in words(TEXT))]
    second = [role("b"), *thought("b"), *(say("b", word) for word in words(answer) if word), *ENDS[end]]
    result = run(*first, *second)
    if answer:  # else it is known at the end only that no answer comes
        assert result.raw == b"".join(first + second)
    assert sorted(result.raw.split(b"\n\n")) == sorted(b"".join(first + second).split(b"\n\n"))
    assert result.buffer.repairs.total() == 0


def test_the_same_thought_and_answer_are_a_restart() -> None:
    first = [role("a"), *thought("a"), *(say("a", word) for word in words(TEXT)[:12])]
    result = run(*first, role("b"), *thought("b"), *(say("b", word) for word in words(TEXT)), finish("b"), DONE)
    assert result.text == {(0, "reasoning", -1): THOUGHT, (0, "content", -1): TEXT}


def test_a_thought_that_goes_on_after_a_restart_is_one() -> None:
    result = run(role("a"), *thought("a"), role("b"), *thought("b"), say("b", "Now"), finish("b"), DONE)
    assert result.text == {(0, "reasoning", -1): THOUGHT, (0, "content", -1): "Now"}

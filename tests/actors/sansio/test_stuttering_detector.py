"""Which lane a delta belongs to, what lanes share, and what an envelope proves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from actors.sansio.stuttering_detector import StutteringDetector, StutterPolicy
from tests.stutter.wire import play

if TYPE_CHECKING:
    from tests.stutter.wire import Result


def block(*choices: dict[str, Any], **fields: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c1", "created": 1, **fields, "choices": list(choices)}).encode() + b"\n\n"


def say(text: str, index: int = 0, field: str = "content", finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": {field: text}, "finish_reason": finish}


def call(arguments: str, index: int = 0, call_id: str | None = None) -> dict[str, Any]:
    tool: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if call_id is not None:
        tool |= {"id": call_id, "type": "function"}
    return {"index": 0, "delta": {"tool_calls": [tool]}, "finish_reason": None}


def run(*blocks: bytes, policy: StutterPolicy | None = None, gap: float = 0.02) -> Result:
    return play([(gap * place, raw) for place, raw in enumerate(blocks)], policy)


def test_each_choice_and_field_is_a_lane_of_its_own() -> None:
    blocks = [
        block(say("The"), say("The", 1)),
        block(say(" cat", 0, "reasoning"), say(" cat", 1)),
        block(say(" cat", 0, "reasoning_content"), say(" sat", 1)),
        block(say("The cat", 0, "reasoning_content")),
        block(say("The cat sat")),
    ]
    assert run(*blocks).raw == b"".join(blocks)


def test_two_lanes_are_repaired_side_by_side() -> None:
    words = ["One", "One two", "One two three", "One two three four"]
    blocks = [block({"index": 0, "delta": {"content": word, "reasoning": f"Hm, {word}"}, "finish_reason": None}) for word in words]
    assert run(*blocks).text == {(0, "reasoning", -1): "Hm, One two three four", (0, "content", -1): "One two three four"}


def test_a_new_id_on_an_old_index_is_a_new_call() -> None:
    # Gemini reuses the index (ihub-apps 1954); identical consecutive calls are calls.
    blocks = [block(call('{"city":"Paris"}', 0, call_id)) for call_id in ("a", "b", "c")]
    assert run(*blocks).raw == b"".join(blocks)


def test_the_same_call_again_is_a_repeat() -> None:
    blocks = [block(call('{"city":"Paris"}', 0, "a"))] * 3
    result = run(*blocks)
    assert result.text == {(0, "tool_calls.arguments", 0): '{"city":"Paris"}'}
    assert result.raw.startswith(blocks[0])


def test_fragments_that_share_an_index_in_one_event_are_fragments() -> None:
    # ai-dynamo PR 15054, openai-python 3241
    tools = [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"a":'}}, {"index": 0, "function": {"arguments": "1}"}}]
    blocks = [block({"index": 0, "delta": {"tool_calls": tools}, "finish_reason": None})]
    assert run(*blocks).raw == b"".join(blocks)


def test_two_completions_in_one_body_begin_afresh() -> None:
    words = ["Paris", " is", " the", " capital", " of", " France", "."]
    blocks = [block(say(word)) for word in words] + [block(say("", finish="stop"))]
    again = [block(say(word), id="c2") for word in words] + [block(say("", finish="stop"), id="c2")]
    assert run(*blocks, *again).raw == b"".join(blocks + again)


def test_a_restart_before_a_finish_is_swallowed() -> None:
    words = ["Paris", " is", " the", " capital", " of", " France", "."]
    blocks = [block(say(word)) for word in words[:5]] + [block(say(word), id="c2") for word in words]
    result = run(*blocks)
    assert result.only == "Paris is the capital of France."
    assert set(result.shapes) == {"F1"}


def test_ids_that_rotate_are_no_marker() -> None:
    words = ["Paris", " is", " the", " capital", " of", " Paris", " is"]
    blocks = [block(say(word), id=f"c{place}") for place, word in enumerate(words)]
    assert run(*blocks).raw == b"".join(blocks)


@pytest.mark.parametrize("text", ["**", " ", "7", "The", "I", "\n"])
def test_the_same_nonce_proves_a_head_sent_twice(text: str) -> None:
    role = block({"index": 0, "delta": {"role": "assistant", "content": ""}}, obfuscation="Zq81mWe")
    blocks = [block(say(text), obfuscation=nonce) for nonce in ("kT4vQx9", "kT4vQx9")] + [block(say("end"), obfuscation="b8WnZ2p")]
    result = run(role, *blocks)
    assert result.raw == role + blocks[0] + blocks[2]
    assert result.shapes == ["B1"]
    assert not result.held
    result = run(*blocks)  # only the third event shows that the field differs at all
    assert result.raw == blocks[0] + blocks[2]
    assert result.held == [pytest.approx(0.02)]


def test_another_nonce_proves_new_text() -> None:
    blocks = [block(say("ha"), obfuscation=nonce) for nonce in ("kT4vQx9", "b8WnZ2p", "y1MsR5c", "u6LgD3h")]
    assert run(*blocks).raw == b"".join(blocks)


def test_a_counter_that_stands_still_proves_a_repeat_and_one_that_rises_new_text() -> None:
    def counted(text: str, tokens: int) -> bytes:
        return block(say(text), usage={"completion_tokens": tokens})

    start = [counted(text, number) for number, text in enumerate(("So", ",", " again", ":"), 1)]
    blocks = [counted("One", 5), counted(" two", 6), counted(" two", 6), counted(" two", 7), counted(".", 8)]
    assert run(*start, *blocks).only == "So, again:One two two."
    assert run(*blocks).only == "One two two two."  # one rise shows nothing yet


def test_a_counter_that_stood_still_under_new_text_proves_nothing() -> None:
    blocks = [
        block(say(text), usage={"completion_tokens": tokens}) for text, tokens in (("One", 1), (" two", 2), (" three", 2), (" three", 2))
    ]
    assert run(*blocks).raw == b"".join(blocks)


def test_a_counter_that_moves_only_now_and_then_proves_nothing() -> None:
    blocks = [block(say("", field="role"), usage={"completion_tokens": 0})]
    blocks += [block(say(text), usage={"completion_tokens": tokens}) for text, tokens in (("ha", 1), ("ha", 1), (" so", 1), ("!", 9))]
    assert run(*blocks).raw == b"".join(blocks)


def test_a_counter_filled_in_before_it_counts_is_believed_once_it_rises() -> None:
    blocks = [block(say(text), usage={"completion_tokens": tokens}) for text, tokens in (("Hi", 1), ("Hi", 1), (" there", 2), (".", 3))]
    assert run(*blocks).only == "Hi there."


def test_logprobs_prove_a_repeat() -> None:
    def sampled(text: str, logprob: float) -> bytes:
        return block({**say(text), "logprobs": {"content": [{"token": text, "logprob": logprob}]}})

    start = [sampled(text, rate) for text, rate in (("Now", -0.9062517), (",", -0.1340294), ("go", -0.3104985))]
    again = [sampled(" go", -1.2040113), sampled(" go", -1.2040113), sampled(" on", -0.7133502)]
    assert run(*start, *again).only == "Now,go go on"
    blocks = [sampled("go", -0.31), sampled(" go", -1.2), sampled(" go", -1.21), sampled(" on", -0.7)]
    assert run(*blocks).raw == b"".join(blocks)


HEAD = '{{"choices":[{{"finish_reason":null,"logprobs":null,"delta":{{"content":{}}},"index":0}}],"id":"c"}}'
REST = '{{"choices":[{{"delta":{{"content":{}}},"finish_reason":null,"index":0,"logprobs":null}}],"id":"c"}}'


def portal(order: str, text: str) -> bytes:
    return b"data: " + order.format(json.dumps(text)).encode() + b"\n\n"


def test_the_serialisers_turn_proves_a_head_sent_twice() -> None:
    # As captured from the Qwen portal: sunbankio/qwencoder-proxy, streamingtest.txt.
    blocks = [portal(HEAD, "**"), portal(HEAD, "**"), portal(REST, "The Weight"), portal(REST, " of Words")]
    result = run(*blocks)
    assert result.raw == blocks[0] + blocks[2] + blocks[3]
    assert result.shapes == ["B1"]


def test_after_the_turn_a_delta_that_happens_to_extend_the_head_is_kept() -> None:
    blocks = [portal(HEAD, "\n"), portal(HEAD, "\n"), portal(REST, "\n- a"), portal(REST, " b")]
    assert run(*blocks).only == "\n\n- a b"


def test_one_head_and_an_equal_second_chunk_are_two_chunks() -> None:
    blocks = [portal(HEAD, "**"), portal(REST, "**"), portal(REST, "x")]
    assert run(*blocks).raw == b"".join(blocks)


@pytest.mark.parametrize("profile", ["generic", "dashscope", "portal"])
@pytest.mark.parametrize("text", ["The", "**", "A whole sentence that no one would say twice, but who knows. "])
def test_no_profile_drops_on_the_text_of_one_pair_alone(profile: Any, text: str) -> None:
    blocks = [block(say(text)), block(say(text)), block(say("x")), block(say("", finish="stop"))]
    assert run(*blocks, policy=StutterPolicy(profile=profile)).raw == b"".join(blocks)


def test_the_portals_profile_needs_one_relation_less() -> None:
    blocks = [block(say(text)) for text in ("I", "I", "I'll", " help")]
    assert run(*blocks, policy=StutterPolicy(profile="portal")).only == "I'll help"


def test_refused_hypotheses_are_counted() -> None:
    detector = run(block(say("The")), block(say("There")), block(say(" is"))).buffer._detector
    assert sum(detector.refused.values()) == 1
    assert detector.flushes["pattern"] == 1


def test_a_lone_surrogate_split_over_two_events_survives_a_repair() -> None:
    deltas = ["So", "So \ud83d", "So \ud83d\ude00", "So \ud83d\ude00 ok"]
    blocks = [block(say(text)) for text in deltas]
    result = run(*blocks)
    assert result.shapes
    assert result.only.encode("utf-16", "surrogatepass").decode("utf-16") == "So 😀 ok"


def test_the_default_detector_repairs() -> None:
    assert StutteringDetector().policy == StutterPolicy(mode="repair", profile="generic", threshold=3.0, prior=-2.5)

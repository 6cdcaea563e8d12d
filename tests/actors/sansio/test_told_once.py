"""G3 and H1 by upstream bytes: a call's id and name leave once, a choice's finish once, and whatever may be new passes as it came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.sansio.stuttering_detector import StutterPolicy
from tests.fakes import choice, content, event, finish, role
from tests.stutter.wire import Result, play


def run(*blocks: bytes, policy: StutterPolicy | None = None) -> Result:
    return play([(0.02 * place, raw) for place, raw in enumerate(blocks)], policy)


def entry(arguments: str | None = None, index: int = 0, id: str | None = None, name: str | None = None) -> dict[str, Any]:
    """One entry of `tool_calls`, in OpenAI's order of keys."""
    function = ({} if name is None else {"name": name}) | ({} if arguments is None else {"arguments": arguments})
    return {"index": index} | ({} if id is None else {"id": id, "type": "function"}) | {"function": function}


def calls(*entries: dict[str, Any], number: int = 0) -> bytes:
    return event(choice(number, tool_calls=list(entries)))


def joined(raw: bytes) -> dict[tuple[int, int], dict[str, str]]:
    """The calls as a client that joins every string would have them."""
    got: dict[tuple[int, int], dict[str, str]] = {}
    for block in raw.split(b"\n\n"):
        if block:
            for one in json.loads(block[6:])["choices"]:
                for call in one["delta"].get("tool_calls", ()):
                    told = got.setdefault((one["index"], call["index"]), {"id": "", "name": "", "arguments": ""})
                    told["id"] += call.get("id") or ""
                    told["name"] += call["function"].get("name") or ""
                    told["arguments"] += call["function"].get("arguments") or ""
    return got


FRAGMENTS = ['{"ci', 'ty":', ' "Paris"', "}"]


# ---- G3 -----------------------------------------------------------------------------------------------------------------


def test_id_and_name_in_every_fragment_leave_once() -> None:
    # MiniMax on NIM (hermes-agent 11984), LiteLLM in front (AstrBot 7735).
    blocks = [calls(entry(text, id="call_1", name="weather")) for text in ["", *FRAGMENTS]] + [finish("tool_calls")]
    result = run(*blocks)
    bare = [event(choice(tool_calls=[{"index": 0, "type": "function", "function": {"arguments": text}}])) for text in FRAGMENTS]
    assert result.raw == b"".join([blocks[0], *bare, blocks[-1]])
    assert result.shapes == ["G3"] * 4
    assert not result.held


def test_a_name_alone_in_every_fragment_leaves_once() -> None:
    blocks = [calls(entry(FRAGMENTS[0], id="call_1", name="weather")), *(calls(entry(text, name="weather")) for text in FRAGMENTS[1:])]
    result = run(*blocks)
    assert joined(result.raw) == {(0, 0): {"id": "call_1", "name": "weather", "arguments": "".join(FRAGMENTS)}}
    assert result.raw.startswith(blocks[0])


def test_an_id_alone_in_every_fragment_leaves_once() -> None:
    blocks = [calls(entry("", id="call_1", name="weather")), *(calls(entry(text, id="call_1")) for text in FRAGMENTS)]
    assert joined(run(*blocks).raw) == {(0, 0): {"id": "call_1", "name": "weather", "arguments": "".join(FRAGMENTS)}}


def test_a_fragment_that_tells_only_what_was_told_is_dropped() -> None:
    first, last = calls(entry("{}", id="call_1", name="now")), finish("tool_calls")
    assert run(first, calls(entry("", id="call_1", name="now")), calls(entry("", name="now")), last).raw == first + last


def test_every_other_byte_stays() -> None:
    odd = (
        b'data: { "id":"c1", "z" : 1.50, "choices":[ {"index":0 , "delta":{"tool_calls":[{ "type":"function","id" : "a" ,'
        b'"function":{"arguments":%b , "name":"f"}, "x":[1e3] }]}} ] }\n\n'
    )
    blocks = [odd % text for text in (b'"{\\"a\\":"', b'"\\u00e9}{"')]
    dropped = blocks[1].replace(b',"id" : "a"', b"").replace(b' , "name":"f"', b"")
    assert run(*blocks).raw == blocks[0] + dropped


def test_labels_and_arguments_are_repaired_in_one_event() -> None:
    blocks = [calls(entry(text, id="call_1", name="f")) for text in ('{"a":1', '{"a":1,', '{"a":1,"b":2', '{"a":1,"b":2}')]
    result = run(*blocks)
    assert joined(result.raw) == {(0, 0): {"id": "call_1", "name": "f", "arguments": '{"a":1,"b":2}'}}
    assert result.buffer.repairs == {"G1": 3, "G3": 3}
    assert result.shapes[-1] == "G1+G3"


@pytest.mark.parametrize(
    "blocks",
    [
        [calls(entry("", id="a", name="get_")), calls(entry("", name="weather")), calls(entry("{}"))],  # a name in pieces
        [calls(entry("", id="a", name="get_")), calls(entry(name="weather")), calls(entry("{}"))],
        [calls(entry("", id="a", name="do")), calls(entry("", name="do")), calls(entry("{}"))],  # ... in equal pieces
        [calls(entry("", id="a", name="get_")), calls(entry("{}", name="weather"))],
        [calls(entry("", id="a", name="f")), calls(entry("{}", id=""))],  # Kimi: an empty id later
        [calls(entry("", id="a", name="f")), calls(entry("{}", id="", name=""))],
        [calls(entry('{"a":1}', id="a", name="f")), calls(entry('{"a":2}', id="b", name="f"))],  # an index used again
        [calls(entry("", id="a", name="f")), calls(entry("{}")), calls(entry("", id="b", name="f")), calls(entry("{}"))],
        [calls(entry("{}", id="a", name="f"), entry("{}", index=1, id="b", name="f"))],  # in parallel
        [calls(entry("{}", id="a", name="f")), calls(entry("{}", index=1, id="b", name="f"))],
        [calls(entry("", id="a", name="f"), entry('{"a":'), entry("1}"))],  # entries of one index: fragments
        [calls(entry("{}", id="a", name="f")), calls(entry("{}", id="a", name="f"), number=1)],  # another choice
        [calls(entry('{"a":1}', id="a", name="f")), calls(entry('{"a":2}', name="f"))],  # open-webui 22235: two objects, one index
        [calls(entry('{"a":1}', name="f")), calls(entry('{"b":2}', name="f"))],  # no ids at all
        [calls(entry('{"a":1}', name="f")), calls(entry('{"a":1}', name="g"))],
    ],
)
def test_what_may_be_new_passes_as_it_came(blocks: list[bytes]) -> None:
    assert run(*blocks, finish("tool_calls")).raw == b"".join([*blocks, finish("tool_calls")])


def test_after_a_finish_a_call_without_an_id_is_another_one() -> None:
    blocks = [calls(entry('{"a":1}', name="f")), finish("tool_calls"), calls(entry('{"a":1}', name="f")), finish("tool_calls")]
    assert run(*blocks).raw == b"".join(blocks)


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_only_mode_repair_changes_anything(mode: Any) -> None:
    blocks = [calls(entry(text, id="call_1", name="f")) for text in FRAGMENTS] + [finish("tool_calls"), finish("tool_calls")]
    result = run(*blocks, policy=StutterPolicy(mode=mode))
    assert result.raw == b"".join(blocks)
    assert result.buffer.repairs == ({"G3": 3, "H1": 1} if mode == "observe" else {})


NAMES = st.sampled_from(["f", "ff", "get_time", "do"])


@given(st.lists(st.tuples(NAMES, st.lists(st.sampled_from(["", "{", '"', "a", "[", "1"]), max_size=6)), min_size=1, max_size=4), st.data())
def test_whatever_is_repeated_each_call_has_one_id_and_one_name(told: list[tuple[str, list[str]]], data: st.DataObject) -> None:
    blocks, expected = [], {}
    for index, (name, fragments) in enumerate(told):
        blocks.append(calls(entry("", index, f"call_{index}", name)))
        for text in fragments:
            again = data.draw(st.booleans())  # with its id a repeated name is certain, alone only beside arguments
            blocks.append(calls(entry(text, index, f"call_{index}" if again else None, name if again or text else None)))
        expected[0, index] = (f"call_{index}", name)
    got = joined(run(*blocks).raw)
    assert {key: (call["id"], call["name"]) for key, call in got.items()} == expected


# ---- H1 -----------------------------------------------------------------------------------------------------------------

HELLO = [role(), content("Hello")]
USAGE = {"prompt_tokens": 1, "completion_tokens": 2}


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (finish(), finish()),
        (finish(usage=USAGE), finish(usage=USAGE)),
        (finish(usage=USAGE), finish()),
        (finish(usage=USAGE), finish(usage=None)),
        (finish(obfuscation="k3"), finish(obfuscation="9q")),
        (finish(), event(choice(finish="stop", role="assistant", content=""))),
        (finish(), event(choice(finish="stop", content=""), id="")),
        (event(choice(finish="stop", content="!")), finish()),
        (event(choice(finish="stop") | {"native_finish_reason": "end"}), event(choice(finish="stop") | {"native_finish_reason": "end"})),
        (event(choice(finish="stop"), choice(1, "length")), event(choice(1, "length"), choice(finish="stop"))),
    ],
)
def test_a_second_finish_that_tells_nothing_is_dropped(first: bytes, again: bytes) -> None:
    usage = event(usage=USAGE)
    result = run(*HELLO, first, again, usage, again)
    assert result.raw == b"".join([*HELLO, first, usage])
    assert result.shapes == ["H1"] * 2


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (finish(), finish(usage=USAGE)),  # OpenRouter's way
        (finish(usage=USAGE), finish(usage={"prompt_tokens": 1, "completion_tokens": 3})),
        (finish(), finish("length")),
        (finish(), finish(id="c2")),  # another completion
        (finish(), finish(index=1)),
        (finish(), finish(provider="other")),
        (finish(), event(choice(finish="stop", content="!"))),
        (finish(), event(choice(finish="stop") | {"logprobs": {"content": [{"token": "!", "logprob": -0.1}]}})),
        (finish(), event(choice(finish="stop"), choice(1, "stop"))),
        # OpenRouter, where it is no exact copy (pydantic-ai test_openrouter_stream_error)
        (
            event(choice(finish="length", reasoning="to") | {"native_finish_reason": "x"}),
            event(choice(finish="length") | {"native_finish_reason": "x"}),
        ),
    ],
)
def test_a_second_finish_with_anything_new_passes(first: bytes, again: bytes) -> None:
    assert run(*HELLO, first, again).raw == b"".join([*HELLO, first, again])


@pytest.mark.parametrize("between", [content("Hm"), calls(entry("", id="a", name="f")), event(choice(audio={"id": "a"}))])
def test_a_finish_after_something_was_said_is_no_repeat(between: bytes) -> None:
    blocks = [*HELLO, finish(), between, finish()]
    assert run(*blocks).raw == b"".join(blocks)


def test_a_finish_that_nests_too_deeply_to_be_compared_passes() -> None:
    deep = json.loads("[" * 300 + "]" * 300)
    blocks = [*HELLO, finish(extra=deep), finish(extra=deep)]
    assert run(*blocks).raw in (b"".join(blocks), b"".join(blocks[:-1]))

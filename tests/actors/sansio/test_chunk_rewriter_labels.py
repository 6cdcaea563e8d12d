"""Labels of tool calls are taken out of the JSON with one comma each, and nothing else with them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunk_rewriter import rewrite
from actors.sansio.chunks import Event
from actors.sansio.told_once import RepeatedLabel


def event(data: str) -> Event:
    (chunk,) = ChunkParser().feed(f"data: {data}\n\n".encode())
    assert isinstance(chunk, Event)
    return chunk


def wrapped(entries: str) -> str:
    return '{"choices":[{"delta":{"tool_calls":[' + entries + ']},"finish_reason":null}]}'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"index":0,"id":"a","function":{"name":"f","arguments":"x"}}', '{"index":0,"function":{"arguments":"x"}}'),
        ('{"id":"a","index":0,"function":{"arguments":"x","name":"f"}}', '{"index":0,"function":{"arguments":"x"}}'),
        ('{ "id" : "a" , "function" : { "name" : "f" , "arguments" : "x" } }', '{ "function" : { "arguments" : "x" } }'),
        ('{"function":{"name":"f","arguments":"x"},"id":"a"}', '{"function":{"arguments":"x"}}'),
        ('{"id":"a","x":"name","function":{"name":"f","parameters":{"name":"kept"},"arguments":"x"}}', None),
        (
            '{"id":"b","id":"a","function":{"arguments":"x","name":"g","name":"f"}}',
            '{"function":{"arguments":"x"}}',
        ),  # of two, the last counts
        ('{"id":"a","function":{"name":"\\"}f,","arguments":"x"}}', '{"function":{"arguments":"x"}}'),
    ],
)
def test_both_labels_go(before: str, after: str | None) -> None:
    original = event(wrapped(before))
    (call,) = original.calls
    after = after or '{"x":"name","function":{"parameters":{"name":"kept"},"arguments":"x"}}'
    assert rewrite(original, {}, labels=[RepeatedLabel(call, id=True, name=True)]) == event(wrapped(after)).raw


def test_only_the_label_that_was_told_goes() -> None:
    original = event(wrapped('{"id":"a","function":{"name":"f","arguments":"x"}}'))
    (call,) = original.calls
    assert (
        rewrite(original, {}, labels=[RepeatedLabel(call, True, False)]) == event(wrapped('{"function":{"name":"f","arguments":"x"}}')).raw
    )
    assert rewrite(original, {}, labels=[RepeatedLabel(call, False, True)]) == event(wrapped('{"id":"a","function":{"arguments":"x"}}')).raw


def test_an_event_of_which_nothing_is_left_is_none() -> None:
    original = event(wrapped('{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}'))
    (call,) = original.calls
    assert rewrite(original, {}, labels=[RepeatedLabel(call, True, True)]) is None
    assert rewrite(original, {}, labels=[RepeatedLabel(call, True, False)]) is not None


ENTRIES = st.lists(
    st.fixed_dictionaries(
        {"function": st.fixed_dictionaries({}, optional={"name": st.text(max_size=4), "arguments": st.text(max_size=4), "x": st.none()})},
        optional={"id": st.text(max_size=4), "index": st.integers(0, 2), "type": st.just("function"), "z": st.floats(allow_nan=False)},
    ),
    min_size=1,
    max_size=3,
)


@given(ENTRIES, st.permutations(["id", "index", "type", "function", "z"]), st.data())
def test_it_is_the_same_change_as_on_the_decoded_value(entries: list[dict[str, Any]], order: list[str], data: st.DataObject) -> None:
    entries = [{name: entry[name] for name in order if name in entry} for entry in entries]
    body = {"choices": [{"delta": {"content": "kept", "tool_calls": entries}}]}
    original = event(json.dumps(body))
    labels = [
        RepeatedLabel(call, bool(call.id) and data.draw(st.booleans()), bool(call.name) and data.draw(st.booleans()))
        for call in original.calls
    ]
    labels = [label for label in labels if label.id or label.name]
    for label in labels:
        entry = entries[label.call.call_position]
        if label.id:
            del entry["id"]
        if label.name:
            del entry["function"]["name"]
    block = rewrite(original, {}, labels=labels)
    assert block is not None
    assert json.loads(block[6:]) == body

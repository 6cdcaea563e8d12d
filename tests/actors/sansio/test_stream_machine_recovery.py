"""The stream machine when an attempt fails and another one follows: what the client sees is one answer."""

from __future__ import annotations

import pytest

from actors import Complete, StreamPolicy
from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.delivery import KEEP_ALIVE
from actors.sansio.effects import Finish, Head, Resume

from ...fakes import DONE, choice, content, event, finish, reasoning, role
from .machine_script import CUT, REFUSED, Stream


def test_an_attempt_without_output_is_thrown_away_and_its_successor_goes_by_the_first_ones_identity() -> None:
    stream = Stream()
    stream.start()
    stream.data(role(id="first", system_fingerprint="fp1"))
    assert stream.over(CUT).order == Resume(CUT, replay=False)
    stream.start(upstream="b")
    stream.data(role(id="second", system_fingerprint="fp2"), content("Hello", id="second", created=9, model="n", system_fingerprint="fp2"))
    stream.data(finish(id="second"), event(id="second", usage={"completion_tokens": 7}), DONE)
    assert len(stream.heads) == 1
    assert {(got["id"], got["created"], got["model"]) for got in stream.events} == {("first", 1, "m")}
    assert [got.get("system_fingerprint") for got in stream.events if "system_fingerprint" in got] == ["fp1", "fp1"]
    assert [one["delta"].get("role") for got in stream.events for one in got["choices"]].count("assistant") == 1
    assert stream.events[-1]["usage"] == {"completion_tokens": 7}  # the finishing attempt's
    assert stream.tally.replayed == 0


def test_reasoning_is_replayed_and_the_new_reasoning_swallowed() -> None:
    stream = Stream()
    stream.start()
    stream.data(role(id="first"), reasoning("Let me think", id="first"))
    assert stream.over(CUT).order == Resume(CUT, replay=True)
    stream.start(upstream="b")
    assert stream.data(role(id="second"), reasoning("Now, anew", id="second")).frames == []
    both = event(choice(reasoning_content=" and so", content="Hello"), id="second")
    stream.data(both, content(" world", id="second"), finish(id="second"), DONE)
    assert stream.text("reasoning_content") == "Let me think"
    assert stream.text() == "Hello world"
    assert {got["id"] for got in stream.events} == {"first"}
    assert stream.tally.replayed == 1
    assert stream.end == Complete()


def test_reasoning_is_swallowed_also_where_no_event_has_an_id() -> None:
    stream = Stream()
    stream.start()
    stream.data(reasoning("Let me think", id=""))
    stream.over(CUT)
    stream.start()
    stream.data(reasoning("Let me think again", id=""), content("Hello", id=""), DONE)
    assert stream.text("reasoning_content") == "Let me think"
    assert stream.text() == "Hello"


def test_the_identity_is_that_of_the_first_event_with_an_id() -> None:
    stream = Stream()
    stream.start()
    stream.data(event(id="", prompt_filter_results=[]), role(id="first"))  # Azure
    stream.over(CUT)
    stream.start()
    stream.data(content("Hello", id="second"), DONE)
    assert [got.get("id") for got in stream.events] == [None, "first", "first"]


@pytest.mark.parametrize(
    "block",
    [
        b'data: {"id":"second"}\n\n',
        b'data: {"id":"second","choices":null}\n\n',
        b'data: {"id":"second","choices":{}}\n\n',
        b'data: {"id":"second","choices":[7]}\n\n',
        b'data: {"type":"response.created"}\n\n',
        event(id="second", usage={"completion_tokens": 3}),
    ],
)
def test_an_event_without_choices_passes_on_a_later_attempt(block: bytes) -> None:
    stream = Stream()
    stream.start()
    stream.data(role(id="first"))
    stream.over(CUT)
    stream.start()
    stream.data(block, content("Hello", id="second"), DONE)
    assert len(ChunkParser().feed(stream.written)) == 4
    assert b"second" not in stream.written


@pytest.mark.parametrize("policy", [StreamPolicy(replay_reasoning=False), StreamPolicy(choices=2)], ids=["switched off", "two choices"])
def test_without_replay_a_cut_after_reasoning_is_the_end(policy: StreamPolicy) -> None:
    stream = Stream(policy)
    stream.start()
    stream.data(reasoning("Let me think"))
    assert stream.over(CUT).order == Finish(CUT)
    assert stream.failure == CUT


def test_after_the_last_attempt_the_fault_of_the_last_one_is_told() -> None:
    stream = Stream()
    stream.start()
    stream.data(role())
    stream.over(CUT)
    effects = stream.exhausted(REFUSED)
    assert stream.failure == REFUSED
    assert effects.order is None  # no attempt runs


def test_a_head_that_was_sent_while_nobody_had_answered_names_nobody() -> None:
    stream = Stream(StreamPolicy(keepalive_after=5.0))
    stream.failed(now=1.0)
    effects = stream.wake(5.0)
    assert (effects.head, effects.frames) == (Head(), [KEEP_ALIVE])
    stream.start(6.0)
    assert stream.data(content("Hello")).head is None

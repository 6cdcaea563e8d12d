"""The stream machine: each test is a script of what came when, and what had to go out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from actors import Complete, Fault, FaultKind, StreamPolicy
from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Weight
from actors.sansio.effects import Effects, Finish, Head, Resume
from actors.sansio.stream_machine import DONE_FRAME
from actors.sansio.stream_state import TRANSITIONS

from ...fakes import DONE, choice, content, event, finish, reasoning, role
from .machine_script import CUT, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

# ---- the states: every row of the table, from upstream bytes ----------------------------------------------------------


def initial_first_output(stream: Stream) -> None:
    stream.start()
    stream.data(role(), content("Hello"))


def initial_hold_began(stream: Stream) -> None:
    # Nothing was released yet, and the very first event contains both a text and its repetition.
    stream.start()
    stream.data(event(choice(0, content="Hello"), choice(0, content="Hello wor")))


def initial_attempt_failed(stream: Stream) -> None:
    stream.failed()


def initial_ended(stream: Stream) -> None:
    stream.exhausted()


def normal_hold_began(stream: Stream) -> None:
    stream.start()
    stream.data(content("Hello"), content("Hello wor"))


def normal_attempt_failed(stream: Stream) -> None:
    stream.start()
    stream.data(reasoning("Let me think"))
    stream.over(CUT)


def normal_ended(stream: Stream) -> None:
    stream.start()
    stream.data(content("Hello"), DONE)


def stuttering_hold_resolved(stream: Stream) -> None:
    normal_hold_began(stream)
    stream.wake(stream.machine.deadline)


def stuttering_attempt_failed(stream: Stream) -> None:
    stream.start()
    stream.data(reasoning("Let me"), reasoning("Let me think"))
    stream.over(CUT)


def stuttering_ended(stream: Stream) -> None:
    normal_hold_began(stream)
    stream.data(DONE)


def recovering_joined(stream: Stream) -> None:
    stream.failed()
    stream.start()
    stream.data(content("Hello"))


def recovering_attempt_failed(stream: Stream) -> None:
    stream.failed()
    stream.failed()


def recovering_gave_up(stream: Stream) -> None:
    stream.failed()
    stream.exhausted()


SCRIPTS: dict[tuple[str, str], Callable[[Stream], None]] = {
    ("StateInitial", "FirstOutput"): initial_first_output,
    ("StateInitial", "HoldBegan"): initial_hold_began,
    ("StateInitial", "AttemptFailed"): initial_attempt_failed,
    ("StateInitial", "Ended"): initial_ended,
    ("StateNormalFlow", "HoldBegan"): normal_hold_began,
    ("StateNormalFlow", "AttemptFailed"): normal_attempt_failed,
    ("StateNormalFlow", "Ended"): normal_ended,
    ("StateStuttering", "HoldResolved"): stuttering_hold_resolved,
    ("StateStuttering", "AttemptFailed"): stuttering_attempt_failed,
    ("StateStuttering", "Ended"): stuttering_ended,
    ("StateRecovering", "Joined"): recovering_joined,
    ("StateRecovering", "AttemptFailed"): recovering_attempt_failed,
    ("StateRecovering", "GaveUp"): recovering_gave_up,
}
ROWS = {(state.__name__, event.__name__): type(after).__name__ for state, row in TRANSITIONS.items() for event, after in row.items()}


def test_every_row_of_the_table_has_its_script() -> None:
    assert set(SCRIPTS) == set(ROWS)


@pytest.mark.parametrize(("state", "event"), SCRIPTS, ids=lambda name: name)
def test_upstream_bytes_drive_the_row(state: str, event: str) -> None:
    stream = Stream()
    SCRIPTS[state, event](stream)
    assert stream.tally.transitions[state, event, ROWS[state, event]] > 0
    assert type(stream.machine.state).__name__ in {after for before, after in ROWS.items() if before == (state, event)}


# ---- the plain way ------------------------------------------------------------------------------------------------------


def test_a_clean_stream_leaves_as_it_came_under_the_first_events_head() -> None:
    stream = Stream()
    stream.start()
    assert stream.data(role()).head == Head("a", 1, ((b"x-from", b"a"),))
    stream.data(content("He"), content("llo"), finish())
    usage = event(usage={"completion_tokens": 2})
    stream.data(usage, DONE)
    assert stream.written == role() + content("He") + content("llo") + finish() + usage + DONE
    assert stream.end == Complete()
    assert stream.orders == [Finish(None)]
    assert stream.machine.output_sent is Weight.OUTPUT
    assert stream.tally.events == 5


def test_a_first_token_leaves_in_the_call_that_brought_it() -> None:
    stream = Stream()
    stream.start(1.0)
    assert stream.data(content("Hello"), now=2.5).frames == [content("Hello")]
    assert stream.tally.first_token == stream.tally.head_sent == 2.5


def test_a_repeat_is_repaired_and_counted() -> None:
    stream = Stream()
    stream.start()
    texts = ["The capital", "The capital of Norway", "The capital of Norway is", "The capital of Norway is Oslo, a city by the fjord."]
    for number, text in enumerate(texts):
        stream.data(content(text), now=number * 0.1)
    stream.data(finish(), DONE, now=0.5)
    assert stream.text() == texts[-1]
    assert sum(stream.tally.repairs.values()) == 3
    assert stream.tally.holds > 0
    assert 0 < stream.tally.longest_hold <= 0.4


def test_what_is_held_when_a_new_completion_begins_is_not_lost() -> None:
    stream = Stream()
    stream.start()
    stream.data(content("Hello", id="c1"), finish(id="c1"), content("Hello", id="c1"), now=1.0)
    assert stream.machine.deadline == math.inf, "the next turn of a finished choice is compared with nothing before it"
    stream.data(content("Hello", id="c1"), now=1.0)
    assert stream.machine.deadline == pytest.approx(1.4)
    stream.data(content("Hello", id="c2"), now=1.1)
    stream.wake(1.4)
    assert stream.text() == "Hello" * 4


# ---- the honest end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [None, CUT], ids=["clean", "reset"])
def test_a_finished_answer_without_done_gets_one(ending: Fault | None) -> None:
    stream = Stream()
    stream.start()
    stream.data(content("Hello"), finish())
    effects = stream.over(ending)
    assert effects.frames == [DONE_FRAME]
    assert effects.order == Finish(None)  # whatever broke after the answer was whole, the upstream did its work
    assert effects.end == Complete()
    assert stream.tally.done_added


@pytest.mark.parametrize(("ending", "kind"), [(None, FaultKind.TRUNCATED), (CUT, FaultKind.DISCONNECTED)], ids=["clean", "reset"])
def test_an_unfinished_answer_is_an_error(ending: Fault | None, kind: FaultKind) -> None:
    stream = Stream()
    stream.start()
    stream.data(content("Hello"))
    effects = stream.over(ending)
    assert stream.failure.kind is kind
    assert effects.frames == []
    assert effects.order == Finish(stream.failure)
    assert not stream.tally.done_added


def test_done_ends_a_stream_even_without_a_finish_reason() -> None:
    stream = Stream()
    stream.start()
    assert stream.data(content("Hello"), DONE).end == Complete()


def test_done_is_repeated_as_it_came() -> None:
    stream = Stream()
    stream.start()
    stream.data(content("Hello"), b"data:[DONE]\r\n\r\n")
    assert stream.written.endswith(b"data:[DONE]\r\n\r\n")


def test_nothing_leaves_after_done() -> None:
    stream = Stream()
    stream.start()
    stream.data(content("Hello"), DONE, content("more"), DONE)
    stream.data(content("and more"))
    stream.over(CUT)
    assert stream.written == content("Hello") + DONE
    assert stream.orders == [Finish(None)]


def test_every_choice_asked_for_has_to_finish() -> None:
    for finished, expected in (((0,), False), ((0, 1), True)):
        stream = Stream(StreamPolicy(choices=2))
        stream.start()
        stream.data(event(choice(0, content="a")), *(finish(index=index) for index in finished))
        stream.over()
        assert isinstance(stream.end, Complete) == expected


def test_every_choice_seen_has_to_finish() -> None:
    stream = Stream()
    stream.start()
    stream.data(event(choice(0, content="a")), event(choice(1, content="b")), finish(index=0))
    stream.over()
    assert stream.failure.kind is FaultKind.TRUNCATED


def test_after_a_finish_a_new_id_begins_a_new_completion() -> None:
    stream = Stream()
    stream.start()
    stream.data(content("one", id="c1"), finish(id="c1"), content("two", id="c2"))
    assert stream.text() == "onetwo"
    stream.over()
    assert stream.failure.kind is FaultKind.TRUNCATED  # the second one is cut


def test_a_usage_chunk_under_another_id_begins_no_completion() -> None:
    stream = Stream()
    stream.start()
    stream.data(content("one", id="c1"), finish(id="c1"), event(id="c2", usage={"completion_tokens": 1}))
    stream.over()
    assert stream.end == Complete()


def test_an_unterminated_tail_counts_only_at_a_clean_end() -> None:
    for ending, complete in ((None, True), (CUT, False)):
        stream = Stream()
        stream.start()
        stream.data(content("Hello"), DONE.rstrip())
        stream.over(ending)
        assert isinstance(stream.end, Complete) == complete


# ---- orders, and what comes after them ------------------------------------------------------------------------------------


def test_an_error_inside_the_stream_orders_at_once_and_the_rest_of_its_attempt_is_discarded() -> None:
    error = b'data: {"error": {"message": "overloaded", "code": 503}}\n\n'
    stream = Stream()
    stream.start()
    effects = stream.data(role(), error, content("never"))
    assert isinstance(effects.order, Resume)
    assert (effects.order.fault.kind, effects.order.fault.status, effects.order.replay) == (FaultKind.IN_BAND_ERROR, 503, False)
    assert stream.data(content("never"), DONE) == Effects()
    assert stream.over(CUT) == Effects()
    stream.start(upstream="b")
    stream.data(role(), content("Hello"), finish(), DONE)
    assert stream.text() == "Hello"
    assert stream.end == Complete()
    assert len(stream.orders) == 2


def test_an_error_after_output_is_the_end() -> None:
    stream = Stream()
    stream.start()
    effects = stream.data(content("Hello"), b'error: {"code": 500, "message": "kv cache is full"}\n\n', DONE)
    assert stream.written == content("Hello")
    assert isinstance(effects.order, Finish)
    assert "kv cache is full" in stream.failure.message


def test_what_was_held_leaves_before_the_error() -> None:
    stream = Stream()
    stream.start()
    stream.data(content("Hello"), content("Hello"), now=1.0)
    assert stream.written == content("Hello")
    stream.over(CUT, now=1.1)
    assert stream.written == content("Hello") * 2
    assert stream.failure == CUT


def test_a_torn_chunk_fails_its_attempt_and_a_harmless_one_is_skipped() -> None:
    stream = Stream()
    stream.start()
    stream.data(content("Hello"), b"data: ping\n\n", content(" world"))
    assert (stream.text(), stream.tally.skipped) == ("Hello world", 1)
    stream.data(b'data: {"choices":[{"delta":{"content":"torn\n\n', content("!"))
    assert stream.failure.kind is FaultKind.BAD_CHUNK
    assert stream.text() == "Hello world"


def test_skipping_a_torn_chunk_is_opt_in() -> None:
    stream = Stream(StreamPolicy(skip_bad_chunks=True))
    stream.start()
    stream.data(content("Hello"), b'data: {"choices":[{"delta":{"content":"torn\n\n', content("!"), DONE)
    assert stream.text() == "Hello!"
    assert stream.tally.skipped == 1
    assert stream.end == Complete()


def test_an_event_beyond_the_limit_is_never_skipped() -> None:
    parser = ChunkParser(max_event=200)
    stream = Stream(StreamPolicy(skip_bad_chunks=True))
    stream.start()
    stream.machine.receive([*parser.feed(content("Hello")), *parser.feed(content("x" * 300))], 0.0)
    assert stream.failure.kind is FaultKind.EVENT_TOO_LARGE

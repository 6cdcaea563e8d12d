"""What may be tried to take up an answer, and what an upstream is then asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as hs

from actors import RequestFacts, read_request, strategies_for
from actors.sansio.chunks import Field
from actors.sansio.resume_plan import ResumePlan, ResumeStrategy, continue_answer, cut_before_anchor, units

if TYPE_CHECKING:
    from actors.sansio.resume_plan import Continuation, ResumeMode

PREFIX, ALIGN = ResumeStrategy.PREFIX, ResumeStrategy.ALIGN
MESSAGES = [{"role": "user", "content": "Tell me of the mill."}]
TEXT = "The river bends twice before it reaches the mill, and each bend keeps a little of the morning."


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": MESSAGES, "stream": True, **fields}).encode()


# ---- what a request allows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "fields", "expected"),
    [
        ("off", {"temperature": 0, "seed": 1}, set()),
        ("prefix", {}, {PREFIX}),
        ("prefix", {"temperature": 0}, {PREFIX, ALIGN}),
        ("prefix", {"temperature": 0.0}, {PREFIX, ALIGN}),
        ("prefix", {"temperature": False}, {PREFIX}),
        ("prefix", {"temperature": 0.1}, {PREFIX}),
        ("prefix", {"seed": 7}, {PREFIX, ALIGN}),
        ("prefix", {"seed": None}, {PREFIX}),
        ("align", {}, {PREFIX, ALIGN}),
        ("align", {"n": 2}, set()),
        ("align", {"response_format": {"type": "json_object"}}, set()),
        ("align", {"response_format": {"type": "text"}}, {PREFIX, ALIGN}),
        ("align", {"response_format": None}, {PREFIX, ALIGN}),
        ("align", {"guided_json": {"type": "object"}}, set()),
        ("align", {"grammar": "root ::= x"}, set()),
        ("align", {"tools": [{"type": "function"}]}, {PREFIX, ALIGN}),
    ],
)
def test_what_a_request_allows(mode: ResumeMode, fields: dict[str, Any], expected: set[ResumeStrategy]) -> None:
    assert strategies_for(mode, read_request(body(**fields)), continuable=True) == expected


def test_where_nobody_can_continue_only_asking_again_is_left() -> None:
    assert strategies_for("prefix", RequestFacts("m", True, 1), continuable=False) == set()
    assert strategies_for("align", RequestFacts("m", True, 1), continuable=False) == {ALIGN}


# ---- the anchor -------------------------------------------------------------------------------------------------------


def test_the_anchor_is_the_shortest_run_of_whole_words() -> None:
    cut = cut_before_anchor(TEXT)
    assert cut is not None
    assert TEXT[cut:] == " a little of the morning."


@pytest.mark.parametrize("text", ["", "short", "x" * 24, "\U0001f30a" * 12, "=" * 200, " ha" * 40])
def test_no_anchor_where_it_would_prove_nothing(text: str) -> None:
    assert cut_before_anchor(text) is None


def test_blanks_in_a_row_go_into_the_anchor_and_characters_stay_whole() -> None:
    spaced = "x" * 10 + "  " + "y" * 23
    assert cut_before_anchor(spaced) == 10
    waves = units("a" + "\U0001f30a" * 30 + "x")
    cut = cut_before_anchor(waves)
    assert cut is not None
    assert waves[cut] == "\ud83c"


@given(hs.text(alphabet="ab \n\u6f22\U0001f30a", max_size=200))
def test_every_anchor_is_bounded_distinct_and_cuts_no_character(text: str) -> None:
    sent = units(text)
    cut = cut_before_anchor(sent)
    if cut is not None:
        assert sent[:cut].strip()
        assert 24 <= len(sent) - cut <= 65
        assert not sent.startswith(sent[cut:])
        assert not "\udc00" <= sent[cut] <= "\udfff"
        bounds = range(max(1, len(sent) - 64), len(sent) - 23)
        borders = [at for at in bounds if sent[at].isspace() and not sent[at - 1].isspace()]
        assert cut in borders or not borders


def test_texts_compare_however_a_character_was_cut() -> None:
    assert units("a\U0001f30ab") == "a\ud83c\udf0ab" == units("a\ud83c") + units("\udf0ab")
    assert json.loads(json.dumps(units("\U0001f30a"))) == "\U0001f30a"


# ---- the request ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("continuation", "message", "more"),
    [
        ("partial", {"partial": True}, {}),
        ("prefix", {"prefix": True}, {}),
        ("continue_final_message", {}, {"continue_final_message": True, "add_generation_prompt": False}),
    ],
)
def test_the_request_carries_the_beginning_of_its_answer_and_is_else_the_same(
    continuation: Continuation, message: dict[str, Any], more: dict[str, Any]
) -> None:
    request = b'{ "model":"m", "temperature": 0.70, "messages" : [{"role":"user","content":"]}"} ] , "x":1e2 } \n'
    continued = continue_answer(request, 'he said "no"', continuation)
    assert continued is not None
    expected = {"role": "assistant", "content": 'he said "no"', **message}
    assert json.loads(continued) == {**json.loads(request), "messages": [{"role": "user", "content": "]}"}, expected], **more}
    assert b'"temperature": 0.70' in continued
    assert b'"x":1e2' in continued


def test_of_several_lists_of_messages_the_last_one_counts() -> None:
    continued = continue_answer(b'{"messages":[],"model":"m","messages":[{"role":"user"}]}', "so", "partial")
    assert continued is not None
    assert continued.startswith(b'{"messages":[],"model"')
    assert len(json.loads(continued)["messages"]) == 2


@pytest.mark.parametrize("messages", [None, [], "hello", ["hello"], [{"role": "user"}, {"role": "assistant", "content": "I"}]])
def test_an_answer_that_the_client_began_is_not_begun_twice(messages: object) -> None:
    assert continue_answer(body(messages=messages), "so", "prefix") is None


def plan(*strategies: ResumeStrategy, **sent: str) -> ResumePlan:
    return ResumePlan({Field(name): text for name, text in sent.items()}, frozenset(strategies))


def test_each_upstream_is_asked_as_it_can_answer() -> None:
    both = plan(PREFIX, ALIGN, content=TEXT, reasoning_content="Hm.")
    asked = both.request(body(), "partial", refused=False)
    assert asked is not None
    assert asked.strategy is PREFIX
    begun = json.loads(asked.body)["messages"][-1]["content"]
    assert TEXT.startswith(begun)
    assert 24 <= len(TEXT) - len(begun) <= 64
    for continuation, refused in (("none", False), ("partial", True)):
        again = both.request(body(), continuation, refused=refused)  # type: ignore[arg-type]
        assert again is not None
        assert (again.strategy, again.body) == (ALIGN, body())
    assert plan(PREFIX, content=TEXT).request(body(), "none", refused=False) is None
    assert plan(PREFIX, content=TEXT).request(body(), "partial", refused=True) is None


@pytest.mark.parametrize("sent", [{"content": "Too short."}, {"text": TEXT}, {"content": TEXT, "refusal": "No."}])
def test_what_cannot_be_continued_is_asked_for_again_at_most(sent: dict[str, str]) -> None:
    assert plan(PREFIX, **sent).request(body(), "prefix", refused=False) is None
    again = plan(PREFIX, ALIGN, **sent).request(body(), "prefix", refused=False)
    assert again is not None
    assert again.strategy is ALIGN

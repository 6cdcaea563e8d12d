"""The loop guard: what is a loop, and what only looks like one."""

from __future__ import annotations

import base64
import json
import random
import tracemalloc
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import FaultKind
from actors.sansio.chunks import Delta, Event, Field
from actors.sansio.faults import Verdict
from actors.sansio.loop_guard import BLOCK, Loop, LoopGuard, LoopPolicy

from ...stutter.texts import text_lanes

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT: Final = LoopPolicy()
PROSE: Final = (
    "The harbour lies in a bay that the ice never reaches. Fishermen built the first houses there four hundred years ago, of driftwood "
    "and stone, and the oldest of them still stands beside the slip. In winter the road over the pass is closed for weeks at a time; "
    "whatever the village needs comes by boat, twice a week if the wind allows it. Nobody complains. The school has eleven pupils, a "
    "piano and a view that visitors photograph. "
)
THOUGHT: Final = (
    "Wait, let me reconsider the problem. If the first train leaves at nine and the second one at ten, then the distance between them "
    "must be the speed of the first train. So the second one closes the gap in four hours. But that cannot be right, because the answer "
    "should be three.\n\n"
)
PAGE: Final = " ".join(random.Random(3).choices(PROSE.split(), k=560)) + "\n"
# Its own last characters stand in its middle, too, and each block ends at the same place of it: the first unit tried is a wrong one.
_ECHO: Final = "the distance between the two is the speed of the first train; and so the second train closes the gap in four hours. So: ? "
ECHO: Final = f"First, {_ECHO}Then {_ECHO}"


def watch(
    text: str | Iterable[str], *, policy: LoopPolicy = DEFAULT, size: int = 4, field: Field = Field.CONTENT, choice: int = 0
) -> Loop | None:
    """The guard's verdict over a text, cut into deltas of `size` characters unless it comes in deltas."""
    deltas = (text[at : at + size] for at in range(0, len(text), size)) if isinstance(text, str) else text
    guard = LoopGuard(policy)
    return next((loop for delta in deltas if (loop := guard.observe(one(delta, field, choice))) is not None), None)


def one(text: str, field: Field = Field.CONTENT, choice: int = 0) -> Event:
    return Event(b"", b"", (Delta(choice, field, text),))


def mixed(lines: list[str], count: int, seed: int = 7) -> str:
    chance = random.Random(seed)
    return "".join(chance.choice(lines) + "\n" for _ in range(count))


# ---- loops --------------------------------------------------------------------------------------------------------------

LOOPS: Final = {
    "one word": "The " * 1000,
    "one word without blanks": "ha" * 2000,
    "one letter": "o" * 5000,
    "one phrase": "I am not able to do that, " * 100,
    "a paragraph of thoughts": THOUGHT * 14,
    "a whole page, longer than half the window": PAGE * 12,
    "a paragraph that contains its own end twice": "It is so, and so on, and so on. Then it is not, and so on. " * 60,
    "after a long and sensible beginning": "".join(f"{PROSE}({n}) " for n in range(20)) + "the the " * 400,
    "one Chinese character": "的" * 4000,
    "a Chinese sentence": "让我再想一想这个问题。" * 300,
    "a Burmese sentence, with more marks than letters": "ကျွန်တော် ပြန်စဉ်းစားပါမယ်။ " * 120,
    "a Hindi sentence": "मुझे इस पर फिर से सोचना चाहिए। " * 120,
    "one line": "Let me check the file again.\n" * 120,
    "a few lines in no order": mixed(
        ["I should check the file once more.", "Actually, I should first read the tests again.", "Let me think."], 150
    ),
    "a few lines with blank ones between": mixed(["I should check the file once more.\n", "Let me look at the whole error again.\n"], 150),
    "after a code block": "Here it is:\n```python\nprint('hello')\n```\n" + "I hope this helps! " * 120,
    "after a table": "| a | b |\n|---|---|\n| 1 | 2 |\n\n" + "I hope this helps! " * 120,
    "around code blocks that were never closed by their like": "~~~\n```\n~~~\n" + "I hope this helps! " * 120,
    "zeros without end": "The result is 0." + "0" * 30_000,
    "exclamation marks without end": "!" * 30_000,
    "rows without end": '{"id": 1, "name": "user"},\n' * 2000,
    "after data that did not suffice": "0, " * 1000 + "I hope this helps! " * 200,
    "a list without end": "- check the file\n- read the tests\n" * 1200,
}


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("field", [Field.CONTENT, Field.REASONING_CONTENT, Field.REASONING, Field.REFUSAL, Field.TEXT])
def test_a_loop_is_found_in_every_text_lane(name: str, field: Field) -> None:
    loop = watch(LOOPS[name], field=field, choice=3)
    assert loop is not None
    assert (loop.field, loop.choice) == (field, 3)
    assert loop.unit.strip() in LOOPS[name]
    assert loop.times >= 8


@pytest.mark.parametrize(
    "unit",
    ["The ", "o", "Let me think about it once more. ", ECHO, THOUGHT.replace("\n\n", " "), "让我再想一想这个问题。"],
)
@pytest.mark.parametrize("before", [0, 100, 3000])
def test_a_loop_is_found_soon_after_it_is_one(unit: str, before: int) -> None:
    prologue = (PROSE * 10)[:before] + "\n"
    assert BLOCK % len(ECHO) == 0
    loop = watch(prologue + unit * (20_000 // len(unit)))
    assert loop is not None
    soonest = max(DEFAULT.characters, DEFAULT.repetitions * len(unit))
    assert soonest <= loop.position - len(prologue) + len(unit) <= soonest + 2 * len(unit) + 2 * BLOCK
    assert (loop.length, loop.lines) == (len(unit), False)


def test_a_verdict_says_how_much_but_not_what() -> None:
    loop = watch("I hope this helps! " * 200)
    assert loop is not None
    assert str(loop) == f"the model repeats itself: the same 19 characters {loop.times} times in content"
    assert loop.comment == f": evenflow: {loop}\n\n".encode()
    fault = loop.fault("main")
    assert (fault.kind, fault.http_status, fault.code, fault.verdict) == (FaultKind.LOOP, 502, "repetition_loop", Verdict.SUCCESS)
    assert (fault.upstream, fault.setting) == ("main", "loop_guard.action")
    assert "hope" not in fault.message


def test_the_thresholds_are_the_policys() -> None:
    text = "I hope this helps! " * 40
    assert watch(text) is None
    assert watch(text, policy=LoopPolicy(characters=400)) is not None
    assert watch(text, policy=LoopPolicy(characters=400, repetitions=50)) is None
    assert watch(PROSE * 30) is not None
    assert watch(PROSE * 30, policy=LoopPolicy(window=1024)) is not None
    assert watch((PROSE + PROSE[::-1]) * 30, policy=LoopPolicy(window=1024)) is None  # the unit does not fit


@pytest.mark.parametrize("field", [Field.TOOL_ARGUMENTS, Field.FUNCTION_ARGUMENTS])
def test_arguments_are_nobodys_prose(field: Field) -> None:
    assert watch("I hope this helps! " * 5000, field=field) is None


def test_each_lane_is_read_by_itself() -> None:
    lanes = [(number, field) for number in range(3) for field in (Field.CONTENT, Field.REASONING)]
    guard = LoopGuard(DEFAULT)
    verdicts = [
        guard.observe(Event(b"", b"", tuple(Delta(c, f, "ha " if (c, f) == (1, Field.CONTENT) else f"{n * 7919} ") for c, f in lanes)))
        for n in range(2000)
    ]
    loop = next(verdict for verdict in verdicts if verdict is not None)
    assert (loop.choice, loop.field) == (1, Field.CONTENT)


# ---- what only looks like one -------------------------------------------------------------------------------------------

CHORUS: Final = "Row, row, row your boat,\nGently down the stream.\nMerrily, merrily, merrily, merrily,\nLife is but a dream.\n\n"
VERSES: Final = [PROSE[at : at + 120].replace(". ", ".\n") + "\n\n" for at in range(0, 480, 40)]
ZEROS: Final = base64.b64encode(bytes(9000)).decode()
NOISE: Final = base64.b64encode(random.Random(1).randbytes(6000)).decode()
DUMP: Final = [f"{at:08x}  {' '.join(['00'] * 8)}  {' '.join(['00'] * 8)}  |{'.' * 16}|\n" for at in range(0, 8000, 16)]
ROWS: Final = [{"id": 0, "name": "user", "active": True}] * 250

NOT_LOOPS: Final = {
    "prose": "".join(f"{PROSE}Chapter {n}. " for n in range(30)),
    "a song with its chorus": "".join(verse + CHORUS for verse in VERSES),
    "a refrain at the end of a song": PROSE * 2 + "All we are saying is give peace a chance\n" * 20,
    "ninety-nine bottles": "".join(
        f"{n} bottles of beer on the wall, {n} bottles of beer. Take one down and pass it around.\n" for n in range(99, 0, -1)
    ),
    "a line that was asked for a hundred times": "hello\n" * 100,
    "laughter": "ha" * 500,
    "base64 of zeros": ZEROS,
    "base64 in lines": "\n".join(ZEROS[at : at + 76] for at in range(0, len(ZEROS), 76)),
    "base64 of noise": NOISE,
    "base64 of a pattern": base64.b64encode(b"foo" * 4000).decode(),
    "a hex dump": "".join(DUMP),
    "hex without addresses": "ff " * 5000,
    "numbers": "0, " * 5000,
    "a JSON array of equal rows": json.dumps(ROWS),
    "the same, printed": json.dumps(ROWS, indent=2),
    "JSON lines": "".join(json.dumps(row) + "\n" for row in ROWS),
    "a CSV of equal rows": "name,active,role,city\n" + "user,true,admin,Bergen\n" * 50,
    "a Markdown table": "| name | state |\n|------|-------|\n" + "| user | waiting for approval |\n" * 2000,
    "a table with a wall of dashes": f"| a | b |\n|{'-' * 9000}|{'-' * 9000}|{'-' * 9000}|\n| 1 | 2 |\n",
    "rules of characters": ("=" * 80 + "\n") * 100,
    "rules of box characters": ("━" * 80 + "\n") * 100,
    "stars": "★" * 3000,
    "blank lines": "\n" * 10_000,
    "an SVG path": '<path d="M0 0' + " l5 5 l5 -5" * 800 + ' z"/>',
    "style sheets": ".a { margin: 0; padding: 0 }\n" * 300,
    "a log": "".join(
        f"2026-11-22T10:{n // 60 % 60:02}:{n % 60:02}Z INFO worker handled the request in {n * 37 % 91} ms\n" for n in range(600)
    ),
    "a log without times": mixed(["INFO [worker] request done", "INFO [worker] request begun", "DEBUG [pool] connection reused"], 300),
    "code in a block": "Here:\n\n```python\n" + "print('I hope this helps everybody')\n" * 900 + "```\nDone.\n",
    "code in a block of tildes with backticks in it": "~~~~ md\n```\n~~~\n" + "I hope this helps! " * 900,
    "code in a nested block": "````markdown\n```python\n" + "x = 1\n" * 30 + "```\n" + "I hope this helps! " * 900 + "\n````\n",
    "code in a block that shows how one begins": "```\n```python\n" + "I hope this helps! " * 900 + "\n```\n",
    "code in a block inside a list": "1. So:\n\n    ```sh\n" + "    echo I hope this helps everybody\n" * 900 + "    ```\n",
    "code in a block inside a quotation": "> ```\n" + "> I hope this helps everybody who reads it\n" * 900,
    "a list of equal items": "- the item is not available\n" * 500,
    "a numbered list": "1. the item is not available\n" * 500,
    "headings and dividers": "## Nothing to report today\n\nAll was quiet on the western front.\n\n---\n\n" * 100,
    "labels, one a line": mixed(["positive", "negative", "neutral"], 600),
    "long labels": mixed(["Strongly agree", "Agree", "Neither agree nor disagree", "Disagree", "Strongly disagree"], 400),
    "equal labels": "Neutral\n" * 1000,
    "a column of equal values": "    None,\n" * 600,
    "tool results told one after the other": "".join(f"The file part{n}.txt was written without any error.\n" for n in range(400)),
}


@pytest.mark.parametrize("name", NOT_LOOPS)
def test_what_only_looks_like_a_loop_is_none(name: str) -> None:
    assert [watch(NOT_LOOPS[name], size=size) for size in (1, 5, 4000)] == [None] * 3


def test_what_stands_apart_is_not_put_together() -> None:
    block = "```\ncode\n```\n"
    table = "| a | b |\n"
    for between in (block, table):
        assert watch((("I hope this helps! " * 30 + "\n") + between) * 200) is None


LANES: Final = text_lanes(least=1, most=1_000_000)


@pytest.mark.skipif(not LANES, reason="no recorded streams are here")
def test_no_recorded_stream_is_a_loop_nor_all_of_them_together() -> None:
    for name, deltas in LANES:
        assert (name, watch(deltas)) == (name, None)
    assert watch(delta for _, deltas in LANES for delta in deltas) is None


# ---- what is always true ------------------------------------------------------------------------------------------------

PIECES: Final = st.sampled_from(
    ["The ", "ha", "\n", "```\n", "~~~", "``", "`", "| a |\n", "- item\n", "让我想想。", "0", PROSE, "I should check the file once more.\n"]
)
TEXTS: Final = st.lists(st.tuples(PIECES, st.sampled_from([1, 1, 2, 30, 700])), min_size=1, max_size=6).map(
    lambda parts: "".join(piece * (times if len(piece) < 100 else min(times, 12)) for piece, times in parts)
)


@given(text=TEXTS, seed=st.integers(0, 1000), most=st.sampled_from([1, 3, 40, 5000]))
@settings(max_examples=150, deadline=None)
def test_the_verdict_does_not_depend_on_how_a_text_is_split(text: str, seed: int, most: int) -> None:
    chance, deltas, at = random.Random(seed), [], 0
    while at < len(text):
        length = chance.randint(1, most)
        deltas.append(text[at : at + length])
        at += length
    assert watch(deltas) == watch([text])


@given(words=st.lists(st.text("ghnorstuw", min_size=2, max_size=9), min_size=2, max_size=30), before=st.integers(0, 3000))
@settings(max_examples=100, deadline=None)
def test_any_words_repeated_long_enough_are_found(words: list[str], before: int) -> None:
    unit = " ".join(words) + " "
    found = watch([(PROSE * 8)[:before] + "\n", unit * (6000 // len(unit) + 12)])
    assert found is not None
    assert len(unit) % found.length == 0 or found.length < len(unit)


@given(seed=st.integers(0, 10_000), vocabulary=st.integers(40, 4000))
@settings(max_examples=60, deadline=None)
def test_words_in_no_order_are_no_loop(seed: int, vocabulary: int) -> None:
    chance = random.Random(seed)
    words = ["".join(chance.choices("bdeghnorstuw", k=chance.randint(2, 9))) for _ in range(vocabulary)]
    assert watch(["".join(f"{chance.choice(words)}{chance.choice([' ', ' ', ' ', chr(10)])}" for _ in range(3000))]) is None


@pytest.mark.parametrize("text", [PROSE, "x", "```\n" + "code " * 50, "| cell " * 50, " " * 300, "a line\n" * 3 + "```"])
def test_memory_is_bounded_however_long_a_stream_is(text: str) -> None:
    guard = LoopGuard(LoopPolicy(repetitions=10**9))  # never a verdict
    guard.observe(one(text))
    tracemalloc.start()
    try:
        for _ in range(2_000_000 // len(text) if len(text) > 100 else 5000):
            guard.observe(one(text))
        current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert current < 4 * DEFAULT.window
    assert peak < 16 * DEFAULT.window


def test_memory_is_bounded_however_many_lanes_there_are() -> None:
    guard = LoopGuard(DEFAULT)
    tracemalloc.start()
    try:
        for number in range(3000):
            guard.observe(one("x" * (BLOCK - 1), choice=number))
        current, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert current < 300 * BLOCK

"""Several lanes, choices, completions in one body, and what stands around them."""

from __future__ import annotations

from typing import Final

from .stream import Event, Negative, Part


def said(joined: str, lane: str = "content", choice: int = 0, id: str | None = None) -> tuple[Event, ...]:
    return tuple(Event((Part(one, lane, choice),), id=id) for one in joined.split("|"))


def mirrored(joined: str, *lanes: str) -> tuple[Event, ...]:
    """Every delta in all of the lanes, in one event."""
    return tuple(Event(tuple(Part(one, lane) for lane in lanes)) for one in joined.split("|"))


def choices(joined: str, count: int) -> tuple[Event, ...]:
    """The same text from several choices, one event each, in turn."""
    return tuple(Event((Part(one, choice=choice),)) for one in joined.split("|") for choice in range(count))


def finished(reason: str = "stop", id: str | None = None, choice: int = 0, usage: int | None = None) -> Event:
    return Event((Part("", choice=choice),), finish=reason, id=id, usage=usage)


def started(id: str | None = None) -> Event:
    return Event((Part(""),), id=id)


_IDS: Final = ("constant", "usage null", "dashscope", "role always", "nulls", "usage zero")
_BOLD: Final = ("**", "Eco", "Vista", " Day", "**")
_WEATHER: Final = "Let| me| check| the| weather| there|."

LANES: Final[tuple[Negative, ...]] = (
    Negative(
        "reasoning mirrored in two fields",
        "mirrored lanes",
        mirrored("The| user| is| user", "reasoning", "reasoning_content"),
        "kimi-code 3928",
    ),
    Negative(
        "reasoning mirrored in two events",
        "mirrored lanes",
        (*said("Hm", "reasoning"), *said("Hm", "reasoning_content"), *said(" so", "reasoning"), *said(" so", "reasoning_content")),
        "LightLLM 1345",
    ),
    Negative(
        "reasoning mirrored, equal neighbours",
        "mirrored lanes",
        mirrored("no|no|,| no| no", "reasoning", "reasoning_content"),
        "LightLLM 1345",
    ),
    Negative(
        "reasoning mirrored, then the answer alike",
        "mirrored lanes",
        (*mirrored("It| is| 4", "reasoning", "reasoning_content"), *said("It| is| 4")),
    ),
    Negative("answer equal to the reasoning", "mirrored lanes", (*said("It| rains|.", "reasoning_content"), *said("It| rains|."))),
    Negative(
        "answer equal to the reasoning, in one chunk",
        "size outlier",
        (*said("It| rains| all| the| time| in| Bergen|.", "reasoning"), *said("It rains all the time in Bergen.")),
    ),
    Negative(
        "answer and reasoning in turn",
        "equal to the delta before last",
        tuple(Event((Part(one, lane),)) for one in ["a", "b", "a", "b"] for lane in ("reasoning", "content")),
    ),
    Negative(
        "content beside each reasoning", "equal neighbour", tuple(Event((Part("x", "reasoning"), Part(one))) for one in ["a", "a", "b"])
    ),
    Negative(
        "reasoning that begins again",
        "restart without marker",
        said("Okay|,| so| let| me| think|.\n|Okay|,| so| let| me| see|.", "reasoning_content"),
    ),
    Negative("reasoning, wait, wait", "equal neighbour", said("Wait|.| Wait|.| Wait|,| no|.| Wait|.", "reasoning")),
    Negative("refusal begins like the answer", "mirrored lanes", (*said("I'm| sorry"), *said("I'm| sorry|,| no", "refusal"))),
    Negative("refusal with a word twice", "equal neighbour", said("I| can't|,| can't| do| that| that", "refusal")),
    Negative("legacy text with runs", "equal neighbour", said("\n|\n|1|1|1|,| 1|1", "text")),
    Negative("legacy text that begins again", "restart without marker", said("Q|:| a|?\n|A|:| b|\n|Q|:| a|?\n", "text")),
    Negative("three choices, equal, with runs", "other choice alike", choices("ha|ha|!", 3)),
    Negative(
        "two choices in one event, equal",
        "other choice alike",
        tuple(Event((Part(one), Part(one, choice=1))) for one in ["It", " was", " was", " it"]),
    ),
    Negative(
        "two choices in one event, the second behind",
        "other choice alike",
        tuple(Event((Part(a), Part(b, choice=1))) for a, b in (("I", "x"), ("I'll", "I"), ("go", "I'll"))),
    ),
    Negative(
        "choices in turn, the second a word behind",
        "other choice alike",
        tuple(Event((Part(one, choice=choice),)) for choice, one in ((0, "a"), (1, "b"), (0, "b"), (1, "a"), (0, "a"), (1, "b"))),
    ),
    Negative(
        "one choice in two entries of an event",
        "fragments sharing an index",
        (*said("Well|,| then"), Event((Part(" ha"), Part(" ha")), split=True), *said(" he|.")),
    ),
    Negative(
        "one choice in two entries, first of all",
        "fragments sharing an index",
        (Event((Part("so"), Part("so")), split=True), *said(" it| goes")),
    ),
    Negative(
        "one choice in two entries that extend", "fragments sharing an index", (Event((Part("a"), Part("ab")), split=True), *said("c|abc"))
    ),
    Negative(
        "legacy choices with equal text",
        "other choice alike",
        tuple(Event((Part(one, "text"), Part(one, "text", choice=1))) for one in ["x", "x", " y"]),
    ),
    # -- several completions and finishes
    Negative(
        "two completions in a body, begun alike",
        "second completion",
        (
            started("a"),
            *said("The| tool| says| 4|.", id="a"),
            finished(id="a"),
            started("b"),
            *said("The| tool| says| 5|.", id="b"),
            finished(id="b"),
        ),
        "cerebras two completions in a body",
        styles=_IDS,
        bare=True,
    ),
    Negative(
        "two completions in a body, the same reasoning",
        "second completion",
        (
            started("a"),
            *said("The| user| asks|.", "reasoning", id="a"),
            finished("tool_calls", id="a"),
            started("b"),
            *said("The| user| asks|.", "reasoning", id="b"),
            *said("4", id="b"),
            finished(id="b"),
        ),
        "cerebras two completions in a body",
        styles=_IDS,
        bare=True,
    ),
    Negative(
        "two completions, the second in one chunk",
        "second completion",
        (started("a"), *said(_WEATHER, id="a"), finished(id="a"), *said("Let me check the weather there.", id="b"), finished(id="b")),
        styles=_IDS,
        bare=True,
    ),
    Negative(
        "next turn under the same id, begun alike in one chunk",
        "cumulative from offset 0",
        (started(), *said(_WEATHER), finished("tool_calls"), *said("Let me check the weather there. It is sunny.| Bye"), finished()),
        bare=True,
    ),
    Negative(
        "next turn under the same id, in tokens",
        "restart without marker",
        (started(), *said(_WEATHER), finished("tool_calls"), started(), *said(_WEATHER + "| Sunny"), finished()),
        bare=True,
    ),
    Negative(
        "next turn under the same id, the same call without ids",
        "args after complete JSON",
        (
            Event((Part('{"a":1}', "tool", name="f"),)),
            finished("tool_calls"),
            Event((Part('{"a":1}', "tool", name="f"),)),
            finished("tool_calls"),
        ),
        bare=True,
    ),
    Negative(
        "next turn under another id, the same call without ids",
        "args after complete JSON",
        (
            Event((Part('{"a":1}', "tool", name="f"),), id="a"),
            finished("tool_calls", id="a"),
            Event((Part('{"a":1}', "tool", name="f"),), id="b"),
            finished("tool_calls", id="b"),
        ),
        bare=True,
        styles=_IDS,
    ),
    Negative(
        "finish_reason empty in every event",
        "second finish chunk",
        (*(Event((Part(one),), finish="") for one in ("so", "so", " it", " so")), finished()),
        bare=True,
    ),
    Negative(
        "second finish with the usage",
        "second finish chunk",
        (started(), *said("Any| other| information|!"), finished(), finished(usage=86)),
        "OpenRouter second finish chunks",
        bare=True,
    ),
    Negative(
        "second finish with the usage, after calls",
        "second finish chunk",
        (Event((Part('{"a":2}', "tool", call="c1", name="add"),)), finished("tool_calls"), finished("tool_calls", usage=76)),
        "OpenRouter second finish chunks",
        bare=True,
    ),
    Negative("a finish for each choice", "second finish chunk", (*choices("Yes|.", 2), finished(), finished(choice=1)), bare=True),
    Negative("finish in the last text's event", "second finish chunk", (*said("no| no"), Event((Part(" no"),), finish="stop")), bare=True),
    Negative("text after the finish", "second finish chunk", (*said("Yes|."), finished(), *said("."), *said(" Yes|.")), bare=True),
    Negative(
        "finish, then usage without choices",
        "second finish chunk",
        (*said("so|,| so"), finished(), Event(usage=7, choices=False), Event(usage=7, choices=False)),
        bare=True,
    ),
    # -- what stands around
    Negative(
        "delta and the message so far",
        "cumulative from offset 0",
        tuple(Event((Part(one),), usage=3 + place, message="".join(_BOLD[: place + 1])) for place, one in enumerate(_BOLD)),
        "Perplexity delta plus message",
    ),
    Negative(
        "a comment between two equal deltas", "equal neighbour", (*said("ha"), Event((Part("ha"),), comment="keep-alive"), *said("ha| ha"))
    ),
    Negative(
        "an event without choices between two equal deltas",
        "equal neighbour",
        (*said("ha"), Event(choices=False, extra=(("note", "x"),)), *said("ha|!")),
    ),
    Negative("the role again and the text alike", "role again", (*said("So| it| goes|."), started(), *said("So| it| went|."))),
    Negative(
        "reasoning between two equal deltas",
        "equal neighbour",
        (*said("ha"), *said("hm", "reasoning"), *said("ha"), *said("hm", "reasoning"), *said("!")),
    ),
    Negative(
        "a call between two texts alike",
        "restart without marker",
        (*said("Let| me| look|."), Event((Part('{"a":1}', "tool", call="c1", name="f"),)), *said("Let| me| look|."), *said(" Done")),
    ),
    Negative("empty content at the end", "empty delta is a prefix", (*said("a|b"), Event((Part(""),)), *said("a|b"), Event((Part(""),)))),
    Negative(
        "empty content beside each reasoning",
        "empty delta is a prefix",
        tuple(Event((Part(""), Part(one, "reasoning"))) for one in ["so", "so", " it"]),
    ),
)

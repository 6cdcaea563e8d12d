"""Tool calls: arguments, names, ids, indexes."""

from __future__ import annotations

from typing import Final

from .stream import Event, Negative, Part, arguments


def opened(call: str, index: int = 0, said: str = "", name: str = "f") -> Event:
    """The first fragment of a call: its id and name, usually with empty arguments."""
    return Event((Part(said, "tool", index=index, call=call, name=name),))


def more(*said: str, index: int = 0) -> Event:
    return Event(tuple(Part(one, "tool", index=index) for one in said))


def function(*said: str) -> tuple[Event, ...]:
    return tuple(Event((Part(one, "function", name="f" if not place else None),)) for place, one in enumerate(said))


_ARGS: Final = '{"city":"Paris"}'

TOOLS: Final[tuple[Negative, ...]] = (
    arguments("nested zeros", "equal to the delta before last", '{"a": [', "0", ", ", "0", ", ", "0", "]}"),
    arguments("laughter in a string", "equal neighbour", '{"t":"ha', "ha", "ha", 'ha"}'),
    arguments("laughter grows in a string", "prefix extension", '{"t":"', "ha", "haha", "ha", '"}'),
    arguments("braces in a string", "head of the arguments", '{"code":"{', "{", "}", '}"}'),
    arguments("blanks between", "equal neighbour", '{"a":', " ", " ", "1", " ", " ", "}"),
    arguments("blank lines after the end", "args after complete JSON", '{"a":1}', "\n", "\n"),
    arguments("blank in front of everything", "args after complete JSON", " ", " ", '{"a":1}'),
    arguments("escaped quotes", "equal neighbour", '{"q":"\\"', '\\"', '\\"', '"}'),
    arguments("closing braces together, then one", "head of the delta before", '{"a":{"b":{"c":1', "}}", "}"),
    arguments("brackets opened one by one", "head sent twice", "[", "[", "1", "]", ",", "[", "1", "]", "]"),
    arguments("brackets opened in twos", "cumulative from offset 0", "[", "[[", "1", "]]", "]"),
    arguments("a key that extends the one before", "prefix extension", '{"a', '":1,"', "a", "ab", '":2}'),
    arguments("a string that begins like the document", "cumulative from offset 0", '{"x":"{\\"x\\":', '{\\"x\\":', '1}}"}'),
    arguments("array of rows in fragments", "equal to the delta before last", '[{"', "a", '":', "1", '},{"', "a", '":', "1", "}]"),
    arguments("array of pairs", "doubled deltas", "[", "1,", "1,", "2,", "2,", "3,", "3]"),
    arguments("a patch that repeats its context", "restart without marker", '{"p":"', "-a\\n", "+b\\n", " c\\n", "-a\\n", "+b\\n", '"}'),
    arguments("an escape cut in two", "equal to the delta before last", '{"t":"', "\\", "n", "\\", "n", "\\", "n", '"}'),
    arguments("numbers that go on", "prefix extension", '{"n":[1', ",", "10", ",", "100", "]}"),
    arguments("a path and its parents", "overlap", '{"p":"', "/a", "/b", "/a/b", "/a", '"}'),
    arguments("two objects under one index", "args after complete JSON", '{"q":"a"}', '{"q":"b"}', report="open-webui 22235"),
    arguments(
        "two objects under one index, in fragments", "args after complete JSON", '{"q":', '"a"}', '{"q":', '"b"}', report="open-webui 22235"
    ),
    arguments("three objects, the first a head of the third", "args after complete JSON", '{"q":1}', '{"p":1}', '{"q":1', "0}"),
    arguments("text, no JSON", "doubled deltas", "ls -l\n", "ls -l\n", "pwd\n", "ls"),
    arguments("a patch, no JSON", "equal to the delta before last", "*** ", "Begin", "\n", "*** ", "End", "\n", "*** "),
    # -- calls
    Negative(
        "identical calls, next index",
        "identical consecutive calls",
        (opened("c1"), more(_ARGS), opened("c2", 1), more(_ARGS, index=1)),
        "identical consecutive tool calls",
    ),
    Negative(
        "identical calls, whole, next index",
        "identical consecutive calls",
        (opened("c1", 0, _ARGS), opened("c2", 1, _ARGS), opened("c3", 2, _ARGS)),
        "llama_index 22465",
    ),
    Negative(
        "identical calls in one event",
        "identical consecutive calls",
        (Event((Part(_ARGS, "tool", index=0, call="c1", name="f"), Part(_ARGS, "tool", index=1, call="c2", name="f"))),),
        "llama_index 23032",
    ),
    Negative("identical calls without arguments", "identical consecutive calls", (opened("c1", 0, "{}"), opened("c2", 1, "{}"))),
    Negative(
        "identical calls, fragments in turn",
        "identical consecutive calls",
        (opened("c1"), opened("c2", 1), more('{"a"'), more('{"a"', index=1), more(":1}"), more(":1}", index=1)),
    ),
    Negative(
        "identical calls, text between",
        "identical consecutive calls",
        (opened("c1", 0, _ARGS), Event((Part("Again."),)), opened("c2", 1, _ARGS)),
    ),
    Negative(
        "index reused by a new id, whole arguments", "tool index reuse", (opened("c1", 0, _ARGS), opened("c2", 0, _ARGS)), "ihub-apps 1954"
    ),
    Negative(
        "index reused by a new id, same arguments after it",
        "tool index reuse",
        (opened("c1"), more(_ARGS), opened("c2"), more(_ARGS)),
        "ihub-apps 1954",
    ),
    Negative(
        "index reused, same arguments in fragments",
        "tool index reuse",
        (opened("c1"), more('{"a":'), more("1}"), opened("c2"), more('{"a":'), more("1}")),
    ),
    Negative("index reused, the second call empty", "tool index reuse", (opened("c1"), more(_ARGS), opened("c2"), more("{}"))),
    Negative(
        "index reused while the first is open", "tool index reuse", (opened("c1"), more('{"a":'), opened("c2"), more('{"a":'), more("2}"))
    ),
    Negative("two fragments in one event, one index", "fragments sharing an index", (opened("c1"), more('{"a', '":1}')), "ai-dynamo 15054"),
    Negative(
        "two equal fragments in one event, one index",
        "fragments sharing an index",
        (opened("c1"), more('{"t":"'), more("ha", "ha"), more(" ha", '"}')),
        "MaplePrivacyLabs 657",
    ),
    Negative(
        "name and arguments in two entries of one index",
        "fragments sharing an index",
        (Event((Part("", "tool", call="c1", name="f"), Part('{"a":', "tool"), Part("1}", "tool"))),),
        "openai-python 3241",
    ),
    Negative(
        "equal digits in entries of one index",
        "fragments sharing an index",
        (opened("c1"), more('{"n":', "1", "1"), more("1", "1", "}")),
        "openai-python 3425",
    ),
    Negative(
        "three entries, one index, the last extends",
        "fragments sharing an index",
        (opened("c1"), more('{"t":"'), more("a", "ab", "abc"), more('"}')),
    ),
    Negative(
        "two entries of two indexes, equal",
        "identical consecutive calls",
        (opened("c1"), opened("c2", 1), Event((Part(_ARGS, "tool", index=0), Part(_ARGS, "tool", index=1)))),
    ),
    Negative(
        "name in two fragments", "name set once", (opened("c1", name="get_"), Event((Part("", "tool", name="weather"),)), more(_ARGS))
    ),
    Negative(
        "two calls of one name",
        "name repeated",
        (opened("c1", name="get"), more('{"id":1}'), opened("c2", 1, name="get"), more('{"id":2}', index=1)),
    ),
    Negative(
        "no id at all, two indexes",
        "identical consecutive calls",
        (Event((Part(_ARGS, "tool", name="f"),)), Event((Part(_ARGS, "tool", index=1, name="f"),))),
    ),
    Negative("legacy function call, zeros", "equal to the delta before last", function('{"a":[', "0", ",", "0", ",", "0", "]}")),
    Negative("legacy function call, braces", "equal neighbour", function('{"a":{"b":1', "}", "}")),
    Negative("legacy function call, laughter", "equal neighbour", function('{"t":"', "ha", "ha", '"}')),
    Negative(
        "another function with the same arguments, no ids, as Gemini sends",
        "args after complete JSON",
        (Event((Part(_ARGS, "tool", call="", name="get_time"),)), Event((Part(_ARGS, "tool", call="", name="get_weather"),))),
    ),
    Negative(
        "another function, no ids, arguments after it",
        "args after complete JSON",
        (Event((Part("", "tool", name="get_time"),)), more(_ARGS), Event((Part("", "tool", name="get_weather"),)), more(_ARGS)),
    ),
    Negative(
        "two calls in one event with one index and two ids",
        "tool index reuse",
        (Event((Part(_ARGS, "tool", call="c1", name="f"), Part(_ARGS, "tool", call="c2", name="f"))),),
    ),
    Negative(
        "one id for two indexes",
        "identical consecutive calls",
        (opened("f"), more('{"a":'), more("1}"), opened("f", 1), more('{"a":', index=1), more("1}", index=1)),
    ),
    Negative(
        "another id in every fragment",
        "tool index reuse",
        (opened("c1", 0, '{"t":"'), *(Event((Part(one, "tool", call=f"c{n}"),)) for n, one in enumerate(("ha", "ha", '"}'), 2))),
    ),
    Negative(
        "id empty in every later fragment, as Kimi sends",
        "id set once",
        (opened("c1"), *(Event((Part(one, "tool", call=""),)) for one in ('{"t":"', "ha", "ha", " ha", '"}'))),
    ),
    Negative("arguments equal to the text before", "mirrored lanes", (Event((Part(_ARGS),)), opened("c1"), more(_ARGS))),
    Negative(
        "arguments in fragments, equal to the text's",
        "mirrored lanes",
        (Event((Part("Paris"),)), opened("c1"), more('{"city":"'), more("Paris"), more('"}')),
    ),
    arguments("args nested opens", "equal neighbour", '{"a":', '{"a":', '{"a":', '{"a":', "1", "}", "}", "}", "}"),
    arguments("args code repeated", "doubled deltas", '{"code":"', "x=1\\n", "x=1\\n", "y=1\\n", "y=1\\n", "z=1\\n", "z=1\\n", '"}'),
    arguments("args numbers", "doubled deltas", '{"n":[', "11", ",", "11", ",", "22", ",", "22", ",", "3", "3", "]}"),
    arguments("args words doubled in text", "doubled deltas", '{"t":"', "the", "the", " cat", "cat", " sat", "sat", '"}'),
    arguments("args blanks after", "complete", '{"a":1}', " ", "\n", " "),
)

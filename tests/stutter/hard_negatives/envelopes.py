"""Envelopes that seem to prove a repeat, or a restart, and do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .stream import Event, Negative, Part

if TYPE_CHECKING:
    from collections.abc import Sequence

_AS_WRITTEN: Final = ("constant",)
_HEAD: Final = ("finish_reason", "logprobs", "delta", "index")
_REST: Final = ("delta", "finish_reason", "index", "logprobs")


def ids(*spans: tuple[str, str]) -> tuple[Event, ...]:
    return tuple(Event((Part(one),), id=name) for name, joined in spans for one in joined.split("|"))


def counted(joined: str, *counts: int) -> tuple[Event, ...]:
    """completion_tokens of each delta."""
    return tuple(Event((Part(one),), usage=count) for one, count in zip(joined.split("|"), counts, strict=True))


def tagged(joined: str, field: str, *values: str) -> tuple[Event, ...]:
    """A further top-level field; the last value is every later event's."""
    deltas = joined.split("|")
    filled = [*values, *[values[-1]] * (len(deltas) - len(values))]
    return tuple(Event((Part(one),), extra=((field, value),)) for one, value in zip(deltas, filled, strict=True))


def rated(joined: str, *numbers: float) -> tuple[Event, ...]:
    """The log-probability of each delta; the last number is every later one's."""
    deltas = joined.split("|")
    filled = [*numbers, *[numbers[-1]] * (len(deltas) - len(numbers))]
    return tuple(Event((Part(one),), logprobs=(number,)) for one, number in zip(deltas, filled, strict=True))


def ordered(joined: str, *orders: Sequence[str]) -> tuple[Event, ...]:
    return tuple(Event((Part(one),), keys=tuple(order)) for one, order in zip(joined.split("|"), orders, strict=True))


def made(name: str, rule: str, events: tuple[Event, ...], report: str = "") -> Negative:
    return Negative(name, rule, events, report, styles=_AS_WRITTEN)


_DAY: Final = "It| was| a| very| very| long| long| day"
_STAMP: Final = "2026-11-02T10:00:00."

ENVELOPES: Final[tuple[Negative, ...]] = (
    # -- ids
    Negative(
        "ids rotate, words repeat",
        "id change",
        ids(*((f"r{n}-{n * 7919:x}", one) for n, one in enumerate(["so", "so", " it", " goes", "so", "so"]))),
        "github-copilot id rotation",
        styles=("constant", "dashscope", "nulls", "usage null"),
    ),
    made(
        "ids rotate in threes, a refrain",
        "id change",
        ids(("a", "Row|,| row"), ("b", ",| row|\n"), ("c", "Row|,| row"), ("d", "|!")),
        "github-copilot id rotation",
    ),
    made(
        "ids rotate in fours, a refrain at a border",
        "restart marker",
        ids(
            ("a", "Row|,| row|,"),
            ("b", " row| your| boat|\n"),
            ("c", "Gently| down| the| stream\n"),
            ("d", "Row|,| row|,"),
            ("e", " row| your| raft|\n"),
        ),
    ),
    made(
        "ids rotate in fours, the first verse again",
        "restart marker",
        ids(
            ("a", "Let| it| be|,"),
            ("b", " let| it| be|\n"),
            ("c", "Whisper| words| of|\n"),
            ("d", "Let| it| be|,"),
            ("e", " let| it| be|."),
            ("f", " The| end"),
        ),
    ),
    made("id changes once, the text goes on", "restart marker", ids(("a", "Once| upon| a"), ("b", " time| upon| a| hill"))),
    made("id changes once, a word comes again", "restart marker", ids(("a", "very| good"), ("b", " very| good| very"))),
    made(
        "next step under a new id, begun alike",
        "restart marker",
        ids(("a", "Let| me| look| at| a.py|."), ("b", "Let| me| look| at| b.py|.")),
    ),
    made(
        "next step under a new id, a beginning of the first",
        "restart marker",
        ids(("a", "Let| me| look| at| a.py|."), ("b", "Let| me| look")),
    ),
    made("next step under a new id, its first word alike", "restart marker", ids(("a", "Now| the| tests|."), ("b", "Now| it| runs|."))),
    made(
        "next step under a new id, in one chunk",
        "restart marker",
        ids(("a", "I| will| read| the| file|."), ("b", "I will read the other file.| Done")),
    ),
    made("empty id first, as Azure sends", "id change", ids(("", "Hi"), ("a", "Hi|!| Hi"))),
    made("id empty in every second event", "id change", ids(("a", "x"), ("", "x"), ("a", "y"), ("", "x"), ("a", "x"))),
    made("two ids in turn", "id change", ids(("a", "la|la"), ("b", " la|la"), ("a", " la"), ("b", " la"))),
    # -- usage
    made("usage counts each event's own tokens", "usage stuck", counted("Well then|,| never say| never say| again", 3, 1, 2, 2, 1)),
    made("usage counts each event's own tokens, one each", "usage stuck", counted("ha|ha|ha|!| no", 1, 1, 1, 1, 1)),
    made("usage counts own tokens, first one and then twos", "usage stuck", counted("No|, never|, never|!", 1, 2, 2, 1)),
    made("usage stands at zero, then counts", "usage stuck", counted("Bye|Bye| now|!", 0, 0, 3, 4)),
    made("usage stands at zero for long, then counts", "usage stuck", counted("ha|!| ha|!| ha|!", 0, 0, 0, 0, 5, 6)),
    made("usage of every third event", "usage stuck", counted("so| it| so| so| it| so| so", 3, 3, 3, 6, 6, 6, 7)),
    made("usage stands at its last value", "usage stuck", counted("very| good|,| very| good|,| good| good", 9, 9, 9, 9, 9, 9, 9, 9)),
    made("usage falls with a second count", "usage stuck", counted("a| b| b| c| c", 5, 6, 1, 2, 3)),
    made(
        "usage rises over two equal paragraphs",
        "head sent twice",
        counted(
            "A sentence that is said twice, whole, in one chunk. |A sentence that is said twice, whole, in one chunk. |End", 11, 22, 23
        ),
    ),
    Negative(
        "usage rises once for two choices",
        "usage stuck",
        tuple(
            Event((Part(one, choice=choice),), usage=count)
            for one, choice, count in (("a", 0, 1), ("a", 1, 1), (" b", 0, 2), (" b", 1, 2), (" b", 0, 3), (" b", 1, 3))
        ),
        styles=_AS_WRITTEN,
    ),
    # -- nonces
    made("obfuscation left empty", "nonce equal", tagged(_DAY, "obfuscation", "")),
    made("obfuscation left empty, head alike", "nonce equal", tagged("Bye|Bye|!", "obfuscation", "")),
    made("obfuscation scrubbed to one value", "nonce equal", tagged(_DAY + "|,| day", "obfuscation", "redacted-redacted")),
    made(
        "padding of one letter by chance, once",
        "nonce equal",
        tagged("It| was| very| very| good| indeed", "p", "abc", "abcdefgh", "abcd", "abcd", "a", "abcdefghij"),
    ),
    # Mistral is no Qwen portal: under that profile's prior, two equal heads and an equal padding would be enough.
    Negative(
        "padding of the same length by chance at the head",
        "nonce equal",
        tagged("so|so| it| goes", "p", "abcdefg", "abcdefg", "ab", "abcde"),
        styles=_AS_WRITTEN,
        profiles=("generic", "dashscope"),
    ),
    made("request id in every event", "nonce equal", tagged(_DAY + "| off", "request_id", "req-0123456789abcdef")),
    made(
        "fingerprint that changes now and then",
        "nonce equal",
        tagged(
            "It| really| is| a| very| very| good| day",
            "system_fingerprint",
            "fp_aaaaaaaa",
            "fp_aaaaaaaa",
            "fp_bbbbbbbb",
            "fp_cccccccc",
            "fp_dddddddd",
        ),
    ),
    made(
        "a clock of milliseconds under another name",
        "nonce equal",
        tagged(_DAY, "ts", *(f"{_STAMP}{ms:03}Z" for ms in (1, 24, 51, 70, 70, 91, 111, 130))),
    ),
    made(
        "a clock of seconds as text",
        "nonce equal",
        tagged("on| and| on| and| on| on", "sent", *(f"{_STAMP}000Z",) * 3, "2026-11-02T10:00:01.000Z"),
    ),
    made(
        "a field that differs per event, words repeat",
        "nonce differs",
        tagged("ha|ha|ha|!|ha|!", "trace", *(f"{n * 2654435761 % 2**32:08x}{n}" for n in range(1, 7))),
    ),
    # -- log-probabilities
    made("log-probabilities without a value", "logprobs equal", rated(_DAY, -9999.0)),
    made("log-probabilities all zero", "logprobs equal", rated(_DAY + "|.", 0.0)),
    made("log-probabilities rounded", "logprobs equal", rated(_DAY + "| off", -0.51, -0.02, -0.33, -0.01, -0.01, -0.2, -0.01, -0.4, -0.4)),
    made(
        "log-probabilities of a certain model",
        "logprobs equal",
        rated("6|6|6|6| and| 6|6", -0.0004, -0.0001, -0.0001, -0.0001, -0.7, -0.0002, -0.0001),
    ),
    made("log-probabilities differ on each repeat", "logprobs differ", rated("no| no| no|no|no", -0.5, -0.25, -0.125, -0.75, -1.5)),
    # -- key order
    made("keys in DashScope's first order throughout", "serialiser turn", ordered("so|so| it| goes| so", *[_HEAD] * 5)),
    made("keys turn once, at the second text", "serialiser turn", ordered("**|**|The| Weight", _HEAD, _REST, _REST, _REST)),
    made("keys turn late, between other texts", "serialiser turn", ordered("a| b| b| c", _HEAD, _HEAD, _HEAD, _REST)),
    made("keys turn back and forth", "serialiser turn", ordered("la|di|la|la|di", _HEAD, _REST, _HEAD, _HEAD, _REST)),
    made(
        "keys sorted, then not",
        "serialiser turn",
        ordered("ha|ha| he", ("delta", "finish_reason", "index", "logprobs"), ("index", "delta"), ("index", "delta")),
    ),
)

"""The cases every client meets, and the verdict on what its user got, judged by the simulator's record and the client's output."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote

from server.simulator import Ending, Scenario, ScenarioStep
from server.simulator.scripts import PARAGRAPH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.simulator import Seen

    from .client import Client, Place, Said

#: What the upstream answers where nothing else is said; what the user must have been shown, to the letter.
RIGHT: Final = PARAGRAPH
#: Case, and the simulator's model that answers in it. The order is that of the table; the fault that counts against the upstream is last.
CASES: Final = {
    "chat": "ok",
    "tools": "tools",
    "stutter": "stutter-b2:envelope=dashscope",
    "comments": "slow-first-token:seconds=1",
    "disconnect": "endless:pace=20",
    "error": "truncated:after=20",
}
#: Seconds from the moment a client leaves to the upstream's seeing it. The promise is milliseconds; a process has to notice Ctrl-C first.
_SEEN_WITHIN: Final = 1.0

Kind = Literal["ok", "own", "off", "none"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One verdict.

    Args:
      kind: `ok`; `own`: not so, by the client's own doing, which is known; `off`: not as promised; `none`: not run or not there.
      note: in a few words, "" if there is nothing to say.
    """

    kind: Kind
    note: str = ""

    def __str__(self) -> str:
        match self.kind:
            case "ok":
                return f"ok, {self.note}" if self.note else "ok"
            case "off":
                return f"OFF: {self.note}"
            case _:
                return self.note


@dataclass(frozen=True, slots=True)
class Left:
    """How a client left: when it was told to for the last time (`time.monotonic_ns`), and how often; the third time was SIGKILL."""

    at_ns: int
    times: int = 1


def scenario(client: Client, place: Place) -> Scenario:
    """What the upstream answers: the case's own model, whatever else a client asks for beside it (titles, summaries) a good text."""
    answer = CASES[place.case]
    steps = [ScenarioStep(answer, place.case)]
    if place.case == "tools" and client.call is not None:
        name, arguments = client.call
        filled = arguments.replace("{home}", str(place.home))
        # Once: an agent that is answered with a call again and again never ends.
        steps = [ScenarioStep(f"tools:name={name},arguments={quote(filled)}", place.case, times=1)]
    return Scenario((*steps, ScenarioStep("ok")))


def judge(client: Client, place: Place, said: Said, seen: Sequence[Seen], left: Left | None) -> Cell:
    """The verdict on one case.

    Args:
      seen: the requests that the simulator saw, oldest first.
    """
    cell = _verdict(client, place, said, [one for one in seen if one.model == place.case], left)
    known = client.own.get(place.case)
    return Cell("own", cell.note) if cell.kind == "off" and known is not None and known in cell.note else cell


def _verdict(client: Client, place: Place, said: Said, seen: Sequence[Seen], left: Left | None) -> Cell:
    if not seen:
        return Cell("off", f"asked nothing; {said.error or 'no error'}")
    match place.case:
        case "disconnect":
            return _left(seen, left)
        case "error":
            return _told(said, len(seen))
        case "tools":
            return _called(client, place, said)
        case _:
            return _right(said)


def _right(said: Said) -> Cell:
    if said.error:
        return Cell("off", f"error {said.error}")
    if said.text != RIGHT:
        return Cell("off", f"another text: {len(said.text)} characters for {len(RIGHT)}, {said.text[:40]!r}...")
    return Cell("ok")


def _called(client: Client, place: Place, said: Said) -> Cell:
    if client.call is None:
        return Cell("none", "has none")
    name, arguments = client.call
    wanted = (name, json.loads(arguments.replace("{home}", str(place.home))))
    called = [(name, _parsed(arguments)) for name, arguments in said.calls]
    if said.error or called != [wanted]:
        return Cell("off", f"calls {called}{said.error and ', error '}{said.error}")
    return _right(said) if client.carries_on else Cell("ok")


def _told(said: Said, asked: int) -> Cell:
    """Told as an error, in words that say which, and the text kept; how often the client asked is its own affair and told."""
    again = f"asked {asked} times" if asked > 1 else ""
    if not said.error:
        return Cell("off", " ".join(("NOT TOLD as an error,", f"{len(said.text)} characters shown", again)).strip())
    if "upstream_truncated" not in said.error and "incomplete" not in said.error:
        return Cell("off", f"told {said.error!r}, which does not say what happened {again}".strip())
    # A program that asks again shows what came each time: the same beginning, once or as often as it asked.
    shown = said.text[: len(said.text) // asked] if said.text == said.text[: len(said.text) // asked] * asked else said.text
    if not shown or shown == RIGHT or not RIGHT.startswith(shown):
        return Cell("off", f"told, but the text is not kept: {said.text[:40]!r} {again}".strip())
    return Cell("ok", again)


def _left(seen: Sequence[Seen], left: Left | None) -> Cell:
    if left is None:
        return Cell("off", "did not leave")
    (last,) = seen[-1:]
    if last.ending is not Ending.CLIENT_CLOSED or last.ended_ns is None:
        return Cell("off", "the upstream was not told")
    seconds = (last.ended_ns - left.at_ns) / 1e9
    note = f"{seconds * 1000:.0f} ms"
    if left.times == 3:
        return Cell("off", "only SIGKILL ended it")
    if left.times == 2:
        note += " after the second Ctrl-C"
    return Cell("ok" if seconds <= _SEEN_WITHIN else "off", note)


def _parsed(arguments: str) -> object:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments

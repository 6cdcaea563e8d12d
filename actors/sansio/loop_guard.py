"""Notices that a model repeats itself endlessly. Never edits text; says what it saw, once per attempt.

Not stutter: these are tokens the model really made, so nothing may be removed (STUTTER section 2, L1). Owns what counts as such a
loop. Refuses to know what follows from it: the stream machine counts it, warns of it or ends the stream, as the policy says.

Theory of operation
-------------------
Each text lane (never tool arguments) is read in blocks of BLOCK characters, wherever its deltas were split, so that the verdict
falls at the same character for every chunking. Of the text only a window is kept. After each block one of two rules may speak:

    period   the last characters repeat one unit: at least `repetitions` times, over at least `characters` characters. Only the
             window is searched for the unit, but a run that goes on is counted on without bound.
    lines    the last 2 x `characters` characters hold at most LINES distinct lines, one of them, no label, LINE_TIMES times.

Fenced code blocks and table rows are not looked at, and what stood before them is forgotten. What does not read as prose (data,
rules, lists, headings) repeats for good reasons; it needs DATA_FACTOR times as many characters, and the rule of lines leaves it
alone. Even so, a repetition that was asked for ("print this line 500 times") cannot be told from one that was not: no text says
what was meant. So the default action is to observe.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from .chunks import Field
from .faults import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .chunks import Delta, Event

#: Characters between two looks. A look takes some 8 us: 0.1 us per delta of six characters (measured over the recorded streams).
BLOCK: Final = 512
#: What does not read as prose needs so many times the characters: 19,200 by default, more than the rows and zeros people ask for. Guessed.
DATA_FACTOR: Final = 16
#: The lines rule as hermes-agent issue 78551 has it: at most 6 distinct lines, one of them at least 8 times ...
LINES: Final = 6
LINE_TIMES: Final = 8
#: ... but not if it is short: a batch of items classified as "negative" is no loop. The longest common label (Likert scales) has 26.
_LINE_LENGTH: Final = 30
#: A unit is found by the last characters recurring in the window. Guessed: fewer would be tried in vain more often, which costs time only.
_TAIL: Final = 32
#: Recurrences that are tried as the unit's length: a unit may hold its own last characters several times.
_TRIES: Final = 8
#: Of each line its first characters are kept, to know fences and tables.
_HEAD: Final = 80
#: An upstream that invents choices must not fill the memory: further lanes are not looked at.
_LANES: Final = 64
#: Shown of a unit.
_SHOWN: Final = 200

_UNGUARDED: Final = frozenset({Field.FUNCTION_ARGUMENTS, Field.TOOL_ARGUMENTS})

_FENCE: Final = re.compile(r"(`{3,})[^`]*|(~{3,}).*", re.DOTALL)
_DATA: Final = re.compile(r"[{}\[\]<>|\\=]")
_STRUCTURE: Final = re.compile(r"\n[ \t]*(?:[-*+>•]\s|#{1,6}\s|\d{1,9}[.)]\s|[-_*~]{3})")
_BEYOND_HEX: Final = re.compile(r"[^\W\d_a-fA-F]")
_WORDS: Final = re.compile(r"\S +\S")


@dataclass(frozen=True, slots=True)
class LoopPolicy:
    """What counts as a loop and what follows. Origin of the numbers: STUTTER section 3 (hermes-agent, gemini-cli).

    Args:
      action: "off" does not look, "observe" counts, "warn" also tells the client in a comment, "cut" ends the stream with an error.
      window: characters of a lane that are kept; the longest unit that can be found is BLOCK shorter.
      repetitions: of one unit, one after the other, at least.
      characters: that they fill at least.
    """

    action: Literal["off", "observe", "warn", "cut"] = "observe"
    window: int = 4096
    repetitions: int = 10
    characters: int = 1200


@dataclass(frozen=True, slots=True)
class Loop:
    """A lane repeats itself.

    Args:
      choice, field: the lane.
      position: characters of the lane up to which it was read.
      unit: what is repeated, cut for display; model output, so nothing for a log.
      length: characters of the whole unit.
      times: how often it stands there, one after the other.
      lines: found by the rule of lines: `unit` is the commonest of a few lines, and not each follows itself.
    """

    choice: int
    field: Field
    position: int
    unit: str
    length: int
    times: int
    lines: bool

    def __str__(self) -> str:
        what = "a few lines again and again" if self.lines else "itself"
        return f"the model repeats {what}: the same {self.length} characters {self.times} times in {self.field}"

    @property
    def comment(self) -> bytes:
        """The comment line that tells a client."""
        return f": evenflow: {self}\n\n".encode()

    def fault(self, upstream: str) -> Fault:
        """The fault that ends a stream for it."""
        return Fault(FaultKind.LOOP, f"upstream '{upstream}': {self}; cut here", upstream=upstream, setting="loop_guard.action")


class LoopGuard:
    """Watches the text of one attempt as it leaves.

    Args:
      policy: what counts as a loop; its `action` is the caller's business.
    """

    def __init__(self, policy: LoopPolicy) -> None:
        self.policy = policy
        self._lanes: dict[tuple[int, Field], _Lane | None] = {}
        # The lane of the last delta: most streams have one at a time.
        self._choice, self._field = -1, Field.CONTENT
        self._lane: _Lane | None = None

    def observe(self, event: Event, texts: Mapping[int, str] | None = None) -> Loop | None:
        """Reads what an event adds.

        Args:
          texts: what was sent instead of a delta's own text, by its place in the event.

        Returns:
          The loop that ends in this event. A guard that has found one is to be asked no more.
        """
        deltas = event.deltas
        if texts:
            deltas = tuple(
                msgspec.structs.replace(delta, text=texts[place]) if place in texts else delta for place, delta in enumerate(deltas)
            )
        for delta in deltas:
            if delta.field is not self._field or delta.choice != self._choice:
                self._turn_to(delta)
            lane = self._lane
            if lane is None:
                continue
            text = delta.text
            lane.unread.append(text)
            lane.size += len(text)
            if lane.size >= BLOCK and (loop := lane.read(delta)) is not None:
                return loop
        return None

    def _turn_to(self, delta: Delta) -> None:
        key = self._choice, self._field = delta.choice, delta.field
        if key not in self._lanes and len(self._lanes) < _LANES:
            self._lanes[key] = None if delta.field in _UNGUARDED else _Lane(self.policy)
        self._lane = self._lanes.get(key)


class _Lane:
    """One lane's window and the run that it ends with.

    Attributes:
      unread: text that came since the last look.
      size: characters of it.
    """

    __slots__ = ("_fence", "_head", "_needed", "_period", "_policy", "_position", "_run", "_window", "size", "unread")

    def __init__(self, policy: LoopPolicy) -> None:
        self._policy = policy
        self.unread: list[str] = []
        self.size = 0
        self._position = 0
        self._window = ""
        self._head = ""  # how the unfinished line begins
        self._fence = ""  # the marker of the open code block
        self._period = 0  # length of the unit that the window ends with, 0 if it does not end with repetitions
        self._run = 0  # characters that the unit's repetitions fill
        self._needed = 0  # characters that they must fill to be a loop, 0 until it is asked

    def read(self, delta: Delta) -> Loop | None:
        """Looks at all whole blocks that are unread."""
        *before, text = self.unread  # what was left before is less than a block; the last one may have megabytes and is not copied
        rest, at = "".join(before), 0
        loop = None
        while loop is None and len(rest) + len(text) - at >= BLOCK:
            end = at + BLOCK - len(rest)
            added = self._take(rest + text[at:end])
            rest, at = "", end
            self._position += BLOCK
            if added:
                loop = self._find_period(delta, added) or self._find_lines(delta)
        self.unread = [text[at:]] if loop is None else []  # after one no more is read
        self.size = len(text) - at
        return loop

    # -- what is looked at ----------------------------------------------------------------------------------------------

    def _take(self, block: str) -> int:
        """Adds a block to the window. Returns: the characters at the window's end that are new to it."""
        probe = self._head + block
        plain = self._fence not in probe if self._fence else "|" not in probe and "```" not in probe and "~~~" not in probe
        if plain:
            line = block.rfind("\n") + 1
            self._head = (block[line:] if line else probe)[:_HEAD]
            if self._fence:
                return 0
            self._window = (self._window + block)[-self._policy.window :]
            return len(block)
        return self._take_lines(block)

    def _take_lines(self, block: str) -> int:
        """The same for a block in which a code block or a table may begin or end."""
        added = 0
        parts = block.split("\n")
        for place, part in enumerate(parts):
            ended = place < len(parts) - 1
            self._head = (self._head + part)[:_HEAD]
            line = self._head.strip(" \t\r>")
            if self._fence:
                if ended and line.startswith(self._fence) and not line.strip(self._fence[0]):
                    self._fence = ""
            elif line.startswith(("|", "```", "~~~")):
                added = self._forget()
                if ended and (marker := _FENCE.fullmatch(line)):
                    self._fence = marker[1] or marker[2]
            else:
                piece = part + "\n" if ended else part
                self._window += piece
                added += len(piece)
            if ended:
                self._head = ""
        self._window = self._window[-self._policy.window :]
        return added

    def _forget(self) -> int:
        self._window = ""
        self._period = self._run = 0
        return 0

    # -- the rules ------------------------------------------------------------------------------------------------------

    def _find_period(self, delta: Delta, added: int) -> Loop | None:
        window, period = self._window, self._period
        if period and period + added <= len(window) and window[-added:] == window[-added - period : -period]:
            self._run += added
        else:
            self._search()
        period = self._period
        if not period or self._run < max(self._policy.characters, period * self._policy.repetitions):
            return None
        if not self._needed:
            self._needed = self._policy.characters * (1 if reads_as_prose(window[-period:]) else DATA_FACTOR)
        if self._run < self._needed:
            return None
        return Loop(delta.choice, delta.field, self._position, window[-period:][:_SHOWN], period, self._run // period, lines=False)

    def _search(self) -> None:
        """Finds the unit that the window's end may repeat: of several, the one that reaches farthest back."""
        window, size = self._window, len(self._window)
        tail, end = window[-_TAIL:], size - 1
        self._period = self._run = self._needed = 0
        for _ in range(_TRIES):
            at = window.rfind(tail, 0, end)
            if at < 0:
                break
            shift = size - _TAIL - at
            run = _run_of(window, shift)
            if run > self._run:
                self._period, self._run = shift, run
            if 2 * run >= size:
                break
            end = at + _TAIL - 1

    def _find_lines(self, delta: Delta) -> Loop | None:
        span = min(2 * self._policy.characters, self._policy.window)
        if len(self._window) < span:
            return None
        text = self._window[-span:]
        if len(set(text.rsplit("\n", 2 * LINE_TIMES)[1:-1])) > LINES + 1:  # the blank line is one; this ends nearly every look
            return None
        lines = Counter(stripped for line in text.split("\n")[1:-1] if (stripped := line.strip()))
        if not 0 < len(lines) <= LINES:
            return None
        line, times = lines.most_common(1)[0]
        if times < LINE_TIMES or len(line) < _LINE_LENGTH or not reads_as_prose("\n" + "\n".join(lines)):
            return None
        return Loop(delta.choice, delta.field, self._position, line[:_SHOWN], len(line), times, lines=True)


def _run_of(text: str, shift: int) -> int:
    """How many of the last characters of `text` have the period `shift`. The last _TAIL are known to."""
    size = len(text)
    low, high = _TAIL, size - shift
    while low < high:
        middle = (low + high + 1) // 2
        if text[size - middle :] == text[size - middle - shift : size - shift]:
            low = middle
        else:
            high = middle - 1
    return low + shift


def reads_as_prose(unit: str) -> bool:
    """Whether text that is repeated is prose rather than data, a rule or a list. In doubt it is not: that only asks for more of it."""
    if _DATA.search(unit) or _STRUCTURE.search(unit * 2):  # twice: a line may begin at the unit's end
        return False
    solid = "".join(unit.split())
    letters = sum(unicodedata.category(character)[0] in "LM" for character in solid)
    if 2 * letters < len(solid) or not _BEYOND_HEX.search(solid):
        return False  # numbers, rules, hex dumps
    # One word, perhaps line by line: base64, labels, a column of `None,`; but "hahaha", and scripts that write no blanks.
    return _WORDS.search(unit * 2) is not None or not unit.isascii() or (unit.isalpha() and unit.islower())

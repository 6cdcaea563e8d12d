"""What was sent of an answer, and how a later attempt is laid over it: swallowed as far as it says the same, spliced behind it.

Text is compared lane by lane, not chunk by chunk: no two attempts cut their answers at the same places. At the first difference
the attempt is refused; nothing of it was sent by then. Refuses to know why an attempt is made and what it was asked.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from .chunks import Field, Weight
from .resume_plan import REASONING, ResumeStrategy, units
from .transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .chunks import Event
    from .resume_plan import ResumePlan

#: Characters kept of what was sent, per stream; a longer answer is not resumed. As in transcript.py: twice a model's longest answer.
KEPT: Final = 1 << 20

_LANES: Final = frozenset({Field.CONTENT, Field.TEXT, Field.REFUSAL}) | REASONING
#: What cannot be said twice: a tool call may be carried out already, and a signature fits its own answer alone. A quotation mark
#: inside a text is escaped, so a text that speaks of these does not match.
_UNREPEATABLE: Final = re.compile(
    rb'"(?:tool_calls"\s*+:\s*+\[\s*+[^\]\s]|function_call"\s*+:\s*+\{'
    rb'|(?:signature|thought_signature|encrypted_content)"\s*+:\s*+"[^"]|type"\s*+:\s*+"reasoning\.encrypted")'
)


def is_plain_text(event: Event) -> bool:
    """All that the event says is text of the first choice, which a second answer may say again."""
    if event.weight is Weight.NOTHING:
        return True
    if any(event.choices) or any(delta.field not in _LANES for delta in event.deltas):
        return False
    return bool(event.deltas or event.finished) and not _UNREPEATABLE.search(event.data)


class SentText:
    """The text that a client has of one answer, lane by lane, as long as a second answer may be laid over it."""

    def __init__(self) -> None:
        self._lanes: dict[Field, Transcript] | None = {}
        self._size = 0

    def note(self, event: Event, texts: Mapping[int, str] | None) -> None:
        """An event was sent.

        Args:
          texts: what it had instead of a delta's own text, by the delta's place in the event.
        """
        if self._lanes is None:
            return
        for number, delta in enumerate(event.deltas):
            text = units(delta.text if texts is None else texts.get(number, delta.text))
            self._lanes.setdefault(delta.field, Transcript()).append(text)
            self._size += len(text)
        if self._size > KEPT or not is_plain_text(event):
            self._lanes = None

    def lanes(self) -> dict[Field, str] | None:
        """The text by lane in UTF-16 units, None if no second answer may be laid over it."""
        return {field: lane.whole() for field, lane in self._lanes.items() if lane.length} if self._lanes is not None else None


class Splice:
    """Lays one attempt over what was sent.

    Args:
      expected: by lane, what the attempt may begin with. Of several readings (with the prefix said again, or without it) no two
        may agree for as long as the shortest of them.
      ignored: lanes whose text is swallowed unseen.

    Attributes:
      joined: everything was said again and something new followed; the attempt needs no more laying over.
      differs: it said something else; nothing of it may be used.
    """

    def __init__(self, expected: Mapping[Field, tuple[str, ...]], ignored: frozenset[Field] = frozenset()) -> None:
        self._readings = dict(expected)
        self._position = dict.fromkeys(expected, 0)
        self._ignored = ignored
        self.joined = False
        self.differs = False

    @classmethod
    def of(cls, plan: ResumePlan, strategy: ResumeStrategy) -> Splice:
        """The splice that an attempt of this strategy has to pass."""
        if strategy is ResumeStrategy.ALIGN:
            return cls({field: (text,) for field, text in plan.sent.items()})
        text = plan.sent[Field.CONTENT]
        # Mistral says the prefix again, DeepSeek, Moonshot and vLLM do not.
        return cls({Field.CONTENT: (text, text[plan.cut :])}, REASONING)

    @property
    def said_again(self) -> bool:
        """All that was sent has been said again."""
        return not self.differs and all(
            any(self._position[field] >= len(reading) for reading in readings) for field, readings in self._readings.items()
        )

    def lay(self, event: Event) -> dict[int, str] | None:
        """Take the attempt's next event.

        Returns:
          The texts with which it goes on, by the delta's place in the event, an absent one stays; None if nothing of it is new.
        """
        if self.differs or not is_plain_text(event):
            self.differs = True
            return None
        rests: dict[int, str] = {}
        is_new = bool(event.finished)
        for number, delta in enumerate(event.deltas):
            text = units(delta.text)
            rest = "" if delta.field in self._ignored else self._rest(delta.field, text)
            if rest is None:
                self.differs = True
                return None
            is_new |= bool(rest)
            if rest != text:
                rests[number] = rest
        if not is_new:
            return None
        # A lane that ends early, or goes on before another one is through, is a difference, too.
        self.joined = self.said_again
        self.differs = not self.joined
        return rests if self.joined else None

    def _rest(self, field: Field, text: str) -> str | None:
        """What `text` says beyond what was sent of its lane, None if it says something else."""
        position = self._position.get(field, 0)
        readings = self._readings.get(field, ("",))
        fitting = tuple(reading for reading in readings if text.startswith(reading[position : position + len(text)]))
        if not fitting:
            return None
        self._readings[field] = fitting
        self._position[field] = position + len(text)
        return text[max(0, min(map(len, fitting)) - position) :]

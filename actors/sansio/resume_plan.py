"""How an answer of which the client has a part may be taken up again: DESIGN section 5 (b) to (d), as values.

Owns which strategies a request allows, where the text that was sent is cut, and the request that asks an upstream to go on from
there. Refuses to know when an attempt is made (attempts.py) and how its answer is laid over what was sent (splice.py).

    prefix   the request carries what was sent, but for its last few words, as the beginning of the answer. Those words are the
             anchor: the upstream has to say them again before anything of its answer is believed to be the continuation.
    align    the same request once more; its answer has to say all that was sent again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from .chunks import Field
from .request_body import top_level_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .request_body import RequestFacts

ResumeMode: TypeAlias = Literal["off", "prefix", "align"]
#: How an upstream is told to continue the last message: vLLM's pair of parameters; `partial` (DashScope, Moonshot) or `prefix`
#: (DeepSeek, Mistral) on the message itself.
Continuation: TypeAlias = Literal["none", "continue_final_message", "partial", "prefix"]

#: Bounds of the anchor in characters. Specified: STUTTER section 7; below, a fresh start could pass for a continuation.
_ANCHOR_LEAST: Final = 24
_ANCHOR_MOST: Final = 64

#: Lanes that a continuation does not repeat.
REASONING: Final = frozenset({Field.REASONING, Field.REASONING_CONTENT})


class ResumeStrategy(StrEnum):
    """How one attempt takes up an answer."""

    PREFIX = "prefix"
    ALIGN = "align"


def strategies_for(mode: ResumeMode, facts: RequestFacts, *, continuable: bool) -> frozenset[ResumeStrategy]:
    """The strategies that a request may use once output was sent; none is the error frame.

    Args:
      mode: the route's `resume`.
      continuable: it has messages, and some upstream of the route can go on from the beginning of an answer.
    """
    if mode == "off" or facts.choices != 1 or facts.structured:
        return frozenset()
    strategies = {ResumeStrategy.PREFIX} if continuable else set()
    if mode == "align" or facts.deterministic:
        strategies.add(ResumeStrategy.ALIGN)
    return frozenset(strategies)


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """What one upstream is asked."""

    strategy: ResumeStrategy
    body: bytes


@dataclass(frozen=True, slots=True)
class ResumePlan:
    """Everything that is known when an answer was cut: what the client has of it, and what may be tried.

    Args:
      sent: text by lane, of a single choice, as UTF-16 units (see `units`).
    """

    sent: Mapping[Field, str]
    strategies: frozenset[ResumeStrategy]

    @property
    def cut(self) -> int | None:
        """Where the content that was sent is cut, None if there is nothing to continue or no place to cut it at."""
        if set(self.sent) - REASONING != {Field.CONTENT}:
            return None
        return cut_before_anchor(self.sent[Field.CONTENT])

    def request(self, body: bytes, continuation: Continuation, *, refused: bool) -> ResumeRequest | None:
        """What to ask of an upstream, None if it cannot take up the answer.

        Args:
          body: the request as it would go up otherwise.
          continuation: what the upstream understands.
          refused: it has already rejected a prefix.
        """
        if ResumeStrategy.PREFIX in self.strategies and continuation != "none" and not refused and (cut := self.cut) is not None:
            continued = continue_answer(body, self.sent[Field.CONTENT][:cut], continuation)
            if continued is not None:
                return ResumeRequest(ResumeStrategy.PREFIX, continued)
        return ResumeRequest(ResumeStrategy.ALIGN, body) if ResumeStrategy.ALIGN in self.strategies else None


def units(text: str) -> str:
    """`text` with every character beyond the BMP as its two surrogates.

    Upstreams cut events inside such characters, each at another place; only as units do two texts stay comparable.
    """
    if text.isascii() or max(text) <= "\uffff":
        return text
    return "".join(c if c <= "\uffff" else _pair(c) for c in text)


def _pair(character: str) -> str:
    offset = ord(character) - 0x10000
    return chr(0xD800 + (offset >> 10)) + chr(0xDC00 + (offset & 0x3FF))


def cut_before_anchor(text: str) -> int | None:
    """Where the anchor begins: at the shortest run of whole words of 24 to 64 characters at the end of `text`.

    The cut lies before the blank, since that is where tokenizers cut. Text that is written without blanks is cut in the middle of
    the bounds. An anchor that `text` also begins with would leave open whether an upstream says the prefix again: None.
    """
    last = len(text) - _ANCHOR_LEAST
    first = max(1, len(text) - _ANCHOR_MOST)
    borders = [at for at in range(last, first - 1, -1) if text[at].isspace() and not text[at - 1].isspace()]
    if not borders and last >= 1:
        middle = max(first, len(text) - (_ANCHOR_LEAST + _ANCHOR_MOST) // 2)
        borders = [middle - ("\udc00" <= text[middle] <= "\udfff")]
    return next((at for at in borders if text[:at].strip() and not text.startswith(text[at:])), None)


def continue_answer(body: bytes, prefix: str, continuation: Continuation) -> bytes | None:
    """The same request with the beginning of its answer, None if its messages leave no place for one.

    Every other byte stays. Where the client itself began the answer (a last message of the assistant) there is no place: two
    assistant messages in a row are two turns to one server and an error to another.

    Args:
      body: a JSON object that `read_request` accepted.
    """
    request: dict[str, Any] = json.loads(body)
    messages = request.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or last.get("role") == "assistant":
        return None
    flag = {} if continuation == "continue_final_message" else {continuation: True}
    message = json.dumps({"role": "assistant", "content": prefix, **flag}).encode()
    end = top_level_values(body, b"messages")[-1][1] - 1  # the last of several keys counts; the bracket goes behind the message
    continued = body[:end] + b"," + message + body[end:]
    if continuation == "continue_final_message":
        # vLLM's defaults would close the turn and begin a new answer.
        brace = continued.rindex(b"}")
        continued = continued[:brace] + b',"continue_final_message":true,"add_generation_prompt":false' + continued[brace:]
    return continued

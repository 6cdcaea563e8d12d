"""How a piece is written as JSON: the envelope styles of real providers, and the whole (not streamed) completion.

The styles differ in what they tell about a piece beside its text; a stutter detector decides by exactly that (STUTTER section 4):
`constant` tells nothing, `nonce` differs in every piece, `usage` counts tokens in every piece, `dashscope` turns the order of keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import msgspec

from .scripts import USAGE_ONLY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .scripts import Piece

Style: TypeAlias = Literal["constant", "nonce", "usage", "dashscope"]
STYLES: Final[tuple[str, ...]] = get_args(Style)

CREATED: Final = 1_764_000_000
"""Fixed, so that the same seed gives the same bytes."""

Json: TypeAlias = "dict[str, object]"

_DASHSCOPE_ORDER: Final[dict[str, tuple[str, ...]]] = {
    "role": ("delta", "index", "logprobs", "finish_reason"),
    "head": ("finish_reason", "logprobs", "delta", "index"),
    "body": ("delta", "finish_reason", "index", "logprobs"),
    "finish": ("finish_reason", "delta", "index", "logprobs"),
}

encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all pieces of one stream have in common.

    Args:
      id: the completion's id.
      model: as asked for.
      chat: chat/completions, else the legacy completions.
      prompt_tokens: for usage.
      logprobs: each text piece tells its token's log probability.
    """

    id: str
    model: str
    chat: bool = True
    style: str = "constant"
    prompt_tokens: int = 0
    logprobs: bool = False

    def write(self, piece: Piece) -> bytes:
        """One event's JSON."""
        if piece.choice == USAGE_ONLY:
            return self._wrap(piece, [], self._usage(piece.tokens))
        usage = self._usage(piece.tokens) if self.style == "usage" else None
        return self._wrap(piece, [self._choice(piece)], usage)

    def completion(self, script: Iterable[Piece]) -> bytes:
        """The whole answer at once, as a request without `stream` gets it."""
        choices: dict[int, _Whole] = {}
        tokens = 0
        for piece in script:
            tokens = max(tokens, piece.tokens)
            if piece.choice != USAGE_ONLY:
                choices.setdefault(piece.choice, _Whole({}, {})).add(piece)
        kind = "chat.completion" if self.chat else "text_completion"
        told = [whole.choice(index, self.chat) for index, whole in sorted(choices.items())]
        answer: Json = {"id": self.id, "object": kind, "created": CREATED, "model": self.model, "choices": told}
        return encode(answer | {"usage": self._usage(tokens)})

    def _wrap(self, piece: Piece, choices: list[Json], usage: Json | None) -> bytes:
        name = f"{self.id}-again" if piece.restarted else self.id
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        if self.style == "dashscope":
            event: Json = {"choices": choices, "object": kind, "usage": usage, "created": CREATED, "system_fingerprint": None}
            return encode(event | {"model": self.model, "id": name})
        event = {"id": name, "object": kind, "created": CREATED, "model": self.model, "choices": choices}
        if usage is not None:
            event["usage"] = usage
        if self.style == "nonce":
            event["obfuscation"] = piece.nonce
        return encode(event)

    def _choice(self, piece: Piece) -> Json:
        logprobs = _logprobs(piece.text) if self.logprobs and piece.text else None
        if not self.chat:
            return {"index": piece.choice, "text": piece.text or "", "logprobs": None, "finish_reason": piece.finish}
        choice: Json = {"index": piece.choice, "delta": _delta(piece, self.style), "logprobs": logprobs, "finish_reason": piece.finish}
        if self.style == "dashscope":
            return {key: choice[key] for key in _DASHSCOPE_ORDER[piece.turn]}
        return choice

    def _usage(self, tokens: int) -> Json:
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": tokens, "total_tokens": self.prompt_tokens + tokens}


@dataclass(slots=True)
class _Whole:
    """One choice of a whole completion, put together from its pieces."""

    texts: dict[str, str]
    calls: dict[int, list[str]]  # index -> id, name, arguments
    finish: str | None = None

    def add(self, piece: Piece) -> None:
        self.finish = piece.finish or self.finish
        if piece.call is not None:
            call = self.calls.setdefault(piece.call.index, [piece.call.id or "", piece.call.name or "", ""])
            call[2] += piece.text or ""
        elif piece.text is not None:
            self.texts[piece.field] = self.texts.get(piece.field, "") + piece.text

    def choice(self, index: int, chat: bool) -> Json:
        if not chat:
            return {"index": index, "text": self.texts.get("content", ""), "logprobs": None, "finish_reason": self.finish}
        message: Json = {"role": "assistant", "content": self.texts.get("content")}
        message |= {field: text for field, text in self.texts.items() if field != "content"}
        if self.calls:
            message["tool_calls"] = [_tool_call(None, call[0], call[1], call[2]) for call in self.calls.values()]
        return {"index": index, "message": message, "logprobs": None, "finish_reason": self.finish}


def _delta(piece: Piece, style: str) -> Json:
    delta: Json = {"role": "assistant"} if piece.role and style != "dashscope" else {}
    if piece.call is not None:
        delta["tool_calls"] = [_tool_call(piece.call.index, piece.call.id, piece.call.name, piece.text or "")]
    elif piece.text is not None:
        delta[piece.field] = piece.text
    elif style == "dashscope":
        delta["content"] = ""
    if piece.role:  # behind the content in DashScope's order
        delta["role"] = "assistant"
    return delta


def _tool_call(index: int | None, call_id: str | None, name: str | None, arguments: str) -> Json:
    call: Json = {} if index is None else {"index": index}
    if call_id is not None:
        call |= {"id": call_id, "type": "function"}
    function: Json = {} if name is None else {"name": name}
    return call | {"function": function | {"arguments": arguments}}


def _logprobs(text: str) -> Json:
    # A number of the text's own: equal floats on a repeated text are evidence, and the same text must give the same bytes.
    value = -((sum(text.encode()) * 7919) % 10_007) / 5_003.5
    return {"content": [{"token": text, "logprob": value, "bytes": list(text.encode()), "top_logprobs": []}]}

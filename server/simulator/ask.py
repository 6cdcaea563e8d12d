"""What is asked of the simulator: a request's body, checked, and the fault model its model name chooses, with its arguments.

A model name is `NAME`, `NAME:ARG` or `NAME:KEY=VALUE,KEY=VALUE`; values are percent-decoded, so that a text may hold a comma.
Knows the grammar, not the models: what a name stands for is the table's business (faults).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import unquote

from .envelopes import STYLES, Envelope
from .scripts import PARAGRAPH

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from .recordings import Recording
    from .wire import Answer

Value: TypeAlias = str | int | float

#: Arguments every model takes. `pace`: milliseconds between events, -1 the simulator's own. `text`: what is answered, "" the
#: model's own. `envelope`: see envelopes. `times`: the fault shows in the first so many identical requests, after that the
#: answer is `ok`; 0 is for ever.
COMMON: Final[Mapping[str, Value]] = {"pace": -1.0, "text": "", "envelope": "constant", "times": 0}

_LARGEST: Final = 100_000_000  # of any number: none of ours is useful beyond, and a list of so many pieces would fill the memory
_MOST_PIECES: Final = 100_000
_PIECES: Final = frozenset({"count", "events"})


class BadRequest(Exception):
    """The request cannot be answered as asked: an HTTP status, OpenAI's error code, and one sentence that says what is wrong."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Model:
    """One row of the table of fault models.

    Args:
      description: one line, for people.
      answer: makes the answer to one request.
      options: its arguments beside COMMON with their defaults; a value must be of its default's type.
      takes: which argument `NAME:ARG` sets, "" if none.
    """

    description: str
    answer: Callable[[Ask], Answer]
    options: Mapping[str, Value] = field(default_factory=dict)
    takes: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for a completion, checked.

    Args:
      body: the request's JSON object.
      pace: seconds between events.
      options: the model's arguments, complete.
      nth: how often exactly this was asked before, since the last reset.
      elapsed: seconds since the simulator started or was reset.
      chance: seeded for this request.
      payload: the whole answer's body where the endpoint is neither of the two that complete, else None.
    """

    serial: int
    chat: bool
    model: str
    body: Mapping[str, Any]
    stream: bool
    choices: int
    pace: float
    options: Mapping[str, Value]
    nth: int
    elapsed: float
    chance: random.Random
    recordings: Mapping[str, Recording]
    payload: bytes | None = None

    def number(self, name: str) -> float:
        value = self.options[name]
        assert not isinstance(value, str)
        return value

    def count(self, name: str) -> int:
        return int(self.number(name))

    def word(self, name: str) -> str:
        return str(self.options[name])

    @property
    def text(self) -> str:
        return self.word("text") or PARAGRAPH

    @property
    def envelope(self) -> Envelope:
        logprobs = bool(self.body.get("logprobs") or self.options.get("logprobs"))
        return Envelope(f"chatcmpl-sim-{self.serial}", self.model, self.chat, self._style, self._prompt_tokens, logprobs)

    @property
    def usage_at_end(self) -> bool:
        return self._stream_options.get("include_usage") is True or bool(self.options.get("usage_at_end"))

    @property
    def _style(self) -> str:
        style = self.word("envelope")
        return "usage" if style == "constant" and self._stream_options.get("continuous_usage_stats") is True else style

    @property
    def _stream_options(self) -> Mapping[str, Any]:
        options = self.body.get("stream_options")
        return options if isinstance(options, dict) else {}

    @property
    def _prompt_tokens(self) -> int:
        asked = self.body.get("messages") or self.body.get("prompt") or ""
        return 1 + len(str(asked)) // 4  # the usual estimate of four characters per token


def parse_model(spec: str, models: Mapping[str, Model]) -> tuple[Model, dict[str, Value]]:
    """The fault model that `spec` names, and its arguments, complete with defaults.

    Raises:
      BadRequest: no such model, no such argument, or a value of the wrong kind.
    """
    name, _, arguments = spec.partition(":")
    model = models.get(name)
    if model is None:
        raise BadRequest(404, "model_not_found", f"the simulator has no fault model '{name[:100]}'; GET /v1/models lists them")
    options: dict[str, Value] = {**COMMON, **model.options}
    for position, argument in enumerate(arguments.split(",") if arguments else ()):
        key, equals, value = argument.partition("=")
        if not equals and position == 0 and model.takes:
            key, value = model.takes, argument
        if key not in options:
            raise BadRequest(400, "bad_option", f"'{name}' has no argument '{key[:100]}'; it takes {', '.join(options)}")
        options[key] = _value(key, unquote(value), options[key])
    if options["envelope"] not in STYLES:
        raise BadRequest(400, "bad_option", f"envelope is one of {', '.join(STYLES)}")
    return model, options


def check_body(body: Any, chat: bool) -> tuple[str, bool, int]:
    """A completion request's model, stream and n.

    Raises:
      BadRequest: a field no OpenAI-compatible server would take.
    """
    if not isinstance(body, dict):
        raise BadRequest(400, "invalid_request_error", "the body is no JSON object")
    model, stream, n = body.get("model"), body.get("stream"), body.get("n")
    if not isinstance(model, str):
        raise BadRequest(400, "invalid_request_error", "model: a string is required")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest(400, "invalid_request_error", "stream: true or false is required")
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= 128):
        raise BadRequest(400, "invalid_request_error", "n: an integer from 1 to 128 is required")
    if chat and not isinstance(body.get("messages", []), list):
        raise BadRequest(400, "invalid_request_error", "messages: an array is required")
    return model, bool(stream), n or 1


def _value(key: str, text: str, default: Value) -> Value:
    if isinstance(default, str):
        return text
    largest = _MOST_PIECES if key in _PIECES else _LARGEST
    try:
        number = int(text) if isinstance(default, int) else float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= largest:
        raise BadRequest(400, "bad_option", f"{key}: a number from 0 to {largest} is required, got '{text[:100]}'")
    return number

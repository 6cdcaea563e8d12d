"""What the simulator's HTTP endpoints answer, as steps on the wire; and what they remember from one request to the next.

Decides only: nothing here waits or touches a socket.
"""

from __future__ import annotations

import base64
import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

from . import streams
from .ask import Ask, BadRequest, check_body, parse_model
from .envelopes import CREATED, encode
from .faults import MODELS
from .rejections import error_body
from .scenario import Scenario, applies
from .wire import Answer, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .ask import Value
    from .recordings import Recording
    from .scenario import ScenarioStep

_REMEMBERED: Final = 100_000
"""Different questions remembered for `times`, `cuts` and `fails`; beyond, the oldest is forgotten and may fail once more."""

_COMPLETIONS: Final = {"/v1/chat/completions": True, "/v1/completions": False}


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, whole. `headers` has lower-case names, the last of equal ones wins."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        try:
            return unquote(urlsplit(self.target).path)
        except ValueError:  # "//[" and the like
            return self.target


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and for the observer the model asked for and the fault model that answers."""

    answer: Answer
    model: str = ""
    answered_by: str = ""


class Endpoints:
    """All endpoints but the simulator's own.

    Args:
      pace: seconds between events where nobody says otherwise.
      seed: of everything random.
      recordings: bodies for `recording:NAME`.
      now: of the clock that `reply` is given, when the simulator starts; flapping counts from there.
    """

    def __init__(self, *, pace: float, seed: int, scenario: Scenario, recordings: Mapping[str, Recording], now: float) -> None:
        self._pace = pace
        self._seed = seed
        self._scenario = scenario
        self._recordings = recordings
        self._serial = 0
        self.reset(now)

    def reset(self, now: float) -> None:
        """Forget what was asked: faults that pass show again, the scenario and flapping start anew."""
        self._started = now
        self._asked: dict[tuple[str, bytes], int] = {}
        self._used = [0] * len(self._scenario.steps)

    def reply(self, request: Request, now: float) -> Reply:
        """The answer to one request; a bad request gets an OpenAI-style error, never an exception."""
        path = request.path
        try:
            if request.method == "POST" and path.startswith("/v1/"):
                return self._post(path, request, now)
            if request.method == "GET" and path == "/v1/models":
                return Reply(whole(200, encode({"object": "list", "data": self._models()})))
            if request.method == "GET" and path.startswith("/v1/models/"):
                return self._one_model(path.removeprefix("/v1/models/"))
        except BadRequest as exc:
            return Reply(_refusal(exc), _model_of(request.body))
        if path.startswith("/v1/"):
            return Reply(_refusal(BadRequest(405, "method_not_allowed", f"{request.method} {path[:200]} is not served")))
        return Reply(_refusal(BadRequest(404, "not_found", f"{path[:200]} is not served; the base_url ends in /v1")))

    def _post(self, path: str, request: Request, now: float) -> Reply:
        if (chat := _COMPLETIONS.get(path)) is None:
            return self._other(path, request, now)
        body = _json(request.body)
        model, stream, choices = check_body(body, chat)
        return self._answered(request, body, model, now, chat=chat, stream=stream, choices=choices)

    def _other(self, path: str, request: Request, now: float) -> Reply:
        """Embeddings, and an echo for every other path; a fault model in the body breaks these too, but for their spelling."""
        try:
            body = msgspec.json.decode(request.body)
        except (msgspec.DecodeError, RecursionError):
            body = None
        if path == "/v1/embeddings":
            if not isinstance(body, dict):
                raise BadRequest(400, "invalid_request_error", "the body is no JSON object")
            payload = _embeddings(body)
        else:
            kind = request.headers.get("content-type", "")
            payload = encode(
                {"object": "echo", "path": path, "content_type": kind, "bytes": len(request.body), "echo": _text(request.body)}
            )
        model = _model_of(request.body)
        if isinstance(body, dict) and (model.partition(":")[0] in MODELS or self._place_of(model) is not None):
            return self._answered(request, body, model, now, chat=True, stream=False, choices=1, payload=payload)
        return Reply(whole(200, payload), model)

    def _answered(
        self,
        request: Request,
        body: dict[str, Any],
        model: str,
        now: float,
        *,
        chat: bool,
        stream: bool,
        choices: int,
        payload: bytes | None = None,
    ) -> Reply:
        place = self._place_of(model)
        step = None if place is None else self._scenario.steps[place]
        spec = model if step is None else step.answer
        if place is not None:
            self._used[place] += 1
        row, options = parse_model(spec, MODELS)
        text = (step.text if step is not None else None) or self._scenario.text
        if text and not options["text"]:
            options["text"] = text
        passing = bool(options["times"] or "cuts" in options or "fails" in options)
        nth = self._nth(spec, request.body) if passing else 0
        self._serial += 1
        ask = Ask(
            serial=self._serial,
            chat=chat,
            model=model,
            body=body,
            stream=stream,
            choices=choices,
            pace=self._pace_of(options, request, step),
            options=options,
            nth=nth,
            elapsed=now - self._started,
            chance=random.Random(f"{self._seed}/{spec}"),
            recordings=self._recordings,
            payload=payload,
        )
        over = options["times"] and nth >= ask.count("times")
        return Reply(streams.ok(ask) if over else row.answer(ask), model, spec)

    def _place_of(self, model: str) -> int | None:
        """Which step of the scenario answers the next request for `model`."""
        rows = zip(self._scenario.steps, self._used, strict=True)
        return next((place for place, (step, used) in enumerate(rows) if applies(step, model, used)), None)

    def _nth(self, spec: str, body: bytes) -> int:
        question = spec, hashlib.sha256(body).digest()
        nth = self._asked.get(question, 0)
        self._asked[question] = nth + 1
        if len(self._asked) > _REMEMBERED:
            del self._asked[next(iter(self._asked))]
        return nth

    def _pace_of(self, options: Mapping[str, Value], request: Request, step: ScenarioStep | None) -> float:
        told = options["pace"]
        if not isinstance(told, str) and told >= 0:
            return told / 1000
        if (header := request.headers.get("x-simulator-pace-ms")) is not None:
            try:
                milliseconds = float(header)
            except ValueError:
                milliseconds = -1.0
            if not 0 <= milliseconds <= 3_600_000:
                raise BadRequest(400, "bad_option", "x-simulator-pace-ms: milliseconds from 0 to 3600000 are required")
            return milliseconds / 1000
        if step is not None and step.pace is not None:
            return step.pace
        return self._pace if self._scenario.pace is None else self._scenario.pace

    def _models(self) -> list[dict[str, object]]:
        recorded = {f"recording:{name}": "a recorded stream" for name in self._recordings}
        told = {name: model.description for name, model in MODELS.items()} | recorded
        return [_model(name, description) for name, description in told.items()]

    def _one_model(self, name: str) -> Reply:
        row, _ = parse_model(name, MODELS)
        return Reply(whole(200, encode(_model(name, row.description))), name)


def _model(name: str, description: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "simulator", "description": description}


def _refusal(reason: BadRequest) -> Answer:
    return whole(reason.status, error_body(str(reason), "invalid_request_error", reason.code))


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise BadRequest(400, "invalid_request_error", f"the body is no JSON: {exc}") from exc


def _model_of(body: bytes) -> str:
    """The model a body names, "" where it names none."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return ""
    model = value.get("model") if isinstance(value, dict) else None
    return model if isinstance(model, str) else ""


def _text(body: bytes) -> str:
    """The body as text, or in base64 where it is none."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return base64.b64encode(body).decode()


def _embeddings(body: Mapping[str, Any]) -> bytes:
    """Eight numbers per input, from its hash: small, and the same every time."""
    given = body.get("input", "")
    data = []
    for index, text in enumerate(given if isinstance(given, list) else [given]):
        digest = hashlib.sha256(encode(text)).digest()
        vector = [byte / 255 for byte in digest[:8]]
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
    return encode({"object": "list", "data": data, "model": body.get("model"), "usage": usage})

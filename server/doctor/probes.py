"""The questions that the doctor asks an upstream, and the record of what came back.

Each question is one request, or two; what it may cost at most stands beside it. Owns the waiting and its deadlines, and refuses to
judge: a question that got no answer is recorded with the reason.

Cancellation: at any point; the open request is closed.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
import trio

from actors import Candidate, Timers, UpstreamError, UpstreamRequest
from actors.sansio.resume_plan import continue_answer

from ..log import printable
from .observation import Habits, Observation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from actors import Upstream, UpstreamClient, UpstreamResponse
    from actors.sansio.resume_plan import Continuation

Probe: TypeAlias = Literal["stream", "leave", "prefix"]

#: Output tokens that each probe may cost at most: its `max_tokens`, times its requests.
COSTS: Final[dict[Probe, int]] = {"stream": 200, "leave": 1016, "prefix": 192}
_COUNT: Final = "Count from 1 to 30, the numbers separated by a comma and a blank. Write nothing else."
_TALE: Final = "Write the numbers from 1 to 1000, one per line. Write nothing else."
_PREFIX_TOKENS: Final = 64
_JSON: Final = ((b"content-type", b"application/json"),)
#: The ways to be told to go on, in the order in which they are tried.
_CONTINUATIONS: Final[tuple[Continuation, ...]] = ("continue_final_message", "partial", "prefix")
#: Events after which the leaving probe leaves.
_LEAVES_AFTER: Final = 3
#: Seconds that an upstream has to notice that nobody listens: two heartbeats of a slow server's loop.
_NOTICE: Final = 2.0
_RUNNING: Final = re.compile(
    rb"^(?:vllm:num_requests_running|llamacpp:requests_processing)(?:\{[^}\n]*\})?\s+([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)(?:\s|$)",
    re.MULTILINE,
)
_BETWEEN_LOOKS: Final = 0.1
#: Tokens of the shortest answer.
_WORD: Final = 16
#: Characters by which a continuation is recognised: more than two numbers of the count.
_ENOUGH: Final = 8
_SIDE_BODY: Final = 1024 * 1024
_ERROR_BODY: Final = 16 * 1024
_ERROR_TEXT: Final = 200


@dataclass(slots=True)
class Leaving:
    """What became of an answer whose client left.

    Args:
      seen_by: "metrics" (the server's own count of running requests), "slots" (llama.cpp's), "wait" (how long the next one took).
      stopped: None where nothing can be told from outside.
      seconds: how long the next short answer took to begin, where that was measured.
    """

    seen_by: Literal["metrics", "slots", "wait"]
    stopped: bool | None
    seconds: float = math.nan


@dataclass(slots=True)
class Examination:
    """All that is known of one upstream.

    Args:
      unreachable: why no request got through, "" if one did.
      reached: seconds to the first answer, of whatever status; version: of HTTP, the last answer's.
      models_status, models: what GET /models said.
      slots: requests that it serves at once, where it says so (llama.cpp).
      status, refused: what the streaming request was answered with if not with 200; status 0 is no answer.
      continues: the ways of going on from the beginning of an answer that worked; None where it was not tried.
    """

    upstream: Upstream
    model: str = ""
    unreachable: str = ""
    reached: float = math.nan
    version: str = ""
    models_status: int = 0
    models: tuple[str, ...] = ()
    slots: int | None = None
    habits: Habits | None = None
    status: int = 0
    refused: str = ""
    leaving: Leaving | None = None
    continues: list[Continuation] | None = None
    failures: list[str] = field(default_factory=list)


class _NoAnswer(Exception):
    """A question was not answered at all; the text says why."""


class _Answer:
    """An open answer, read with its times."""

    def __init__(self, response: UpstreamResponse, began: float, patience: float) -> None:
        self.status = response.status
        self._response = response
        self._began = began
        self._patience = patience

    async def text(self) -> str:
        """The message of an answer that is an error."""
        body = b""  # the status says enough
        with trio.move_on_after(self._patience), suppress(UpstreamError):
            body = await self._response.read_all(_ERROR_BODY)
        return _message(body) or "without a word"

    async def read(self, events: float = math.inf) -> Habits:
        """Read to the end, or until so many events with text have come."""
        response = self._response
        observation = Observation(response.header("content-type"), response.header("content-encoding"))
        clean = False
        try:
            while observation.habits.text_events < events:
                with trio.fail_after(self._patience):
                    data = await response.read()
                if not data:
                    clean = True
                    break
                observation.feed(data, trio.current_time() - self._began)
        except (UpstreamError, trio.TooSlowError):
            pass  # `Habits.complete` tells
        return observation.close(trio.current_time() - self._began, clean=clean)


class Doctor:
    """Asks one upstream.

    Args:
      client: knows the upstream, and `server_root` of it.
      patience: seconds that each answer may take to begin, and that it may be silent.
    """

    def __init__(self, client: UpstreamClient, upstream: Upstream, *, patience: float) -> None:
        self._client = client
        timers = Timers(connect=min(10.0, patience))
        self._candidate = Candidate(upstream, None, timers)
        self._root = Candidate(server_root(upstream), None, timers)
        self._patience = patience
        self.examination = Examination(upstream)

    async def look(self) -> None:
        """What costs nothing: is it there, does it take the key, which models has it, how many slots?"""
        found = self.examination
        began = trio.current_time()
        try:
            found.models_status, body = await self._get(self._candidate, "/models")
        except _NoAnswer as failure:
            found.unreachable = str(failure)
            return
        found.reached = trio.current_time() - began
        found.models = _model_names(body) if found.models_status == 200 else ()
        if (busy := await self._slots()) is not None:
            found.slots = len(busy)

    async def ask(self, model: str, probes: Collection[Probe], told: Callable[[str], None]) -> None:
        """What costs tokens. Needs `look()` before it.

        Args:
          told: hears what is asked next.
        """
        found = self.examination
        found.model = model
        told("for a short stream")
        found.habits = await self._stream()
        if found.habits is None or not found.habits.text_events:
            return  # whoever does not answer a plain question need not be asked the harder ones
        if "leave" in probes:
            told("for a long stream, and leaves it")
            found.leaving = await self._leave(found.habits.first_token)
        if "prefix" in probes and found.habits.text:
            told("it to go on from the beginning of an answer")
            found.continues = await self._continue(found.habits.text)

    # ---- the probes

    async def _stream(self) -> Habits | None:
        found = self.examination
        try:
            async with self._asking(self._body(_COUNT, COSTS["stream"], usage=True)) as answer:
                if answer.status == 200:
                    return await answer.read()
                found.status, found.refused = answer.status, await answer.text()
        except _NoAnswer as failure:
            found.refused = str(failure)
        return None

    async def _leave(self, usual: float) -> Leaving | None:
        try:
            async with self._asking(self._body(_TALE, COSTS["leave"] - _WORD)) as answer:
                await answer.read(_LEAVES_AFTER)
                before = await self._running()
            if before is not None:
                return Leaving(before[0], await self._falls(before[1]))
            async with self._asking(self._body("Say: yes", _WORD)) as answer:
                waited = (await answer.read(1)).first_token
        except _NoAnswer as failure:
            self.examination.failures.append(f"the leaving of a client could not be tried: {failure}")
            return None
        # Somebody else may be served beside us: that it did not wait shows nothing.
        return Leaving("wait", False if waited > 1.0 + 3 * usual else None, waited)

    async def _falls(self, before: float) -> bool:
        """Whether the count of running requests falls soon."""
        with trio.move_on_after(_NOTICE):
            # Another process's count: nothing here could be an event.
            while (now := await self._running()) is not None and now[1] >= before:  # noqa: ASYNC110
                await trio.sleep(_BETWEEN_LOOKS)
            return True
        return False

    async def _continue(self, answer: str) -> list[Continuation]:
        """The ways of going on in which it says the second half of its own answer, and only that."""
        cut = answer.rfind(" ", 0, len(answer) // 2)
        begin, rest = answer[:cut], answer[cut:].strip()
        works: list[Continuation] = []
        for way in _CONTINUATIONS if cut > 0 else ():
            body = continue_answer(self._body(_COUNT, _PREFIX_TOKENS), begin, way)
            assert body is not None  # the question is one message, the user's
            try:
                async with self._asking(body) as attempt:
                    said = (await attempt.read()).text.strip() if attempt.status == 200 else ""
            except _NoAnswer as failure:
                self.examination.failures.append(f'continuation = "{way}" was not answered: {failure}')
                continue
            if said and rest.startswith(said[:_ENOUGH]) and not answer.startswith(said[:_ENOUGH]):
                works.append(way)
        return works

    # ---- what servers tell of themselves beside the API

    async def _running(self) -> tuple[Literal["metrics", "slots"], float] | None:
        """How many requests it says that it serves now."""
        if (busy := await self._slots()) is not None:
            return "slots", sum(busy)
        status, body = await self._get(self._root, "/metrics", quietly=True)
        counts = [float(count) for count in _RUNNING.findall(body)] if status == 200 else []
        return ("metrics", sum(counts)) if counts else None

    async def _slots(self) -> list[bool] | None:
        """llama.cpp's slots, and which of them are busy."""
        status, body = await self._get(self._root, "/slots", quietly=True)
        value = _json(body) if status == 200 else None
        if not isinstance(value, list) or not all(isinstance(slot, dict) and "is_processing" in slot for slot in value):
            return None
        return [bool(slot["is_processing"]) for slot in value]

    # ---- asking

    def _body(self, question: str, tokens: int, *, usage: bool = False) -> bytes:
        asked: dict[str, Any] = {
            "model": self.examination.model,
            "messages": [{"role": "user", "content": question}],
            "stream": True,
            "max_tokens": tokens,
            "temperature": 0,
        }
        if usage:
            asked["stream_options"] = {"include_usage": True}
        return json.dumps(asked).encode()

    @asynccontextmanager
    async def _asking(self, body: bytes) -> AsyncIterator[_Answer]:
        began = trio.current_time()
        response = await self._send(self._candidate, UpstreamRequest("POST", "/chat/completions", _JSON, body))
        try:
            yield _Answer(response, began, self._patience)
        finally:
            await response.aclose()

    async def _get(self, candidate: Candidate, path: str, *, quietly: bool = False) -> tuple[int, bytes]:
        try:
            response = await self._send(candidate, UpstreamRequest("GET", path))
            try:
                with trio.fail_after(self._patience):
                    return response.status, await response.read_all(_SIDE_BODY)
            finally:
                await response.aclose()
        except (_NoAnswer, UpstreamError, trio.TooSlowError) as failure:
            if quietly:
                return 0, b""
            raise _NoAnswer(str(failure) or f"GET {path} was not answered within {self._patience:g} s") from failure

    async def _send(self, candidate: Candidate, request: UpstreamRequest) -> UpstreamResponse:
        try:
            with trio.fail_after(self._patience):
                response = await self._client.send(candidate, request, request.body)
        except UpstreamError as failure:
            raise _NoAnswer(str(failure)) from failure
        except trio.TooSlowError as failure:
            raise _NoAnswer(f"no answer began within {self._patience:g} s") from failure
        self.examination.version = response.version
        return response


def server_root(upstream: Upstream) -> Upstream:
    """The same server without the API's path, where servers tell of themselves."""
    parts = urlsplit(upstream.base_url)
    return replace(upstream, name=f"{upstream.name}'s server", base_url=f"{parts.scheme}://{parts.netloc}")


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _model_names(body: bytes) -> tuple[str, ...]:
    value = _json(body)
    entries = value.get("data") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        return ()
    return tuple(entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str))


def _message(body: bytes) -> str:
    """The words of an error body, on one line."""
    value = _json(body)
    error = value.get("error", value) if isinstance(value, dict) else None
    text = error.get("message", "") if isinstance(error, dict) else error
    return printable(text if isinstance(text, str) and text else body.decode("utf-8", "replace"), _ERROR_TEXT)

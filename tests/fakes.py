"""Small honest stand-ins for what the pipeline's stages stand between: the upstream's bytes, its attempts, the client's outlet.

Each of them behaves as the contract of the real one says, and records what was done to it; none knows what it is expected to see.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

import trio

from actors import (
    Attempts,
    BufferPolicy,
    Candidate,
    ClientGone,
    ClientStalled,
    Fault,
    Outlet,
    ResponseHead,
    SmartBuffer,
    StutteringDetector,
    StutterPolicy,
    Tally,
    Timers,
    Upstream,
    UpstreamClient,
    UpstreamError,
    UpstreamRequest,
)
from actors.open_attempt import OpenAttempt
from actors.sansio.chunks import AttemptFailed, AttemptsExhausted
from actors.sansio.classifier import classify_exception

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actors.sansio.resume_plan import ResumePlan
    from actors.upstream import UpstreamResponse

# ---- what upstreams send --------------------------------------------------------------------------------------------

DONE = b"data: [DONE]\n\n"


def event(*choices: dict[str, Any], id: str = "c1", **more: Any) -> bytes:
    """One SSE block with a chat completion chunk. An empty id is left out."""
    payload = {"id": id, "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": list(choices), **more}
    if not id:
        del payload["id"]
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def choice(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish}


def role(**more: Any) -> bytes:
    return event(choice(role="assistant", content=""), **more)


def content(text: str, **more: Any) -> bytes:
    return event(choice(content=text), **more)


def reasoning(text: str, **more: Any) -> bytes:
    return event(choice(reasoning_content=text), **more)


def finish(reason: str = "stop", index: int = 0, **more: Any) -> bytes:
    return event(choice(index, finish=reason), **more)


def plain_buffer(_: str = "") -> SmartBuffer:
    """A SmartBuffer with the defaults, whatever the upstream."""
    return SmartBuffer(StutteringDetector(StutterPolicy()), BufferPolicy())


# ---- the client's side ----------------------------------------------------------------------------------------------


@dataclass
class FakeOutlet:
    """An Outlet that keeps what it got, and notices every breach of the order of calls.

    Args:
      room: bytes it takes before the client stops reading; a write beyond it waits.
      stall: seconds until a waiting write raises ClientStalled.
      gone_after: bytes after which the client is gone.
      crash: raised by the next call, for a bug in an outlet.
    """

    room: float = math.inf
    stall: float = math.inf
    gone_after: float = math.inf
    crash: Exception | None = None
    head: ResponseHead | None = None
    body: bytes = b""
    writes: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    finished: bool = False
    aborted: bool = False
    _dead: bool = False
    _kept: bytes | None = None
    _ending: bool = False
    _readable: trio.Event = field(default_factory=trio.Event)

    @property
    def status(self) -> int:
        return self.head.status if self.head is not None else 0

    @property
    def headers(self) -> dict[str, str]:
        assert self.head is not None
        return {name.decode(): value.decode() for name, value in self.head.headers}

    def read_on(self) -> None:
        """The client reads again."""
        self.room = math.inf
        self._readable.set()

    async def start(self, head: ResponseHead, data: bytes = b"") -> None:
        assert self.head is None, "a second response head"
        await self._take(b"")
        self.head = head
        if data:
            await self.write(data)

    async def write(self, data: bytes) -> None:
        assert self.head is not None, "body before head"
        assert data, "an empty write"
        await self._take(data)
        self._note(data)

    def write_nowait(self, data: bytes) -> bool:
        assert self.head is not None, "body before head"
        assert data, "an empty write"
        assert self._kept is None, "a write before what the last one kept was flushed"
        self._check(data)
        if len(self.body) + len(data) > self.room:
            self._kept, self._dead = data, True  # until it is flushed: a part of it may be out
            return False
        self._note(data)
        return True

    def start_nowait(self, head: ResponseHead, data: bytes, *, ends: bool = False) -> bool:
        assert self.head is None, "a second response head"
        self._check(b"")
        self.head = head
        if ends:
            return self.finish_nowait(data)
        return not data or self.write_nowait(data)

    def finish_nowait(self, data: bytes) -> bool:
        assert self.head is not None, "an end before the head"
        self._check(b"")
        if data and not self.write_nowait(data):
            self._ending = True
            return False
        self.finished = True
        return True

    async def flush(self) -> None:
        assert self._kept is not None, "nothing was kept"
        data, self._kept, self._dead = self._kept, None, False
        await self._take(data)
        self._note(data)
        self.finished = self._ending

    async def finish(self, data: bytes = b"") -> None:
        assert self.head is not None, "an end before the head"
        if data:
            await self.write(data)
        await self._take(b"")
        self.finished = True

    def abort(self) -> None:
        assert not self.finished, "aborted after its end"
        self.aborted = True
        self._dead = True

    def _note(self, data: bytes) -> None:
        self.body += data
        self.writes.append(data)
        self.times.append(trio.current_time())

    def _check(self, data: bytes) -> None:
        assert not self._dead, "used after it died"
        assert not self.finished, "used after its end"
        if self.crash is not None:
            crash, self.crash = self.crash, None
            raise crash
        if len(self.body) + len(data) > self.gone_after:
            self._dead = True
            raise ClientGone

    async def _take(self, data: bytes) -> None:
        self._check(data)
        self._dead = True  # until this call is through: a cancelled write leaves it dead
        if len(self.body) + len(data) > self.room:
            with trio.move_on_after(self.stall) as patience:
                await self._readable.wait()
            if patience.cancelled_caught:
                raise ClientStalled
        await trio.lowlevel.checkpoint()
        self._dead = False


_FAKE: type[Outlet] = FakeOutlet  # so that the type checker holds it to the protocol


# ---- the upstream's side --------------------------------------------------------------------------------------------


class Silence:
    """A step of a scripted body: nothing comes until the reader leaves."""


@dataclass
class Wait:
    """A step of a scripted body: nothing comes for so many seconds."""

    seconds: float


@dataclass
class Gate:
    """A step of a scripted body: nothing comes until somebody opens it."""

    opened: trio.Event = field(default_factory=trio.Event)


T = TypeVar("T")


class ChannelOutbox(Generic[T]):
    """An Outbox whose next stage is a channel: what that does not take at once is kept, and waited for in `room()`."""

    def __init__(self, channel: trio.MemorySendChannel[T]) -> None:
        self._channel = channel
        self._kept: list[T] = []

    def put(self, item: T) -> bool:
        if not self._kept:
            try:
                self._channel.send_nowait(item)
            except trio.WouldBlock:
                pass
            else:
                return True
        self._kept.append(item)
        return False

    async def room(self) -> None:
        while self._kept:
            await self._channel.send(self._kept[0])
            del self._kept[0]


Step = bytes | Silence | Wait | Gate | UpstreamError | Exception


class FakeResponse:
    """An UpstreamResponse whose body is a script. Reading on after a break, or after closing, is a breach."""

    def __init__(self, *steps: Step, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.status = status
        self.headers = list(headers) or [(b"content-type", b"text/event-stream")]
        self.complete = False
        self.closed = False
        self._steps = list(steps)

    def fresh(self) -> FakeResponse:
        """The same, from its beginning."""
        return FakeResponse(*self._steps, status=self.status, headers=self.headers)

    def header(self, name: str) -> str:
        return next((value.decode() for key, value in self.headers if key == name.encode()), "")

    async def read(self) -> bytes:
        await self._waited()
        if not self._steps:
            self.complete = True
            return b""
        if isinstance(step := self._steps[0], Exception):
            raise step
        assert isinstance(step, bytes)
        del self._steps[0]
        return step

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        await self._waited()
        while self._steps and isinstance(step := self._steps[0], bytes):
            del self._steps[0]
            if not take(step):
                return False
            await self._waited()
        return True

    def has_come(self) -> bool:
        return bool(self._steps) and isinstance(self._steps[0], bytes)

    async def _waited(self) -> None:
        """Wait until there are bytes, a break or the end."""
        assert not self.closed, "read after it was closed"
        await trio.lowlevel.checkpoint()
        while self._steps:
            match self._steps[0]:
                case Wait(seconds=seconds):
                    await trio.sleep(seconds)
                case Gate(opened=opened):
                    await opened.wait()
                case Silence():
                    await trio.sleep_forever()
                case _:
                    return
            del self._steps[0]

    async def read_all(self, limit: int) -> bytes:
        body = b""
        while len(body) < limit and (data := await self.read()):
            body += data
        return body

    async def aclose(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True


class FakePermit:
    """What a test wants to know of a permit: how it ended, once."""

    def __init__(self) -> None:
        self.verdict: str | None = None

    def ended(self, verdict: str, retry_after: float | None = None) -> None:
        if self.verdict is None:
            self.verdict = verdict

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ended("given back")


def candidate(name: str = "a", *, model: str | None = None, **timers: float) -> Candidate:
    return Candidate(Upstream(name, f"http://{name}.invalid/v1"), model, Timers(**timers))


class FakeAttempts:
    """Attempts whose answers are scripted, one per call of `advance()`.

    Args:
      tally: of the request.
      script: a response is an open attempt at upstream "a"; a Fault is one that failed, the last one for good; Silence is a search
        that never ends; an exception is a bug.
      idle: the candidates' idle timer.
    """

    def __init__(self, tally: Tally, *script: FakeResponse | Fault | Silence | Exception, idle: float = math.inf) -> None:
        self.tally = tally
        self.upstream = "a"
        self.connected = False
        self.faults: list[Fault | None] = []  # what it was told the attempts before ended with
        self.permits: list[FakePermit] = []
        self.responses = [response for response in script if isinstance(response, FakeResponse)]
        self._script = list(script)
        self._idle = idle

    async def advance(self, after: Fault | None = None, plan: ResumePlan | None = None) -> OpenAttempt | AttemptFailed | AttemptsExhausted:
        self.faults.append(after)
        await trio.lowlevel.checkpoint()
        if not self._script:
            assert after is not None, "asked once more after the last"
            return AttemptsExhausted(after)
        step = self._script.pop(0)
        match step:
            case Silence():
                await trio.sleep_forever()
                raise AssertionError
            case Fault():
                return AttemptFailed(self.tally.attempts, step) if self._script else AttemptsExhausted(step)
            case Exception():
                raise step
            case FakeResponse():
                self.connected = True
                self.tally.attempts += 1
                permit = FakePermit()
                self.permits.append(permit)
                where = candidate(self.upstream, idle=self._idle)
                return OpenAttempt(
                    self.tally.attempts, where, cast("UpstreamResponse", step), b"", cast("Any", permit), self.tally
                )  # both have the surface that an attempt uses

    @property
    def verdicts(self) -> list[str | None]:
        return [permit.verdict for permit in self.permits]

    @property
    def as_attempts(self) -> Attempts:
        return cast("Attempts", self)  # the surface that the stages use

    def all_given_back(self) -> bool:
        """Every response is closed and every permit is back."""
        return all(response.closed for response in self.responses[: len(self.permits)]) and None not in self.verdicts


@dataclass
class Asked:
    """One request that reached a FakeClient."""

    upstream: str
    body: bytes
    at: float


class FakeClient:
    """An UpstreamClient whose answers are scripted per upstream, in order; the last one stays."""

    def __init__(self, **answers: list[FakeResponse | UpstreamError | Silence]) -> None:
        self._answers = answers
        self.asked: list[Asked] = []
        self.wrong_labels: list[tuple[str, str, bool]] = []
        self.responses: list[FakeResponse] = []

    async def send(
        self, candidate: Candidate, request: UpstreamRequest, body: bytes, attempt: int = 0, *, connected: Callable[[], None] = lambda: None
    ) -> UpstreamResponse:
        name = candidate.upstream.name
        self.asked.append(Asked(name, body, trio.current_time()))
        await trio.lowlevel.checkpoint()
        answers = self._answers[name]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, UpstreamError):
            raise answer
        connected()
        if isinstance(answer, Silence):
            await trio.sleep_forever()
        assert isinstance(answer, FakeResponse)
        self.responses.append(answer.fresh())
        return cast("UpstreamResponse", self.responses[-1])

    def mislabelled(self, upstream: str, content_type: str, stream: bool) -> None:
        self.wrong_labels.append((upstream, content_type, stream))

    @property
    def as_client(self) -> UpstreamClient:
        return cast("UpstreamClient", self)  # the surface that Attempts uses

    @property
    def upstreams(self) -> list[str]:
        return [one.upstream for one in self.asked]


def fault_of(error: UpstreamError, upstream: str = "a") -> Fault:
    return classify_exception(error, upstream)

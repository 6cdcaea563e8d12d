"""`Stream`: a stream machine behind a ChunkParser, driven by upstream bytes.

It holds what must be true of every stream, whatever its script; that is asserted at every step of every test that uses it.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from actors import Complete, Failed, Fault, FaultKind, StreamMachine, StreamPolicy, Tally
from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import AttemptEnded, AttemptFailed, AttemptsExhausted, AttemptStarted, Event
from actors.sansio.effects import Effects, Finish, Head, Resume

from ...fakes import plain_buffer

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.sansio.loop_guard import LoopGuard
    from actors.sansio.smart_buffer import SmartBuffer
    from actors.sansio.stream_machine import Item

CUT = Fault(FaultKind.DISCONNECTED, "upstream 'a': the connection was reset", upstream="a")
REFUSED = Fault(FaultKind.CONNECT, "upstream 'a': refused", upstream="a")
OPEN_POLICY = StreamPolicy(keepalive_after=math.inf, keepalive_interval=math.inf, total=math.inf)


class Stream:
    """A machine behind a ChunkParser, and what it asked for so far."""

    def __init__(
        self,
        policy: StreamPolicy = OPEN_POLICY,
        *,
        open_buffer: Callable[[str], SmartBuffer] = plain_buffer,
        open_guard: Callable[[str], LoopGuard | None] = lambda _: None,
    ) -> None:
        self.tally = Tally()
        self.machine = StreamMachine(policy, open_buffer, self.tally, 0.0, open_guard=open_guard)
        self.written = b""
        self.heads: list[Head] = []
        self.orders: list[Resume | Finish] = []
        self.attempts = 0
        self.now = 0.0
        self._parser = ChunkParser()
        self._ordered = True

    # -- what comes

    def start(self, now: float | None = None, *, upstream: str = "a", idle: float = math.inf, resumes: str = "") -> Effects:
        self._ordered = False
        self.attempts += 1
        self._parser = ChunkParser()
        return self._receive(AttemptStarted(self.attempts, upstream, ((b"x-from", upstream.encode()),), idle, resumes), now)

    def data(self, *blocks: bytes, now: float | None = None) -> Effects:
        return self._receive(self._parser.feed(b"".join(blocks)), now)

    def over(self, fault: Fault | None = None, now: float | None = None) -> Effects:
        """The attempt's body ended, cleanly or by `fault`."""
        tail = self._parser.close(clean=fault is None)
        effects = [self._receive(tail, now)] if tail else []
        effects.append(self._receive(AttemptEnded(self.attempts, fault), now))
        return effects[-1]

    def failed(self, fault: Fault = REFUSED, now: float | None = None) -> Effects:
        """A try that never opened."""
        return self._receive(AttemptFailed(self.attempts, fault), now)

    def exhausted(self, fault: Fault = REFUSED, now: float | None = None) -> Effects:
        return self._receive(AttemptsExhausted(fault), now)

    def wake(self, now: float) -> Effects:
        return self._note(lambda: self.machine.wake(now), now)

    # -- what is always true

    def _receive(self, item: Item, now: float | None) -> Effects:
        return self._note(lambda: self.machine.receive(item, self.now), now)

    def _note(self, call: Callable[[], Effects], now: float | None) -> Effects:
        self.now = self.now if now is None else now
        ended_before, sent_before = self.machine.end, self.machine.head_sent
        effects = call()
        if ended_before is not None:
            assert effects == Effects(), "something after the end"
        if effects.head is not None:
            assert not sent_before
            assert effects.frames, "a head without a reason"
            self.heads.append(effects.head)
        assert self.machine.head_sent == bool(self.heads)
        for frame in effects.frames:
            assert frame.endswith((b"\n\n", b"\r\r", b"\r\n\r\n")), "half an event"
            self.written += frame
        if effects.order is not None:
            calls_off = isinstance(effects.order, Finish) and isinstance(effects.end, Failed)
            assert not self._ordered or calls_off, "a second order for one attempt"
            self._ordered = True
            self.orders.append(effects.order)
        assert effects.end == (self.machine.end if ended_before is None else None)
        assert self.machine.ended == (self.machine.end is not None)
        if self.machine.ended:
            assert self.machine.deadline == math.inf
            assert isinstance(self.machine.end, Complete) == self.written.rstrip().endswith(b"[DONE]")
        else:
            assert self.machine.deadline > -math.inf
        return effects

    # -- what came of it

    @property
    def end(self) -> Complete | Failed | None:
        return self.machine.end

    @property
    def failure(self) -> Fault:
        assert isinstance(self.machine.end, Failed)
        return self.machine.end.fault

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(chunk.data) for chunk in ChunkParser().feed(self.written) if isinstance(chunk, Event)]

    def text(self, name: str = "content") -> str:
        deltas = (one["delta"] for got in self.events for one in got["choices"])
        return "".join(delta.get(name) or "" for delta in deltas)

"""The other engine: copies bytes.

It shares routes, credentials, retry before the first byte, timers, breaker and cancellation with the pipeline; it neither parses
nor repairs nor adds frames. It serves streams with `streaming.engine = "relay"`, answers that are not streamed, and every POST
below /v1 that evenflow does not know. The end of a relayed answer is judged by HTTP framing alone.

What it cannot do follows from that: once a byte was sent, a failing upstream can only be told by breaking the connection, which
every HTTP client sees as an error, and a finished-looking but truncated stream passes for whole.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import trio

from .errors import ClientGone, ClientStalled, UpstreamError, UpstreamTimeout
from .open_attempt import OpenAttempt
from .outcome import End, Outcome, Party, Phase
from .outlet import ResponseHead
from .sansio.chunks import AttemptsExhausted
from .sansio.faults import Fault, FaultKind, shutdown_fault
from .sansio.headers import to_client
from .stream_processor import party_of

if TYPE_CHECKING:
    from .attempts import Attempts
    from .outcome import Tally
    from .outlet import Outlet
    from .routes import Timers
    from .shadow import Shadow
    from .writer import ResponseHeaders

_log = logging.getLogger(__name__)


class RelayProcessor:
    """Runs one relayed request from its start to its end; the same surface as StreamProcessor.

    Args:
      attempts: where open upstreams come from.
      headers: what evenflow puts on the response.
      timers: of the request: `total` and `client_stall`; the idle timer is the candidate's, and only for streams.
      stream: the client asked for a stream.
      tally: the request's counts, shared with `attempts`.
      shadow: is told every byte of the body; None tells nobody.
    """

    def __init__(
        self, attempts: Attempts, headers: ResponseHeaders, timers: Timers, *, stream: bool, tally: Tally, shadow: Shadow | None = None
    ) -> None:
        self._attempts = attempts
        self._headers = headers
        self._timers = timers
        self._stream = stream
        self._tally = tally
        self._shadow = shadow
        self._scope = trio.CancelScope()
        self._left_at: float | None = None
        self._shutting_down = False
        self._status = 0
        self._head_begun = False
        self._fault: Fault | None = None
        self._party: Party | None = None
        self._finished = False

    @property
    def tally(self) -> Tally:
        return self._tally

    @property
    def state(self) -> str:
        """What the request does now, in a word or two."""
        return "relaying" if self._head_begun else "initial"

    @property
    def upstream(self) -> str:
        """Who serves it now, "" while nobody does."""
        return self._attempts.upstream if self._head_begun else ""

    def client_left(self) -> None:
        """The client is gone: end everything that was done for it. Idempotent; harmless after the end."""
        if self._left_at is None:
            self._left_at = trio.current_time()
            self._scope.cancel()

    def shut_down(self) -> None:
        """The process is about to end: the client is told if no head was sent, else broken off. Idempotent; harmless after the end."""
        if not self._finished:
            self._shutting_down = True
            self._scope.cancel()

    async def run(self, outlet: Outlet) -> Outcome:
        """Relay one answer.

        Args:
          outlet: where its bytes go; finished or aborted when this returns.

        Cancellation: from outside at any point; upstream and permit are given back, the outlet is aborted.
        """
        try:
            with self._scope, trio.move_on_after(self._timers.total) as patience:
                await self._relay(outlet)
            if patience.cancelled_caught and self._left_at is None:
                await self._fail(self._too_long(), outlet)
            elif self._shutting_down and self._left_at is None and not self._finished:
                await self._fail(shutdown_fault(), outlet)
        except ClientGone as loss:
            self._party = Party.CLIENT_STALLED if isinstance(loss, ClientStalled) else Party.CLIENT
        except Exception:
            # The isolation of DESIGN section 3: a bug in one request ends that request and nothing else, loudly.
            _log.exception("the relay of a request crashed")
            await self._report_crash(outlet)
        finally:
            self._tally.ended = trio.current_time()
            if not self._finished:
                outlet.abort()
        outcome = self.outcome()
        self._tally.told(outcome.fault)
        return outcome

    async def _relay(self, outlet: Outlet) -> None:
        fault: Fault | None = None
        while True:
            step = await self._attempts.advance(fault)
            fault = None
            if isinstance(step, AttemptsExhausted):
                await self._fail(step.fault, outlet)
                return
            if isinstance(step, OpenAttempt):
                async with step:
                    fault = await self._copy(step, outlet)
                    step.report(fault)
                if fault is None or self._head_begun:
                    break  # what broke before its first byte is asked for again, as long as that is allowed
        if self._shadow is not None:
            self._shadow.over(fault)
        if fault is not None:
            await self._fail(fault, outlet)
            return
        await outlet.finish()
        self._finished = True
        self._party = Party.NOBODY

    async def _copy(self, attempt: OpenAttempt, outlet: Outlet) -> Fault | None:
        """Send the head and every byte of the body; the fault that broke it, None if it came whole."""
        response = attempt.response
        headers = [*to_client(response.headers, same_body=True), *self._headers.ours(attempt.upstream, attempt.number)]
        if self._stream:
            headers = [header for header in headers if header[0] != b"cache-control"]
            headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        idle = attempt.candidate.timers.idle if self._stream else math.inf
        shadow = self._shadow
        if shadow is not None:
            shadow.begin(attempt.number, attempt.upstream)
        try:
            # The first byte is awaited before the head is sent: until then the client can still be told with a status.
            data = await self._next(attempt, idle)
            self._tally.head_sent = self._tally.first_token = trio.current_time()
            self._head_begun = True
            await self._start(ResponseHead(response.status, tuple(headers)), data, outlet)
            if shadow is not None and data:
                shadow.take(data)
            while data and (data := await self._next(attempt, idle)):
                if not (self._take(data, outlet) and await self._pour(attempt, idle, outlet)):
                    await outlet.flush()
        except UpstreamError as error:
            return attempt.fault(error)
        return None

    def _take(self, data: bytes, outlet: Outlet) -> bool:
        """Pass a piece on. Returns: whether the client took it whole; if not, the outlet has to be flushed before the next."""
        whole = outlet.write_nowait(data)
        if self._shadow is not None:
            self._shadow.take(data)
        self._tally.bytes_out += len(data)
        return whole

    async def _pour(self, attempt: OpenAttempt, idle: float, outlet: Outlet) -> bool:
        """Pass on what comes for as long as nobody has to be waited for but the upstream; see OpenAttempt.pour()."""
        came = trio.current_time()

        def take(data: bytes) -> bool:
            nonlocal came
            came = trio.current_time()
            return self._take(data, outlet)

        while True:
            # One scope for many pieces: the deadline is looked at again when it has passed.
            with trio.CancelScope(deadline=came + idle):
                return await attempt.pour(take)
            if trio.current_time() >= came + idle:
                if not attempt.response.has_come():
                    raise UpstreamTimeout("timers.idle", idle)
                came = trio.current_time()  # it was this process that stood still

    async def _next(self, attempt: OpenAttempt, idle: float) -> bytes:
        with trio.move_on_after(idle):
            return await attempt.read()
        raise UpstreamTimeout("timers.idle", idle)

    async def _fail(self, fault: Fault, outlet: Outlet) -> None:
        """Tell the client while it can still be told; after the head only the broken connection tells it."""
        self._fault = fault
        self._party = party_of(fault)
        if self._head_begun:
            return
        self._head_begun = True
        head, body = self._headers.error(fault, self._tally.attempts)
        await self._start(head, body, outlet)
        await outlet.finish()
        self._finished = True

    async def _start(self, head: ResponseHead, data: bytes, outlet: Outlet) -> None:
        try:
            await outlet.start(head, data)
        except ClientStalled:
            self._status = head.status
            raise
        self._status = head.status
        self._tally.bytes_out += len(data)

    async def _report_crash(self, outlet: Outlet) -> None:
        fault = Fault(FaultKind.INTERNAL, "evenflow failed while it handled this request; its log says why")
        self._fault, self._party = fault, Party.PROXY
        try:
            await self._fail(fault, outlet)
        except ClientGone:
            pass  # the crash is what ended it

    def _too_long(self) -> Fault:
        seconds = self._timers.total
        return Fault(FaultKind.TOTAL_TIMEOUT, f"the request was not complete within timers.total = {seconds:g} s", setting="timers.total")

    def outcome(self) -> Outcome:
        """How the request ended. Before it has, it is one that evenflow itself cancels."""
        end = End.CANCELLED
        party = Party.PROXY if self._party is None else self._party
        if self._party is None and self._left_at is not None:
            party = Party.CLIENT
        elif self._fault is not None:
            end = End.ERROR
        elif party is Party.NOBODY:
            end = End.DONE
        latency = None
        if end is End.CANCELLED and self._left_at is not None and self._tally.ended is not None and self._tally.attempts:
            latency = self._tally.ended - self._left_at
        phase = Phase.NONE if end is End.DONE else self._phase()
        return Outcome(end, party, phase, self._status, self._fault, self._attempts.upstream, self._tally, latency)

    def _phase(self) -> Phase:
        if self._tally.head_sent is not None:
            return Phase.DATA
        return Phase.HEAD if self._attempts.connected else Phase.CONNECTING

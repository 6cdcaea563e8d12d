"""StreamProcessor: the supervisor of one stream. The only module that knows all four stages.

    reader -> parser -> detector -> writer -> outlet
       ^------- orders ------´

The stages are one_for_all and never restarted: whichever ends early on purpose says so and the others follow; whichever crashes
takes its stream with it, and nothing else. `run()` returns an Outcome, whatever happened; the only exception that leaves it is
the Cancelled of whoever cancelled it from outside.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from .detector import Detector
from .errors import ClientGone
from .orders import Orders
from .outcome import End, Outcome, Party, Phase
from .parser import Parser
from .reader import read_upstream
from .sansio.chunks import Weight
from .sansio.effects import Complete, Failed
from .sansio.faults import Fault, FaultKind
from .sansio.stream_state import words_of
from .writer import Loss, Writer, Written

if TYPE_CHECKING:
    from .alarms import Alarms
    from .attempts import Attempts
    from .outcome import Tally
    from .outlet import Outlet
    from .sansio.stream_machine import StreamMachine
    from .writer import ResponseHeaders

_log = logging.getLogger(__name__)

_SILENCES: Final = frozenset({FaultKind.CONNECT_TIMEOUT, FaultKind.FIRST_TOKEN_TIMEOUT, FaultKind.IDLE_TIMEOUT})
_OURS: Final = frozenset(
    {FaultKind.TOTAL_TIMEOUT, FaultKind.LOOP, FaultKind.SHUTDOWN, FaultKind.INTERNAL, FaultKind.UNAVAILABLE, FaultKind.BUSY}
)


class StreamProcessor:
    """Runs one stream from its request to its end.

    Args:
      attempts: where open upstreams come from.
      machine: the stream's decisions.
      headers: what evenflow puts on the response.
      max_event: bytes of the largest event that passes.
      tally: the stream's counts, shared with `attempts` and `machine`.
      alarms: the process's.
    """

    def __init__(
        self, attempts: Attempts, machine: StreamMachine, headers: ResponseHeaders, *, max_event: int, tally: Tally, alarms: Alarms
    ) -> None:
        self._attempts = attempts
        self._machine = machine
        self._headers = headers
        self._max_event = max_event
        self._tally = tally
        self._alarms = alarms
        self._detector: Detector | None = None
        self._scope: trio.CancelScope | None = None  # its nursery's
        self._left_at: float | None = None
        self._written = Written()

    @property
    def tally(self) -> Tally:
        return self._tally

    @property
    def state(self) -> str:
        """What the stream does now, in a word or two."""
        return words_of(self._machine.state)

    @property
    def upstream(self) -> str:
        """Who serves it now, "" while nobody does."""
        return self._machine.upstream

    def client_left(self) -> None:
        """The client is gone: end everything that was done for it. Idempotent; harmless after the end."""
        if self._left_at is None:
            self._left_at = trio.current_time()
            if self._scope is not None:
                self._scope.cancel()

    def shut_down(self) -> None:
        """The process is about to end: the machine ends the stream behind what was read so far. Idempotent; harmless after the end."""
        self._machine.shut_down(trio.current_time())
        if self._detector is not None:
            self._detector.nudge()

    async def run(self, outlet: Outlet) -> Outcome:
        """Run the stream's stages until its end.

        Args:
          outlet: where its bytes go; finished or aborted when this returns.

        Cancellation: from outside at any point; upstream and permit are given back, the outlet is aborted.
        """
        crash: Fault | None = None
        try:
            await self._run_stages(outlet)
        except ExceptionGroup as group:
            # The isolation of DESIGN section 3: a bug in one stream ends that stream and nothing else, loudly.
            _log.error("a stage of a stream crashed", exc_info=group)
            crash = Fault(FaultKind.INTERNAL, "evenflow failed while it handled this stream; its log says why")
            await self._report_crash(outlet, crash)
        finally:
            self._tally.ended = trio.current_time()
            self._machine.abandon(self._tally.ended)
            if self._written.end is None:
                outlet.abort()
        outcome = self.outcome(crash)
        self._tally.told(outcome.fault)
        return outcome

    async def _run_stages(self, outlet: Outlet) -> None:
        orders = Orders()
        async with trio.open_nursery() as nursery:
            self._scope = scope = nursery.cancel_scope
            if self._left_at is not None:
                scope.cancel()
            writer = Writer(outlet, self._headers, self._tally, self._written, nursery=nursery, lose_client=scope)
            self._detector = detector = Detector(self._machine, orders, writer, nursery=nursery, alarms=self._alarms)
            try:
                await read_upstream(self._attempts, orders, Parser(self._max_event, detector))
            finally:
                detector.close()
            assert self._machine.ended, "the reader left before the stream's end"

    async def _report_crash(self, outlet: Outlet, fault: Fault) -> None:
        """Tell the client, if what it has so far ends at a frame boundary."""
        if self._written.busy or self._written.loss is not None or self._machine.ended:
            return
        try:
            if self._written.status:
                await outlet.write(fault.to_frame())
            else:
                head, body = self._headers.error(fault, self._tally.attempts)
                await outlet.start(head, body)
                self._written.status = head.status
            await outlet.finish()
            self._written.end = Failed(fault)
        except ClientGone:
            self._written.loss = Loss.GONE

    def outcome(self, crash: Fault | None = None) -> Outcome:
        """How the stream ended. Before it has, it is a stream that evenflow itself cancels."""
        party, end, fault = Party.NOBODY, End.DONE, None
        written = self._written.end
        if crash is not None:
            party, end, fault = Party.PROXY, End.ERROR, crash
        elif self._written.loss is Loss.STALLED:
            party, end = Party.CLIENT_STALLED, End.CANCELLED
        elif (self._left_at is not None and written is None) or self._written.loss is Loss.GONE:
            party, end = Party.CLIENT, End.CANCELLED
        elif written is None:
            party, end = Party.PROXY, End.CANCELLED
        elif isinstance(written, Failed):
            fault = written.fault
            party, end = party_of(fault), End.ERROR
        latency = None
        if self._left_at is not None and end is End.CANCELLED and self._tally.ended is not None and self._tally.attempts:
            latency = self._tally.ended - self._left_at
        phase = Phase.NONE if end is End.DONE else self._phase()
        return Outcome(end, party, phase, self._written.status, fault, self._attempts.upstream, self._tally, latency)

    def _phase(self) -> Phase:
        if isinstance(self._machine.end, Complete):
            return Phase.LAST
        if self._machine.output_sent is not Weight.NOTHING:
            return Phase.DATA
        return Phase.HEAD if self._attempts.connected else Phase.CONNECTING


def party_of(fault: Fault) -> Party:
    """Who ended a request that ended with this fault."""
    if fault.kind in _SILENCES:
        return Party.UPSTREAM_SILENT
    return Party.PROXY if fault.kind in _OURS else Party.UPSTREAM

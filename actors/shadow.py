"""The shadow: the pipeline's decisions on the bytes of a relayed stream, made beside it. It changes and delays nothing.

The relay hands it each network read without waiting; a task of its own parses them and drives a StreamMachine whose frames nobody gets.
If that task falls behind, batches are dropped, and the verdict says that it is one about a part. A defect in here ends the shadow, is
counted, and is no concern of the stream's.

It cannot try again: where the pipeline would ask another upstream, the verdict is the fault that would have made it do so.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from .outcome import End, Tally
from .sansio.chunk_parser import ChunkParser
from .sansio.chunks import AttemptEnded, AttemptsExhausted, AttemptStarted
from .sansio.effects import Failed, Resume
from .sansio.stream_machine import Item

if TYPE_CHECKING:
    from collections.abc import Callable

    from .sansio.effects import Effects
    from .sansio.faults import Fault, FaultKind
    from .sansio.stream_machine import StreamMachine

_log = logging.getLogger(__name__)

#: Network reads that may wait for their turn: half a second of a fast stream, and 4 MiB where each read is full.
_WAITING: Final = 64


@dataclass(frozen=True, slots=True)
class ShadowVerdict:
    """What the pipeline would have made of a stream.

    Args:
      end: DONE or ERROR; CANCELLED if the stream ended before the answer did.
      fault: why not DONE.
      repairs: events that would have been changed, by shape; `holds` and `longest_hold` (seconds) what would have waited.
      events: that were seen.
      dropped: network reads that came too fast; with any, nothing is said about the end.
      crashed: the text of the exception that ended the shadow, "" if none did.
    """

    end: End
    fault: FaultKind | None = None
    repairs: Counter[str] = field(default_factory=Counter)
    holds: int = 0
    longest_hold: float = 0.0
    events: int = 0
    dropped: int = 0
    crashed: str = ""


class Shadow:
    """Watches one relayed stream.

    Args:
      open_machine: makes the machine that decides, given its tally; its timers must be off, for the relay keeps its own.
      max_event: bytes of the largest event that would pass.
    """

    def __init__(self, open_machine: Callable[[Tally], StreamMachine], *, max_event: int) -> None:
        self._tally = Tally(started=trio.current_time())
        self._machine = open_machine(self._tally)
        self._parser = ChunkParser(max_event)
        self._inbox_in, self._inbox_out = trio.open_memory_channel[Item | bytes](_WAITING)
        self._number = 0
        self._dropped = 0
        self._crashed = ""
        self._finished = trio.Event()

    # ---- what the relay tells; none of it waits or raises

    def begin(self, number: int, upstream: str) -> None:
        """An attempt's answer begins."""
        self._number = number
        self._tell(AttemptStarted(number, upstream, (), math.inf))

    def take(self, data: bytes) -> None:
        """One network read of its body."""
        self._tell(data)

    def over(self, fault: Fault | None) -> None:
        """The body is over; `fault` is None if it ended as HTTP says it should. Nothing may be told after it."""
        self._tell(AttemptEnded(self._number, fault))
        self._inbox_in.close()

    def _tell(self, item: Item | bytes) -> None:
        if self._dropped:
            self._dropped += 1
            return
        try:
            self._inbox_in.send_nowait(item)
        except trio.WouldBlock:
            self._dropped = 1  # a gap: what follows cannot be judged
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it crashed, or the answer was over by its own account

    # ---- the side branch

    async def run(self) -> None:
        """Decide until the stream is over. Cancellation: at any point. Never raises anything else."""
        try:
            with self._inbox_out:
                await self._drive()
        except Exception as exc:
            _log.exception("the shadow of a stream crashed; the stream itself is not touched by it")
            self._crashed = repr(exc)
        finally:
            self._finished.set()

    async def finish(self) -> ShadowVerdict:
        """The verdict, once everything that was told has been looked at. To be called after the stream has ended."""
        self._inbox_in.close()
        await self._finished.wait()
        return self.verdict()

    def verdict(self) -> ShadowVerdict:
        """What is known by now."""
        tally, end = self._tally, self._machine.end
        result, fault = End.CANCELLED, None
        if isinstance(end, Failed):
            result, fault = End.ERROR, end.fault.kind
        elif end is not None:
            result = End.DONE
        return ShadowVerdict(result, fault, tally.repairs, tally.holds, tally.longest_hold, tally.events, self._dropped, self._crashed)

    async def _drive(self) -> None:
        machine = self._machine
        try:
            while not machine.ended:
                if machine.deadline == math.inf:
                    self._receive(await self._inbox_out.receive())
                    continue
                with trio.move_on_at(machine.deadline):  # something is held: rare enough for a scope
                    self._receive(await self._inbox_out.receive())
                    continue
                machine.wake(trio.current_time())
        except trio.EndOfChannel:
            pass
        finally:
            machine.abandon(trio.current_time())

    def _receive(self, item: Item | bytes) -> None:
        now = trio.current_time()
        if isinstance(item, bytes):
            self._obey(self._machine.receive(self._parser.feed(item), now), now)
            return
        if isinstance(item, AttemptEnded):
            self._obey(self._machine.receive(self._parser.close(clean=item.fault is None), now), now)
        self._obey(self._machine.receive(item, now), now)

    def _obey(self, effects: Effects, now: float) -> None:
        """There is no other attempt."""
        if isinstance(effects.order, Resume):
            self._machine.receive(AttemptsExhausted(effects.order.fault), now)

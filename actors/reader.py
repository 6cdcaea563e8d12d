"""The reader: brings the attempts' bytes into the pipeline, and obeys the machine's orders.

It never decides why a stream ends. Per attempt it sends AttemptStarted, the bytes, and one AttemptEnded unless the order came
first; then it waits for the order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self, TypeAlias

from .errors import UpstreamError
from .open_attempt import OpenAttempt
from .sansio.chunks import AttemptEnded, AttemptFailed, AttemptsExhausted, AttemptStarted
from .sansio.effects import Finish

if TYPE_CHECKING:
    from .attempts import Attempts
    from .orders import Orders
    from .outbox import Outbox
    from .sansio.faults import Fault
    from .sansio.resume_plan import ResumePlan

RawItem: TypeAlias = bytes | AttemptStarted | AttemptFailed | AttemptEnded | AttemptsExhausted

#: So much is read beyond an early end ([DONE]) to reach the end of the body; see orders.py.
DRAIN_BYTES: Final = 64 * 1024


async def read_upstream(attempts: Attempts, orders: Orders, outbox: Outbox[RawItem]) -> None:
    """Run attempts until the machine is satisfied or none is left.

    Args:
      attempts: where open upstreams come from.
      orders: from the machine.
      outbox: to the parser.

    Cancellation: at any point; the open attempt is closed and its permit given back.
    """
    after: Fault | None = None
    plan: ResumePlan | None = None
    while True:
        step: OpenAttempt | AttemptFailed | AttemptsExhausted | None = None
        async with _Held() as held:
            with orders.interrupting():
                step = held.attempt = await attempts.advance(after, plan)
                if isinstance(step, OpenAttempt):
                    await _run(step, orders, outbox)
            if isinstance(step, OpenAttempt):
                order = orders.take()
                step.report(order.fault)
                if isinstance(order, Finish):
                    return
                after, plan = order.fault, order.plan
                continue
        if step is None:
            return  # the search was called off
        after = plan = None
        await _send(step, outbox)
        if isinstance(step, AttemptsExhausted):
            return


class _Held:
    """Closes the attempt that came into it, outside the one scope that ends the search for it as well as its reading."""

    __slots__ = ("attempt",)

    async def __aenter__(self) -> Self:
        self.attempt: OpenAttempt | AttemptFailed | AttemptsExhausted | None = None
        return self

    async def __aexit__(self, *_: object) -> None:
        if isinstance(self.attempt, OpenAttempt):
            await self.attempt.aclose()


async def _run(attempt: OpenAttempt, orders: Orders, outbox: Outbox[RawItem]) -> None:
    """Copy one attempt until its order is there, which ends it."""
    idle = attempt.candidate.timers.idle
    await _send(AttemptStarted(attempt.number, attempt.upstream, attempt.client_headers, idle, attempt.resumes), outbox)
    fault = await _copy(attempt, orders, outbox)
    if not orders.pending:
        await _send(AttemptEnded(attempt.number, fault), outbox)
        await orders.wait()


async def _copy(attempt: OpenAttempt, orders: Orders, outbox: Outbox[RawItem]) -> Fault | None:
    """Send the attempt's bytes on until its body ends, breaks, or has been read far enough beyond its early end."""
    surplus = 0

    def take(data: bytes) -> bool:
        nonlocal surplus
        if not orders.pending:
            return outbox.put(data)
        surplus += len(data)
        return surplus <= DRAIN_BYTES

    try:
        while data := await attempt.read():
            if not (take(data) and await attempt.pour(take)):
                if surplus > DRAIN_BYTES:
                    return None
                await outbox.room()
    except UpstreamError as error:
        return attempt.fault(error)
    return None


async def _send(item: RawItem, outbox: Outbox[RawItem]) -> None:
    if not outbox.put(item):
        await outbox.room()

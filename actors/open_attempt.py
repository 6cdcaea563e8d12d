"""An upstream that answered: its bytes, and what is given back when they end."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Self

import trio

from .sansio.classifier import classify_exception
from .sansio.faults import Verdict
from .sansio.headers import to_client
from .sansio.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType

    from .circuit_breaker import Permit
    from .errors import UpstreamError
    from .outcome import Tally
    from .routes import Candidate
    from .sansio.faults import Fault
    from .upstream import UpstreamResponse


class OpenAttempt:
    """An upstream that answered. Use it as an async context manager; leaving it unreported gives the permit back uncounted.

    Args:
      number: counts the request's attempts from 1.
      candidate: where it went.
      response: its open response.
      first: the bytes the first look consumed.
      permit: the circuit breaker's, still held.
      tally: the request's.
      resumes: "prefix" or "align" if it was asked to take up an answer, "" otherwise.
      slot: the upstream's, given back once the connection is closed.
      slow_below: tokens per second below which the attempt counts as slow, 0 if its pace is not looked at.
    """

    def __init__(
        self,
        number: int,
        candidate: Candidate,
        response: UpstreamResponse,
        first: bytes,
        permit: Permit,
        tally: Tally,
        resumes: str = "",
        *,
        slot: AbstractContextManager[object] | None = None,
        slow_below: float = 0.0,
    ) -> None:
        self.resumes = resumes
        self.number = number
        self.candidate = candidate
        self.response = response
        self._first = first
        self._permit = permit
        self._tally = tally
        self._slot = slot or nullcontext()
        self._pace = Pace(slow_below) if slow_below else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the response and give everything back."""
        with self._slot, self._permit:
            await self.response.aclose()

    @property
    def upstream(self) -> str:
        return self.candidate.upstream.name

    @property
    def client_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The upstream's headers as they may go to the client of a stream."""
        return tuple(to_client(self.response.headers, same_body=False))

    async def read(self) -> bytes:
        """The next piece of the body, b"" at its clean end.

        Raises:
          UpstreamError: the connection broke.
        """
        if self._first:
            data, self._first = self._first, b""
            return data
        if self._pace is None:
            data = await self.response.read()
        else:
            began = trio.current_time()
            data = await self.response.read()
            self._pace.saw(data, trio.current_time() - began)
        self._tally.bytes_in += len(data)
        return data

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        """Hand over pieces of the body as they come, for as long as that is possible without a wait and `take` asks for more.

        Returns:
          False: `take` wants no more. True: `read()` has what comes next, be it the end.

        Raises: what `take` raises.
        """
        if self._first or self._pace is not None:  # a pace is the time between a wait's begin and its end
            return True
        tally = self._tally

        def counted(data: bytes) -> bool:
            tally.bytes_in += len(data)
            return take(data)

        return await self.response.pour(counted)

    def fault(self, error: UpstreamError) -> Fault:
        return classify_exception(error, self.upstream)

    def report(self, fault: Fault | None) -> None:
        """Tell the circuit breaker how it ended; None is success."""
        if fault is not None:
            self._permit.ended(fault.verdict, fault.retry_after)
            self._tally.faults[fault.upstream, fault.kind.value] += 1
            self._tally.tell(trio.current_time(), "fault", f"{fault.upstream}: {fault.kind.value}")
        elif self._pace is not None and self._pace.slow:
            self._permit.ended(Verdict.SLOW)
        else:
            self._permit.ended(Verdict.SUCCESS)

"""The outlets: how a response leaves through the HTTP server.

`PlainOutlet` writes on an exchange of our own edge: what the socket takes at once costs no timer and no task, and a write that has to wait
is given up after the stall. `AsgiOutlet` takes any server. There a write waits for a client that does not read as long as that client
likes, so no stage of a stream ever awaits it: each message is handed over, through a channel without a buffer, to a sender task in the
*request's* nursery. A stalled client is noticed by the hand-over not happening, and then upstream, permit and connection are freed at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from actors import ClientGone, ClientStalled

from .edge_exchange import EXTENSION, Exchange

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from actors import Outcome, ResponseHead

    from .services import Processor

Message: TypeAlias = dict[str, Any]


def exchange_of(scope: Mapping[str, Any]) -> Exchange | None:
    """The exchange that a request runs on; None if it came in another way than through our own edge and in plain form."""
    exchange = scope.get("extensions", {}).get(EXTENSION)
    return exchange if type(exchange) is Exchange else None


class PlainOutlet:
    """An Outlet over an exchange.

    Args:
      send: the request's, as the application got it: heads go through it, so that whoever wrapped it sees them.
      stall: seconds that one write may wait before the client counts as stalled.
    """

    def __init__(self, exchange: Exchange, send: Callable[[Any], Awaitable[None]], stall: float) -> None:
        self._exchange = exchange
        self._send = send
        self._stall = stall
        self._kept = b""  # framed, and not written yet
        self._ending = False

    async def start(self, head: ResponseHead, data: bytes = b"") -> None:
        await self._send({"type": "http.response.start", "status": head.status, "headers": head.headers})
        await self.write(data)

    def start_nowait(self, head: ResponseHead, data: bytes, *, ends: bool = False) -> bool:
        _run_at_once(self._send({"type": "http.response.start", "status": head.status, "headers": head.headers}))
        return self.finish_nowait(data) if ends else self.write_nowait(data)

    async def write(self, data: bytes) -> None:
        try:
            await self._exchange.write(data, self._stall)
        except OSError as exc:
            raise self._loss(exc) from exc

    def write_nowait(self, data: bytes) -> bool:
        try:
            self._kept = self._exchange.write_nowait(data)
        except OSError as exc:
            raise self._loss(exc) from exc
        return not self._kept

    async def flush(self) -> None:
        kept, self._kept = self._kept, b""
        try:
            if self._ending:
                await self._exchange.finish_rest(kept, self._stall)
            else:
                await self._exchange.write_rest(kept, self._stall)
        except OSError as exc:
            raise self._loss(exc) from exc

    async def finish(self, data: bytes = b"") -> None:
        if not self.finish_nowait(data):
            await self.flush()

    def finish_nowait(self, data: bytes) -> bool:
        self._exchange.watch(None)  # from here on a client that leaves is no loss, unless it leaves too little room for the rest
        self._ending = True
        try:
            self._kept = self._exchange.finish_nowait(data)
        except OSError as exc:
            raise self._loss(exc) from exc
        return not self._kept

    def abort(self) -> None:
        self._exchange.watch(None)
        self._exchange.abort()

    def _loss(self, exc: OSError) -> ClientGone:
        if isinstance(exc, TimeoutError):
            self._exchange.watch(None)  # its connection was closed by us: it has not left, it was given up
            return ClientStalled()
        self._exchange.leave()
        return ClientGone()


def _run_at_once(call: Awaitable[None]) -> None:
    """Run what never waits: an exchange takes a head as a value, and whoever wraps `send` only changes it."""
    steps = call.__await__()
    for _ in steps:
        raise RuntimeError("a response head had to wait")


class AsgiOutlet:
    """An Outlet over an ASGI `send`.

    Args:
      send: of the request.
      stall: seconds that one hand-over may wait before the client counts as stalled.
    """

    def __init__(self, send: Callable[[Any], Awaitable[None]], stall: float) -> None:
        self._send = send
        self._stall = stall
        self._handover, self._received = trio.open_memory_channel[Message](0)
        self._delivered = trio.Event()
        self._kept: list[Message] = []  # what could not be handed over at once
        self.ending = False  # the end of the body was handed over: from here on a disconnect is no loss

    async def deliver(self) -> None:
        """The sender task: runs in the request's nursery until the body's end was sent or the outlet was aborted."""
        with self._received:
            async for message in self._received:
                final = message["type"] == "http.response.body" and not message["more_body"]
                try:
                    await self._send(message)
                except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                    return
                if final:
                    self._delivered.set()
                    return

    async def start(self, head: ResponseHead, data: bytes = b"") -> None:
        self.start_nowait(head, data)
        await self.flush()

    def start_nowait(self, head: ResponseHead, data: bytes, *, ends: bool = False) -> bool:
        # Two messages, of which only one could be handed over at once. The second also of no bytes: a server may keep the head until then.
        self._kept = [
            {"type": "http.response.start", "status": head.status, "headers": list(head.headers)},
            {"type": "http.response.body", "body": data, "more_body": not ends},
        ]
        self.ending = ends
        return False

    async def write(self, data: bytes) -> None:
        await self._hand_over({"type": "http.response.body", "body": data, "more_body": True})

    def write_nowait(self, data: bytes) -> bool:
        message: Message = {"type": "http.response.body", "body": data, "more_body": True}
        try:
            self._handover.send_nowait(message)
        except trio.WouldBlock:
            self._kept = [message]
            return False
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ClientGone from exc
        return True

    async def flush(self) -> None:
        kept, self._kept = self._kept, []
        for message in kept:
            await self._hand_over(message)
        if self.ending:
            with trio.move_on_after(self._stall):
                await self._delivered.wait()
                return
            raise ClientStalled

    async def finish(self, data: bytes = b"") -> None:
        self.finish_nowait(data)
        await self.flush()

    def finish_nowait(self, data: bytes) -> bool:
        self.ending = True
        self._kept = [{"type": "http.response.body", "body": data, "more_body": False}]
        return False  # it has to be seen leaving

    def abort(self) -> None:
        self._handover.close()

    async def _hand_over(self, message: Message) -> None:
        try:
            try:
                self._handover.send_nowait(message)
            except trio.WouldBlock:
                with trio.move_on_after(self._stall):
                    await self._handover.send(message)
                    return
                raise ClientStalled from None
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ClientGone from exc


async def run_processor(
    processor: Processor,
    stall: float,
    scope: Mapping[str, Any],
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Awaitable[None]],
) -> Outcome:
    """Run a processor to its end on the outlet that fits the request, and tell it if the client leaves.

    Args:
      stall: seconds that one write may wait before the client counts as stalled.
      scope, receive, send: the request's, as ASGI has them.
    """
    if (exchange := exchange_of(scope)) is not None:
        exchange.watch(processor.client_left)
        return await processor.run(PlainOutlet(exchange, send, stall))
    async with trio.open_nursery() as nursery:
        outlet = AsgiOutlet(send, stall)
        nursery.start_soon(outlet.deliver)
        nursery.start_soon(_watch_disconnect, receive, processor, outlet)
        outcome = await processor.run(outlet)
        nursery.cancel_scope.cancel()
    return outcome


async def _watch_disconnect(receive: Callable[[], Awaitable[Any]], processor: Processor, outlet: AsgiOutlet) -> None:
    """Tell the processor when the client leaves. Without this nobody would notice: what is sent after is swallowed."""
    while (await receive())["type"] != "http.disconnect":
        pass
    if not outlet.ending:
        processor.client_left()

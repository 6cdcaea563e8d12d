"""The outlets: how a response leaves through the HTTP server.

A write waits for a client that does not read as long as that client likes, and one that is cancelled has torn the connection. So no
stage of a stream ever awaits it. Each message is handed over, through a channel without a buffer, to a sender task in the *request's*
nursery: a stalled client is noticed by the hand-over not happening, and then upstream, permit and connection are freed at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from actors import ClientGone, ClientStalled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors import ResponseHead

Message: TypeAlias = dict[str, Any]


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
        await self._hand_over({"type": "http.response.start", "status": head.status, "headers": list(head.headers)})
        if data:
            await self.write(data)

    async def write(self, data: bytes) -> None:
        await self._hand_over({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        self.ending = True
        await self._hand_over({"type": "http.response.body", "body": data, "more_body": False})
        with trio.move_on_after(self._stall):
            await self._delivered.wait()
            return
        raise ClientStalled

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

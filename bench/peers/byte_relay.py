"""The floor: copies bytes between two sockets and knows no HTTP. What trio costs without anything on top.

python -m bench.peers.byte_relay UPSTREAM_PORT
"""

from __future__ import annotations

import sys
from functools import partial

import trio


async def copy(source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
    """One direction, until either side is gone; then both are."""
    try:
        while data := await source.receive_some(65_536):
            await sink.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # either side may leave whenever it likes
    scope.cancel()


async def relay(upstream: int, client: trio.SocketStream) -> None:
    """One client's connection from its beginning to its end."""
    socket = trio.socket.socket()
    await socket.connect(("127.0.0.1", upstream))
    async with trio.SocketStream(socket) as server, trio.open_nursery() as nursery:
        nursery.start_soon(copy, client, server, nursery.cancel_scope)
        await copy(server, client, nursery.cancel_scope)


async def serve(upstream: int) -> None:
    """Listen on a free port, say which, relay until the process is ended."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=4096)
    print(f"listening {listeners[0].socket.getsockname()[1]}", flush=True)
    await trio.serve_listeners(partial(relay, upstream), listeners)


if __name__ == "__main__":
    trio.run(serve, int(sys.argv[1]))

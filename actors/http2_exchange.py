"""One request over HTTP/2: sends, listens, and comes back with the response's head. transport.py says when and on which connection.

A connection carries one stream at a time. Where many share one, a client that leaves can only be told to the server in a frame, behind
all that waits to be sent, and a server that goes on regardless holds up the others; here leaving closes the socket, and nothing that was
asked for outlives whoever asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from .errors import UpstreamDisconnected

if TYPE_CHECKING:
    from .connection import Connection
    from .http2 import Http2Response, Http2Session

#: An answer to a request that is still being sent is read for so many seconds before the sending stops; see transport.py.
EARLY_ANSWER_SECONDS: Final = 1.0
EARLY_ANSWER_BYTES: Final = 64 * 1024
#: What has come on an idle connection is looked at for so many seconds. It is there already; a part of a TLS record must not hold us up.
_LOOK_SECONDS: Final = 0.01


async def is_still_good(connection: Connection, session: Http2Session) -> bool:
    """Look at what came while the connection was idle: a server may have said that it closes, or only asked whether we are there.

    What TLS has taken from the socket beyond the last answer is not seen here; it is heard before the next answer, and the worst that it
    can be, a GOAWAY, makes the request be tried again on a new connection.
    """
    while not session.closing and connection.has_come():
        with trio.move_on_after(_LOOK_SECONDS) as look:
            try:
                session.feed(await connection.receive())
            except UpstreamDisconnected:
                return False
        if look.cancelled_caught:
            break
    return not session.closing


async def converse(connection: Connection, response: Http2Response) -> bool:
    """Send a request and read until the response's head is complete, or `response.failure` says why it never will be.

    Returns:
      The request went out whole.
    """
    if response.over:
        return False
    sent = await _send_or_not(connection, response.outgoing())
    if sent and not response.said:
        sent = await _send_and_listen(connection, response)
    while not response.head_complete and not response.over:
        await _send_or_not(connection, response.due())
        await _receive(connection, response)
    return sent


async def _send_and_listen(connection: Connection, response: Http2Response) -> bool:
    """Send the rest of a long body. An answer that is an error ends the sending (FAULTS row 36); any other waits for it."""
    heard = trio.Event()
    sent = False

    async def send() -> None:
        nonlocal heard, sent
        going = True
        while going and not response.over and not response.said:
            if data := response.outgoing():
                going = await _send_or_not(connection, data)
            else:
                await heard.wait()  # that the server has room again
                heard = trio.Event()
        sent = going and response.said
        listening.cancel()

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as listening:
            nursery.start_soon(send)
            while not response.over:  # also beyond the head: what is listened for is room for the rest of the request
                await _receive(connection, response)
                heard.set()
                if response.status >= 300:
                    # trio's TLS streams cannot be read any more once a send on them was cancelled, so the error's text is read before.
                    listening.deadline = min(listening.deadline, trio.current_time() + EARLY_ANSWER_SECONDS)
                    if response.held >= EARLY_ANSWER_BYTES:
                        break
        nursery.cancel_scope.cancel()
    return sent


async def _send_or_not(connection: Connection, data: bytes) -> bool:
    """Send it if there is anything. What is heard from a peer that takes nothing more says why."""
    try:
        if data:
            await connection.send(data)
    except UpstreamDisconnected:
        return False
    return True


async def _receive(connection: Connection, response: Http2Response) -> None:
    """One read. A broken connection is one more thing that the response can come to; it is told in its turn."""
    try:
        data = await connection.receive()
    except UpstreamDisconnected as failure:
        response.fail(failure)
    else:
        response.feed(data)

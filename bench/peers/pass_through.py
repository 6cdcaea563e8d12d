"""The naive one: what anybody would write first with quart-trio, hypercorn and httpx, each with its defaults. It passes bytes on.

python -m bench.peers.pass_through UPSTREAM_PORT
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import httpx
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import Response, request
from quart_trio import QuartTrio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_HOP_BY_HOP = frozenset({"connection", "host", "content-length", "transfer-encoding", "keep-alive"})


def create_app(upstream: int) -> QuartTrio:
    """The application."""
    app = QuartTrio("pass_through")
    # The two limits that would make it fail rather than be slow: of 100 connections, and of 60 s for a stream.
    client = httpx.AsyncClient(timeout=None, trust_env=False, limits=httpx.Limits(max_connections=None, max_keepalive_connections=None))
    app.config["RESPONSE_TIMEOUT"] = None

    @app.post("/v1/<path:rest>")
    async def forward(rest: str) -> Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        asked = client.build_request("POST", f"http://127.0.0.1:{upstream}/v1/{rest}", headers=headers, content=await request.get_data())
        answer = await client.send(asked, stream=True)

        async def body() -> AsyncIterator[bytes]:
            try:
                async for data in answer.aiter_raw():
                    yield data
            finally:
                with trio.CancelScope(shield=True):  # also when the client has left
                    await answer.aclose()

        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
        return Response(body(), answer.status_code, kept)

    return app


async def main(upstream: int) -> None:
    """Listen on a free port, say which, serve until the process is ended."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(f"listening {listener.getsockname()[1]}", flush=True)
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = None
    await serve(create_app(upstream), config)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))

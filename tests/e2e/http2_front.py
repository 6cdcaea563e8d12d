"""hypercorn, as a server of HTTP/2 over TLS, before a simulator: whatever the simulator can answer, over the other version."""

from __future__ import annotations

import ssl
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import hypercorn.trio
import trio
import trustme
from hypercorn.config import Config

from actors.transport import Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path


@dataclass
class Http2Front:
    """What a test knows of it.

    Args:
      ca_file: who trusts it trusts this.
      versions: of HTTP, one for each request.
      clients: ports that requests came from, one for each.
    """

    ca_file: str
    base_url: str = ""
    versions: list[str] = field(default_factory=list)
    clients: list[int] = field(default_factory=list)


@asynccontextmanager
async def http2_front(target: str, folder: Path, protocols: tuple[str, ...] = ("h2", "http/1.1")) -> AsyncIterator[Http2Front]:
    """Run it for the length of a block.

    Args:
      target: base URL of the simulator.
      folder: for the certificate.
      protocols: that it offers.
    """
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    front = Http2Front(str(folder / "ca.pem"))
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.certfile = config.keyfile = str(folder / "server.pem")
    config.alpn_protocols = list(protocols)
    config.graceful_timeout = 0.1
    config.errorlog = config.accesslog = None
    place = urlsplit(target)
    transport = Transport(ssl.create_default_context())

    async def app(scope: Mapping[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] != "http":
            raise RuntimeError("there is nothing to start")  # hypercorn goes on without
        front.versions.append(scope["http_version"])
        front.clients.append(scope["client"][1])
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body"):
                break
        headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
        url = httpx.URL(target).copy_with(raw_path=scope["raw_path"])
        request = httpx.Request(
            scope["method"], url, headers=[(b"host", place.netloc.encode()), *headers], stream=httpx.ByteStream(body), extensions={}
        )

        async def leaves() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leaves)
            response = await transport.handle_async_request(request)
            kept = [(name.lower(), value) for name, value in response.headers.raw if name.lower() not in _OF_HTTP_1]
            await send({"type": "http.response.start", "status": response.status_code, "headers": kept})
            reader = response.extensions["reader"]
            async with aclosing(reader):
                while data := await reader.read():
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        binds = await nursery.start(lambda task_status: hypercorn.trio.serve(app, config, task_status=task_status))
        front.base_url = f"https://localhost:{urlsplit(binds[0]).port}{place.path}"
        yield front
        nursery.cancel_scope.cancel()
    await transport.aclose()


_OF_HTTP_1 = frozenset({b"connection", b"keep-alive", b"transfer-encoding"})

"""Who may ask: the Host a request is meant for, and the page it comes from.

Owns the list of host names (a page that rebinds its own name to 127.0.0.1 still sends that name) and CORS. Both are the browser's
affairs: neither stands in for a key. No answer ever carries `access-control-allow-credentials`, nor `*`, nor the CORS headers of an
upstream: local model servers like to allow everybody.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from .edge_guard import Refusal
from .log import printable
from .settings import Address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .settings import Settings

    Send = Callable[[Any], Awaitable[None]]

_CORS: Final = b"access-control-"
#: Names that lead to this machine. host.docker.internal: a container's way to the host it runs on.
THIS_MACHINE: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "host.docker.internal"})
#: Probes come by the container's address, and learn nothing but yes or no.
_OPEN_TO_ALL: Final = frozenset({"/healthz", "/readyz"})
_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9,_ -]{1,2000}")
#: What a page may read of an answer beyond its body.
_EXPOSED: Final = b"retry-after, x-request-id, x-evenflow-upstream-request-id"
#: What a page may send to anybody without asking first, its cookies and all (Fetch, 4.2.3: CORS-safelisted); "" is a body without a type.
_UNASKED: Final = frozenset({"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
#: Seconds for which a browser may remember a preflight; Chromium forgets after two hours in any case.
_REMEMBERED: Final = b"7200"


class Visitors:
    """Decides by Host and Origin.

    Args:
      hosts: names without port, IPv6 addresses in brackets; None takes any.
      origins: as a browser spells them, `https://host[:port]`.
      refused: told of every request that was refused here.
    """

    def __init__(self, hosts: frozenset[str] | None, origins: frozenset[str], refused: Callable[[Refusal], None] = lambda _: None) -> None:
        self._hosts = hosts
        self._origins = origins
        self._refused = refused

    @classmethod
    def of(cls, settings: Settings, refused: Callable[[Refusal], None] = lambda _: None) -> Visitors:
        """Those of the main listener."""
        address, edge = Address.parse(settings.bind), settings.edge
        own = f"[{address.host}]" if ":" in address.host else address.host
        hosts = THIS_MACHINE | {own.lower()} | {host.lower() for host in edge.allowed_hosts}
        return cls(hosts if address.is_loopback or edge.allowed_hosts else None, frozenset(edge.cors_origins), refused)

    async def answered(self, scope: Any, send: Send) -> bool:
        """Whether the request was answered here: its Host is not ours, its page may not send it, or it only asks what a page may do."""
        fields = dict(scope["headers"])  # names in lower case, as ASGI has it
        # Without a Host it is HTTP/1.0, which no browser speaks.
        host = fields[b"host"].decode("latin-1") if b"host" in fields else None
        if host is not None and self._hosts is not None and _name(host) not in self._hosts and scope["path"] not in _OPEN_TO_ALL:
            told = f"the host '{printable(host)}' is none of this proxy's names; add it to edge.allowed_hosts"
            await self._refuse(send, Refusal(421, "wrong_host", f"{told} (EVENFLOW_EDGE__ALLOWED_HOSTS)"))
            return True
        if b"origin" not in fields:
            return False
        headers = {name: value.decode("latin-1") for name, value in fields.items()}
        origin = headers[b"origin"]
        if scope["method"] == "POST" and origin and origin not in self._origins and _media_type(headers) in _UNASKED:
            # Whatever else a foreign page posts, its browser asks before; this it sends at once, and whoever bears the cost is not asked.
            await self._refuse(send, _foreign(origin))
            return True
        if scope["method"] != "OPTIONS" or not origin or b"access-control-request-method" not in headers:
            return False
        if origin in self._origins:
            permission = [*self._told(scope), *_permission(headers)]
            await send({"type": "http.response.start", "status": 204, "headers": permission})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._refuse(send, _foreign(origin))
        return True

    def sending(self, scope: Any, send: Send) -> Send:
        """`send`, with what the asking page's browser has to know in the head of the response, and nothing else of the kind."""
        added = self._told(scope)

        async def sending(message: Any) -> None:
            # Seldom is there anything to take away or to add, and one look at all names is cheaper than a look at each.
            if message["type"] == "http.response.start" and (added or _CORS in b" ".join([n for n, _ in message["headers"]]).lower()):
                kept = [(name, value) for name, value in message["headers"] if not name.lower().startswith(_CORS)]
                message = {**message, "headers": [*kept, *added]}
            await send(message)

        return sending

    async def _refuse(self, send: Send, refusal: Refusal) -> None:
        self._refused(refusal)
        body = refusal.body()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _told(self, scope: Any) -> list[tuple[bytes, bytes]]:
        if not self._origins:
            return []
        origin = next((value for name, value in scope["headers"] if name.lower() == b"origin"), b"")
        if origin.decode("latin-1") not in self._origins:
            return [(b"vary", b"origin")]
        return [(b"vary", b"origin"), (b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED)]


def _name(host: str) -> str:
    """The name of a Host header, without its port."""
    name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    return name.lower()


def _foreign(origin: str) -> Refusal:
    told = f"pages of '{printable(origin)}' may not ask; add it to edge.cors_origins (EVENFLOW_EDGE__CORS_ORIGINS)"
    return Refusal(403, "foreign_origin", told)


def _media_type(headers: dict[bytes, str]) -> str:
    return headers.get(b"content-type", "").partition(";")[0].strip().lower()


def _permission(headers: dict[bytes, str]) -> list[tuple[bytes, bytes]]:
    """The answer to a preflight of a page that may ask. OpenAI's client sends a dozen headers of its own: what is asked for is allowed."""
    asked = headers.get(b"access-control-request-headers", "")
    allowed = asked if _HEADER_NAMES.fullmatch(asked) else "authorization, content-type"
    return [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", allowed.encode()),
        (b"access-control-max-age", _REMEMBERED),
    ]

"""The dashboard's page and its stream of snapshots, one a second.

The page itself holds no data and is served without a key; what it reads is not. All it needs is in this package: it works without any
other network, and its policy lets it speak to nobody but this listener.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio
from quart import Response, request

from ..log import redact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from quart_trio import QuartTrio

#: Served to whoever asks, for they hold nothing: path, file, type.
PAGE: Final = {
    "/dashboard": ("dashboard.html", "text/html; charset=utf-8"),
    "/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
    "/dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
    "/drawings.js": ("drawings.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_POLICY: Final = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
#: Seconds between two snapshots.
PACE: Final = 1.0
#: Viewers at once; a snapshot of 1,000 streams takes a millisecond, and each viewer has its own.
VIEWERS: Final = 8
#: Said to one viewer more.
FULL: Final = f"{VIEWERS} viewers watch already; close one\n"


def event_of(document: dict[str, Any]) -> bytes:
    """A snapshot as a server-sent event."""
    return b"data: " + redact(msgspec.json.encode(document, enc_hook=str).decode()).encode() + b"\n\n"


def add_dashboard(
    app: QuartTrio, feed: Callable[[int], dict[str, Any]], ready: Callable[[], bool], catch_up: Callable[[], Awaitable[None]]
) -> None:
    """Add the page and its stream to the admin application.

    Args:
      feed: everything that came after a serial number, with the next one as `serial`.
      ready: the stream ends when this does not hold any more, so that it never holds up the end of the process.
      catch_up: waited for before `feed` is asked.
    """
    watching: set[object] = set()

    def page(path: str, name: str, content_type: str) -> None:
        async def asset() -> Response:
            response = Response((files(__package__) / "page" / name).read_bytes(), content_type=content_type)
            response.headers["content-security-policy"] = _POLICY
            response.headers["referrer-policy"] = "no-referrer"
            return response

        app.add_url_rule(path, f"page {name}", asset, methods=["GET"])

    for path, (name, content_type) in PAGE.items():
        page(path, name, content_type)

    async def snapshots() -> AsyncIterator[bytes]:
        # Its place is taken in here, for only what has begun is sure to end: a viewer may leave before its first snapshot is asked for.
        if len(watching) >= VIEWERS:
            return  # another was faster
        viewer, after = object(), 0
        watching.add(viewer)
        try:
            while True:
                await catch_up()
                document = feed(after)
                after = document["serial"]
                yield event_of(document)
                if not ready():
                    return
                await trio.sleep(PACE)
        finally:
            watching.remove(viewer)

    @app.get("/dashboard/events")
    async def events() -> Response:
        if request.method == "HEAD":  # it may watch; also how the supervisor of several workers asks whether it may (watching.py)
            return Response("", content_type="text/event-stream")
        if len(watching) >= VIEWERS:
            return Response(FULL, 503, content_type="text/plain")
        response = Response(snapshots(), content_type="text/event-stream")
        response.timeout = None
        response.headers["x-accel-buffering"] = "no"
        return response

"""The outermost ASGI callable of a listener: whose Host or Origin is wrong is refused, POST /v1/* goes to v1.py, the rest to Quart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .edge_origins import Visitors

    AsgiApp = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class Edge:
    """The ASGI application of the main listener.

    Args:
      visitors: who may ask.
      v1: takes every POST below /v1.
      control: takes everything else.
    """

    def __init__(self, visitors: Visitors, v1: AsgiApp, control: AsgiApp) -> None:
        self._visitors = visitors
        self._v1 = v1
        self._control = control

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        if await self._visitors.answered(scope, send):
            return
        app = self._v1 if scope["method"] == "POST" and scope["path"].startswith("/v1/") else self._control
        await app(scope, receive, self._visitors.sending(scope, send))


class Replaceable:
    """An ASGI application that can be replaced while it runs. A request stays with the one it began with.

    Args:
      app: takes the next request.
    """

    def __init__(self, app: AsgiApp) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        await self.app(scope, receive, send)

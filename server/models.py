"""GET /v1/models: what the routes serve, asked of the upstreams and remembered.

An upstream that is down does not empty the list: its last known models, and those configured for it, stay.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import trio

from actors import Candidate, Timers, UpstreamError, UpstreamRequest, is_glob

from .hops import next_hop

if TYPE_CHECKING:
    from actors import Upstream

    from .services import Services

Model = dict[str, Any]

#: Editors ask often; a model that appears is seen after so many seconds.
_FRESH: Final = 10.0
#: An upstream that takes longer answers for the next request.
_PATIENCE: Final = 2.0
_BODY_LIMIT: Final = 4 * 1024 * 1024


class ModelCatalogue:
    """The models of all upstreams, as far as known.

    Args:
      services: shared by all requests.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._upstreams = {c.upstream.name: c.upstream for route in services.routes.routes for c in route.candidates}
        self._known: dict[str, list[Model]] = {}
        for name in self._upstreams:
            configured = services.settings.configured_upstreams[name].models
            self._known[name] = [_model(model, name) for model in configured]
        self._asked: dict[str, float] = {}

    async def models(self, authorization: str | None = None, hops: int = 0) -> list[Model]:
        """Every model that a request could name now, in the order of the routes.

        Args:
          authorization: the caller's own, for upstreams with `auth = "client"`.
          hops: evenflows that the request has come through.
        """
        async with trio.open_nursery() as nursery:
            for upstream in self._upstreams.values():
                if trio.current_time() - self._asked.get(upstream.name, -_FRESH) >= _FRESH:
                    nursery.start_soon(self._ask, upstream, authorization, hops)
        listed: dict[str, Model] = {}
        for route in self._services.routes.routes:
            if not is_glob(route.pattern):
                listed.setdefault(route.pattern, self._find(route.pattern) or _model(route.pattern, route.candidates[0].upstream.name))
                continue
            for candidate in route.candidates:
                for model in self._known[candidate.upstream.name]:
                    if self._services.routes.find(model["id"]) is route:
                        listed.setdefault(model["id"], model)
        return list(listed.values())

    def _find(self, model_id: str) -> Model | None:
        return next((m for models in self._known.values() for m in models if m["id"] == model_id), None)

    async def _ask(self, upstream: Upstream, authorization: str | None, hops: int) -> None:
        headers = authorization.encode("latin-1") if authorization else None
        request = UpstreamRequest("GET", "/models", (next_hop(hops),), b"", headers)
        with trio.move_on_after(_PATIENCE):
            try:
                response = await self._services.client.send(Candidate(upstream, timers=Timers(connect=_PATIENCE)), request, b"")
                try:
                    body = await response.read_all(_BODY_LIMIT)
                finally:
                    await response.aclose()
            except UpstreamError:
                return
            if response.status == 200 and (models := _read(body)):
                self._known[upstream.name] = models
                self._asked[upstream.name] = trio.current_time()


def _model(model_id: str, owner: str) -> Model:
    return {"id": model_id, "object": "model", "created": 0, "owned_by": owner}


def _read(body: bytes) -> list[Model]:
    """The models of an answer in OpenAI's form; an answer in another form has none."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return []
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list):
        return []
    return [model for model in data if isinstance(model, dict) and isinstance(model.get("id"), str)]

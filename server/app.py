"""The quart-trio app of the main listener: models, health, and an answer to everything that has none elsewhere.

POST /v1/* never comes here (see asgi.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quart import Response, jsonify, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from .hops import CODE, MOST, TOO_MANY, hops_of
from .models import ModelCatalogue
from .v1 import COMPLETIONS
from .version import VERSION

if TYPE_CHECKING:
    from .services import Services


def create_app(services: Services) -> QuartTrio:
    """The control routes of the main listener.

    Args:
      services: shared by all requests.
    """
    app = QuartTrio(__name__, static_folder=None)
    # Quart's own limits (60 s) belong to pages; ours are in the settings.
    app.config.update(RESPONSE_TIMEOUT=None, BODY_TIMEOUT=None)
    catalogue = ModelCatalogue(services)

    @app.before_request
    async def authenticate() -> Response | None:
        if request.path.startswith("/v1") and services.keys and services.keys.check(_headers()) is None:
            response = _error(401, "the API key is missing or wrong; send it as Authorization: Bearer or x-api-key", "invalid_api_key")
            response.headers["www-authenticate"] = "Bearer"
            return response
        if _hops() >= MOST:
            return _error(508, TOO_MANY, CODE)
        return None

    @app.get("/")
    async def index() -> Response:
        text = f"evenflow {VERSION}: a streaming proxy for LLM APIs.\nPoint an OpenAI client's base_url at {services.base_url}\n"
        return Response(text, content_type="text/plain; charset=utf-8")

    @app.get("/healthz")
    async def healthz() -> Response:
        return Response("ok\n", content_type="text/plain")

    @app.get("/readyz")
    async def readyz() -> Response:
        ready = services.ready
        told = "ready\n" if ready else "short of memory\n" if services.readiness.ready else "stopping\n"
        return Response(told, status=200 if ready else 503, content_type="text/plain")

    @app.get("/v1/models")
    async def list_models() -> Response:
        return jsonify({"object": "list", "data": await catalogue.models(request.headers.get("authorization"), _hops())})

    @app.get("/v1/models/<path:model_id>")
    async def get_model(model_id: str) -> Response:
        models = await catalogue.models(request.headers.get("authorization"), _hops())
        for model in models:
            if model["id"] == model_id:
                return jsonify(model)
        known = ", ".join(str(model["id"]) for model in models[:50])
        return _error(404, f"the model {model_id[:200]!r} is not known; known are: {known or 'none'}", "model_not_found")

    @app.errorhandler(HTTPException)
    async def answer(error: HTTPException) -> Response:
        path = request.path
        if path in COMPLETIONS and request.method != "POST":
            response = _error(405, f"{path} wants POST, not {request.method}", "method_not_allowed")
            response.headers["allow"] = "POST"
        elif error.code == 405:
            response = _error(405, f"{path} does not take {request.method}", "method_not_allowed")
            if allow := error.get_response().headers.get("allow"):
                response.headers["allow"] = allow
        elif f"/v1{path.rstrip('/')}" in (*COMPLETIONS, "/v1/models", "/v1/embeddings") or not path.startswith("/v1"):
            response = _error(404, f"there is nothing at {path[:200]}; use the base_url {services.base_url}", "not_found")
        else:
            response = _error(error.code or 500, f"there is nothing at {path[:200]} for {request.method}", "not_found")
        return response

    return app


def _hops() -> int:
    return hops_of(request.headers.get("x-evenflow-hops", ""))


def _headers() -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _error(status: int, message: str, code: str, **extra: Any) -> Response:
    response = jsonify({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code, **extra}})
    response.status_code = status
    return response

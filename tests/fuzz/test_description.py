"""Both listeners under what schemathesis makes of their description (server/admin/openapi.json): requests that fit it, and that do not.

Each answer has a status, a content type and a shape that the description names, and none is a failure of ours. What the upstream
thinks of a request is its own affair: no field that evenflow does not read is checked.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from server.admin import app as admin_app

from ..e2e.raw_client import CLIENT_KEY
from .living_edge import LivingEdge, living_edge

if TYPE_CHECKING:
    from collections.abc import Iterator

DESCRIPTION: Final = schemathesis.openapi.from_path(admin_app.__file__.replace("app.py", "openapi.json"))
CHECKS: Final = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
FUZZ: Final = settings(deadline=None, max_examples=max(10, settings().max_examples // 5), suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def edge() -> Iterator[LivingEdge]:
    with living_edge() as running:
        yield running


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False  # no proxy of this machine's in between
        yield session


def check(case: Any, session: requests.Session, address: tuple[str, int], key: str) -> None:
    headers = {"connection": "close", "authorization": f"Bearer {key}"}
    response = case.call(base_url="http://{}:{}".format(*address), session=session, headers=headers, timeout=10)
    case.validate_response(response, checks=CHECKS)


@DESCRIPTION.include(tag="proxy").parametrize()
@FUZZ
def test_the_main_listener_answers_as_described(case: Any, edge: LivingEdge, session: requests.Session) -> None:
    check(case, session, edge.main, CLIENT_KEY)
    edge.canary()


@DESCRIPTION.include(tag="admin").parametrize()
@FUZZ
def test_the_admin_listener_answers_as_described(case: Any, edge: LivingEdge, session: requests.Session) -> None:
    check(case, session, edge.admin, CLIENT_KEY)
    if "upstream" in (case.path_parameters or {}):
        case.path_parameters["upstream"] = "main"
        check(case, session, edge.admin, CLIENT_KEY)
        for action, body in (("force", {"state": "on"}), ("reset", {})):
            session.post("http://{}:{}/breaker/main/{}".format(*edge.admin, action), json=body, timeout=10).raise_for_status()
    edge.canary()


def test_the_description_is_served_as_it_is(edge: LivingEdge, session: requests.Session) -> None:
    served = session.get("http://{}:{}/openapi.json".format(*edge.admin), timeout=10)
    assert served.json() == DESCRIPTION.raw_schema


def test_every_route_of_ours_is_described(edge: LivingEdge) -> None:
    """`/`, `/healthz` and `/readyz` are on both listeners and told once; what belongs to the dashboard is for a browser."""
    routes = {re.sub(r"<(?:path:)?(\w+)>", r"{\1}", route).replace("model_id", "model") for route in edge.routes()}
    pages = {route for route in routes if route.startswith("/dashboard") or route.endswith((".js", ".svg"))}
    assert routes - pages <= set(DESCRIPTION.raw_schema["paths"])

"""For tests of several of the server's parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .edge_serving import PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["plain", "no pump", "h11"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All ways of a request through the server: watched by the pump, read by a task, and through h11."""
    if request.param == "no pump":
        monkeypatch.setattr("server.edge_connection.pump", lambda: None)
    token = PLAIN.set(request.param != "h11")
    yield
    PLAIN.reset(token)

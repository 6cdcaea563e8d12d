from __future__ import annotations

import pytest

from ...free_ports import free_port


@pytest.fixture
def unused_tcp_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    return free_port()

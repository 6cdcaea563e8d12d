"""An address that cannot be had: who has it, and where to change it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from .running_command import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("source", ["file", "environment", "flag"])
async def test_a_port_in_use_names_who_chose_it(tmp_path: Path, source: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        bind = f'bind = "{address}"\n' if source == "file" else ""
        (tmp_path / "evenflow.toml").write_text(f'{bind}upstreams.a.base_url = "http://a/v1"\n', "utf-8")
        flags = ["--bind", address] if source == "flag" else []
        code, out, err = await run("serve", *flags, cwd=tmp_path, **({"EVENFLOW_BIND": address} if source == "environment" else {}))
    assert (code, out) == (2, "")
    assert err.startswith(f"evenflow: cannot listen on {address}: the port is in use")
    origin = {"file": " (set by evenflow.toml:1)", "environment": " (set by EVENFLOW_BIND)", "flag": ""}[source]
    assert err.endswith(f"choose another port with --bind{origin}\n")

"""Dockerfile and compose.yaml, as far as they can be read without an engine: what they copy, run, ask and set exists and fits."""

from __future__ import annotations

import fnmatch
import importlib
import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from server.cli import evenflow
from server.main import open_proxy
from server.settings import Settings
from server.settings_checks import SettingsError
from server.settings_schema import SHORTCUTS, environment_name, leaves, schema
from server.settings_sources import Flags, load
from server.simulator import open_simulator

from ..e2e.running_proxy import settings_for

ROOT: Final = Path(__file__).parents[2]
VARIABLES: Final = {environment_name(path) for path, _ in leaves(schema())} | set(SHORTCUTS)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions; comments gone, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in lines if line.strip()]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    return found[max(index for index, (name, _) in enumerate(found) if name == "FROM") :]


def value_of(name: str) -> str:
    (value,) = [value for instruction, value in last_stage() if instruction == name]
    return value


def variables() -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", value_of("ENV")))


def test_there_are_two_stages_on_images_of_the_usual_registry() -> None:
    images = [value.split()[0] for name, value in instructions() if name == "FROM"]
    assert len(images) == 2
    # A first part with a dot or a colon would be the host of another registry.
    assert all(re.fullmatch(r"[a-z0-9-]+(/[a-z0-9-]+)?:\S+", image) for image in images), images


def test_it_does_not_run_as_root_and_is_looked_after() -> None:
    user = value_of("USER").split(":")[0]
    assert user.isdigit()
    assert int(user) > 0
    assert value_of("STOPSIGNAL") == "SIGTERM"
    order = [name for name, _ in last_stage()]
    assert order.index("USER") > order.index("COPY")  # what runs cannot change itself


def test_what_it_copies_is_there_and_not_ignored() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]
    copied = [source for name, value in instructions() if name == "COPY" and "--from" not in value for source in value.split()[:-1]]
    assert {"actors", "server", "requirements.lock"} <= set(copied)
    assert all((ROOT / source).exists() and any(fnmatch.fnmatch(source, pattern) for pattern in kept) for source in copied)


def test_what_it_installs_is_locked() -> None:
    installs = [value for name, value in instructions() if name == "RUN" and " install " in value]
    assert all("--require-hashes" in value or "--no-deps ." in value for value in installs)
    assert len(installs) == 2


def test_it_starts_a_command_that_exists() -> None:
    assert json.loads(value_of("ENTRYPOINT")) == ["evenflow"]
    assert json.loads(value_of("CMD"))[0] in evenflow.commands
    assert value_of("EXPOSE") in variables()["EVENFLOW_BIND"]


def test_its_settings_exist_and_want_a_key_or_the_word(tmp_path: Path) -> None:
    environ = {name: value for name, value in variables().items() if name.startswith("EVENFLOW_")} | {"EVENFLOW_UPSTREAM": "http://a/v1"}
    assert environ.keys() <= VARIABLES
    with pytest.raises(SettingsError, match="client_keys"):
        load(Flags(), environ, directory=tmp_path)
    assert load(Flags(allow_anonymous=True), environ, directory=tmp_path).settings.bind.startswith("0.0.0.0:")
    load(Flags(), environ | {"EVENFLOW_CLIENT_KEYS": "0123456789abcdef"}, directory=tmp_path)


async def test_its_health_check_tells_a_proxy_that_runs_from_none() -> None:
    """The very command of the HEALTHCHECK, with this Python in place of the image's."""
    command = json.loads(value_of("HEALTHCHECK").partition("CMD ")[2])
    assert command[0] == "python"

    async def check(port: int) -> int:
        environ = {"EVENFLOW_BIND": f"0.0.0.0:{port}"}
        return (await trio.run_process([sys.executable, *command[1:]], env=environ, check=False, stderr=subprocess.DEVNULL)).returncode

    async with open_simulator(pace=0.0) as simulator, open_proxy(settings_for({"main": simulator})) as proxy:
        assert await check(int(proxy.base_url.split(":")[2].split("/")[0])) == 0
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert await check(port) != 0


# ---- compose.yaml ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    yaml: Any = importlib.import_module("yaml")  # its types are a package of their own
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
    return found


def test_every_service_reaches_the_host_and_is_shut_in(services: dict[str, Any]) -> None:
    for service in services.values():
        assert "host.docker.internal:host-gateway" in service["extra_hosts"]
        assert "host.docker.internal" in service["environment"]["EVENFLOW_UPSTREAM"]
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert re.fullmatch(r"[a-z]+", service["image"])


def test_a_stop_waits_for_running_streams(services: dict[str, Any]) -> None:
    for service in services.values():
        assert int(service["stop_grace_period"].removesuffix("s")) >= Settings().drain + Settings().drain_notice + 2


def test_both_ways_are_shown_and_the_one_without_a_key_stays_on_this_machine(services: dict[str, Any]) -> None:
    keyed, anonymous = services["evenflow"], services["evenflow-local"]
    assert {*keyed["environment"], *anonymous["environment"]} <= VARIABLES
    assert keyed["environment"]["EVENFLOW_CLIENT_KEYS"] == "${EVENFLOW_CLIENT_KEY:-}"
    assert "command" not in keyed
    assert anonymous["command"] == ["serve", "--allow-anonymous"]
    assert "EVENFLOW_CLIENT_KEYS" not in anonymous["environment"]
    assert all(port.startswith("127.0.0.1:") for port in anonymous["ports"])
    inside = variables()["EVENFLOW_BIND"].rpartition(":")[2]
    assert all(port.rpartition(":")[2] == inside for service in services.values() for port in service["ports"])

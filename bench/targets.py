"""What is measured: evenflow's engines, the peers beside it, and the way without any proxy. Each starts, says its port, and is ended."""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .installs import installed
from .native import CannotMeasure
from .process_tree import end_tree, pinned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
_START_LIMIT: Final = 90.0  # seconds; LiteLLM imports for twenty of them on a busy core
_ANNOUNCED: Final = re.compile(r"listening (\d+)|listens on http://127\.0\.0\.1:(\d+)/v1")

_PORTKEY_HEADERS: Final = ROOT / "bench" / "peers" / "portkey_headers.mjs"

#: Defaults, except: nothing drains at the end, ports are free ones, and as many streams as are asked for get in.
_EVENFLOW: Final = """\
bind = "127.0.0.1:0"
admin_bind = "127.0.0.1:0"
drain = 0.0
[admission]
max_streams = 20000
[streaming]
engine = "{engine}"
[upstreams.bench]
base_url = "http://127.0.0.1:{upstream}/v1"
"""

_NGINX: Final = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 32768; multi_accept on; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    tcp_nodelay on;
    keepalive_requests 1000000;
    upstream bench {{ server 127.0.0.1:{upstream}; keepalive 8192; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=8192;
        location / {{
            proxy_pass http://bench;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""

_HAPROXY: Final = """\
global
    maxconn {connections}
    nbthread 1
defaults
    mode http
    option http-keep-alive
    option http-no-delay
    http-reuse always
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend clients
    bind 127.0.0.1:{port} backlog 8192
    default_backend bench
backend bench
    server bench 127.0.0.1:{upstream} pool-max-conn -1
"""

_LITELLM: Final = """\
model_list:
  - model_name: bench
    litellm_params: {{model: openai/bench, api_base: "http://127.0.0.1:{upstream}/v1", api_key: bench}}
general_settings: {{dangerously_permit_weak_or_unset_master_key: true}}
litellm_settings: {{telemetry: false, num_retries: 0, request_timeout: 3600}}
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A target that takes requests.

    Args:
      port: on 127.0.0.1.
      pid: root of its process tree; 0 for the way without a proxy.
      headers: NAME:VALUE that its clients have to send beside the usual ones.
    """

    port: int
    pid: int
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Launch:
    """How one target is started.

    Args:
      command: the program and its arguments.
      port: where it will listen; 0: it says so itself on its output.
      environment: beyond what every process gets.
      folder: where it is started.
    """

    command: Sequence[str]
    port: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    folder: Path = ROOT


def _evenflow(engine: str, tree: Path) -> Callable[[int, Path], Launch]:
    python = tree / ".venv" / "bin" / "python"

    def launch(upstream: int, folder: Path) -> Launch:
        config = folder / "evenflow.toml"
        config.write_text(_EVENFLOW.format(engine=engine, upstream=upstream), "utf-8")
        command = [str(python) if python.exists() and tree != ROOT else sys.executable, "-m", "server", "serve", "--config", str(config)]
        return Launch(command, folder=tree)

    return launch


def _ours(module: str) -> Callable[[int, Path], Launch]:
    return lambda upstream, folder: Launch([sys.executable, "-m", f"bench.peers.{module}", str(upstream)])


def _nginx(upstream: int, folder: Path) -> Launch:
    program, environment = installed("nginx")
    port = _free_port()
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, upstream=upstream, port=port), "utf-8")
    return Launch([program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")], port, environment)


def _haproxy(upstream: int, folder: Path) -> Launch:
    program, environment = installed("haproxy")
    port = _free_port()
    (folder / "haproxy.cfg").write_text(_HAPROXY.format(upstream=upstream, port=port, connections=_connections()), "utf-8")
    return Launch([program, "-db", "-f", str(folder / "haproxy.cfg")], port, environment)


def _litellm(upstream: int, folder: Path) -> Launch:
    program, environment = installed("litellm")
    port = _free_port()
    (folder / "litellm.yaml").write_text(_LITELLM.format(upstream=upstream), "utf-8")
    command = [program, "--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    return Launch(command, port, {**environment, "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"})


def _portkey(upstream: int, folder: Path) -> Launch:
    program, environment = installed("portkey")
    port = _free_port()
    headers = ("x-portkey-provider:openai", f"x-portkey-custom-host:http://127.0.0.1:{upstream}/v1")
    return Launch(
        [shutil.which("node") or "node", "--import", str(_PORTKEY_HEADERS), program, f"--port={port}", "--headless"],
        port,
        environment,
        headers,
    )


#: Every target by its name. "direct" is the way without a proxy: what the harness itself adds to every latency.
TARGETS: Final[Mapping[str, Callable[[int, Path], Launch] | None]] = {
    "direct": None,
    "nginx": _nginx,
    "floor": _ours("byte_relay"),
    "actors": _evenflow("actors", ROOT),
    "relay": _evenflow("relay", ROOT),
    "haproxy": _haproxy,
    "naive": _ours("pass_through"),
    "litellm": _litellm,
    "portkey": _portkey,
}
OURS: Final = ("actors", "relay")
ALWAYS: Final = ("direct", "nginx", "floor", *OURS)


def launcher(name: str) -> Callable[[int, Path], Launch] | None:
    """How the target of this name is started; "actors@/some/checkout" is the engine of another checkout, for before and after."""
    engine, _, tree = name.partition("@")
    if tree:
        return _evenflow(engine, Path(tree).resolve())
    return TARGETS[name]


#: LiteLLM takes twenty seconds to start: it is started once and stopped (SIGSTOP) while others are measured.
KEPT: Final = ("litellm",)


@contextmanager
def started(name: str, upstream: int, folder: Path, cores: set[int] | None = None) -> Iterator[Running]:
    """Run a target for the length of a block.

    Args:
      upstream: the port of what it forwards to.
      folder: an empty one for its files.
      cores: the processors it may use; None: all.

    Raises:
      CannotMeasure: it is not to be had, or does not start.
    """
    launch_it = launcher(name)
    if launch_it is None:
        yield Running(upstream, 0)
        return
    folder.mkdir(parents=True)
    launch = launch_it(upstream, folder)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EVENFLOW_")} | {"PYTHONUNBUFFERED": "1"}
    said = folder / "said.log"
    with said.open("wb") as output, pinned(cores):
        process = subprocess.Popen(
            launch.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=launch.folder,
            env=environment | dict(launch.environment),
        )
    try:
        yield Running(_await_port(name, process, said, launch.port), process.pid, launch.headers)
    finally:
        end_tree(process.pid)
        process.wait()


def _await_port(name: str, process: subprocess.Popen[bytes], said: Path, port: int) -> int:
    until = time.monotonic() + _START_LIMIT
    while time.monotonic() < until and process.poll() is None:
        if not port and (match := _ANNOUNCED.search(said.read_text("utf-8", "replace"))):
            return int(match[1] or match[2])
        if port:
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    return port
        time.sleep(0.05)
    last = said.read_text("utf-8", "replace").strip().splitlines() or ["nothing"]
    raise CannotMeasure(f"{name} did not start; its last line: {last[-1][:200]}")


def _connections() -> int:
    """Clients that a program with two sockets for each can serve under this system's limit of open files."""
    return (min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 65_536) - 200) // 2


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])

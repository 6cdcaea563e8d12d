"""What `evenflow serve` and `evenflow dev` say once they listen: where, who may ask, who answers, what is not set, what to try.

Owns the words; every one of them follows from the settings. Refuses to know whether anybody is up: `evenflow doctor` asks.
"""

from __future__ import annotations

import fnmatch
import json
import shlex
import textwrap
from typing import TYPE_CHECKING

from actors import is_glob

from .settings import Address
from .simulator import FAULTS
from .version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .settings import RouteSettings, Settings
    from .terminal import Style

#: What stands for a model's name where none is known.
_UNKNOWN = "MODEL"


def serve_summary(settings: Settings, base_url: str, admin_url: str, style: Style) -> str:
    """One screen for whoever has started it.

    Args:
      base_url: where clients are pointed.
      admin_url: root of the admin listener.
    """
    lines = [f"evenflow {VERSION} listens on {style.bold(base_url)}"]
    lines += _rows("clients", [_clients(settings)], style)
    lines += _rows("routes", [_route(route) for route in settings.routes()], style)
    lines += _rows("upstreams", list(_upstreams(settings)), style)
    lines += _rows("engine", [_engine(settings)], style)
    if settings.workers > 1:
        lines += _rows("workers", [f"{settings.workers} processes; each has limits and circuits of its own"], style)
    lines += _rows("admin", [f"{admin_url}/dashboard  {admin_url}/status  {admin_url}/metrics"], style)
    if missing := list(_not_configured(settings)):
        lines += _rows("not set", missing, style)
    model = example_model(settings)
    lines += ["", "Try:"]
    if model == _UNKNOWN:
        lines.append(f"  curl {base_url}/models{_key(settings)}")
    lines.append(f"  {curl(base_url, model, _key(settings))}")
    lines.append(f"  OPENAI_BASE_URL={base_url}   for any OpenAI client")
    lines += ["", style.dim("`evenflow check` prints every setting, `evenflow doctor` asks the upstreams how they are. Ctrl-C ends this.")]
    return "\n".join(lines)


def dev_summary(base_url: str, admin_url: str, upstream_url: str, style: Style) -> str:
    """The same for `evenflow dev`, whose upstream misbehaves on demand."""
    names = textwrap.fill(", ".join(FAULTS), 100, initial_indent="  ", subsequent_indent="  ")
    return (
        f"evenflow {VERSION} listens on {style.bold(base_url)}, in front of a simulated upstream on {upstream_url}\n\n"
        f"The model's name chooses what goes wrong (`evenflow simulate --list` explains each):\n{names}\n\n"
        "The circuit breaker only counts here, so that each fault shows itself; a configured [breaker] works.\n\n"
        f"Try:\n  {curl(base_url, 'stutter-b1:envelope=nonce')}\n\n"
        f"Dashboard: {admin_url}/dashboard   Status: {admin_url}/status   Metrics: {admin_url}/metrics   Ctrl-C ends it."
    )


def curl(base_url: str, model: str, key: str = "") -> str:
    """A line that can be pasted into a shell."""
    body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]})
    return f"curl -N {base_url}/chat/completions{key} -H 'content-type: application/json' \\\n    -d {shlex.quote(body)}"


def example_model(settings: Settings) -> str:
    """A model's name that a route takes; MODEL where the configuration names none."""
    for route in settings.routes():
        if not is_glob(route.model):
            return route.model
        for ref in route.refs:
            for model in settings.configured_upstreams[ref.upstream].models:
                if fnmatch.fnmatchcase(model, route.model):
                    return model
    return _UNKNOWN


def _rows(label: str, values: list[str], style: Style) -> list[str]:
    return [f"  {style.dim(f'{name:<10}')} {value}" for name, value in zip([label, *[""] * (len(values) - 1)], values, strict=True)]


def _key(settings: Settings) -> str:
    """The key is not shown: it is whoever asks who has it."""
    return ' -H "authorization: Bearer $KEY"' if settings.client_keys else ""


def _clients(settings: Settings) -> str:
    if settings.client_keys:
        return f"whoever has one of the {len(settings.client_keys)} client_keys"
    return "anybody on this machine" if Address.parse(settings.bind).is_loopback else "anybody who can reach it: there are no client_keys"


def _route(route: RouteSettings) -> str:
    return f"{route.model} -> {' then '.join(ref.upstream + (f' as {ref.model}' if ref.model else '') for ref in route.refs)}"


def _upstreams(settings: Settings) -> Iterator[str]:
    width = max(map(len, settings.configured_upstreams), default=0)
    for name, upstream in settings.configured_upstreams.items():
        key = "with the caller's own key" if upstream.auth == "client" else "with a key" if upstream.key is not None else "without a key"
        slots = f", {upstream.slots} at once" if upstream.slots else ""
        version = ", over HTTP/2" if upstream.http2 else ""
        yield f"{name:<{width}}  {upstream.base_url}  {key}{slots}{version}"


def _engine(settings: Settings) -> str:
    streaming = settings.streaming
    shadow = "; shadow: what actors would have done is judged beside" if streaming.shadow else ""
    if streaming.engine == "relay":
        return f"relay: bytes are copied, nothing is repaired{shadow}"
    share = f" for {streaming.rollout_percent:g} % of the streams, relay for the others{shadow}" if streaming.rollout_percent < 100 else ""
    return f"actors{share}; stutter: {settings.stutter.mode}; loops: {settings.loop_guard.action}"


def _not_configured(settings: Settings) -> Iterator[str]:
    """What somebody may miss once something has gone wrong, most important first."""
    routes = settings.routes()
    if any(len(route.upstreams) < 2 for route in routes):
        yield "a second upstream: when the only one is down, so is its route ([[routes]])"
    if all((route.resume or settings.streaming.resume) == "off" for route in routes):
        yield "streaming.resume: an answer that is cut ends with an error"
    if not settings.client_keys and Address.parse(settings.bind).is_loopback:
        yield "client_keys: needed as soon as other machines may ask"

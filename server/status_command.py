"""The command `evenflow status`: what `/status` of the admin listener says, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def is_ready(status: Mapping[str, Any]) -> bool:
    """Whether requests are taken, by any of several workers."""
    return any(worker.get("ready", False) for worker in status.get("workers", [status]))


def status_text(status: Mapping[str, Any]) -> str:
    """One line per process, and one per circuit below it."""
    return "\n".join(line for worker in status.get("workers", [status]) for line in _process(worker))


def _process(status: Mapping[str, Any]) -> Iterator[str]:
    name = f"worker {status['worker']} (pid {status['pid']}): " if "worker" in status else ""
    if "absent" in status:
        yield f"{name}{status['absent']}"
        return
    state = "ready" if status["ready"] else "stopping"
    streams = f"{status['streams_active']} streams, {status['admission']['waiting']} waiting"
    yield f"{name}evenflow {status['version']} at {status['base_url']}: {state}, up {_age(status['uptime_seconds'])}; {streams}"
    if refusal := status["config_reloads"]["last_refusal"]:
        yield f"  the last reload was refused: {refusal}"
    width = max(map(len, status["upstreams"]), default=0)
    for upstream, circuit in status["upstreams"].items():
        reason = f": {circuit['reason']}" if circuit["reason"] else ""
        left = f", {circuit['seconds_left']:g} s left" if circuit["seconds_left"] else ""
        yield f"  {upstream:<{width}}  {circuit['state']}{reason}{left}; {circuit['failures']} of {circuit['calls']} calls failed"


def _age(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((index for index, (value, _) in enumerate(parts) if value), 3)
    return " ".join(f"{value} {unit}" for value, unit in parts[first : first + 2])

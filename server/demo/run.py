"""Runs the programme: the simulator, the proxy in front of it, the scenes one after the other, and the exit code.

Owns what is started and its end, the settings of the demo's proxy, and the report of what was missing.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from ..log import close_logging, configure_logging
from ..main import open_proxy
from ..settings import RouteSettings, Settings, UpstreamSettings
from ..simulator import open_simulator
from .scenes import DOWN, FRAGILE, SCENES, UP, NotObserved, Scene, Stage
from .screen import Screen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

_log = logging.getLogger(__name__)

_PACE: Final = 0.06  # seconds between events: as fast as one reads
_SCENE_LIMIT: Final = 8.0  # seconds; the longest takes 3
_TOTAL_LIMIT: Final = 20.0


def run_demo(out: TextIO | None = None, *, pace: float = _PACE, scenes: Sequence[Scene] = SCENES) -> int:
    """Show the scenes.

    Args:
      out: standard output if None.
      pace: seconds between the events of a stream.

    Returns:
      0 if all were observed, else 1.
    """
    screen = Screen(sys.stdout if out is None else out)
    descriptor, log = tempfile.mkstemp(prefix="evenflow-demo-", suffix=".log", text=True)
    missing: list[str] = []
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            configure_logging("json", "info", stream)
            try:
                missing = trio.run(partial(show, screen, pace, scenes))
            finally:
                close_logging()
    finally:
        if not missing:
            Path(log).unlink()
    if missing:
        screen.say(f"{len(scenes) - len(missing)} of {len(scenes)} observed. Missing:", "bad")
        for line in missing:
            screen.say(f"  {line}", "bad")
        screen.say(f"The proxy's log: {log}")
        return 1
    screen.say(f"All {len(scenes)} observed. Next, try it yourself:", "good")
    command = _command()
    for arguments, what in (("dev", "evenflow before a misbehaving upstream"), ("serve --upstream URL", "before an upstream of your own")):
        screen.say(f"  {f'{command} {arguments}':<36}  {what}")
    return 0


def _command() -> str:
    """How the reader can start evenflow again: by its name if that is on PATH, else by the path that started it now."""
    started = Path(sys.argv[0])
    if started.name != "evenflow" or shutil.which("evenflow") is not None:
        return "evenflow"
    return os.path.relpath(started)


async def show(screen: Screen, pace: float, scenes: Sequence[Scene]) -> list[str]:
    """Start both servers, play the scenes, stop both.

    Returns:
      A line for each scene that was not observed: its title, and why.
    """
    missing = []
    screen.say("evenflow: the same conversations, straight from a misbehaving upstream and through evenflow.", "title")
    screen.say("Both run on this machine, and every line below was received on a socket.")
    async with open_simulator(pace=pace) as simulator, open_proxy(demo_settings(simulator.base_url)) as proxy:
        stage = Stage(simulator, proxy, screen, pace)
        deadline = trio.current_time() + _TOTAL_LIMIT
        for number, scene in enumerate(scenes, 1):
            screen.begin(f"{number}. {scene.title}: {scene.caption}")
            try:
                with trio.fail_at(min(deadline, trio.current_time() + _SCENE_LIMIT)):
                    conclusion = await scene.play(stage)
            except Exception as exc:  # whatever broke it, the other scenes are still worth seeing
                why = _reason(exc)
                _log.warning("scene %d was not observed", number, exc_info=exc)
                missing.append(f"{number}. {scene.title}: {why}")
                screen.end("bad", f"not observed: {why}")
            else:
                screen.end("good", conclusion)
        screen.say("")
    return missing


def _reason(exc: BaseException) -> str:
    """One line for people; the log has the rest."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    match exc:
        case NotObserved():
            return str(exc)
        case trio.TooSlowError():
            return "not over in time"
        case _:
            return f"{type(exc).__name__}: {exc}"


def demo_settings(base_url: str) -> Settings:
    """The defaults, but for an upstream whose circuit opens and closes within a second or two, so that it can be watched."""
    quick = {"consecutive_failures": 3, "open_base": 1.0, "jitter": 0.0, "successes": 2}
    upstreams = {"simulator": UpstreamSettings(base_url=base_url), FRAGILE: UpstreamSettings(base_url=base_url, breaker={**quick})}
    fragile = [RouteSettings(model=model, upstreams=(FRAGILE,), retry={"retries": 0}) for model in (DOWN, UP)]
    return Settings(
        bind="127.0.0.1:0",
        admin_bind="127.0.0.1:0",
        drain=0.0,
        configured_upstreams=upstreams,
        configured_routes=(*fragile, RouteSettings(model="*", upstreams=("simulator",))),
    )

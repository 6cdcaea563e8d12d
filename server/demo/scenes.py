"""The five scenes: what is asked of both sides, how it is drawn, and what must have been received for it to count.

A scene judges by the bytes of its two conversations, by the simulator's record and by the admin listener's /status; nothing is
taken for granted because it was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import trio

from .conversation import Heard, converse, fetch_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..main import Proxy
    from ..simulator import Simulator
    from .screen import Column, Screen, Style

_TEXT: Final = "The river bends twice before it reaches the mill, and each bend keeps a little of the morning."

#: The upstream whose circuit the fourth scene opens; the others keep theirs closed.
FRAGILE: Final = "fragile"
#: Its models, "down" and "up"; the routes send both, and nothing else, to it.
DOWN: Final = "http-503"
UP: Final = "echo"


class NotObserved(Exception):
    """What a scene is there to show was not received. The text says what was, in one line."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What every scene plays on.

    Args:
      pace: seconds between the events of a stream.
    """

    simulator: Simulator
    proxy: Proxy
    screen: Screen
    pace: float

    def body(self, model: str, **options: object) -> dict[str, Any]:
        """A streaming request; the simulator reads its options from the model's name."""
        options = {"pace": self.pace * 1000, **options}
        told = ",".join(f"{name}={quote(str(value))}" for name, value in options.items())
        return {"model": f"{model}:{told}", "stream": True, "messages": [{"role": "user", "content": "Tell me of the river."}]}

    async def both(self, body: dict[str, Any], draw: Callable[[Column, Heard], None], **limits: int) -> tuple[Heard, Heard]:
        """Hold the same conversation straight and through evenflow, at the same time.

        Args:
          draw: called with a side and what it said, whenever that grew.
        """
        left, right = Heard(), Heard()

        def redraw(column: Column, heard: Heard) -> None:
            draw(column, heard)
            self.screen.refresh()

        async with trio.open_nursery() as nursery:
            for base_url, side, column, heard in (
                (self.simulator.base_url, "straight", self.screen.left, left),
                (self.proxy.base_url, "through", self.screen.right, right),
            ):
                # `user` keeps the two apart: the simulator counts equal requests, for the faults that pass.
                async def talk(url: str = base_url, side: str = side, column: Column = column, heard: Heard = heard) -> None:
                    await converse(url, {**body, "user": side}, heard, lambda: redraw(column, heard), **limits)
                    redraw(column, heard)

                nursery.start_soon(talk)
        return left, right


def _require(observed: bool, otherwise: str) -> None:
    if not observed:
        raise NotObserved(otherwise)


def _stream(column: Column, heard: Heard) -> None:
    """A stream as its reader sees it, and how it ended."""
    column.show(("text", heard.text))
    if heard.error is not None and heard.status == 200:
        column.add("good", heard.error_line)
    elif heard.error is not None:
        column.add("bad", f"{heard.status} {heard.error_line}")
    if heard.total_ms and heard.error is None:
        if heard.done:
            column.add("faint", f"[DONE] after {heard.events} events")
        elif heard.whole:
            column.add("bad", "(the body is complete, says HTTP; no [DONE], no error)")
        else:
            column.add("bad", "(the connection closed inside the body)")


async def stutter(stage: Stage) -> str:
    """Growing snapshots: each of the first events tells the words before it again."""
    left, right = await stage.both(stage.body("stutter-b2", envelope="nonce", text=_TEXT), _stream)
    _require(left.text != _TEXT and left.done, f"the upstream did not stutter: {left.text[:60]!r}")
    _require(right.text == _TEXT and right.done, f"through evenflow the text was still {right.text[:60]!r}")
    return f"repaired: {len(left.text) - len(right.text)} repeated characters removed, the rest is the text as it was meant."


async def cut(stage: Stage) -> str:
    """A stream that stops in the middle while HTTP says that all is well."""
    left, right = await stage.both(stage.body("truncated", after=9, text=_TEXT), _stream)
    _require(left.whole and not left.done and left.error is None, "the upstream's stream was not cut silently")
    _require(right.error is not None and right.whole, f"no error came through evenflow, the text was {right.text[:60]!r}")
    _require(right.text == left.text, f"the text before the error differs: {right.text[:60]!r}")
    return "told: straight, half an answer looks like a whole one; evenflow ends it with an error that clients raise."


async def retry(stage: Stage) -> str:
    """A 503 that is gone when it is asked again."""

    def draw(column: Column, heard: Heard) -> None:
        _stream(column, heard)
        if attempts := heard.headers.get("x-evenflow-attempts"):
            column.add(_style(heard), f"{heard.status}, x-evenflow-attempts: {attempts}")

    body = stage.body("flaky", fails=1, text=_TEXT)
    left, right = await stage.both(body, draw)
    asked = len([seen for seen in stage.simulator.observer.of(body["model"]) if "x-evenflow-attempt" in seen.headers])
    attempts = right.headers.get("x-evenflow-attempts")
    _require(left.status == 503, f"the upstream answered {left.status} instead of 503")
    _require(right.status == 200 and right.text == _TEXT, f"through evenflow came {right.status} with {right.text[:60]!r}")
    _require(attempts == "2" and asked == 2, f"x-evenflow-attempts was {attempts}, the upstream was asked {asked} times")
    return f"retried: the caller waited {right.first_ms:.0f} ms for the first byte and got an answer instead of a 503."


async def breaker(stage: Stage) -> str:
    """An upstream that goes down and comes back; retries are off here, so that a line is a request."""
    screen, states = stage.screen, [await _state(stage)]
    screen.left.add("faint", "each request reaches the upstream")
    screen.right.add("faint", f"circuit: {states[0]}")

    async def ask(model: str) -> Heard:
        body = {"model": model, "messages": [{"role": "user", "content": "I am back."}]}
        left, right = await stage.both(body, lambda column, heard: None)
        states.append(await _state(stage))
        screen.left.add(_style(left), f"{left.status} in {left.total_ms:.0f} ms")
        hint = right.headers.get("retry-after")
        told = f"{right.status} in {right.total_ms:.0f} ms, {states[-1]}"
        screen.right.add(_style(right), f"{told}, Retry-After: {hint}" if hint else told)
        screen.refresh()
        await trio.sleep(5 * stage.pace)  # for the eye
        return right

    while states[-1] == "closed" and len(states) <= _MOST_REQUESTS:
        await ask(DOWN)
    failures = len(states) - 1
    asked = _asked(stage)
    refused = [await ask(DOWN) for _ in range(2)]
    spared = _asked(stage) == asked
    # The open time runs. What is told of it is rounded to a tenth.
    await trio.sleep((await _circuit(stage))["seconds_left"] + 0.1)
    while states[-1] != "closed" and len(states) <= failures + len(refused) + _MOST_REQUESTS:
        await ask(UP)
    seen = [state for state, before in zip(states, ["", *states], strict=False) if state != before]
    hinted = all(heard.status == 503 and heard.headers.get("retry-after") for heard in refused)
    _require(seen == ["closed", "open", "half_open", "closed"], f"/status showed {' -> '.join(seen)}")
    _require(spared and hinted, f"while open: upstream spared: {spared}, each refused by 503 with Retry-After: {hinted}")
    slowest = max(heard.total_ms for heard in refused)
    return f"{' -> '.join(seen)}: after {failures} failures answered within {slowest:.0f} ms, while the upstream had its rest."


def _style(heard: Heard) -> Style:
    return "good" if heard.status == 200 else "bad"


_MOST_REQUESTS: Final = 6
"""Of one kind, before the scene gives up: twice what the circuit's policy should need."""


async def _circuit(stage: Stage) -> dict[str, Any]:
    circuit: dict[str, Any] = (await fetch_json(f"{stage.proxy.admin_url}/status"))["upstreams"][FRAGILE]
    return circuit


async def _state(stage: Stage) -> str:
    return str((await _circuit(stage))["state"])


def _asked(stage: Stage) -> int:
    return sum("x-evenflow-attempt" in seen.headers for seen in stage.simulator.observer.of(DOWN))


async def leave(stage: Stage) -> str:
    """A client that closes in the middle; tokens nobody reads would still be paid for."""
    body = stage.body("endless", text="on and ")
    observer = stage.simulator.observer
    before = observer.closes
    left, right = await stage.both(body, _leaving, leave_after=12)
    await observer.wait_for(lambda observer: observer.closes >= before + 2)
    waits = []
    for column, heard, proxied in ((stage.screen.left, left, False), (stage.screen.right, right, True)):
        seen = [s for s in observer.of(body["model"]) if ("x-evenflow-attempt" in s.headers) is proxied]
        _require(len(seen) == 1 and seen[0].ended_ns is not None, "the simulator did not see the close")
        waits.append(((seen[0].ended_ns or 0) - heard.closed_ns) / 1e6)
        column.add("good", f"upstream saw the close after {waits[-1]:.1f} ms")
    _require(right.events > 0 and waits[1] < _RELEASED_WITHIN, f"the upstream was released only after {waits[1]:.0f} ms")
    return f"released: {waits[1]:.1f} ms after the client left, the upstream stopped working for it."


_RELEASED_WITHIN: Final = 1_000.0  # ms; `make load` is where the time is judged, a demo may run on a busy machine


def _leaving(column: Column, heard: Heard) -> None:
    column.show(("text", heard.text))
    if heard.closed_ns:
        column.add("faint", f"(the client left after {heard.events} events)")


@dataclass(frozen=True, slots=True)
class Scene:
    """One row of the programme.

    Args:
      title: names what is shown; a missing scene is reported by it.
      caption: how it is brought about.
      play: plays it and returns its conclusion; raises NotObserved.
    """

    title: str
    caption: str
    play: Callable[[Stage], Awaitable[str]]


SCENES: Final = (
    Scene("a stutter repaired", "the upstream tells its first words again and again", stutter),
    Scene("a cut stream ending in a clear error", "the upstream stops in the middle", cut),
    Scene("a 503 retried", "the upstream is overloaded for a moment", retry),
    Scene("a breaker opening and closing", "the upstream is down, then back (no retries here)", breaker),
    Scene("a client leaving and its upstream released", "the client closes in the middle of an endless answer", leave),
)

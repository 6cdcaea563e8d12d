"""The upstream and the clients of `make bench`: two C programs, compiled on the spot, and the words that are said to them.

They are in C because they share one core at a thousand streams and must not be what is measured; in Python each would cost more than
a proxy does.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from .process_tree import pinned

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_HERE: Final = Path(__file__).resolve().parent
_FLAGS: Final = ("-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror=implicit-function-declaration")
_END_LIMIT: Final = 5.0  # seconds that a program has to end after its last word


class CannotMeasure(Exception):
    """Something that the measurement needs is not to be had. The text says what, in one line."""


def cache_folder() -> Path:
    """Where compiled programs and installed peers are kept between runs: outside the tree."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evenflow-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def compiled(name: str) -> Path:
    """The program that bench/NAME.c gives; compiled if that has changed since.

    Raises:
      CannotMeasure: there is no C compiler, or it refuses.
    """
    sources = [_HERE / f"{name}.c", *sorted(_HERE.glob("*.h"))]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    program = cache_folder() / f"{name}-{os.uname().machine}-{digest}"
    if program.exists():
        return program
    compiler = next((path for path in map(shutil.which, (os.environ.get("CC") or "cc", "cc", "gcc", "clang")) if path), None)
    if compiler is None:
        raise CannotMeasure(
            "the load generator is C, compiled on the spot, and there is no C compiler (cc); install gcc or clang, or set CC"
        )
    made = program.with_suffix(f".{os.getpid()}")
    done = subprocess.run([compiler, *_FLAGS, "-o", str(made), str(sources[0])], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMeasure(f"{compiler} could not compile {sources[0]} (it needs Linux): {done.stderr.strip().splitlines()[-1:]}")
    made.rename(program)
    return program


class Times(msgspec.Struct, frozen=True):
    """Percentiles of some durations, in milliseconds."""

    count: int
    p50: float
    p90: float
    p99: float
    max: float


class Figures(msgspec.Struct, frozen=True):
    """What the clients counted since the last mark; `over`, `open` and `ends` since their start.

    Args:
      at: when, CLOCK_MONOTONIC in nanoseconds.
      bytes: of bodies.
      delay: from an event's stamp to its arrival.
      first: from a connection's start (or the request's, on a kept one) to the first event.
      whole: the same to the answer's end.
      ends: how answers ended; all but "complete" and "left" are losses.
      status: the last HTTP status that was not 200; `refusal` is the beginning of the first such answer.
    """

    at: int
    events: int
    bytes: int
    over: int
    open: int
    status: int
    refusal: str
    delay: Times
    first: Times
    whole: Times
    ends: dict[str, int]

    @property
    def incomplete(self) -> int:
        """Answers that did not come whole."""
        return sum(count for how, count in self.ends.items() if how not in ("complete", "left"))

    @property
    def troubles(self) -> str:
        """The same for people: "3 cut, 1 no_done"."""
        named = [f"{count} {how}" for how, count in self.ends.items() if count and how not in ("complete", "left")]
        return ", ".join(named) + (f" ({self.status}: {self.refusal})" if self.status else "")


class Program:
    """One of the two programs while it runs. Leave the block and it is gone.

    Args:
      command: the program and its arguments.
      cores: the processors it may use; None: all.
    """

    def __init__(self, command: Sequence[str], cores: set[int] | None) -> None:
        with pinned(cores):
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # a last word that it did not wait for
                pipe.close()
        try:
            self._process.wait(_END_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def say(self, word: str) -> None:
        """Give it one word; one that has ended already is past caring."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(word.encode() + b"\n")
            self._process.stdin.flush()

    def line(self, patience: float) -> str | None:
        """Its next line, without the line end; None when none comes within `patience` seconds or it has ended."""
        assert self._process.stdout is not None
        until = time.monotonic() + patience
        while b"\n" not in self._rest:
            left = until - time.monotonic()
            if left < 0 or not select.select([self._process.stdout], [], [], left)[0]:
                return None
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


class Upstream(Program):
    """upstream.c."""

    def __init__(self, cores: set[int] | None = None) -> None:
        super().__init__([str(compiled("upstream"))], cores)
        told = (self.line(_END_LIMIT) or "").split()
        if len(told) != 2:
            raise CannotMeasure("the upstream did not start")
        self.port = int(told[1])

    def stop(self) -> None:
        """Let every open answer come to its proper end."""
        self.say("stop")

    def drain(self) -> None:
        """Forget every close that was reported so far."""
        while self.line(0.0) is not None:
            pass

    def closes(self, count: int, patience: float) -> dict[int, int]:
        """When the peers of unfinished answers left, by stream: CLOCK_MONOTONIC in ns. Waits for `count` of them, or `patience` seconds."""
        seen: dict[int, int] = {}
        until = time.monotonic() + patience
        while len(seen) < count and (line := self.line(until - time.monotonic())) is not None:
            word, stream, at = line.split()
            if word == "closed":
                seen.setdefault(int(stream), int(at))
        return seen


class Clients(Program):
    """client.c.

    Args:
      port: of the proxy.
      what: "hold" opens `count` answers at once, "loop" asks for them one after another.
      spec: what upstream.c is asked for.
      options: NAME=VALUE as client.c knows them.
    """

    def __init__(self, port: int, what: str, count: int, spec: str, *options: str, cores: set[int] | None = None) -> None:
        super().__init__([str(compiled("client")), str(port), what, str(count), spec, *options], cores)
        self.left: dict[int, int] = {}
        self._ended: Figures | None = None

    def ready(self, patience: float) -> bool:
        """Wait until every stream has had its first event."""
        return self._await("ready", patience) is not None

    def mark(self, patience: float = 10.0) -> Figures:
        """The figures since the last mark.

        Raises:
          CannotMeasure: it does not answer.
        """
        if self._ended is None:
            self.say("mark")
            line = self._await('{"', patience)
            if line is None:
                raise CannotMeasure("the clients ended without a word")
            self._take(line)
        assert self._last is not None
        return self._last

    def leave(self) -> None:
        """Let them close their connections one after another; `left` has the times when `end` has returned."""
        self.say("leave")

    def end(self, patience: float) -> Figures:
        """Wait until all answers are over; those that are not after `patience` seconds are given up.

        Raises:
          CannotMeasure: it does not say how it went.
        """
        if self._ended is None and (line := self._await('{"end"', patience)) is not None:
            self._take(line)
        if self._ended is None:
            self.say("quit")
            if (line := self._await('{"end"', _END_LIMIT)) is not None:
                self._take(line)
        if self._ended is None:
            raise CannotMeasure("the clients ended without a word")
        return self._ended

    def _await(self, beginning: str, patience: float) -> str | None:
        until = time.monotonic() + patience
        while (line := self.line(max(0.0, until - time.monotonic()))) is not None:
            if line.startswith("left "):
                _, stream, at = line.split()
                self.left[int(stream)] = int(at)
            if line.startswith('{"end"'):
                self._take(line)
            if line.startswith(beginning):
                return line
        return None

    _last: Figures | None = None

    def _take(self, line: str) -> None:
        told: dict[str, Any] = json.loads(line)
        ended = "end" in told
        told["at"] = told.pop("end" if ended else "mark")
        self._last = msgspec.convert(told, Figures)
        if ended:
            self._ended = self._last

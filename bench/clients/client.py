"""What a client is to the runner: where it comes from, how it is started for a case, and how its output is read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Place:
    """Where one client runs for one case.

    Args:
      case: the case's name, which is the model's name as well.
      url: the base URL to ask, with /v1.
      installed: the folder the client is installed in: `venv` or `node_modules` below it.
      bin: where its programs are; python or node among them.
      home: an empty folder, its HOME and working directory.
    """

    case: str
    url: str
    installed: Path
    bin: Path
    home: Path


@dataclass(frozen=True, slots=True)
class Command:
    """What is started, with the variables it gets beside PATH and HOME."""

    arguments: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Said:
    """What a client's user got.

    Args:
      text: the answer as it was shown or handed over.
      error: what it was told went wrong, "" if nothing.
      calls: name and arguments (JSON) of each tool call.
      left_ns: `time.monotonic_ns()` of the moment it left by itself, 0 if it did not.
    """

    text: str
    error: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    left_ns: int = 0


@dataclass(frozen=True, slots=True)
class Output:
    """What a process left behind."""

    code: int
    stdout: str
    stderr: str
    home: Path


Start: TypeAlias = "Callable[[Place], Command]"
Read: TypeAlias = "Callable[[Output], Said]"


@dataclass(frozen=True, slots=True, eq=False)
class Client:
    """One client.

    Args:
      name: of its row and of its page in docs/clients.
      packages: as pip or npm take them, versions pinned to what was tried; the first is the client itself.
      npm: they come from npm and run under the cache's own node; else from PyPI.
      start: the command for a case.
      read: what its output says.
      interactive: it is a program that Ctrl-C ends; else a script of ours that leaves by its own API and waits until told to end.
      call: name and arguments (JSON) of the tool call that it is answered in the case `tools`; {home} is its folder. None: it has no
        tools.
      carries_on: after the tool's result it asks again and shows that answer.
      own: by case, what this client does by itself, whatever stands before the upstream; such a cell is not counted against evenflow.
        The text is looked for in the verdict.
    """

    name: str
    packages: tuple[str, ...]
    start: Start
    read: Read
    npm: bool = False
    interactive: bool = False
    call: tuple[str, str] | None = ("get_weather", '{"city":"Kraków","unit":"celsius","days":[1,2,3]}')
    carries_on: bool = False
    own: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Of the client itself."""
        return self.packages[0].replace("==", "@").rpartition("@")[2]


def said_in_json(output: Output) -> Said:
    """What one of the scripts in sdk/ says: a line of JSON, the last one."""
    lines = output.stdout.strip().splitlines()
    try:
        told = json.loads(lines[-1])
    except (IndexError, ValueError):
        return Said("", f"exit code {output.code}: {last_line(output.stderr or output.stdout)}")
    calls = tuple((name, arguments) for name, arguments in told["calls"])
    return Said(told["text"], told["error"], calls, told.get("left_ns", 0))


def last_line(text: str) -> str:
    """The last line with anything in it, in at most 200 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "(nothing)"

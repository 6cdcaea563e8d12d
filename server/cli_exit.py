"""How a command ends: its exit code, and the one line that says why where it could not do what was asked.

Exit codes: 0 done, 1 what the command itself found wanting, 2 it could not start as asked, 70 a defect ended it, 130 Ctrl-C,
141 the reader of its output left. Refuses to know any command.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
import trio

from .terminal import drop_output

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: What a shell reports of a program that SIGINT ended: 128 + 2.
_INTERRUPTED: Final = 130
#: And of one that SIGPIPE ended: `evenflow demo | head`, the reader has seen enough.
_PIPE_CLOSED: Final = 141


class CannotStart(click.ClickException):
    """Something outside this process has to change first; its text is one line."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"evenflow: {self.format_message()}", err=True)


class Failed(CannotStart):
    """It ran, and a defect of its own ended it."""

    exit_code = 70  # EX_SOFTWARE of sysexits.h; anything but 0 has a supervisor start it again


class Commands(click.Group):
    """A group whose commands return their exit code, and of which Ctrl-C leaves no trace but that."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        sys.exit(_exit_code(functools.partial(super().main, *args, **{"prog_name": "evenflow", **kwargs, "standalone_mode": False})))


def _exit_code(command: Callable[[], object]) -> int:
    try:
        result = command()
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except BrokenPipeError:
        return _pipe_closed()
    except BaseExceptionGroup as group:
        # trio wraps what leaves a nursery, Ctrl-C too; with anything beside it, that is a defect and shall be seen.
        if group.split((KeyboardInterrupt, BrokenPipeError))[1] is not None:
            raise
        return _INTERRUPTED if group.subgroup(KeyboardInterrupt) is not None else _pipe_closed()
    return result if isinstance(result, int) else 0


def _pipe_closed() -> int:
    drop_output()
    return _PIPE_CLOSED


def run_until_ended(
    command: Callable[[], Awaitable[int | None]],
    bind_error: type[Exception],
    explained: Callable[[Exception], str] = str,
    *,
    told: tuple[type[Exception], ...] = (),
) -> int:
    """Run an async command; a port in use is one line, also out of a nursery. So is a defect, whose traceback goes into the log.

    Args:
      explained: the line of a `bind_error`.
      told: defects that need no traceback.

    Returns:
      The exit code: the command's own, if it has one.
    """
    try:
        return trio.run(command) or 0
    except* bind_error as group:
        failure: click.ClickException = CannotStart(explained(innermost(group)))
    except* told as group:
        failure = Failed(str(innermost(group)))
    except* Exception as group:
        logging.getLogger("evenflow").critical("the process ends, for it cannot go on", exc_info=group)
        failure = Failed(str(innermost(group)) or type(innermost(group)).__name__)
    from .log import flush_logging

    flush_logging(0.5)  # what is said now comes last
    raise failure


def innermost(group: Exception) -> Exception:
    """What lies in the nested groups of nursery upon nursery."""
    while isinstance(group, ExceptionGroup):
        group = group.exceptions[0]
    return group

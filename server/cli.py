"""The command line: evenflow serve | dev | demo | simulate | replay | check | doctor | rollout.

Owns the options, the exit codes and the one line that says why nothing was started. Exit codes: 0 done, 1 what the command itself
found wanting, 2 it could not start as asked, 70 a defect ended it, 130 Ctrl-C. What a command does is imported only when it runs,
so that `check` starts quickly and needs no server.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
import trio

from .settings import Address
from .settings_checks import SettingsError
from .settings_sources import Flags, Loaded, load
from .version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

#: What a shell reports of a program that SIGINT ended: 128 + 2.
_INTERRUPTED: Final = 130
#: And of one that SIGPIPE ended: `evenflow demo | head`, the reader has seen enough.
_PIPE_CLOSED: Final = 141


def _pipe_closed() -> int:
    # What is left in the buffer would raise once more at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _PIPE_CLOSED


class _CannotStart(click.ClickException):
    """Something outside this process has to change first; its text is one line."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"evenflow: {self.format_message()}", err=True)


class _Failed(_CannotStart):
    """It ran, and a defect of its own ended it."""

    exit_code = 70  # EX_SOFTWARE of sysexits.h; anything but 0 has a supervisor start it again


class _Commands(click.Group):
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


def _address(_context: click.Context, _parameter: click.Parameter, text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as exc:
        raise _CannotStart(f"--bind: {exc}") from None


_CONFIG = click.option("--config", metavar="FILE", help="TOML file to read [else $EVENFLOW_CONFIG, else ./evenflow.toml if there is one]")
_BIND = click.option("--bind", metavar="HOST:PORT", help="where clients connect [127.0.0.1:8143]")
_ADMIN_BIND = click.option("--admin-bind", metavar="HOST:PORT", help="where metrics and status are served [127.0.0.1:8144]")


def _sources(command: Callable[..., object]) -> Callable[..., object]:
    """The flags of `serve` and `check`."""
    for option in (
        click.option("--allow-anonymous", is_flag=True, default=None, help="let --bind leave loopback although no client_keys are set"),
        click.option("--upstream-key-env", metavar="NAME", help="environment variable that holds the upstream's key"),
        click.option("--upstream", metavar="URL", help="base_url of the one upstream, for example http://127.0.0.1:11434/v1"),
        _ADMIN_BIND,
        _BIND,
        _CONFIG,
    ):
        command = option(command)
    return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(VERSION, message="%(prog)s %(version)s", help="print the version and exit")
def evenflow() -> None:
    """A streaming proxy for LLM APIs in which nothing stutters, hangs, is cut silently or outlives its client.

    Try `evenflow demo`, then `evenflow dev`, then `evenflow serve --upstream URL`.
    """


@evenflow.command()
@_sources
def serve(**flags: Any) -> None:
    """Run the proxy until SIGTERM or Ctrl-C."""
    sources = Flags(**flags)
    settings = _load(sources).settings
    from . import main as proxy

    _run(functools.partial(proxy.serve, settings, functools.partial(load, sources)), proxy.BindError)


@evenflow.command()
@_CONFIG
@_BIND
@_ADMIN_BIND
def dev(config: str | None, bind: str | None, admin_bind: str | None) -> None:
    """Run the proxy and a misbehaving upstream in one process; needs no configuration."""
    settings = _load(Flags(config=config, bind=bind, admin_bind=admin_bind), with_upstreams=False).settings
    from . import main as proxy

    _run(functools.partial(proxy.serve_dev, settings), proxy.BindError)


@evenflow.command()
def demo() -> int:
    """Show five misbehaviours of an upstream, straight and through evenflow."""
    from .demo import run_demo

    return run_demo()


@evenflow.command()
@click.option(
    "--bind", "address", metavar="HOST:PORT", default="127.0.0.1:8150", show_default=True, callback=_address, help="where it listens"
)
@click.option("--pace", metavar="MS", type=click.FloatRange(min=0), default=20.0, show_default=True, help="time between two events")
@click.option("--scenario", metavar="FILE", type=click.Path(path_type=Path), help="which fault answers which request, by their order")
@click.option("--recordings", metavar="DIR", type=click.Path(path_type=Path), help="folder of .sse files for the models recording:NAME")
@click.option("--list", "list_faults", is_flag=True, help="print the fault models and exit")
def simulate(address: Address, pace: float, scenario: Path | None, recordings: Path | None, list_faults: bool) -> None:
    """Run an OpenAI-compatible upstream that misbehaves as the model's name says."""
    from . import simulator

    if list_faults:
        click.echo(simulator.faults_table().rstrip("\n"))
        return
    try:
        steps = simulator.load_scenario(scenario) if scenario is not None else None
        bodies = simulator.read_recordings(recordings) if recordings is not None else None
    except simulator.ScenarioError as exc:
        raise _CannotStart(f"--scenario: {exc}") from None
    except OSError as exc:
        raise _CannotStart(f"--recordings: cannot read {exc.filename}: {exc.strerror}; correct the path or its permissions") from None

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            start = functools.partial(simulator.serve_simulator, address.host, address.port, pace=pace / 1000)
            running = await nursery.start(functools.partial(start, scenario=steps, recordings=bodies))
            click.echo(f"simulator: base_url {running.base_url}, report {running.url}/_simulator/report; Ctrl-C ends it", err=True)

    try:
        trio.run(run)
    except* OSError as group:
        failure = _first(group)
    else:
        return
    # The system's own words for the number; trio adds the address to the text, which stands there already.
    told = os.strerror(failure.errno) if isinstance(failure, OSError) and failure.errno else failure
    raise _CannotStart(f"--bind: cannot listen on {address}: {told}; choose another with --bind HOST:PORT")


@evenflow.command()
@click.argument("files", metavar="FILE.sse...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--pace", metavar="MS", type=click.FloatRange(min=0), default=20.0, show_default=True, help="simulated time between two events"
)
@click.option("--emit", is_flag=True, help="write exactly the bytes a client would have received to standard output")
@click.option(
    "--emit-dir", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help="the same, one file per input, same names"
)
def replay(files: tuple[Path, ...], pace: float, emit: bool, emit_dir: Path | None) -> int:
    """Run recorded streams through the pipeline offline and print each decision."""
    if emit and emit_dir is not None:
        raise click.UsageError("--emit and --emit-dir exclude each other")
    from .replay import run_replay

    return run_replay(files, pace, emit, emit_dir)


@evenflow.command()
@_sources
def check(**flags: Any) -> int:
    """Print every effective setting and where it came from, or every problem."""
    try:
        loaded = load(Flags(**flags))
    except SettingsError as exc:
        for problem in exc.problems:
            click.echo(f"evenflow: {problem}", err=True)
        return 2
    _warn(loaded)
    rows = list(loaded.effective())
    # Long values, lists of models for example, push only their own origin to the right.
    widths = [max(len(name) for name, _, _ in rows), min(40, max(len(value) for _, value, _ in rows))]
    for name, value, origin in rows:
        click.echo(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}")
    return 0


@evenflow.command()
@_CONFIG
@click.option("--upstream", "upstreams", metavar="NAME", multiple=True, help="only this one; may be given more than once")
@click.option("--model", metavar="NAME", default="", help="to ask for [else one that the configuration names there]")
@click.option("--skip", "skipped", type=click.Choice(["leave", "prefix"]), multiple=True, help="a probe that is not wanted")
@click.option("--timeout", metavar="S", type=click.FloatRange(min=1), default=60.0, show_default=True, help="longest wait for an answer")
@click.option("--yes", is_flag=True, help="spend the tokens without asking")
@click.option("--json", "as_json", is_flag=True, help="the findings as JSON")
def doctor(
    config: str | None, upstreams: tuple[str, ...], model: str, skipped: tuple[str, ...], timeout: float, yes: bool, as_json: bool
) -> int:
    """Ask each configured upstream how it behaves; says what that costs before it does."""
    from .doctor import CannotAsk, DoctorOptions, run_doctor

    settings = _load(Flags(config=config)).settings
    probes = DoctorOptions().probes - set(skipped)
    try:
        return run_doctor(settings, DoctorOptions(upstreams, model, probes, timeout, yes, as_json))
    except* CannotAsk as group:
        problem = _first(group)
    raise _CannotStart(str(problem))


@evenflow.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of evenflow.toml, for editors."""
    from .settings_json_schema import schema_text

    click.echo(schema_text(), nl=False)


@evenflow.command()
@_CONFIG
@click.argument("percent", type=click.FloatRange(0, 100), required=False)
@click.option("--admin", "url", metavar="URL", help="root of the admin listener [else that of the configuration's admin_bind]")
@click.option("--admin-key-env", metavar="NAME", help="environment variable that holds one of its admin_keys")
@click.option("--json", "as_json", is_flag=True, help="the report as JSON")
def rollout(config: str | None, percent: float | None, url: str | None, admin_key_env: str | None, as_json: bool) -> None:
    """Show the engines side by side; with PERCENT, give the actors that share of the streams to come."""
    import msgspec

    from .rollout_command import NoAnswer, ask_rollout, table

    if url is None:
        url = f"http://{Address.parse(_load(Flags(config=config), with_upstreams=False).settings.admin_bind)}"
    if admin_key_env is not None and admin_key_env not in os.environ:
        raise _CannotStart(f"--admin-key-env: no environment variable {admin_key_env} is set")
    try:
        report = ask_rollout(url.rstrip("/"), os.environ[admin_key_env] if admin_key_env else "", percent)
    except NoAnswer as failure:
        raise _CannotStart(str(failure)) from None
    click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() if as_json else table(report))


def _load(flags: Flags, *, with_upstreams: bool = True) -> Loaded:
    try:
        loaded = load(flags, with_upstreams=with_upstreams)
    except SettingsError as exc:
        raise _CannotStart(str(exc)) from None
    _warn(loaded)
    return loaded


def _warn(loaded: Loaded) -> None:
    for warning in loaded.warnings:
        click.echo(f"evenflow: warning: {warning}", err=True)


def _run(command: Callable[[], Any], bind_error: type[Exception]) -> None:
    """Run an async command; a port in use is one line, also out of a nursery. So is a defect, whose traceback goes into the log."""
    try:
        trio.run(command)
    except* bind_error as group:
        failure: click.ClickException = _CannotStart(str(_first(group)))
    except* Exception as group:
        from .log import flush_logging

        logging.getLogger("evenflow").critical("the process ends, for it cannot go on", exc_info=group)
        flush_logging(0.5)  # what is said below comes last
        failure = _Failed(str(_first(group)) or type(_first(group)).__name__)
    else:
        return
    raise failure


def _first(group: Exception) -> Exception:
    """What lies in the nested groups of nursery upon nursery."""
    while isinstance(group, ExceptionGroup):
        group = group.exceptions[0]
    return group


def main() -> NoReturn:
    """The `evenflow` command."""
    evenflow.main()

"""The command line: evenflow serve | dev | demo | init | check | schema | status | rollout | simulate | replay | doctor.

Owns the commands and their options; those about the configuration are in cli_configuration.py, exit codes and the one line that says
why nothing was started in cli_exit.py. What a command does is imported only when it runs, so that `check` starts quickly and needs
no server.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import trio

from .cli_configuration import ADMIN_BIND, AS_JSON, BIND, CONFIG, check, init, loaded_or_exit, print_schema, sources
from .cli_exit import CannotStart, Commands, innermost, run_until_ended
from .cli_running import rollout, status
from .settings import Address
from .settings_layers import Origin, Rank
from .settings_sources import Flags, load
from .version import VERSION, versions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .settings_loaded import Loaded
    from .simulator import Recording, Scenario


def _address(_context: click.Context, _parameter: click.Parameter, text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as exc:
        raise CannotStart(f"--bind: {exc}") from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True, invoke_without_command=True)
@click.option("--version", is_flag=True, help="print the version and exit")
@click.option("--json", "as_json", is_flag=True, help="the version as JSON, with those of what it runs on")
@click.pass_context
def evenflow(context: click.Context, version: bool, as_json: bool) -> None:
    """A streaming proxy for LLM APIs in which nothing stutters, hangs, is cut silently or outlives its client.

    Try `evenflow demo`, then `evenflow dev`, then `evenflow serve --upstream URL`, or `evenflow init` and `evenflow serve`.
    """
    if version:
        click.echo(json.dumps(versions()) if as_json else f"evenflow {VERSION}")
        context.exit()
    if as_json:
        raise click.UsageError("--json before a command goes with --version only; a command has its own")
    if context.invoked_subcommand is None:
        raise click.UsageError("name a command")


@evenflow.command()
@sources
def serve(**flags: Any) -> int:
    """Run the proxy until SIGTERM or Ctrl-C."""
    given = Flags(**flags)
    loaded = loaded_or_exit(given)
    from . import main as proxy
    from . import supervisor

    command: Callable[..., Awaitable[int | None]] = proxy.serve if loaded.settings.workers == 1 else supervisor.serve_with_workers
    run = functools.partial(command, loaded.settings, functools.partial(load, given))
    return run_until_ended(run, proxy.BindError, _bound_by(loaded), told=(supervisor.WorkersFailed,))


@evenflow.command()
@click.option("--config", metavar="FILE", help="TOML file to read [else $EVENFLOW_CONFIG]; an evenflow.toml that lies here is not read")
@BIND
@ADMIN_BIND
def dev(config: str | None, bind: str | None, admin_bind: str | None) -> None:
    """Run the proxy and a misbehaving upstream in one process; needs no configuration."""
    loaded = loaded_or_exit(Flags(config=config, bind=bind, admin_bind=admin_bind), with_upstreams=False)
    from . import main as proxy

    run_until_ended(functools.partial(proxy.serve_dev, loaded.settings), proxy.BindError, _bound_by(loaded))


def _bound_by(loaded: Loaded) -> Callable[[Exception], str]:
    """The line of an address that cannot be had, and who chose it, where that was not the command line."""

    def explained(error: Exception) -> str:
        _, origin = loaded.values.get((getattr(error, "setting", ""),), (None, Origin()))
        return f"{error} (set by {origin})" if origin.rank in (Rank.FILE, Rank.ENVIRONMENT) else str(error)

    return explained


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
@click.option("--recordings", metavar="DIR", type=click.Path(path_type=Path), help="folder of .sse and .flight files for recording:NAME")
@click.option("--list", "list_faults", is_flag=True, help="print the fault models and exit")
@click.option("--json", "as_json", is_flag=True, help="with --list: as JSON, for scripts")
def simulate(address: Address, pace: float, scenario: Path | None, recordings: Path | None, list_faults: bool, as_json: bool) -> None:
    """Run an OpenAI-compatible upstream that misbehaves as the model's name says."""
    from . import simulator
    from .flights.playback import NoFlight, read_flights

    if list_faults:
        click.echo(json.dumps(dict(simulator.FAULTS), indent=2) if as_json else simulator.faults_table().rstrip("\n"))
        return
    try:
        steps = simulator.load_scenario(scenario) if scenario is not None else None
        bodies = {**simulator.read_recordings(recordings), **read_flights(recordings)} if recordings is not None else None
    except NoFlight as exc:
        raise CannotStart(f"--recordings: {exc}") from None
    except simulator.ScenarioError as exc:
        raise CannotStart(f"--scenario: {exc}") from None
    except OSError as exc:
        raise CannotStart(f"--recordings: cannot read {exc.filename}: {exc.strerror}; correct the path or its permissions") from None

    _run_simulator(address, pace, steps, bodies)


@evenflow.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--pace", metavar="MS", type=click.FloatRange(min=0), default=20.0, show_default=True, help="simulated time between two events"
)
@click.option("--emit", is_flag=True, help="write exactly the bytes a client would have received to standard output")
@click.option(
    "--emit-dir", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help="the same, one file per input, same names"
)
@click.option("--json", "as_json", is_flag=True, help="one JSON object per recording and line, for scripts")
@click.option(
    "--serve", "address", metavar="HOST:PORT", help="be an upstream that answers all with the first FILE, a flight at its original pace"
)
def replay(files: tuple[Path, ...], pace: float, emit: bool, emit_dir: Path | None, as_json: bool, address: str | None) -> int:
    """Run recorded streams (.sse) through the pipeline offline and print each decision; show a .flight as a timeline."""
    if address is not None:
        from .flights.playback import NoFlight, always

        try:
            steps, bodies = always(files[0])
            place = Address.parse(address)
        except (NoFlight, OSError) as exc:
            raise CannotStart(str(exc)) from None
        except ValueError as exc:
            raise CannotStart(f"--serve: {exc}") from None
        _run_simulator(place, pace, steps, bodies)
        return 0
    if emit and emit_dir is not None:
        raise click.UsageError("--emit and --emit-dir exclude each other")
    if emit and as_json:
        raise click.UsageError("--emit and --json exclude each other")
    from .replay import run_replay

    return run_replay(files, pace, emit, emit_dir, as_json)


@evenflow.command()
@CONFIG
@click.option("--upstream", "upstreams", metavar="NAME", multiple=True, help="only this one; may be given more than once")
@click.option("--model", metavar="NAME", default="", help="to ask for [else one that the configuration names there]")
@click.option("--skip", "skipped", type=click.Choice(["leave", "prefix"]), multiple=True, help="a probe that is not wanted")
@click.option("--timeout", metavar="S", type=click.FloatRange(min=1), default=60.0, show_default=True, help="longest wait for an answer")
@click.option("--yes", is_flag=True, help="spend the tokens without asking")
@AS_JSON
def doctor(
    config: str | None, upstreams: tuple[str, ...], model: str, skipped: tuple[str, ...], timeout: float, yes: bool, as_json: bool
) -> int:
    """Ask each configured upstream how it behaves; says what that costs before it does."""
    from .doctor import CannotAsk, DoctorOptions, run_doctor

    settings = loaded_or_exit(Flags(config=config)).settings
    probes = DoctorOptions().probes - set(skipped)
    try:
        return run_doctor(settings, DoctorOptions(upstreams, model, probes, timeout, yes, as_json))
    except* CannotAsk as group:
        problem = innermost(group)
    raise CannotStart(str(problem))


def _run_simulator(address: Address, pace: float, steps: Scenario | None, bodies: Mapping[str, Recording] | None) -> None:
    from . import simulator

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            start = functools.partial(simulator.serve_simulator, address.host, address.port, pace=pace / 1000)
            running = await nursery.start(functools.partial(start, scenario=steps, recordings=bodies))
            click.echo(f"simulator: base_url {running.base_url}, report {running.url}/_simulator/report; Ctrl-C ends it", err=True)

    try:
        trio.run(run)
    except* OSError as group:
        failure = innermost(group)
    else:
        return
    # The system's own words for the number; trio adds the address to the text, which stands there already.
    told = os.strerror(failure.errno) if isinstance(failure, OSError) and failure.errno else failure
    raise CannotStart(f"--bind: cannot listen on {address}: {told}; choose another with --bind HOST:PORT")


evenflow.add_command(check)
evenflow.add_command(init)
evenflow.add_command(status)
evenflow.add_command(rollout)
evenflow.add_command(print_schema)


def main() -> NoReturn:
    """The `evenflow` command."""
    evenflow.main()

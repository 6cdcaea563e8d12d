"""The commands and flags that are about the configuration: check, init, schema, and how every other command reads it.

Owns the names of those flags and how problems and warnings are printed. Refuses to know what a setting means.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from .cli_exit import CannotStart
from .settings_checks import SettingsError
from .settings_sources import Flags, load
from .terminal import Style

if TYPE_CHECKING:
    from collections.abc import Callable

    from .settings_loaded import Loaded

CONFIG = click.option("--config", metavar="FILE", help="TOML file to read [else $EVENFLOW_CONFIG, else ./evenflow.toml if there is one]")
BIND = click.option("--bind", metavar="HOST:PORT", help="where clients connect [127.0.0.1:8143]")
ADMIN_BIND = click.option("--admin-bind", metavar="HOST:PORT", help="where metrics and status are served [127.0.0.1:8144]")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="as JSON, for scripts")


def sources(command: Callable[..., object]) -> Callable[..., object]:
    """The flags of `serve` and `check`, which become `Flags`."""
    for option in (
        click.option("--allow-anonymous", is_flag=True, default=None, help="let --bind leave loopback although no client_keys are set"),
        click.option("--upstream-key-env", metavar="NAME", help="environment variable that holds the upstream's key"),
        click.option("--upstream", metavar="URL", help="base_url of the one upstream, for example http://127.0.0.1:11434/v1"),
        ADMIN_BIND,
        BIND,
        CONFIG,
    ):
        command = option(command)
    return command


def loaded_or_exit(flags: Flags, *, with_upstreams: bool = True) -> Loaded:
    """The settings, their warnings printed.

    Raises:
      CannotStart: there is a problem with them.
    """
    try:
        loaded = load(flags, with_upstreams=with_upstreams)
    except SettingsError as exc:
        raise CannotStart(str(exc)) from None
    _warn(loaded)
    return loaded


def _warn(loaded: Loaded) -> None:
    style = Style.of(sys.stderr)
    for warning in loaded.warnings:
        click.echo(f"evenflow: {style.warning('warning:')} {warning}", err=True)


@click.command()
@sources
@AS_JSON
def check(as_json: bool, **flags: Any) -> int:
    """Print every effective setting and where it came from, or every problem."""
    try:
        loaded = load(Flags(**flags))
    except SettingsError as exc:
        if as_json:
            problems = [{"where": p.where, "what": p.what, "remedy": p.remedy} for p in exc.problems]
            click.echo(json.dumps({"ok": False, "problems": problems}, indent=2))
        else:
            for problem in exc.problems:
                click.echo(f"evenflow: {problem}", err=True)
        return 2
    if as_json:
        listed = {"ok": True, "warnings": loaded.warnings, "settings": [entry.to_json() for entry in loaded.effective()]}
        click.echo(json.dumps(listed, indent=2))
        return 0
    _warn(loaded)
    entries = list(loaded.effective())
    # Long values, lists of models for example, push only their own origin to the right.
    widths = [max(len(entry.name) for entry in entries), min(40, max(len(entry.text) for entry in entries))]
    style = Style.of(sys.stdout)
    for entry in entries:
        line = f"{entry.name:<{widths[0]}}  {entry.text:<{widths[1]}}  {entry.origin}"
        # What somebody has set stands out from what is as shipped.
        click.echo(style.dim(line) if entry.origin == "default" else line)
    return 0


@click.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of evenflow.toml, for editors."""
    from .settings_json_schema import schema_text

    click.echo(schema_text(), nl=False)

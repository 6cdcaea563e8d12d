"""The commands and flags that are about the configuration: check, init, schema, and how every other command reads it.

Owns the names of those flags and how problems and warnings are printed. Refuses to know what a setting means.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .cli_exit import CannotStart
from .init_file import DEFAULT_KIND, KINDS, SCHEMA_FILE, configuration
from .settings_checks import SettingsError
from .settings_json_schema import schema_text
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
        click.option("--workers", metavar="N", type=click.IntRange(min=1), help="processes that serve side by side [1]"),
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
    click.echo(schema_text(), nl=False)


@click.command()
@click.argument("kind", type=click.Choice(list(KINDS)), required=False)
@click.option("--base-url", metavar="URL", default="", help="where the upstream is [where one of its kind usually is]")
@click.option("--key-env", metavar="NAME", default="", help="environment variable that holds its key [the one that its own tools read]")
@click.option(
    "--output", metavar="FILE", type=click.Path(path_type=Path), default=Path("evenflow.toml"), show_default=True, help="where to"
)
@click.option("--force", is_flag=True, help="overwrite the file if there is one")
def init(kind: str | None, base_url: str, key_env: str, output: Path, force: bool) -> None:
    """Write a commented configuration for a known kind of upstream, and its schema for editors beside it."""
    _may_write(output, force)
    if kind is None:
        kind, base_url = _asked(base_url) if is_a_person_there() else (DEFAULT_KIND, base_url)
    schema = output.parent / SCHEMA_FILE
    for file, text in ((output, configuration(kind, base_url, key_env)), (schema, schema_text())):
        try:
            file.write_text(text, "utf-8")
        except OSError as exc:
            raise CannotStart(f"{file} cannot be written: {exc.strerror}; choose another place with --output FILE") from None
    click.echo(f"wrote {output} for {KINDS[kind].title}, and {schema}, by which editors check it")
    config = "" if output == Path("evenflow.toml") else f" --config {shlex.quote(str(output))}"
    variable = key_env or KINDS[kind].key_env
    steps = [f"export {variable}=...   # its key"] if variable and not os.environ.get(variable) else []
    for step in [*steps, f"evenflow check{config}", f"evenflow serve{config}"]:
        click.echo(f"  {step}")


def _may_write(output: Path, force: bool) -> None:
    if output.exists() and not force:
        raise CannotStart(f"{output} exists already; choose another name with --output FILE, or overwrite it with --force")
    schema = output.parent / SCHEMA_FILE
    # It is written anew with every version; but only ours is ours to overwrite.
    if schema.exists() and not force and '"urn:evenflow:settings:' not in schema.read_text("utf-8", "replace"):
        raise CannotStart(f"{schema} exists already and is no schema of evenflow's; move it, or overwrite it with --force")


def is_a_person_there() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _asked(base_url: str) -> tuple[str, str]:
    for name, known in KINDS.items():
        click.echo(f"  {name:<11} {known.title}, {known.base_url}")
    kind: str = click.prompt("Which upstream", type=click.Choice(list(KINDS)), default=DEFAULT_KIND, show_choices=False)
    return kind, base_url or click.prompt("Where it is", default=KINDS[kind].base_url)

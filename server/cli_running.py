"""The commands that ask a running evenflow through its admin listener: status and rollout.

Owns how that listener is found and whose key is shown to it.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .cli_configuration import AS_JSON, CONFIG, loaded_or_exit
from .cli_exit import CannotStart
from .settings import Address
from .settings_sources import Flags

if TYPE_CHECKING:
    from collections.abc import Callable


def _asking(command: Callable[..., object]) -> Callable[..., object]:
    """Gives a command `ask(path, document)`, from the flags that say where and with which key."""

    @CONFIG
    @click.option("--admin", "url", metavar="URL", help="root of the admin listener [else that of the configuration's admin_bind]")
    @click.option("--admin-key-env", metavar="NAME", help="environment variable that holds one of its admin_keys")
    @functools.wraps(command)
    def with_flags(config: str | None, url: str | None, admin_key_env: str | None, **others: Any) -> object:
        from .admin_client import NoAnswer, ask_admin

        if admin_key_env is not None and admin_key_env not in os.environ:
            raise CannotStart(f"--admin-key-env: no environment variable {admin_key_env} is set")
        where = url if url is not None else _configured(config)
        key = os.environ[admin_key_env] if admin_key_env else ""

        def ask(path: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
            try:
                return ask_admin(where, key, path, document)
            except NoAnswer as failure:
                raise CannotStart(str(failure)) from None

        return command(ask=ask, **others)

    return with_flags


def _configured(config: str | None) -> str:
    # Upstreams do not matter here, so neither do their keys, which this shell may not have.
    if config is None and "EVENFLOW_CONFIG" not in os.environ and Path("evenflow.toml").exists():
        config = "evenflow.toml"
    try:
        return f"http://{Address.parse(loaded_or_exit(Flags(config=config), with_upstreams=False).settings.admin_bind)}"
    except CannotStart as exc:
        raise CannotStart(f"{exc.message} (or say where it is with --admin URL)") from None


def _printed(document: dict[str, Any]) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


@click.command()
@_asking
@AS_JSON
def status(ask: Callable[..., dict[str, Any]], as_json: bool) -> int:
    """Say how a running evenflow is; exit code 0 if it takes requests, 1 if not, 2 if nobody answers."""
    from .status_command import is_ready, status_text

    answer = ask("/status")
    click.echo(_printed(answer) if as_json else status_text(answer))
    return 0 if is_ready(answer) else 1


@click.command()
@click.argument("percent", type=click.FloatRange(0, 100), required=False)
@_asking
@AS_JSON
def rollout(ask: Callable[..., dict[str, Any]], percent: float | None, as_json: bool) -> None:
    """Show the engines side by side; with PERCENT, give the actors that share of the streams to come."""
    from .rollout_command import table

    report = ask("/rollout", {"percent": percent} if percent is not None else None)
    click.echo(_printed(report) if as_json else table(report))

"""The command `evenflow doctor`: look for nothing, say what the rest would cost, ask, and report.

Exit codes: 0 all is well, 1 something needs somebody, 2 it could not ask (no model, or nobody to say yes), 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import click
import msgspec
import trio

from actors import open_upstream_client

from ..log import printable
from .findings import Diagnosis, Level, diagnose
from .probes import COSTS, Doctor, Probe, server_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors import Upstream

    from ..settings import Settings

_MARKS: Final[dict[Level, tuple[str, str]]] = {"good": ("ok", "green"), "note": ("note", "yellow"), "bad": ("BAD", "red")}
_SHOWN_MODELS: Final = 10


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """What the command line said.

    Args:
      upstreams: names; none are all of them.
      model: to ask for, "" if it is to be found.
      probes: beside the plain stream.
      patience: seconds that an answer may take.
      yes: spends without asking.
      as_json: one JSON document on standard output instead of the report.
    """

    upstreams: tuple[str, ...] = ()
    model: str = ""
    probes: frozenset[Probe] = frozenset({"leave", "prefix"})
    patience: float = 60.0
    yes: bool = False
    as_json: bool = False


class CannotAsk(Exception):
    """The doctor cannot do what it was asked; the text says what to change."""


def run_doctor(settings: Settings, options: DoctorOptions) -> int:
    """Examine the upstreams and print what was found.

    Raises:
      CannotAsk: an upstream of that name is not configured, or nobody can be asked for consent.
    """
    upstreams = settings.upstreams()
    if unknown := set(options.upstreams) - {upstream.name for upstream in upstreams}:
        raise CannotAsk(f"no upstream is called {sorted(unknown)[0]!r}; configured: {', '.join(upstream.name for upstream in upstreams)}")
    chosen = [upstream for upstream in upstreams if not options.upstreams or upstream.name in options.upstreams]
    diagnoses: list[Diagnosis] = trio.run(_examine_all, settings, chosen, options)
    if options.as_json:
        print(msgspec.json.format(msgspec.json.encode([_as_json(diagnosis) for diagnosis in diagnoses]), indent=2).decode())
    return int(not all(diagnosis.healthy for diagnosis in diagnoses))


async def _examine_all(settings: Settings, upstreams: list[Upstream], options: DoctorOptions) -> list[Diagnosis]:
    told = _progress(options)
    diagnoses = []
    for upstream in upstreams:
        told(f"{upstream.name} ({upstream.base_url})")
        # One after the other: they may share a machine, and what is measured is time.
        async with open_upstream_client((upstream, server_root(upstream))) as client:
            doctor = Doctor(client, upstream, patience=options.patience)
            await doctor.look()
            if not doctor.examination.unreachable:
                model = options.model or _model_for(settings, doctor)
                await trio.to_thread.run_sync(_consent, upstream, model, options, abandon_on_cancel=True)
                await doctor.ask(model, options.probes, lambda what: told(f"  asks {what} ..."))
            diagnosis = diagnose(doctor.examination, _keys(settings, upstream.name))
        diagnoses.append(diagnosis)
        if not options.as_json:
            _report(diagnosis)
    return diagnoses


def _model_for(settings: Settings, doctor: Doctor) -> str:
    """A model that the configuration names there, else the only one that the upstream lists."""
    found = doctor.examination
    if named := settings.models_of(found.upstream.name):
        return named[0]
    if len(found.models) == 1:
        return found.models[0]
    listed = ", ".join(printable(model, 80) for model in found.models[:_SHOWN_MODELS])
    more = f" and {len(found.models) - _SHOWN_MODELS} more" if len(found.models) > _SHOWN_MODELS else ""
    which = f"it lists {listed}{more}" if found.models else "it lists none"
    raise CannotAsk(f"upstream '{found.upstream.name}': say which model to ask for, with --model NAME; {which}")


def _keys(settings: Settings, upstream: str) -> dict[str, str]:
    table = settings.configured_upstreams[upstream]
    found = {"key_env": table.key_env, "key_file": table.key_file, "auth": table.auth if table.auth != "configured" else None}
    return {name: value for name, value in found.items() if value is not None}


def _consent(upstream: Upstream, model: str, options: DoctorOptions) -> None:
    """Say what it costs, and ask.

    Raises:
      CannotAsk: nobody is there to answer.
      click.Abort: the answer was no.
    """
    probes: list[Probe] = ["stream", *sorted(options.probes)]
    tokens = sum(COSTS[probe] for probe in probes)
    cost = f"{upstream.name}: up to {_requests(probes)} requests to {model}, at most {tokens:,} tokens of output and about 400 of input"
    if options.yes:
        click.echo(f"  {cost}", err=True)
    elif not sys.stdin.isatty():
        raise CannotAsk(f"{cost}; nobody is here to agree to it: add --yes")
    else:
        click.confirm(f"  {cost}. Ask?", abort=True, default=True, err=True)


def _requests(probes: list[Probe]) -> int:
    return sum({"stream": 1, "leave": 2, "prefix": 3}[probe] for probe in probes)


def _progress(options: DoctorOptions) -> Callable[[str], None]:
    return lambda text: click.echo(text, err=True)


def _report(diagnosis: Diagnosis) -> None:
    click.secho(diagnosis.upstream, bold=True)
    for finding in diagnosis.findings:
        mark, colour = _MARKS[finding.level]
        click.echo(f"  {click.style(f'{mark:<5}', fg=colour)} {printable(finding.what, 400)}")
        if finding.remedy:
            click.echo(f"        -> {finding.remedy}")
    click.echo(f"\n{''.join(f'  {line}' for line in diagnosis.toml().splitlines(keepends=True))}")


def _as_json(diagnosis: Diagnosis) -> dict[str, object]:
    return {
        "upstream": diagnosis.upstream,
        "healthy": diagnosis.healthy,
        "findings": [asdict(finding) for finding in diagnosis.findings],
        "profile": diagnosis.profile,
    }

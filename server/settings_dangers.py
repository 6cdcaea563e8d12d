"""Settings that are legal each by itself and dangerous together: what a start, `evenflow check` and a reload warn of.

Owns the combinations and what to do about each. Every one may be meant, so none stops a start; what cannot be is in
settings_checks.py. A danger is told where it was set, else where it would be mended.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

from actors import STRATEGIES, Strategy

from .settings import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .settings import RouteSettings, Settings, UpstreamSettings
    from .settings_schema import SettingPath

_Finding: TypeAlias = tuple["SettingPath", str, str]

#: Characters below which a key can be tried out. 16 of them in hexadecimal are 64 bits; a guess at what nobody types by hand.
_SHORT_KEY: Final = 16
#: Seconds that a hold may take before readers notice a pause in every answer; `buffer.max_age` is 0.4. Guessed.
_NOTICED: Final = 2.0


def dangers(settings: Settings) -> Iterator[_Finding]:
    """Each dangerous combination as path, what, remedy."""
    yield from _who_may_ask(settings)
    for name, upstream in settings.configured_upstreams.items():
        yield from ((("upstreams", name, *path), what, remedy) for path, what, remedy in _in_the_clear(upstream))
    yield from _timers(settings)
    for index, route in enumerate(settings.routes()):
        path: SettingPath = ("routes", index) if settings.configured_routes else ()
        yield from _spending(settings, route, index, path)
    yield from _holds(settings)
    yield from _cuts(settings)
    yield from _kept(settings)
    for name, upstream in settings.configured_upstreams.items():
        if settings.workers > 1 and upstream.slots:
            most = settings.workers * upstream.slots
            what = f"counts per worker: with workers = {settings.workers} it gets up to {most} requests at once"
            yield ("upstreams", name, "slots"), what, "divide what the server takes by the workers, or set workers to 1"


def _who_may_ask(settings: Settings) -> Iterator[_Finding]:
    main = Address.parse(settings.bind)
    spent = [name for name, upstream in settings.configured_upstreams.items() if upstream.key is not None]
    if not main.is_loopback and not settings.client_keys and spent:
        what = f"whoever reaches {main} spends the key of {', '.join(spent)}: there are no client_keys"
        yield ("allow_anonymous",), what, "set client_keys, or bind to 127.0.0.1"
    if not main.is_loopback and any(len(key.reveal()) < _SHORT_KEY for key in settings.client_keys):
        yield ("client_keys",), f"a key of less than {_SHORT_KEY} characters can be guessed", "make one with: openssl rand -hex 32"
    if settings.edge.cors_origins and not settings.client_keys:
        what = f"pages of {', '.join(settings.edge.cors_origins)} may ask without a key"
        yield ("edge", "cors_origins"), what, "set client_keys, unless everything those sites load is trusted"


def _in_the_clear(upstream: UpstreamSettings) -> Iterator[_Finding]:
    url = urlsplit(upstream.base_url)
    credential = upstream.key is not None or upstream.auth == "client" or any(_is_credential(name) for name in upstream.headers)
    if url.scheme == "http" and credential and not _stays_here(url.hostname or ""):
        yield ("base_url",), f"the key goes to {url.hostname} in the clear, as do prompts and answers", "use https://, or a tunnel"


def _is_credential(header: str) -> bool:
    return header.lower() == "authorization" or header.lower().endswith(("-key", "-token"))


def _stays_here(host: str) -> bool:
    """Whether what is sent there leaves no machine. Docker's name for its host is this machine, seen from a container."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "host.docker.internal") or host.endswith(".localhost")


def _timers(settings: Settings) -> Iterator[_Finding]:
    timers = settings.timers
    if not timers.total and not (timers.idle and timers.first_token):
        name = "first_token" if timers.idle else "idle"
        yield ("timers", name), "and timers.total are both off: a stream that hangs lasts for ever", "give one of them a time"
    elif timers.total:
        for name in ("first_token", "idle"):
            if getattr(timers, name) > timers.total:
                what = f"can never fire: timers.total = {timers.total:g} passes first, which ends the whole request"
                yield ("timers", name), what, "lower it, or raise timers.total"
    if not timers.client_stall:
        what = "is off: a client that stops reading keeps its upstream busy until the answer's end"
        yield ("timers", "client_stall"), what, "give it a time, for example 30"
    limit, most = settings.admission.max_body_bytes, settings.max_request_body
    if limit and limit < most:
        what = f"is below max_request_body = {most}: the largest requests are always turned away"
        yield ("admission", "max_body_bytes"), what, "raise it, or lower that"


def _spending(settings: Settings, route: RouteSettings, index: int, path: SettingPath) -> Iterator[_Finding]:
    """Tries that no time is left for, and hedges that nothing pays."""
    resolved = settings.route_table().routes[index]
    retries = resolved.recovery.retries
    strategies = {name: resolved.recovery.strategies.get(name, legal[0]) for name, legal in STRATEGIES.items()}
    tries = 1 + retries if strategies["first_token_timeout"] is Strategy.RETRY else 1
    silent = sum(c.timers.first_token * tries for c in resolved.candidates)
    total = resolved.timers.total
    what = f"({tries} of each upstream) may take {silent:g} s, but timers.total = {total:g} ends the request before the last of them"
    if (
        (tries > 1 or len(resolved.candidates) > 1)
        and strategies["first_token_timeout"] is not Strategy.FAIL
        and total < silent < float("inf")
    ):
        yield (*path, "timers", "first_token"), f"the tries of route {route.model!r} {what}", "lower first_token, or raise timers.total"
    if retries and resolved.recovery.backoff_cap * retries > total:
        what = f"backing off {retries} times may take {resolved.recovery.backoff_cap * retries:g} s, longer than timers.total = {total:g}"
        yield (*path, "retry", "backoff_cap"), what, "lower it or retry.retries, or raise timers.total"
    if route.hedge_after and not settings.retry.budget_ratio and not settings.retry.budget_floor:
        what = "has no effect: a hedge is paid from the budget of retries, and that is empty"
        yield (*path, "hedge_after"), what, "set retry.budget_ratio or retry.budget_floor"


def _holds(settings: Settings) -> Iterator[_Finding]:
    """Holding ambiguous events for so long that the wait itself is the fault."""
    for name, upstream in settings.configured_upstreams.items():
        age = settings.buffer_of(name).max_age
        idle = {"idle": settings.timers.idle, **upstream.timers}["idle"]
        path: SettingPath = ("upstreams", name, "buffer", "max_age") if "max_age" in upstream.buffer else ("buffer", "max_age")
        if idle and age >= idle:
            what = f"holds events of {name} for {age:g} s, as long as its timers.idle = {idle:g} gives it between two tokens"
        elif age > _NOTICED:
            what = f"holds events of {name} for up to {age:g} s, which readers see as a stall"
        else:
            continue
        yield path, what, "lower it; 0.4 is enough for every stutter that was recorded"
        if path[0] == "buffer":
            return


def _cuts(settings: Settings) -> Iterator[_Finding]:
    """Streams that are ended or refused by an operator who, by another setting, only wants to look on."""
    for name, upstream in settings.configured_upstreams.items():
        path: SettingPath = ("upstreams", name, "loop_guard", "action") if "action" in upstream.loop_guard else ("loop_guard", "action")
        if settings.loop_guard_of(name).action == "cut":
            if settings.streaming.engine == "relay":
                yield path, 'is "cut", but streaming.engine = "relay" looks at no text', "set the engine to actors, or the action to off"
            elif settings.stutter_of(name).mode == "observe":
                what = f'is "cut" and ends streams of {name}, though its stutter.mode = "observe" means only to look on'
                yield path, what, 'set the action to "observe" as well, or the mode to "repair"'
            else:
                continue
            if path[0] == "loop_guard":
                break
    if settings.configured_upstreams and all(settings.breaker_of(n).mode == "forced_open" for n in settings.configured_upstreams):
        yield ("breaker", "mode"), 'is "forced_open" for every upstream: every request gets 503', 'set it to "on"'


def _kept(settings: Settings) -> Iterator[_Finding]:
    """What is written down of what people say."""
    if settings.recorder.directory and settings.recorder.text == "full":
        what = f'is "full": everything that models answer is kept in {settings.recorder.directory}, readable by whoever runs evenflow'
        yield ("recorder", "text"), what, 'set it back to "redacted" once what was looked for is found'

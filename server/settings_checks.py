"""What contradicts what, and how a problem with the settings is told: what, where, what to do.

Refuses to know how values are read. A *problem* stops the start with exit code 2; a *warning* is something that may be meant.
"""

from __future__ import annotations

import difflib
import re
import ssl
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

import msgspec

from actors import BreakerPolicy

from .settings import Address
from .settings_dangers import dangers
from .settings_layers import Origin, Rank
from .settings_schema import SettingPath, dotted, environment_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .settings import BreakerSettings, EdgeSettings, Settings, TracingSettings, UpstreamSettings


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Args:
      where: file and line, variable or flag.
      what: what is wrong there; never holds a credential.
      remedy: what to do about it.
    """

    where: str
    what: str
    remedy: str

    @classmethod
    def at(cls, origin: Origin, path: SettingPath, what: str, remedy: str) -> Problem:
        """A problem of one setting. A flag names its setting already, a line of a file or a variable full of JSON does not."""
        if origin.rank is Rank.FLAG or origin.text == environment_name(path):
            return cls(origin.text, what, remedy)
        return cls(dotted(path) if origin.rank is Rank.DEFAULT else f"{origin.text}: {dotted(path)}", what, remedy)

    def __str__(self) -> str:
        # One line, whatever was written into the settings; no escape sequence reaches the terminal.
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in f"{self.where}: {self.what}; {self.remedy}")


class SettingsError(Exception):
    """The settings cannot be used. Its text is one line; `problems` has all."""

    def __init__(self, problems: list[Problem]) -> None:
        more = f" ({len(problems) - 1} more: run `evenflow check`)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")
        self.problems = tuple(problems)


def no_upstream() -> Problem:
    return Problem(
        "no upstream is configured",
        "there is nobody to ask",
        "give --upstream URL, set EVENFLOW_UPSTREAM, write an evenflow.toml, or try `evenflow dev`, which brings its own",
    )


_Finding: TypeAlias = tuple[SettingPath, str, str]
#: Evenflow writes these itself; a second one would be a smuggled request (FAULTS, HTTP edge).
_OWN_HEADERS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "accept-encoding", "expect"}
)
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]+)?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2


def contradictions(settings: Settings, origin_of: Callable[[SettingPath], Origin]) -> tuple[list[Problem], list[str]]:
    """What in `settings` cannot be, and what is only odd.

    Args:
      origin_of: where the value at a path came from.
    """
    problems = [Problem.at(origin_of(path), path, what, remedy) for path, what, remedy in _problems(settings)]
    if problems:  # what is only odd can wait, and may stand on what is wrong
        return problems, []
    return [], [str(Problem.at(origin_of(path), path, what, remedy)) for path, what, remedy in _oddities(settings)]


def _problems(settings: Settings) -> Iterator[_Finding]:
    yield from _listeners(settings)
    yield from _edge(settings.edge)
    yield from _tracing(settings.tracing)
    for name, keys in (("client_keys", settings.client_keys), ("admin_keys", settings.admin_keys)):
        for index, key in enumerate(keys):
            if not _is_one_word(key.reveal()):
                yield (
                    (name,),
                    f"entry {index} is empty or holds a space or a character that is not ASCII",
                    "write the key, or env:NAME",
                )
    if settings.retry.backoff_cap < settings.retry.backoff_base:
        yield ("retry", "backoff_cap"), "is below retry.backoff_base", "raise it or lower backoff_base"
    yield from _breaker(settings.breaker, ("breaker",))
    for name, upstream in settings.configured_upstreams.items():
        yield from ((("upstreams", name, *path), what, remedy) for path, what, remedy in _upstream(upstream))
        if upstream.breaker:
            merged = msgspec.structs.replace(settings.breaker, **upstream.breaker)
            yield from _breaker(merged, ("upstreams", name, "breaker"))
    folded = Counter(name.lower().replace("-", "_") for name in settings.configured_upstreams)
    for name in settings.configured_upstreams:
        if folded[name.lower().replace("-", "_")] > 1:
            yield (
                ("upstreams", name),
                "another upstream's name differs only in case or hyphens",
                "the environment cannot tell them apart: rename one",
            )
    yield from _routes(settings)


def _breaker(settings: BreakerSettings, path: SettingPath) -> Iterator[_Finding]:
    """The policy knows itself which of its numbers contradict each other."""
    try:
        BreakerPolicy(**msgspec.structs.asdict(settings))
    except ValueError as exc:
        yield path, str(exc), "change one of the two"


def _listeners(settings: Settings) -> Iterator[_Finding]:
    addresses: dict[str, Address] = {}
    for name, text in (("bind", settings.bind), ("admin_bind", settings.admin_bind)):
        try:
            addresses[name] = Address.parse(text)
        except ValueError as exc:
            what, _, remedy = str(exc).partition("; ")
            yield (name,), what, remedy
    main, admin = addresses.get("bind"), addresses.get("admin_bind")
    if main and admin and main.port and main.port == admin.port and (main.host == admin.host or _is_wildcard(main) or _is_wildcard(admin)):
        yield ("admin_bind",), f"{admin} and bind = {main} are the same port", "give the admin listener a port of its own"
    if main and not main.is_loopback and not settings.client_keys and not settings.allow_anonymous:
        remedy = "set client_keys, or say --allow-anonymous if the network itself keeps strangers out"
        yield ("bind",), f"{main} can be reached from other machines, but no client_keys are set", remedy
    if admin and not admin.is_loopback and not settings.admin_keys:
        yield (
            ("admin_bind",),
            f"{admin} can be reached from other machines, but no admin_keys are set",
            "set admin_keys, which are not client_keys, or bind it to 127.0.0.1",
        )


def _edge(edge: EdgeSettings) -> Iterator[_Finding]:
    for host in edge.allowed_hosts:
        if not _HOST.fullmatch(host):
            what = f"{host!r} is no host name by itself"
            yield ("edge", "allowed_hosts"), what, "write it as in a URL, without scheme and port, for example llm.example.com"
    for origin in edge.cors_origins:
        # A browser writes an origin in exactly one way, so that comparing texts is enough; "*" would let in every page there is.
        if not _ORIGIN.fullmatch(origin):
            what = f"{origin!r} is no origin as a browser spells it"
            yield (
                ("edge", "cors_origins"),
                what,
                "write scheme://host or scheme://host:port in lower case, for example https://chat.example.com",
            )
    if edge.max_target >= edge.max_header_bytes:
        yield (
            ("edge", "max_target"),
            "does not fit into edge.max_header_bytes, which counts the request line too",
            "lower it, or raise that",
        )


def _is_wildcard(address: Address) -> bool:
    return address.host in ("0.0.0.0", "::")


def _upstream(upstream: UpstreamSettings) -> Iterator[_Finding]:
    yield from _url(upstream.base_url)
    if upstream.auth == "client" and upstream.key is not None:
        yield ("auth",), 'is "client", but a key is configured too', 'remove the key, or write auth = "configured"'
    for header, value in upstream.headers.items():
        if not _TOKEN.fullmatch(header):
            yield ("headers",), f"{header!r} is no header name", "use letters, digits and -"
        elif header.lower() in _OWN_HEADERS:
            yield ("headers",), f"{header} is written by evenflow itself", "remove it"
        elif header.lower() == "authorization" and (upstream.key is not None or upstream.auth == "client"):
            yield ("headers",), "Authorization would be sent twice", 'remove it here, or remove the key and auth = "client"'
        if not value.reveal().isascii() or not value.reveal().isprintable():
            yield ("headers",), f"the value of {header} holds a line end or a character that is not ASCII", "remove it"
    if upstream.proxy is not None:
        try:
            proxy = urlsplit(upstream.proxy.reveal())
            is_usable = proxy.scheme in ("http", "https") and bool(proxy.hostname) and proxy.port != 0
        except ValueError:
            is_usable = False
        if not is_usable:
            yield ("proxy",), "is no http:// or https:// URL with a host", "write for example http://proxy:3128"
    if upstream.http2:
        yield from _http2(upstream)
    if upstream.ca_file is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(upstream.ca_file)
        except OSError as exc:  # SSLError among them
            reason = "holds no PEM certificate" if isinstance(exc, ssl.SSLError) else f"cannot be read: {exc.strerror}"
            yield ("ca_file",), f"{upstream.ca_file} {reason}", "name a readable PEM bundle"


def _http2(upstream: UpstreamSettings) -> Iterator[_Finding]:
    if not upstream.base_url.startswith("https:"):
        yield (
            ("http2",),
            "is agreed on in the TLS handshake, and base_url does not begin with https://",
            "write https://, or take http2 out",
        )
    if upstream.proxy is not None:
        yield ("http2",), "is not to be had through a forward proxy", "take out http2 or proxy"
    elif upstream.transport != "own":
        yield ("http2",), f'needs transport = "own", and it is "{upstream.transport}"', "take out one of the two"


def _tracing(tracing: TracingSettings) -> Iterator[_Finding]:
    if not tracing.endpoint:
        return
    path: SettingPath = ("tracing", "endpoint")
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", tracing.endpoint):
        yield path, "is no http:// or https:// URL", "write for example http://127.0.0.1:4318/v1/traces"
    try:
        installed = find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # of a parent
        installed = False
    if not installed:
        yield path, "is set, and OpenTelemetry is not installed", "install evenflow[otel], or take it out"


def _url(text: str) -> Iterator[_Finding]:
    path: SettingPath = ("base_url",)
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        yield path, "is no URL", "write for example http://127.0.0.1:11434/v1"
        return
    # The text itself is not repeated: a pasted URL may hold a password.
    if url.scheme not in ("http", "https"):
        yield path, "does not begin with http:// or https://", "write for example http://127.0.0.1:11434/v1"
    elif not url.hostname or port == 0 or not text.isascii() or not text.isprintable() or " " in text:
        yield path, "has no usable host or port", "write for example http://127.0.0.1:11434/v1"
    elif url.username is not None or url.password is not None:
        yield path, "holds a user name or password", "take it out; use key_env, key_file or headers"
    elif url.query or url.fragment or text.endswith(("?", "#")):
        yield path, "has a query or fragment, to which no path can be added", "end it with the path, for example /v1"
    elif url.path.rstrip("/").endswith(("/chat/completions", "/completions", "/models", "/responses", "/embeddings")):
        yield path, "names an endpoint", "end it before that, for example with /v1, as an OpenAI client would be given it"


def _routes(settings: Settings) -> Iterator[_Finding]:
    known, seen = settings.configured_upstreams, dict[str, int]()
    for index, route in enumerate(settings.configured_routes):
        here: SettingPath = ("routes", index)
        if not route.model:
            yield (*here, "model"), "is empty", 'write a model name, a glob or "*"'
        elif (first := seen.setdefault(route.model, index)) != index:
            yield (*here, "model"), f"routes[{first}] has the same model {route.model!r}", "put their upstreams into one route"
        if not route.upstreams:
            yield (*here, "upstreams"), "is empty", "name at least one upstream"
        for (name, _), times in Counter((ref.upstream, ref.model) for ref in route.refs).items():
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                remedy = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known) or 'none'}"
                yield (*here, "upstreams"), f"there is no upstream {name!r}", remedy
            elif times > 1:
                yield (*here, "upstreams"), f"{name!r} stands there {times} times", "to ask it again, raise retry.retries"
        if any(ref.model == "" for ref in route.refs):
            yield (*here, "upstreams"), "an entry has an empty model", "leave model out to ask for the one the client named"
        cap, base = (route.retry.get(name, getattr(settings.retry, name)) for name in ("backoff_cap", "backoff_base"))
        if route.retry and cap < base:
            yield (*here, "retry"), "backoff_cap is below backoff_base", "raise backoff_cap or lower backoff_base"


def _oddities(settings: Settings) -> Iterator[_Finding]:
    if set(settings.admin_keys) & set(settings.client_keys):
        yield (
            ("admin_keys",),
            "one of them is a client key too, so that a client may open and close circuits",
            "give the admin one of its own",
        )
    if settings.allow_anonymous and settings.client_keys:
        yield ("allow_anonymous",), "has no effect: client_keys are configured and asked for", "remove one of them"
    if settings.streaming.engine == "relay" and settings.streaming.rollout_percent != 100:
        yield ("streaming", "rollout_percent"), 'has no effect while streaming.engine is "relay"', "remove it, or set the engine to actors"
    used = {ref.upstream for route in settings.routes() for ref in route.refs}
    for name, upstream in settings.configured_upstreams.items():
        segments = urlsplit(upstream.base_url).path.split("/")
        if not any(re.fullmatch(r"v\d\w*", segment) for segment in segments):
            yield ("upstreams", name, "base_url"), "has no version in its path", f"{upstream.base_url.rstrip('/')}/v1 may be meant"
        if upstream.auth == "client" and settings.client_keys:
            told = "clients have to send evenflow's own key as x-api-key"
            yield ("upstreams", name, "auth"), "forwards the caller's Authorization, and client_keys are set", told
        if name not in used:
            yield ("upstreams", name), "no route uses it", "add it to a route, or remove it"
    yield from _without_effect(settings)
    yield from dangers(settings)


def _without_effect(settings: Settings) -> Iterator[_Finding]:
    """What waits for something that cannot come."""
    table = settings.route_table()
    for index, route in enumerate(settings.configured_routes):
        first = table.routes[index].candidates[0]
        if route.hedge_after and len({c.upstream.name for c in table.routes[index].candidates}) < 2:
            yield ("routes", index, "hedge_after"), "has no effect: the route has one upstream only", "add another, or remove it"
        elif route.hedge_after >= first.timers.first_token:
            what = f"has no effect: timers.first_token = {first.timers.first_token:g} of {first.upstream.name} passes first"
            yield ("routes", index, "hedge_after"), what, "lower it, or raise that"
    for name in settings.configured_upstreams:
        breaker = settings.breaker_of(name)
        if (breaker.slow_first_token or breaker.slow_tokens_per_second) and not breaker.slow_rate:
            own = {"slow_first_token", "slow_tokens_per_second"} & set(settings.configured_upstreams[name].breaker)
            path: SettingPath = ("upstreams", name, "breaker", min(own)) if own else ("breaker", "slow_rate")
            yield path, "slow streams are counted, but slow_rate = 0 lets them open nothing", "set breaker.slow_rate, for example to 0.8"
            break


def _is_one_word(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and " " not in text

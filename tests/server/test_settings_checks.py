"""What is wrong or odd with settings is said in one line: what, where, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.settings_checks import SettingsError
from server.settings_sources import Flags, load

from .settings_files import CANARY, MAIN, SPARE, problems, read

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timers.frist_token = 3", "evenflow.toml:1: timers.frist_token: unknown setting; did you mean first_token?"),
        ("[timers]\nbind = 'x'", "evenflow.toml:2: timers.bind: unknown setting; bind stands at the top of the file"),
        ("idle = 3", "evenflow.toml:1: idle: unknown setting; did you mean timers.idle?"),
        ("[log]\nzzz = 3", "evenflow.toml:2: log.zzz: unknown setting; known here: format, level"),
        ("x =", "evenflow.toml:1: no valid TOML: "),
        ("timers = 3", "evenflow.toml:1: timers: is no table; write [timers]"),
        ("routes = 3", "evenflow.toml:1: routes: is no list of tables; write [[routes]]"),
        ("[timers]\n\nidle = '120s'", "evenflow.toml:3: timers.idle: expected float, got str; write a number of seconds, >= 0"),
        ("[timers]\nidle = -1", "evenflow.toml:2: timers.idle: expected float >= 0.0"),
        ("[timers]\nidle = inf", "evenflow.toml:2: timers.idle: is not finite"),
        ("[timers]\nidle = nan", "evenflow.toml:2: timers.idle: "),
        ("max_event = 0", "evenflow.toml:1: max_event: expected int >= 1"),
        ("allow_anonymous = 1", "evenflow.toml:1: allow_anonymous: expected bool, got int; write true or false"),
        (
            "streaming.engine = 'actor'",
            "evenflow.toml:1: streaming.engine: invalid value 'actor'; write one of actors, relay; did you mean actors?",
        ),
        ('streaming.engine = "a\\n\\u001b[1m"', "evenflow.toml:1: streaming.engine: invalid value 'a\\n\\x1b[1m'"),
        ("recovery.tls = 'retry'", "evenflow.toml:1: recovery.tls: invalid value 'retry'; write one of failover, fail"),
        ("streaming.rollout_percent = 101", "evenflow.toml:1: streaming.rollout_percent: expected float <= 100"),
        ("bind = '::1:8143'", "evenflow.toml:1: bind: '::1:8143' looks like IPv6; write the address in brackets"),
        ("admin_bind = '127.0.0.1:8143'", "evenflow.toml:1: admin_bind: 127.0.0.1:8143 and bind = 127.0.0.1:8143 are the same port"),
        ("client_keys = ['']", "evenflow.toml:1: client_keys: entry 0 is empty"),
        ("client_keys = [3]", "evenflow.toml:1: client_keys: expected str, got int in [0]"),
        ("retry.backoff_cap = 0.1", "evenflow.toml:1: retry.backoff_cap: is below retry.backoff_base"),
        ("breaker.open_base = 100", "evenflow.toml:1: breaker: open_base must be at most open_max"),
        ("[upstreams.'a b']\nbase_url = 'http://a/v1'", "evenflow.toml:1: upstreams: 'a b' is no name for an upstream"),
        ("[upstreams.a__b]\nbase_url = 'http://a/v1'", "evenflow.toml:1: upstreams: 'a__b' is no name for an upstream"),
        ("[upstreams.a]", "evenflow.toml:1: upstreams.a.base_url: is missing; write a text in quotes"),
        ("[[routes]]\nupstreams = ['main']", "evenflow.toml:1: routes[0].model: is missing"),
        ("[[routes]]\nmodel = 'm'\nupstreams = []", "evenflow.toml:3: routes[0].upstreams: is empty"),
        (
            "[[routes]]\nmodel = 'm'\nupstreams = ['mian']",
            "evenflow.toml:3: routes[0].upstreams: there is no upstream 'mian'; did you mean main?",
        ),
        ("[[routes]]\nmodel = 'm'\nupstreams = 'main'", "evenflow.toml:3: routes[0].upstreams: expected array, got str; write a list"),
        ("[[routes]]\nmodel = 'm'\nupstreams = ['main', 'main']", "evenflow.toml:3: routes[0].upstreams: 'main' stands there 2 times"),
        ("[[routes]]\nmodel = ''\nupstreams = ['main']", "evenflow.toml:2: routes[0].model: is empty"),
        (
            "[[routes]]\nmodel = 'm'\nupstreams = ['main']\n[[routes]]\nmodel = 'm'\nupstreams = ['main']",
            "evenflow.toml:5: routes[1].model: routes[0] has the same model 'm'",
        ),
        (
            "[[routes]]\nmodel = 'm'\nupstreams = ['main']\n[routes.retry]\nbackoff_cap = 0.1",
            "evenflow.toml:5: routes[0].retry: backoff_cap is below",
        ),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(tmp_path: Path, text: str, expected: str) -> None:
    told = problems(tmp_path, f"{text}\n{MAIN}")
    assert told[0].startswith(expected)
    assert len(told) == 1
    assert "; " in told[0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("base_url = 'host:8000/v1'", "base_url: does not begin with http:// or https://"),
        ("base_url = 'ftp://host/v1'", "base_url: does not begin with http:// or https://"),
        ("base_url = 'http:///v1'", "base_url: has no usable host or port"),
        ("base_url = 'http://host:99999/v1'", "base_url: is no URL"),
        ("base_url = 'http://[::1/v1'", "base_url: is no URL"),
        ("base_url = 'http://ho st/v1'", "base_url: has no usable host or port"),
        (f"base_url = 'http://u:{CANARY}@host/v1'", "base_url: holds a user name or password"),
        ("base_url = 'http://host/v1?a=b'", "base_url: has a query or fragment"),
        ("base_url = 'http://host/v1/chat/completions'", "base_url: names an endpoint"),
        ("base_url = 'http://host/v1'\nheaders = {Host = 'x'}", "headers: Host is written by evenflow itself"),
        ("base_url = 'http://host/v1'\nheaders = {'a b' = 'x'}", "headers: 'a b' is no header name"),
        ('base_url = "http://host/v1"\nheaders = {a = "x\\r\\nb: c"}', "headers: the value of a holds a line end"),
        ("base_url = 'http://host/v1'\nauth = 'client'\nheaders = {authorization = 'x'}", "headers: Authorization would be sent twice"),
        (
            "base_url = 'http://host/v1'\nhttp2 = true",
            "http2: is agreed on in the TLS handshake, and base_url does not begin with https://",
        ),
        ("base_url = 'https://host/v1'\nhttp2 = true\nproxy = 'http://proxy:3128'", "http2: is not to be had through a forward proxy"),
        ("base_url = 'https://host/v1'\nhttp2 = true\ntransport = 'httpx'", 'http2: needs transport = "own", and it is "httpx"'),
        ("base_url = 'http://host/v1'\nproxy = 'proxy:3128'", "proxy: is no http:// or https:// URL"),
        ("base_url = 'http://host/v1'\nca_file = 'gone.pem'", "ca_file: "),
        ("base_url = 'http://host/v1'\nca_file = 'evenflow.toml'", "ca_file: "),
        ("base_url = 'http://host/v1'\nbreaker = {open_base = 100}", "breaker: open_base must be at most open_max"),
        ("base_url = 'http://host/v1'\nbreaker = {opn_base = 1}", "breaker.opn_base: unknown setting; did you mean open_base?"),
        ("base_url = 'http://host/v1'\ntimers = {idle = -1}", "timers.idle: expected float >= 0.0"),
    ],
)
def test_what_is_wrong_with_an_upstream(tmp_path: Path, line: str, expected: str) -> None:
    (told,) = problems(tmp_path, f"[upstreams.main]\n{line}\n")
    assert told.partition("upstreams.main.")[2].startswith(expected)
    assert "canary" not in told


def test_names_that_the_environment_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    told = problems(tmp_path, '[upstreams.a-b]\nbase_url = "http://a/v1"\n[upstreams.A_b]\nbase_url = "http://b/v1"\n')
    assert len(told) == 2
    assert "rename one" in told[0]


@pytest.mark.parametrize(
    ("flags", "keys", "expected"),
    [
        (Flags(bind="0.0.0.0:8143"), "", "--bind"),
        (Flags(bind="[::]:8143"), "", "--bind"),
        (Flags(bind="0.0.0.0:8143", allow_anonymous=True), "", None),
        (Flags(bind="0.0.0.0:8143"), "a-key", None),
        (Flags(admin_bind="0.0.0.0:8144", allow_anonymous=True), "", "--admin-bind"),
        (Flags(admin_bind="0.0.0.0:8144"), "a-key", "--admin-bind"),  # a client's key opens no circuit
        (Flags(bind="[::1]:8143", admin_bind="127.0.0.1:0"), "", None),
        (Flags(bind="127.0.0.1:0", admin_bind="127.0.0.1:0"), "", None),
        (Flags(bind="0.0.0.0:7", admin_bind="127.0.0.1:7"), "a-key", "--admin-bind"),
    ],
)
def test_listeners_off_loopback_want_keys(tmp_path: Path, flags: Flags, keys: str, expected: str | None) -> None:
    environ = {"EVENFLOW_CLIENT_KEYS": keys}
    if expected is None:
        read(tmp_path, MAIN, environ, flags)
    else:
        (told,) = problems(tmp_path, MAIN, environ, flags)
        assert told.startswith(f"{expected}: ")


def test_an_admin_listener_off_loopback_wants_keys_of_its_own(tmp_path: Path) -> None:
    flags = Flags(admin_bind="0.0.0.0:8144")
    (told,) = problems(tmp_path, MAIN, {"EVENFLOW_CLIENT_KEYS": "a-key"}, flags)
    assert "but no admin_keys are set; set admin_keys, which are not client_keys, or bind it to 127.0.0.1" in told
    loaded = read(tmp_path, MAIN, {"EVENFLOW_ADMIN_KEYS": "an-admins"}, flags)
    assert [key.reveal() for key in loaded.settings.admin_keys] == ["an-admins"]
    (told,) = problems(tmp_path, MAIN, {"EVENFLOW_ADMIN_KEYS": "an admins"}, flags)
    assert told.startswith("EVENFLOW_ADMIN_KEYS: entry 0 is empty or holds a space")


def test_everything_that_is_wrong_is_told_at_once_and_the_one_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "evenflow.toml").write_text(f"drian = 1\nmax_event = 0\n{MAIN}", "utf-8")
    with pytest.raises(SettingsError) as caught:
        load(None, {"EVENFLOW_BACKLOG": "many"}, directory=tmp_path)
    assert len(caught.value.problems) == 3
    assert str(caught.value).endswith("did you mean drain? (2 more: run `evenflow check`)")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[upstreams.a]\nbase_url = "http://a"\n',
            "evenflow.toml:2: upstreams.a.base_url: has no version in its path; http://a/v1 may be meant",
        ),
        ("client_keys = ['k']\nadmin_keys = ['k']\n" + MAIN, "evenflow.toml:2: admin_keys: one of them is a client key too"),
        ("client_keys = ['k']\nallow_anonymous = true\n" + MAIN, "evenflow.toml:2: allow_anonymous: has no effect"),
        ("streaming = {engine = 'relay', rollout_percent = 5}\n" + MAIN, "evenflow.toml:1: streaming.rollout_percent: has no effect"),
        (MAIN + SPARE + "[[routes]]\nmodel = '*'\nupstreams = ['main']\n", "evenflow.toml:3: upstreams.spare: no route uses it"),
        (
            "client_keys = ['k']\n" + MAIN.replace("http:", "https:") + "auth = 'client'\n",
            "evenflow.toml:4: upstreams.main.auth: forwards the caller's Authorization",
        ),
        (
            MAIN + "[[routes]]\nmodel = '*'\nupstreams = ['main']\nhedge_after = 8\n",
            "evenflow.toml:6: routes[0].hedge_after: has no effect: the route has one upstream only",
        ),
        (
            MAIN + SPARE + "[[routes]]\nmodel = '*'\nupstreams = ['main', 'spare']\nhedge_after = 8\ntimers.first_token = 5\n",
            "evenflow.toml:8: routes[0].hedge_after: has no effect: timers.first_token = 5",
        ),
        ("breaker.slow_first_token = 5\n" + MAIN, "breaker.slow_rate: slow streams are counted"),
        (MAIN + "breaker.slow_tokens_per_second = 5\n", "evenflow.toml:3: upstreams.main.breaker.slow_tokens_per_second: slow streams"),
    ],
)
def test_what_is_odd_only_warns(tmp_path: Path, text: str, expected: str) -> None:
    (warning,) = read(tmp_path, text).warnings
    assert warning.startswith(expected)


@pytest.mark.parametrize("version", ["v1", "compatible-mode/v1", "v1beta/openai", "api/paas/v4"])
def test_other_peoples_versions_do_not_warn(tmp_path: Path, version: str) -> None:
    assert read(tmp_path, None, {}, Flags(upstream=f"http://a/{version}")).warnings == ()


def test_tracing_wants_a_url_and_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.settings_checks.find_spec", lambda _: None)
    path = tmp_path / "evenflow.toml"
    path.write_text('[tracing]\nendpoint = "collector:4318"\n' + MAIN)
    with pytest.raises(SettingsError) as refused:
        load(Flags(config=str(path)), {})
    told = "\n".join(map(str, refused.value.problems))
    assert "tracing.endpoint: is no http:// or https:// URL" in told
    assert "OpenTelemetry is not installed; install evenflow[otel]" in told

"""The typed settings: what they resolve to, and that they keep step with the code that takes them."""

from __future__ import annotations

import dataclasses
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import AdmissionPolicy
from actors.routes import Secret, Timers
from actors.sansio.breaker_state import BreakerPolicy
from actors.sansio.error_recovery import STRATEGIES, RecoveryPolicy, Strategy
from actors.sansio.retry_budget import RetryBudgetPolicy
from server.settings import (
    Address,
    AdmissionSettings,
    BreakerSettings,
    BufferSettings,
    RecoverySettings,
    RouteRetrySettings,
    RouteSettings,
    Settings,
    StutterSettings,
    TimersSettings,
    UpstreamRef,
    UpstreamSettings,
)


def two_upstreams(**changes: object) -> Settings:
    upstreams = {
        "main": UpstreamSettings(base_url="http://a/v1/", timers={"first_token": 10.0, "idle": 20.0}),
        "spare": UpstreamSettings(base_url="https://b/v1", key=Secret("sk-0123456789abcdef")),
    }
    return msgspec.structs.replace(Settings(configured_upstreams=upstreams), **changes)


def test_defaults_are_those_of_the_code_that_uses_them() -> None:
    settings = Settings(configured_upstreams={"main": UpstreamSettings(base_url="http://a/v1")})
    route = settings.route_table().find("anything")
    assert route is not None
    assert route.pattern == "*"
    assert route.timers == Timers()
    assert route.recovery == RecoveryPolicy()
    assert [c.timers for c in route.candidates] == [Timers()]
    assert settings.breaker_policies() == {"main": BreakerPolicy()}
    assert settings.retry_budget() == RetryBudgetPolicy()
    assert settings.admission_policy() == AdmissionPolicy()
    assert route.hedge_after == math.inf


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (TimersSettings, {f.name for f in dataclasses.fields(Timers)}),
        (BreakerSettings, {f.name for f in dataclasses.fields(BreakerPolicy)}),
        (RouteRetrySettings, {f.name for f in dataclasses.fields(RecoveryPolicy)} - {"strategies"}),
        (RecoverySettings, set(STRATEGIES)),
        (AdmissionSettings, {f.name for f in dataclasses.fields(AdmissionPolicy)}),
    ],
)
def test_every_name_of_a_policy_can_be_set(table: type[msgspec.Struct], names: set[str]) -> None:
    assert set(table.__struct_fields__) == names


@pytest.mark.parametrize(("name", "strategy"), [(n, s) for n, legal in STRATEGIES.items() for s in Strategy if s in legal])
def test_every_legal_strategy_reaches_the_policy(name: str, strategy: Strategy) -> None:
    route = two_upstreams(recovery={name: strategy.value}).route_table().routes[0]
    assert route.recovery.strategy(name) is strategy


def test_only_differing_strategies_are_listed() -> None:
    settings = two_upstreams(recovery={"cut": "retry", "tls": "fail"})
    assert settings.route_table().routes[0].recovery.strategies == {"tls": Strategy.FAIL}


def test_route_goes_before_upstream_before_general() -> None:
    route = RouteSettings(
        model="m", upstreams=("main", UpstreamRef("spare", "other")), timers={"idle": 0.0}, retry={"retries": 7}, recovery={"cut": "fail"}
    )
    settings = two_upstreams(configured_routes=(route,), timers=TimersSettings(connect=1.0, first_token=2.0, idle=3.0))
    found = settings.route_table().find("m")
    assert found is not None
    main, spare = found.candidates
    assert (main.timers.connect, main.timers.first_token, main.timers.idle) == (1.0, 10.0, math.inf)
    assert (spare.timers.connect, spare.timers.first_token, spare.timers.idle) == (1.0, 2.0, math.inf)
    # The stream as a whole belongs to no upstream.
    assert (found.timers.first_token, found.timers.idle) == (10.0, math.inf)
    assert (main.model, spare.model) == (None, "other")
    assert found.recovery.retries == 7
    assert found.recovery.strategy("cut") is Strategy.FAIL
    assert settings.route_table().find("n") is None


def test_the_timers_of_the_whole_stream_are_those_of_a_route_s_first_upstream() -> None:
    upstreams = {
        "main": UpstreamSettings(base_url="http://a/v1", timers={"total": 7.0, "keepalive_after": 3.0}),
        "spare": UpstreamSettings(base_url="http://b/v1", timers={"total": 9.0}),
    }
    route = RouteSettings(model="m", upstreams=("main", "spare"), timers={"keepalive_after": 1.0})
    found = Settings(configured_upstreams=upstreams, configured_routes=(route,)).route_table().find("m")
    assert found is not None
    assert (found.timers.total, found.timers.keepalive_after) == (7.0, 1.0)


def test_slots_hedges_and_circuits_reach_those_who_use_them() -> None:
    upstreams = {"main": UpstreamSettings(base_url="http://a/v1", slots=2, breaker_per_model=True, models=("m1",))}
    refs = (UpstreamRef("main", "m2"),)
    routes = (RouteSettings(model="m3", upstreams=refs, hedge_after=8.0), RouteSettings(model="m*", upstreams=("main",)))
    settings = Settings(configured_upstreams=upstreams, configured_routes=routes)
    (upstream,) = settings.upstreams()
    assert (upstream.slots, sorted(upstream.own_circuits)) == (2, ["m1", "m2"])
    assert (upstream.circuit("m1"), upstream.circuit("m9")) == ("main[m1]", "main")
    assert list(settings.breaker_policies()) == ["main", "main[m1]", "main[m2]"]
    assert [route.hedge_after for route in settings.route_table().routes] == [8.0, math.inf]


def test_without_routes_every_upstream_serves_every_model_in_file_order() -> None:
    (route,) = two_upstreams().route_table().routes
    assert [c.upstream.name for c in route.candidates] == ["main", "spare"]
    assert Settings().route_table().routes == ()


def test_an_upstream_as_the_actors_take_it() -> None:
    main, spare = two_upstreams().upstreams()
    assert main.base_url == "http://a/v1"
    assert main.key is None
    assert spare.key == Secret("sk-0123456789abcdef")


def test_an_upstreams_breaker_and_stutter_override_the_general_ones() -> None:
    upstream = UpstreamSettings(base_url="http://a/v1", breaker={"open_base": 1.0, "mode": "disabled"}, stutter={"profile": "portal"})
    settings = two_upstreams(
        configured_upstreams={"main": upstream}, breaker=BreakerSettings(probes=3), stutter=StutterSettings(mode="observe")
    )
    assert settings.breaker_policies()["main"] == BreakerPolicy(open_base=1.0, mode="disabled", probes=3)
    assert settings.upstreams()[0].breaker == settings.breaker_of("main")
    assert settings.stutter_of("main") == StutterSettings(mode="observe", profile="portal")


def test_an_upstreams_holds_override_the_general_ones() -> None:
    upstream = UpstreamSettings(base_url="http://a/v1", buffer={"max_age": 0.1})
    settings = two_upstreams(configured_upstreams={"main": upstream}, buffer=BufferSettings(max_events=4))
    assert settings.buffer_of("main") == BufferSettings(max_events=4, max_age=0.1)


def test_repr_shows_no_credential() -> None:
    secret = Secret("sk-canary-0123456789")
    upstream = UpstreamSettings(base_url="http://a/v1", key=secret, headers={"api-key": secret}, proxy=Secret("http://u:sk-canary-01@p:1"))
    assert "canary" not in repr(Settings(client_keys=(secret,), configured_upstreams={"a": upstream}))


# ---- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:8143", "127.0.0.1", 8143, True),
        ("127.9.9.9:1", "127.9.9.9", 1, True),
        ("localhost:0", "localhost", 0, True),
        ("[::1]:8143", "::1", 8143, True),
        ("[0:0:0:0:0:0:0:1]:65535", "::1", 65535, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[::]:80", "::", 80, False),
        ("10.0.0.7:80", "10.0.0.7", 80, False),
        # Whatever it resolves to today, tomorrow it may be another.
        ("localhost.example:80", "localhost.example", 80, False),
    ],
)
def test_addresses(text: str, host: str, port: int, loopback: bool) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.is_loopback) == (host, port, loopback)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8143",
        ":8143",
        "host:",
        "host:65536",
        "host:-1",
        "host:٣",
        "host:1.0",
        "::1:8143",
        "[::1]",
        "[::g]:1",
        "[1.2.3.4]:1",
        "a b:1",
        "u@host:1",
        "[x:1",
    ],
)
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"; write .*\d"):
        Address.parse(text)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_address_reads_back_as_written(host: object, port: int) -> None:
    address = Address(str(host).partition("%")[0], port)
    assert Address.parse(str(address)) == address


@given(st.text())
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert 0 <= address.port <= 65535
    assert address.host

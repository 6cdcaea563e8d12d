"""Routes: which one serves a model; and secrets that do not show themselves."""

from __future__ import annotations

import math

import pytest

from actors import Route, RouteTable, Secret
from actors.routes import seconds_or_off

from ..fakes import candidate


def table(*patterns: str) -> RouteTable:
    return RouteTable(Route(pattern, (candidate(),)) for pattern in patterns)


@pytest.mark.parametrize(
    ("model", "pattern"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-mini", "gpt-4o-*"),
        ("gpt-5", "gpt-*"),
        ("org/model:7b", "org/*"),
        ("GPT-4o", "*"),  # names of models are case-sensitive
        ("other", "*"),
        ("o3", "o[13]"),
        ("", "*"),
    ],
)
def test_an_exact_name_goes_before_the_longest_glob_and_that_before_the_star(model: str, pattern: str) -> None:
    route = table("*", "gpt-*", "gpt-4o", "o[13]", "gpt-4o-*", "org/*").find(model)
    assert route is not None
    assert route.pattern == pattern


def test_without_a_star_a_model_may_have_no_route() -> None:
    routes = table("gpt-*", "o?")
    assert routes.find("claude") is None
    assert [route.pattern for route in routes.routes] == ["gpt-*", "o?"]


def test_a_secret_shows_its_last_four_characters_at_most() -> None:
    key = Secret("sk-0123456789abcdef")
    assert key.reveal() == "sk-0123456789abcdef"
    assert repr(key) == str(key) == f"{key}" == "****cdef"
    assert repr(Secret("short-key")) == "****"  # four of nine would be too many
    assert (key == Secret(key.reveal()), key == Secret("other"), key == key.reveal()) == (True, False, False)
    assert len({key, Secret(key.reveal())}) == 1


def test_zero_is_off() -> None:
    assert (seconds_or_off(0), seconds_or_off(1.5)) == (math.inf, 1.5)

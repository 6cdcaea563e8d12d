"""Where settings come from: precedence, origins, the environment, and the shortcuts for one upstream."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.routes import Secret
from server.settings_checks import SettingsError
from server.settings_schema import Leaf, environment_name, leaves, schema
from server.settings_sources import Flags, load

from .settings_files import CANARY, MAIN, SPARE, origins, problems, read

EXAMPLES = sorted((Path(__file__).parents[2] / "docs" / "examples").glob("*.toml"))
#: What an environment can hold.
VALUES = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


def test_flag_before_environment_before_file_before_default(tmp_path: Path) -> None:
    text = 'bind = "127.0.0.1:1"\nadmin_bind = "127.0.0.1:2"\ndrain = 3\n' + MAIN
    environ = {"EVENFLOW_BIND": "127.0.0.1:4", "EVENFLOW_ADMIN_BIND": "127.0.0.1:5"}
    loaded = read(tmp_path, text, environ, Flags(bind="127.0.0.1:6"))
    listed = origins(loaded)
    assert (loaded.settings.bind, listed["bind"][1]) == ("127.0.0.1:6", "--bind")
    assert (loaded.settings.admin_bind, listed["admin_bind"][1]) == ("127.0.0.1:5", "EVENFLOW_ADMIN_BIND")
    assert listed["drain"] == ("3 s", "evenflow.toml:3")
    assert listed["backlog"] == ("4096 sockets", "default")
    assert listed["upstreams.main.base_url"] == ('"http://main/v1"', "evenflow.toml:5")
    assert listed["routes"] == ('(none: "*" over every upstream in turn)', "default")


def test_the_file_is_the_flags_then_the_environments_then_the_one_that_lies_there(tmp_path: Path) -> None:
    for name, drain in (("evenflow.toml", 1), ("env.toml", 2), ("flag.toml", 3)):
        (tmp_path / name).write_text(f"drain = {drain}\n{MAIN}", "utf-8")
    environ = {"EVENFLOW_CONFIG": str(tmp_path / "env.toml")}
    assert read(tmp_path, None, environ, Flags(config=str(tmp_path / "flag.toml"))).settings.drain == 3
    assert read(tmp_path, None, environ).settings.drain == 2
    assert read(tmp_path).settings.drain == 1


def test_a_named_file_that_is_missing_is_a_problem_an_unnamed_one_is_not(tmp_path: Path) -> None:
    assert read(tmp_path, flags=Flags(upstream="http://a/v1")).settings.drain == 30
    (told,) = problems(tmp_path, flags=Flags(config="nowhere.toml", upstream="http://a/v1"))
    assert told == "nowhere.toml: cannot be read: No such file or directory (named by --config); correct the path or its permissions"
    (told,) = problems(tmp_path, environ={"EVENFLOW_CONFIG": "nowhere.toml"})
    assert "EVENFLOW_CONFIG" in told


def test_effective_lists_every_setting(tmp_path: Path) -> None:
    text = MAIN + '[[routes]]\nmodel = "*"\nupstreams = ["main"]\n'
    listed = origins(read(tmp_path, text))
    for path, leaf in leaves(schema()):
        name = ".".join(map(str, path)).replace("NAME", "main").replace("routes.N", "routes[0]")
        # Overrides that nobody wrote are no settings of their own.
        overrides = (
            "main.timers",
            "main.breaker",
            "main.stutter",
            "main.buffer",
            "main.loop_guard",
            "[0].timers",
            "[0].recovery",
            "[0].retry",
        )
        if not any(part in name for part in overrides):
            assert name in listed, leaf


SCALARS = {environment_name(p): (p, leaf) for p, leaf in leaves(schema()) if "NAME" not in p and "N" not in p and not leaf.is_container}


def _text_of(leaf: Leaf) -> str:
    if leaf.choices():
        return leaf.choices()[-1]
    return "0.75" if leaf.unit == "share" else {bool: "true", int: "9000", float: "45.5", str: "127.0.0.1:7"}[leaf.base]


@pytest.mark.parametrize("variable", SCALARS)
def test_every_general_setting_can_be_set_from_the_environment(tmp_path: Path, variable: str) -> None:
    path, leaf = SCALARS[variable]
    text = _text_of(leaf) if path != ("tracing", "endpoint") else "http://127.0.0.1:7/v1/traces"
    # Wide bounds, so that no value tried contradicts them.
    bounds = "[retry]\nbackoff_cap = 900\n[breaker]\nopen_max = 900\ncredential_pause_max = 900\n"
    loaded = read(tmp_path, MAIN + bounds, {variable: text})
    value, origin = origins(loaded)[".".join(map(str, path))]
    assert value.split(" ")[0].strip('"') == text
    assert origin == variable


def test_lists_tables_and_routes_from_the_environment(tmp_path: Path) -> None:
    environ = {
        "EVENFLOW_CLIENT_KEYS": "first, env:SECOND ,",
        "SECOND": "second\n",
        "EVENFLOW_UPSTREAMS__MAIN__MODELS": '["a,b", "c"]',
        "EVENFLOW_UPSTREAMS__MAIN__HEADERS": '{"x-team": "blue"}',
        "EVENFLOW_ROUTES": json.dumps([{"model": "x", "upstreams": ["main", {"upstream": "spare", "model": "y"}], "timers": {"idle": 1}}]),
    }
    text = MAIN + SPARE + '[[routes]]\nmodel = "file"\nupstreams = ["main"]\n[[routes]]\nmodel = "*"\nupstreams = ["main"]\n'
    settings = read(tmp_path, text, environ).settings
    assert settings.client_keys == (Secret("first"), Secret("second"))
    assert settings.configured_upstreams["main"].models == ("a,b", "c")
    assert settings.upstreams()[0].headers == (("x-team", "blue"),)
    (route,) = settings.route_table().routes
    assert [(c.upstream.name, c.model, c.timers.idle) for c in route.candidates] == [("main", None, 1.0), ("spare", "y", 1.0)]


@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9]|[_-](?![_-])){0,20}", fullmatch=True).filter(lambda n: not n.endswith(("_", "-"))))
def test_the_environment_finds_an_upstream_of_the_file_by_its_name(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.mktemp("settings")
    variable = environment_name(("upstreams", name, "timers", "idle"))
    settings = read(folder, f'[upstreams.{name}]\nbase_url = "http://a/v1"\n', {variable: "9"}).settings
    assert {n: u.timers for n, u in settings.configured_upstreams.items()} == {name: {"idle": 9.0}}


@given(st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789", max_size=40), st.text(VALUES, min_size=1, max_size=5))
def test_any_variable_is_a_setting_or_a_warning_or_a_clear_problem(tmp_path_factory: pytest.TempPathFactory, tail: str, value: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        loaded = load(Flags(upstream="http://a/v1"), {f"EVENFLOW_{tail}": value}, directory=folder / "empty")
    except SettingsError as exc:
        told = [str(exc)]
    else:
        told = [*loaded.warnings, *(entry.origin for entry in loaded.effective())]
    assert any(f"EVENFLOW_{tail}" in line for line in told)


def test_unknown_variables_warn_and_empty_ones_count_as_unset(tmp_path: Path) -> None:
    environ = {
        "EVENFLOW_PORT": "tcp://10.0.0.1:8143",
        "EVENFLOW_SERVICE_HOST": "10.0.0.1",
        "EVENFLOW_TIMER__IDLE": "3",
        "EVENFLOW_BIND": "",
    }
    loaded = read(tmp_path, MAIN, environ)
    assert loaded.warnings == (
        "EVENFLOW_TIMER__IDLE: no such setting, ignored; did you mean EVENFLOW_TIMERS__IDLE?",
        "EVENFLOW_PORT, EVENFLOW_SERVICE_HOST: no such settings, ignored",
    )
    assert loaded.settings.bind == "127.0.0.1:8143"


def test_a_variable_that_a_setting_names_is_no_unknown_setting(tmp_path: Path) -> None:
    text = f'client_keys = ["env:EVENFLOW_CLIENT_KEY"]\n{MAIN.replace("http:", "https:")}key_env = "EVENFLOW_MAIN"\n'
    environ = {"EVENFLOW_CLIENT_KEY": CANARY, "EVENFLOW_MAIN": CANARY, "EVENFLOW_MINE": CANARY, "EVENFLOW_OTHER": "x"}
    assert read(tmp_path, text, environ).warnings == ("EVENFLOW_MINE, EVENFLOW_OTHER: no such settings, ignored",)
    flags = Flags(upstream="https://a/v1", upstream_key_env="EVENFLOW_MINE")
    del environ["EVENFLOW_OTHER"]
    assert not [w for w in read(tmp_path, text, environ, flags).warnings if "EVENFLOW_MINE" in w]


@pytest.mark.parametrize("example", EXAMPLES, ids=[e.stem for e in EXAMPLES])
def test_the_examples_work_as_they_are(tmp_path: Path, example: Path) -> None:
    environ = dict.fromkeys(("EVEN_TEAM_KEY", "VLLM_API_KEY", "DASHSCOPE_API_KEY", "OPENROUTER_API_KEY"), "sk-example-0123456789")
    loaded = load(Flags(config=str(example)), environ, directory=tmp_path)
    assert loaded.warnings == ()
    assert loaded.settings.route_table().routes


def test_there_are_examples() -> None:
    assert {e.stem for e in EXAMPLES} == {"ollama", "vllm", "dashscope", "failover"}


def test_the_process_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("EVENFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("EVENFLOW_UPSTREAM", "http://process/v1")
    monkeypatch.chdir(tmp_path)
    assert load().settings.upstreams()[0].base_url == "http://process/v1"


# ---- the one upstream ----


@pytest.mark.parametrize(("environ", "flags"), [({"EVENFLOW_UPSTREAM": "http://one/v1"}, None), ({}, Flags(upstream="http://one/v1"))])
def test_the_one_upstream_serves_every_model_in_place_of_the_file(tmp_path: Path, environ: dict[str, str], flags: Flags | None) -> None:
    loaded = read(tmp_path, MAIN + '[[routes]]\nmodel = "m"\nupstreams = ["main"]\n', environ, flags)
    (route,) = loaded.settings.route_table().routes
    assert (route.pattern, [c.upstream.base_url for c in route.candidates]) == ("*", ["http://one/v1"])
    assert list(loaded.settings.configured_upstreams) == ["default"]
    assert "takes the place of" in loaded.warnings[0]


def test_the_one_upstreams_key(tmp_path: Path) -> None:
    environ = {"EVENFLOW_UPSTREAM": "http://one/v1", "EVENFLOW_UPSTREAM_KEY": CANARY, "OTHER": "sk-other"}
    assert read(tmp_path, None, environ).settings.upstreams()[0].key == Secret(CANARY)
    assert read(tmp_path, None, environ, Flags(upstream_key_env="OTHER")).settings.upstreams()[0].key == Secret("sk-other")
    # The key of the environment goes with the URL of the flag, and before what the file says of the only upstream.
    assert read(tmp_path, None, environ, Flags(upstream="http://two/v1")).settings.upstreams()[0].key == Secret(CANARY)
    del environ["EVENFLOW_UPSTREAM"]
    assert read(tmp_path, MAIN + 'key_env = "OTHER"\n', environ).settings.upstreams()[0].key == Secret(CANARY)


def test_a_key_for_nobody_or_for_several_is_refused(tmp_path: Path) -> None:
    (told,) = problems(tmp_path, MAIN + SPARE, {"EVENFLOW_UPSTREAM_KEY": CANARY})
    assert told.startswith("EVENFLOW_UPSTREAM_KEY: there are several upstreams (main, spare); ")
    (tmp_path / "evenflow.toml").unlink()
    (told,) = problems(tmp_path, None, {}, Flags(upstream_key_env="HOME"))
    assert told.startswith("--upstream-key-env: there is no upstream")


def test_without_an_upstream_the_line_names_every_way_to_give_one(tmp_path: Path) -> None:
    (told,) = problems(tmp_path)
    for way in ("--upstream", "EVENFLOW_UPSTREAM", "evenflow.toml", "evenflow dev"):
        assert way in told
    assert load(None, {}, directory=tmp_path, with_upstreams=False).settings.upstreams() == ()


def test_dev_takes_no_upstream_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "evenflow.toml").write_text("nonsense", "utf-8")
    environ = {"EVENFLOW_UPSTREAM": "http://one/v1", "EVENFLOW_UPSTREAMS__A__KEY_ENV": "GONE", "EVENFLOW_DRAIN": "1"}
    settings = load(None, environ, directory=tmp_path, with_upstreams=False).settings
    assert (settings.configured_upstreams, settings.drain) == ({}, 1.0)

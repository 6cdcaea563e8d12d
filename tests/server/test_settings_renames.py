"""A renamed setting works for one minor release, wherever it was set, and says its new name; afterwards it is refused and still does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server import settings_renames
from server.settings_renames import RENAMES, Rename
from server.settings_schema import leaves, schema
from server.version import MINOR

from .settings_files import MAIN, origins, problems, read

if TYPE_CHECKING:
    from pathlib import Path

OLD = (
    Rename(("timers", "silence"), ("timers", "idle"), "0.7"),
    Rename(("quiet",), ("timers", "first_token"), "0.7"),
    Rename(("upstreams", "NAME", "parallel"), ("upstreams", "NAME", "slots"), "0.7"),
    Rename(("routes", "N", "hedge"), ("routes", "N", "hedge_after"), "0.7"),
    Rename(("logging",), ("log",), "0.7"),
)


@pytest.fixture(params=["0.7"])
def release(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The release that runs; parametrize it indirectly."""
    monkeypatch.setattr(settings_renames, "RENAMES", OLD)
    monkeypatch.setattr(settings_renames, "MINOR", request.param)
    return str(request.param)


CASES = [
    ("timers.silence = 9\n", "timers.silence", "timers.idle", "timers.idle", "9 s"),
    ("quiet = 9\n", "quiet", "timers.first_token", "timers.first_token", "9 s"),
    ("upstreams.main.parallel = 2\n", "upstreams.main.parallel", "upstreams.main.slots", "upstreams.main.slots", "2 requests"),
    ("logging = {level = 'debug'}\n", "logging", "log", "log.level", '"debug"'),
]


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize(("line", "old", "new", "setting", "value"), CASES)
def test_in_the_release_that_renamed_it_it_works_and_warns(tmp_path: Path, line: str, old: str, new: str, setting: str, value: str) -> None:
    loaded = read(tmp_path, 'upstreams.main.base_url = "http://main/v1"\n' + line)
    assert loaded.warnings == (f"evenflow.toml:2: {old}: is now called {new}; rename it; the old name works in 0.7 and not after it",)
    assert origins(loaded)[setting] == (value, "evenflow.toml:2")


@pytest.mark.usefixtures("release")
def test_in_a_route(tmp_path: Path) -> None:
    spare = 'upstreams.spare.base_url = "http://spare/v1"\nupstreams.main.base_url = "http://main/v1"\n'
    loaded = read(tmp_path, spare + "[[routes]]\nmodel = '*'\nupstreams = ['main', 'spare']\nhedge = 4\n")
    assert loaded.settings.configured_routes[0].hedge_after == 4
    assert loaded.warnings[0].startswith("evenflow.toml:6: routes[0].hedge: is now called routes[0].hedge_after; ")


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize(
    ("old", "new", "setting"),
    [
        ("EVENFLOW_TIMERS__SILENCE", "EVENFLOW_TIMERS__IDLE", "timers.idle"),
        ("EVENFLOW_QUIET", "EVENFLOW_TIMERS__FIRST_TOKEN", "timers.first_token"),
        ("EVENFLOW_UPSTREAMS__MAIN__PARALLEL", "EVENFLOW_UPSTREAMS__MAIN__SLOTS", "upstreams.main.slots"),
    ],
)
def test_in_the_environment(tmp_path: Path, old: str, new: str, setting: str) -> None:
    loaded = read(tmp_path, MAIN, {old: "9"})
    assert loaded.warnings == (f"{old}: is now called {new}; rename it; the old name works in 0.7 and not after it",)
    assert origins(loaded)[setting][1] == old
    (told,) = problems(tmp_path, MAIN, {old: "9", new: "8"})
    assert told == f"{old}: and its new name {new} are both set; remove the old one"


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize("text", ["[timers]\nsilence = 9\nidle = 9\n", "[timers]\nidle = 9\nsilence = 9\n"])
def test_both_names_at_once_are_refused_whatever_their_order(tmp_path: Path, text: str) -> None:
    (told,) = problems(tmp_path, text + MAIN)
    assert "timers.silence: and its new name timers.idle are both set; remove the old one" in told


@pytest.mark.usefixtures("release")
def test_a_wrong_value_is_told_under_its_new_name_where_it_stands(tmp_path: Path) -> None:
    (told,) = problems(tmp_path, "[timers]\nsilence = -1\n" + MAIN)
    assert told.startswith("evenflow.toml:2: timers.idle: expected float >= 0.0")


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize("release", ["0.8", "0.10", "1.0"], indirect=True)
def test_after_it_it_is_refused_and_told_its_new_name(tmp_path: Path) -> None:
    (told,) = problems(tmp_path, "[timers]\nsilence = 9\n" + MAIN)
    assert told == "evenflow.toml:2: timers.silence: was renamed to timers.idle in 0.7; rename it"
    (told,) = problems(tmp_path, MAIN, {"EVENFLOW_QUIET": "9"})
    assert told == "EVENFLOW_QUIET: was renamed to EVENFLOW_TIMERS__FIRST_TOKEN in 0.7; rename it"


def test_what_is_renamed_exists_under_its_new_name_only() -> None:
    there = {path[:n] for path, _ in leaves(schema()) for n in range(1, len(path) + 1)}
    assert all(rename.new in there and rename.old not in there for rename in RENAMES)
    assert all(tuple(map(int, rename.since.split("."))) <= tuple(map(int, MINOR.split("."))) for rename in RENAMES)

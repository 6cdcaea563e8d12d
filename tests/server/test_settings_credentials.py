"""Keys from variables and files: found, refused with the remedy, and never shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from actors.routes import Secret

from .settings_files import CANARY, MAIN, origins, problems, read

if TYPE_CHECKING:
    from pathlib import Path


def test_a_key_file_is_read_beside_the_settings_file_and_stripped(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{CANARY}\n", "utf-8-sig")
    (tmp_path / "key").chmod(0o600)
    loaded = read(tmp_path, MAIN + 'key_file = "key"\n')
    assert loaded.settings.upstreams()[0].key == Secret(CANARY)
    assert origins(loaded)["upstreams.main.key"] == ("****6789", f"file {tmp_path / 'key'}")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_file_that_others_may_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    (tmp_path / "key").write_text(CANARY, "utf-8")
    (tmp_path / "key").chmod(mode)
    (told,) = problems(tmp_path, MAIN + 'key_file = "key"\n')
    assert told.startswith("evenflow.toml:3: upstreams.main.key_file: ")
    assert told.endswith(f"run: chmod 600 {tmp_path / 'key'}")


@pytest.mark.parametrize(
    ("environ", "lines", "expected"),
    [
        ({}, 'key_env = "NOPE"', "evenflow.toml:3: upstreams.main.key_env: variable NOPE is not set or empty; "),
        ({"NOPE": " \n"}, 'key_env = "NOPE"', "evenflow.toml:3: upstreams.main.key_env: variable NOPE is not set or empty; "),
        ({"KEY": f"{CANARY}\nsecond"}, 'key_env = "KEY"', "evenflow.toml:3: upstreams.main.key_env: variable KEY holds a character"),
        ({"KEY": f"{CANARY}é"}, 'key_env = "KEY"', "evenflow.toml:3: upstreams.main.key_env: variable KEY holds a character"),
        ({"KEY": "k"}, 'key_env = "KEY"\nkey_file = "f"', "evenflow.toml:3: upstreams.main.key_env: key_env and key_file are both set; "),
        ({}, 'key_file = "gone"', "evenflow.toml:3: upstreams.main.key_file: the file cannot be read: No such file"),
        ({"KEY": "k"}, 'key_env = "KEY"\nauth = "client"', 'evenflow.toml:4: upstreams.main.auth: is "client", but a key is configured'),
        ({}, 'headers = {x-a = "env:GONE"}', "evenflow.toml:3: upstreams.main.headers: variable GONE is not set; set it"),
    ],
)
def test_credentials_that_cannot_be_used(tmp_path: Path, environ: dict[str, str], lines: str, expected: str) -> None:
    (told,) = problems(tmp_path, f"{MAIN}{lines}\n", environ)
    assert told.startswith(expected)
    assert "canary" not in told


@pytest.mark.parametrize(
    "line", [f'key_env = "{CANARY}"', f'key = "{CANARY}"', f'key_file = "{CANARY}"', f'headers = {{a = "env:{CANARY}"}}']
)
def test_a_key_pasted_into_the_file_is_not_repeated(tmp_path: Path, line: str) -> None:
    (told,) = problems(tmp_path, f"{MAIN}{line}\n")
    assert "canary" not in told


def test_no_listing_shows_a_credential(tmp_path: Path) -> None:
    text = f'client_keys = ["{CANARY}"]\n{MAIN}headers = {{api-key = "{CANARY}"}}\nproxy = "http://u:{CANARY}@proxy:3128"\n'
    loaded = read(tmp_path, text, {"EVENFLOW_UPSTREAM_KEY": CANARY})
    assert "canary" not in "\n".join(map(str, loaded.effective())) + repr(loaded)

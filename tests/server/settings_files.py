"""Reading settings from a folder of the test's own, for the tests of everything around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.settings_checks import SettingsError
from server.settings_sources import Flags, load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from server.settings_loaded import Loaded

MAIN = '[upstreams.main]\nbase_url = "http://main/v1"\n'
SPARE = '[upstreams.spare]\nbase_url = "http://spare/v1"\n'
CANARY = "sk-canary-0123456789"


def read(tmp_path: Path, text: str | None = None, environ: Mapping[str, str] | None = None, flags: Flags | None = None) -> Loaded:
    if text is not None:
        (tmp_path / "evenflow.toml").write_text(text, "utf-8")
    return load(flags, environ or {}, directory=tmp_path)


def problems(tmp_path: Path, text: str | None = None, environ: Mapping[str, str] | None = None, flags: Flags | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text, environ, flags)
    assert "\n" not in str(caught.value)
    return [str(problem) for problem in caught.value.problems]


def origins(loaded: Loaded) -> dict[str, tuple[str, str]]:
    return {entry.name: (entry.text, entry.origin) for entry in loaded.effective()}

"""The settings as data: names, environment names, and the reference in docs/configuration.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.routes import Secret
from server.settings_schema import SHORTCUTS, Leaf, SettingPath, environment_name, leaves, schema, shown, with_reference

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
LEAVES = list(leaves(schema()))


def test_the_reference_is_up_to_date() -> None:
    """If this fails: python -m server.settings_schema docs/configuration.md."""
    text = DOCUMENT.read_text("utf-8")
    assert with_reference(text) == text


@pytest.mark.parametrize(("path", "leaf"), LEAVES, ids=[".".join(map(str, path)) for path, _ in LEAVES])
def test_every_setting_is_documented_where_it_belongs(path: SettingPath, leaf: Leaf) -> None:
    table = ".".join(str(part) for part in path[:-1] if part != "N")
    title = {"": "### Top level\n", "routes": "### `[[routes]]`\n"}.get(table, f"### `[{table}]`\n")
    section = DOCUMENT.read_text("utf-8").partition(title)[2].partition("\n### ")[0]
    assert f"`{path[-1]}`" in section
    assert leaf.why


def test_what_is_derived_is_what_was_asked_for() -> None:
    names = {".".join(map(str, path)) for path, _ in LEAVES}
    expected = "bind admin_bind client_keys timers.first_token retry.budget_ratio recovery.bad_chunk breaker.open_max streaming.engine"
    expected += " stutter.profile buffer.max_age log.format upstreams.NAME.base_url upstreams.NAME.timers.idle routes.N.upstreams"
    assert set(expected.split()) <= names
    assert "upstreams.NAME.key" not in names


def test_no_two_settings_share_a_variable_and_none_looks_like_kubernetes_own() -> None:
    variables = [environment_name(path) for path, _ in LEAVES] + list(SHORTCUTS)
    assert len(set(variables)) == len(variables)
    # For a Service called evenflow, Kubernetes sets EVENFLOW_PORT, EVENFLOW_PORT_8143_TCP, EVENFLOW_SERVICE_HOST and more.
    assert not [v for v in variables if v.startswith(("EVENFLOW_PORT", "EVENFLOW_SERVICE_"))]
    assert not {str(path[-1]).upper() for path, _ in LEAVES} & {"PORT", "SERVICE"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (300.0, "300"),
        (33554432, "33554432"),
        (None, "(none)"),
        ("a\nb", r'"a\nb"'),
        (("a", "b"), '["a", "b"]'),
        (Secret("sk-0123456789abcdef"), "****cdef"),
        ({"k": Secret("short")}, "{k = ****}"),
        (Secret("http://user:pass@proxy:3128"), "http://****@proxy:3128"),
        (Secret("http://user:p/a@ss@proxy:3128"), "http://****@proxy:3128"),
        (Secret("http://proxy:3128"), "http://proxy:3128"),
    ],
)
def test_values_as_shown(value: object, text: str) -> None:
    assert shown(value) == text

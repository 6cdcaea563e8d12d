"""docs/faults.md names for each fault the tests that show it, and every test it names exists."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from .test_docs import ROOT, generator

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    return generator("make_faults_page")


def test_the_page_is_the_one_that_rows_and_tests_give(maker: ModuleType) -> None:
    assert (ROOT / "docs" / "faults.md").read_text() == maker.page(), "run: python docs/make_faults_page.py"


def test_no_row_is_missing(maker: ModuleType) -> None:
    assert sorted(maker.rows()) == sorted([*map(str, range(1, 81)), "12b"])


def test_every_row_has_a_test_or_a_reason_and_not_both(maker: ModuleType) -> None:
    shown = set(maker.shown_by())
    reasons = set(maker.NOT_SHOWN)
    assert all(maker.NOT_SHOWN.values())
    assert set(maker.rows()) - shown - reasons == set()
    assert shown & reasons == set(), "these have tests by now"
    assert shown | reasons <= set(maker.rows()), "a test carries the number of a row that does not exist"
    assert set(maker.LEFT_OPEN) <= shown


def test_what_is_listed_by_hand_exists_and_does_not_say_so_itself(maker: ModuleType) -> None:
    for file, tests in maker.ALSO.items():
        written = {function.name for function in maker.test_functions(ROOT / "tests" / file)}
        assert set(tests) - written == set(), file
        assert all(not name.startswith("test_row") for name in tests), file


def test_every_test_that_the_page_names_exists() -> None:
    named = 0
    for file, names in re.findall(r"\]\(\.\./(tests/[^)]+)\): ((?:`\w+`(?:, )?)+)", (ROOT / "docs" / "faults.md").read_text()):
        tree = ast.parse((ROOT / file).read_text())
        written = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        told = re.findall(r"`(\w+)`", names)
        assert set(told) - written == set(), file
        named += len(told)
    assert named > 100


@pytest.mark.parametrize(
    ("source", "numbers"),
    [
        ("def test_row_12b_a_b(): ...", {"12b"}),
        ("def test_rows_16_and_17_a(): ...", {"16", "17"}),
        ("async def test_row_04_a(): ...", {"4"}),
        ("def test_row_53(): ...", {"53"}),
        ("def test_row_1_of_9_things(): ...", {"1"}),
        ("def test_a_row_5(): ...", set()),
        ("@pytest.mark.parametrize('x', [1], ids=['row-3 x'])\ndef test_a(x): ...", {"3"}),
        ("CASES = {'row_7 x': 1, 'row_8 y': 2}\n@pytest.mark.parametrize('x', CASES)\ndef test_a(x): ...", {"7", "8"}),
    ],
)
def test_numbers_are_found_in_names_and_in_ids(
    source: str, numbers: set[str], maker: ModuleType, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path_factory.mktemp("checkout")
    (root / "tests").mkdir()
    (root / "tests" / "test_x.py").write_text(source)
    monkeypatch.setattr(maker, "ROOT", root)
    name = source.rpartition("def ")[2].partition("(")[0]
    assert maker.shown_by() == {number: {"tests/test_x.py": [name]} for number in numbers}

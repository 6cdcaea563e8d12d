"""The documentation says what is: drawings are those the code gives, links lead somewhere."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def generator(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_state_diagram_is_the_one_the_table_gives() -> None:
    page = generator("make_state_diagram").diagram()
    assert (ROOT / "docs" / "state-diagram.md").read_text() == page, "run: python docs/make_state_diagram.py"


def test_the_simulator_page_has_the_table_of_fault_models() -> None:
    page = generator("make_simulator_page").page()
    assert (ROOT / "docs" / "simulator.md").read_text() == page, "run: python docs/make_simulator_page.py"


def test_the_picture_of_a_repaired_stream_is_what_the_pipeline_does() -> None:
    drawn = generator("make_stream_picture").picture()
    assert (ROOT / "docs" / "img" / "repaired-stream.svg").read_text() == drawn, "run: python docs/make_stream_picture.py"


def test_the_site_builds_and_leaves_no_page_out(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "site" / "tutorial" / "index.html").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^\$ make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named
    assert named <= targets


def test_fragments_of_the_changelog_are_named_for_their_kind() -> None:
    """ISSUE.KIND.md or ISSUE.TOPIC.KIND.md, as towncrier wants it; the kinds stand in pyproject.toml."""
    names = [path.name for path in (ROOT / "docs" / "changes").glob("*.md")]
    assert names
    assert [name for name in names if not re.fullmatch(r"\d+(\.[a-z-]+)?\.(upgrade|feature|fix|security)\.md", name)] == []

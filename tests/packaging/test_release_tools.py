"""The changelog, the SBOM and the audit: that they find what is there, and that no silence is taken for a clean bill."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
FRAGMENTS: Final = [path for path in (ROOT / "docs" / "changes").iterdir() if path.suffix == ".md"]


def test_every_fragment_is_in_the_next_changelog() -> None:
    """A fragment is called ISSUE.TYPE.md or ISSUE.TOPIC.TYPE.md; the types stand in pyproject.toml. A blank line begins a new entry."""
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "next"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    entries = [line.removeprefix("- ") for line in told.stdout.splitlines() if line.startswith("- ")]
    written = [" ".join(part.split()) for path in FRAGMENTS for part in path.read_text("utf-8").split("\n\n") if part.strip()]
    assert sorted(entries) == sorted(written)


def test_the_changelog_has_a_place_for_them() -> None:
    assert (ROOT / "CHANGELOG.md").read_text("utf-8").count("<!-- towncrier -->\n") == 1


def locked(name: str) -> dict[str, str]:
    return dict(re.findall(r"(?m)^([A-Za-z0-9_.-]+)==([^ \\]+)", (ROOT / name).read_text("utf-8")))


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock", "requirements-audit.lock"])
def test_a_lock_names_no_host_and_every_hash(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert "://" not in text
    assert len(locked(name)) > 10
    packages = re.split(r"(?m)^(?=[A-Za-z])", text)[1:]
    assert [package for package in packages if "--hash=sha256:" not in package] == []


def test_the_sbom_lists_what_is_locked(tmp_path: Path) -> None:
    python = ROOT / ".venv-audit" / "bin" / "python"
    if not python.exists():
        pytest.skip("`make sbom` was not run here, so that its environment is not there")
    target = re.search(
        r"(?m)^sbom:.*\n(?:\t.*\n)*?\t@\$\(AUDIT\)/bin/python (.+) --output-file \S+$", (ROOT / "Makefile").read_text("utf-8")
    )
    assert target is not None
    subprocess.run([python, *target[1].split(), "--output-file", tmp_path / "out.json"], cwd=ROOT, check=True, capture_output=True)
    bill = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "evenflow"
    assert {part["name"]: part["version"] for part in bill["components"]} == locked("requirements.lock")


@pytest.mark.parametrize(
    ("told", "code", "expected"),
    [
        ("No known vulnerabilities found", 0, 0),
        ("Found 1 known vulnerability in 1 package", 1, 1),
        ("ERROR:pip_audit._cli:aiofiles: Dependency not found on PyPI and could not be audited: aiofiles (25.1.0)", 1, 3),
        ("requests.exceptions.ConnectionError: Max retries exceeded with url", 1, 3),
    ],
)
def test_the_audit_tells_clean_from_unasked(tmp_path: Path, told: str, code: int, expected: int) -> None:
    scanner = tmp_path / "pip-audit"
    scanner.write_text(f"#!/bin/sh\necho \"$@\" >'{tmp_path}/asked'\necho '{told}' >&2\nexit {code}\n", "utf-8")
    scanner.chmod(0o755)
    done = subprocess.run(["sh", "tools/audit.sh", scanner, "requirements.lock"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == expected
    assert told in done.stdout
    assert ("NOT AUDITED" in done.stderr) == (expected == 3)
    assert "--strict" in (tmp_path / "asked").read_text("utf-8").split()

"""The comparison of HTTP versions in small: that it runs, and over the versions that it names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_measures_both_versions(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    command = [sys.executable, "-m", "bench.version_cost", "--rounds", "1", "--json", str(file)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr.decode()
    results = json.loads(file.read_text())
    assert list(results) == ["HTTP/1.1", "HTTP/2"]
    for found in results.values():
        assert set(found) == {"kept_us", "new_us", "events_us", "left_ms"}
        assert all(value > 0 for value in found.values())
    assert run.stdout.count(b"\n") == 3

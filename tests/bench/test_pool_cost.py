"""The cost of the pool, in small: every count is measured on both transports. Its times are judged by nobody here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_count_is_measured_on_both_transports(tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    command = [sys.executable, "-m", "bench.pool_cost", "--open", "2", "20", "--stock", "--rounds", "1", "--json", str(file)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    measured = json.loads(file.read_text())
    for name in ("own", "httpx"):
        rows = measured[name]
        assert [row["open"] for row in rows] == [2, 20]
        assert all(row["kept_us"] > 0 and row["new_us"] > 0 for row in rows)
        assert rows[0]["kept_ratio"] == rows[0]["new_ratio"] == 1.0
    assert len(ended.stdout.splitlines()) == 5

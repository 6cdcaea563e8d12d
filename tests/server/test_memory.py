"""What the process may have and what it holds: read where Linux tells it, nothing elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.memory import Memory, memory_limit, memory_of_this_process, resident_bytes

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = {"proc/meminfo": "MemTotal:        2000 kB\nMemFree:          10 kB\n"}
V2 = {"proc/self/cgroup": "0::/system.slice/evenflow.service\n"}
V1 = {"proc/self/cgroup": "5:cpu,memory:/docker/abc\n4:cpuset:/\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, 0),
        (MACHINE, 2_048_000),
        ({**MACHINE, **V2}, 2_048_000),
        ({**MACHINE, **V2, "sys/fs/cgroup/system.slice/evenflow.service/memory.max": "max\n"}, 2_048_000),
        ({**MACHINE, **V2, "sys/fs/cgroup/system.slice/evenflow.service/memory.max": "5000\n"}, 5000),
        # The slice has less than the service.
        (
            {
                **V2,
                "sys/fs/cgroup/system.slice/evenflow.service/memory.max": "5000\n",
                "sys/fs/cgroup/system.slice/memory.max": "4000\n",
            },
            4000,
        ),
        # Inside of a container the group is the top.
        ({**MACHINE, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "6000\n"}, 6000),
        ({**MACHINE, **V1, "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "7000\n"}, 7000),
        ({**MACHINE, **V1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "8000\n"}, 8000),
        # Without a limit, version 1 tells nearly 2^63.
        ({**MACHINE, **V1, "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "9223372036854771712\n"}, 2_048_000),
        ({**MACHINE, "proc/self/cgroup": "nonsense\n::\n"}, 2_048_000),
    ],
)
def test_what_it_may_have(tmp_path: Path, files: dict[str, str], limit: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_limit(tmp_path) == limit


def test_row_65_a_share_is_measured_at_most_ten_times_a_second_and_told_once() -> None:
    held, now, measured = 50, 0.0, 0

    def resident() -> int:
        nonlocal measured
        measured += 1
        return held

    memory = Memory(100, resident, clock=lambda: now)
    assert [memory.beyond(most) for most in (0.49, 0.5, 0.51)] == [True, True, False]
    assert measured == 1
    held, now = 80, 0.05
    assert memory.share() == 0.5
    now = 0.11
    assert memory.share() == 0.8
    assert measured == 2


def test_where_nothing_is_known_nobody_is_turned_away() -> None:
    assert not Memory(0, lambda: 10**12).beyond(0.01)


def test_this_process_holds_what_it_holds() -> None:
    memory = memory_of_this_process()
    if memory.limit:
        assert 0 < memory.share() <= 1
        before = resident_bytes()
        ballast = bytearray(b"x" * 50_000_000)
        assert resident_bytes() - before > 40_000_000
        del ballast

"""Total and available memory of the machine and of the control groups of a container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbt.machine.memory import available_memory, total_memory

FREE = 1000


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 4000 bytes, of which 1000 are free."""
    real, fake = os.sysconf, {"SC_PHYS_PAGES": 40, "SC_AVPHYS_PAGES": 10, "SC_PAGE_SIZE": FREE // 10}
    monkeypatch.setattr(os, "sysconf", lambda name: fake[name] if name in fake else real(name))


def write_group(folder: Path, limit: str, used: str, cached: int = 0, version: int = 2) -> None:
    """Writes the files of one control group."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, text in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{text}\n")
    prefix = "" if version == 2 else "total_"
    (folder / "memory.stat").write_text(f"{prefix}active_file 77\n{prefix}inactive_file {cached}\n")


def write_proc(root: Path, lines: str) -> None:
    """Writes the kernel's list of this process's control groups."""
    path = root / "proc/self/cgroup"
    path.parent.mkdir(parents=True)
    path.write_text(lines)


def test_without_control_groups_the_machine_limits_memory(tmp_path: Path) -> None:
    assert available_memory(tmp_path) == FREE
    assert total_memory(tmp_path) == 4 * FREE


@pytest.mark.parametrize("version", [1, 2])
def test_what_programs_use_does_not_change_the_total(tmp_path: Path, version: int) -> None:
    folder = tmp_path / ("sys/fs/cgroup" if version == 2 else "sys/fs/cgroup/memory")
    write_group(folder, "3000", "2900", 10, version)
    assert total_memory(tmp_path) == 3000
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       2 kB\nMemAvailable:   1 kB\n")
    assert (total_memory(tmp_path), available_memory(tmp_path)) == (2048, 110)


@pytest.mark.parametrize(
    ("limit", "used", "cached", "free"),
    [
        ("600", "200", 0, 400),
        ("600", "200", 50, 450),
        ("600", "700", 0, 0),
        ("5000", "200", 0, FREE),
        ("max", "200", 0, FREE),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_container_limits_memory(tmp_path: Path, version: int, limit: str, used: str, cached: int, free: int) -> None:
    mount_point = tmp_path / ("sys/fs/cgroup" if version == 2 else "sys/fs/cgroup/memory")
    unlimited = "9223372036854771712" if version == 1 else "max"
    write_group(mount_point, unlimited if limit == "max" else limit, used, cached, version)
    assert available_memory(tmp_path) == free
    # A container of version 1 gets the path on its host, which does not exist inside the container.
    write_proc(tmp_path, "5:cpu:/elsewhere\n4:memory:/docker/9f3\n0::/docker/9f3\n")
    assert available_memory(tmp_path) == free


@pytest.mark.parametrize("version", [1, 2])
def test_the_lowest_limit_of_all_parent_groups_applies(tmp_path: Path, version: int) -> None:
    mount_point = tmp_path / ("sys/fs/cgroup" if version == 2 else "sys/fs/cgroup/memory")
    write_proc(tmp_path, "4:blkio,memory:/jobs/7/step\n" if version == 1 else "0::/jobs/7/step\n")
    write_group(mount_point / "jobs/7", "500", "100", version=version)
    write_group(mount_point / "jobs/7/step", "900", "100", version=version)
    write_group(mount_point / "jobs/8", "50", "10", version=version)
    assert available_memory(tmp_path) == 400


def test_invalid_files_are_ignored(tmp_path: Path) -> None:
    write_group(tmp_path / "sys/fs/cgroup", "much", "little")
    assert available_memory(tmp_path) == FREE


def test_cached_files_count_as_available(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:     16000 kB\nMemFree:      100 kB\nMemAvailable:    900 kB\n")
    assert available_memory(tmp_path) == 900 * 1024

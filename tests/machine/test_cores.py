"""Usable cores of the machine and of the control groups of a container, and the waiting of idle threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.machine import cores
from nbt.machine.cores import limit_spinning, usable_cores

ALLOWED = 6


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that lets this process run on 6 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(ALLOWED)))


def write_quota(folder: Path, quota: str, period: str = "100000", version: int = 2) -> None:
    """Writes the files of one control group."""
    folder.mkdir(parents=True, exist_ok=True)
    if version == 2:
        (folder / "cpu.max").write_text(f"{quota} {period}\n")
    else:
        (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (folder / "cpu.cfs_period_us").write_text(f"{period}\n")


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == ALLOWED


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [
        ("50000", "100000", 1),  # half a core
        ("100000", "100000", 1),
        ("199999", "100000", 1),
        ("250000", "100000", 2),
        ("20000", "10000", 2),
        ("900000", "100000", ALLOWED),
        ("none", "100000", ALLOWED),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_the_quota_of_a_container_is_rounded_down(
    tmp_path: Path, version: int, quota: str, period: str, expected: int
) -> None:
    mount_point = tmp_path / "sys/fs/cgroup" / ("" if version == 2 else "cpu,cpuacct")
    unlimited = "max" if version == 2 else "-1"
    write_quota(mount_point, unlimited if quota == "none" else quota, period, version)
    assert usable_cores(tmp_path) == expected
    # A container of version 1 gets the path on its host, which does not exist inside the container.
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("5:cpu,cpuacct:/docker/9f3\n4:memory:/docker/9f3\n0::/docker/9f3\n")
    assert usable_cores(tmp_path) == expected


@pytest.mark.parametrize("version", [1, 2])
def test_the_lowest_quota_of_all_parent_groups_applies(tmp_path: Path, version: int) -> None:
    mount_point = tmp_path / "sys/fs/cgroup" / ("" if version == 2 else "cpu")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("3:cpu:/jobs/7/step\n" if version == 1 else "0::/jobs/7/step\n")
    write_quota(mount_point / "jobs/7", "300000", version=version)
    write_quota(mount_point / "jobs/7/step", "500000", version=version)
    write_quota(mount_point / "jobs/8", "100000", version=version)
    assert usable_cores(tmp_path) == 3


@pytest.mark.parametrize("text", ["", "\n", "max", "many 100000", "200000 0", "200000"])
def test_invalid_files_are_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text(text)
    assert usable_cores(tmp_path) == ALLOWED


@given(quota=st.floats(0.01, 100), allowed=st.integers(1, 64))
def test_there_is_always_a_core_and_never_more_than_allowed(quota: float, allowed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda pid: set(range(allowed)))
        patch.setattr(cores, "_quotas", lambda root: [quota])
        assert 1 <= usable_cores() <= allowed
        assert usable_cores() <= max(1, quota)


class TestWaiting:
    NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")

    def spin_count(self, code: str, **environment: str) -> str:
        env = {name: value for name, value in os.environ.items() if name not in self.NAMES} | environment
        code = f"import os\n{code}\nprint(os.environ.get('GOMP_SPINCOUNT'))"
        return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout.strip()

    def test_the_command_line_limits_spinning_before_torch_is_imported(self) -> None:
        code = "import sys\nfrom nbt.cli.app import run\nrun(['spaces', '--json'])\nassert 'torch' not in sys.modules"
        assert self.spin_count(code).endswith("20000")

    def test_the_values_of_the_user_are_kept(self) -> None:
        code = "from nbt.machine.cores import limit_spinning\nlimit_spinning()"
        assert self.spin_count(code) == "20000"
        assert self.spin_count(code, OMP_WAIT_POLICY="ACTIVE") == "None"
        assert self.spin_count(code, GOMP_SPINCOUNT="7") == "7"

    def test_after_the_import_of_torch_it_would_have_no_effect(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in self.NAMES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setitem(sys.modules, "torch", object())  # type: ignore[arg-type]
        limit_spinning()
        assert "GOMP_SPINCOUNT" not in os.environ

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from nbt.doctor import machine
from nbt.doctor.machine import check_gpus, check_machine
from nbt.doctor.sizes import GIB, MIB, size_text


@pytest.mark.parametrize(
    ("memory", "status"), [(8 * GIB, "ok"), (2 * GIB, "ok"), (1500 * MIB, "warning"), (600 * MIB, "problem")]
)
def test_little_memory(memory: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda root: memory)
    _, result = check_machine()
    assert (result.status, result.message) == (status, f"{size_text(memory)} available")
    assert bool(result.advice) == (status != "ok")


def test_a_container_limits_cores_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("100000 100000")
    (group / "memory.max").write_text(str(512 * MIB))
    # Without this file, the free memory of the machine that runs the test counts, which may be less.
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemAvailable: {8 * GIB // 1024} kB\n")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    cores, memory = check_machine(tmp_path)
    assert cores.message == "1 usable of 8, by affinity or the quota of the container"
    assert (memory.status, memory.message) == ("problem", "512 MiB available")


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = types.ModuleType("torch")
    torch.__version__ = "2.6"  # type: ignore[attr-defined]
    cuda = types.SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 1,
        get_device_name=lambda index: "H200",
        mem_get_info=lambda index: (100 * GIB, 139 * GIB),
    )
    torch.cuda = cuda  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    [result] = check_gpus(lambda: True)
    assert (result.subject, result.message) == ("GPU 0", "H200, 100.0 GiB of 139.0 GiB free")
    cuda.is_available = lambda: False
    [result] = check_gpus(lambda: True)
    assert result.status == "warning" and "cannot use it" in result.message
    monkeypatch.setitem(sys.modules, "torch", None)
    [result] = check_gpus(lambda: True)
    assert result.status == "problem"
    [result] = check_gpus(lambda: False)
    assert result.status == "ok", "torch is not imported without a driver"

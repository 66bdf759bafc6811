"""Locked temporary directories of processes that run, end and are killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nbt.tuning.engines.locked_directory import LockedDirectory, remove_abandoned_directories
from nbt.tuning.engines.worker_process import WorkerProcess

HOLDER = """
import sys, tempfile
from nbt.tuning.engines.locked_directory import LockedDirectory

tempfile.tempdir = sys.argv[1]
print(LockedDirectory("nbt-test-").path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_close_removes_the_directory() -> None:
    folder = LockedDirectory("nbt-test-")
    (folder.path / "sub").mkdir()
    assert folder.path.is_dir()
    folder.close()
    folder.close()
    assert not folder.path.exists()


def test_only_directories_of_killed_processes_are_removed(temporary: Path) -> None:
    locked = LockedDirectory("nbt-test-")
    unlocked = temporary / "nbt-worker-of-another-kind"
    unlocked.mkdir()
    command = [sys.executable, "-c", HOLDER, str(temporary)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        other = Path(holder.stdout.readline().strip())
        (other / "cache").write_bytes(b"x")
        remove_abandoned_directories()
        assert other.is_dir() and locked.path.is_dir()
        holder.kill()
        holder.wait()
    assert (other / "cache").exists()
    later = LockedDirectory("nbt-test-")
    assert {path.name for path in temporary.iterdir()} == {locked.path.name, later.path.name, unlocked.name}
    locked.close()
    later.close()


def test_a_directory_that_cannot_be_locked_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nbt.tuning.engines.locked_directory.fcntl.flock", full)
    with pytest.raises(OSError, match="No space left"):
        LockedDirectory("nbt-test-")
    assert not list(tmp_path.iterdir())


def test_a_worker_that_cannot_be_started_leaves_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("nbt.tuning.engines.worker_process.subprocess.Popen", fail)
    with pytest.raises(OSError, match="Too many open files"):
        WorkerProcess(2)
    assert not list(tmp_path.iterdir())

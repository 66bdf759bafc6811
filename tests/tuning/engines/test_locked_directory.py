"""Temporary folders of processes that live, end and are killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nbt.tuning.engines.locked_directory import LockedDirectory, remove_abandoned_directories

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


def test_is_gone_after_its_close() -> None:
    folder = LockedDirectory("nbt-test-")
    (folder.path / "sub").mkdir()
    assert folder.path.is_dir()
    folder.close()
    folder.close()
    assert not folder.path.exists()


def test_what_a_killed_process_left_is_removed_and_nothing_else(temporary: Path) -> None:
    mine = LockedDirectory("nbt-test-")
    nobodys = temporary / "nbt-worker-of-another-kind"
    nobodys.mkdir()
    words = [sys.executable, "-c", HOLDER, str(temporary)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        theirs = Path(holder.stdout.readline().strip())
        (theirs / "cache").write_bytes(b"x")
        remove_abandoned_directories()
        assert theirs.is_dir() and mine.path.is_dir()
        holder.kill()
        holder.wait()
    assert (theirs / "cache").exists()
    another = LockedDirectory("nbt-test-")
    assert {path.name for path in temporary.iterdir()} == {mine.path.name, another.path.name, nobodys.name}
    mine.close()
    another.close()

"""Files are written completely or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nbt.files import atomic_file, machine_code, process_exists, remove_leftovers, write_all


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_text("old")
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert [file.name for file in tmp_path.glob("model.pt*.tmp")] == [temporary.name]
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"model.pt": "new"}


def test_an_error_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"model.pt": "old"}


def test_all_texts_are_written_before_the_first_file_is_replaced(tmp_path: Path) -> None:
    write_all(tmp_path, {"a": "1", "b": "2"})
    (tmp_path / "c").mkdir()  # a file cannot replace a folder
    with pytest.raises(OSError, match="c"):
        write_all(tmp_path, {"a": "3", "b": None, "c": "4"})
    assert (tmp_path / "b").read_text() == "2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]
    write_all(tmp_path, {"a": "5", "b": None})
    assert (tmp_path / "a").read_text() == "5"
    assert not (tmp_path / "b").exists()


def test_leftovers_of_killed_processes_are_removed_and_those_of_running_ones_kept(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert (process_exists(ended.pid), process_exists(os.getpid())) == (False, True)
    kept = [
        "report.html",
        f"report.html.{machine_code()}.{os.getpid()}-1.tmp",
        "notes.tmp",
        f"a.{machine_code()}.{ended.pid}.tmp.txt",
        f"a.other.{ended.pid}.tmp",
    ]
    for name in [*kept, f"report.html.{machine_code()}.{ended.pid}-140.tmp"]:
        (tmp_path / name).write_text("")
    (tmp_path / f".model.{machine_code()}.{ended.pid}.tmp").mkdir()
    (tmp_path / f".model.{machine_code()}.{ended.pid}.tmp" / "weights").write_text("")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    remove_leftovers(tmp_path / "missing")

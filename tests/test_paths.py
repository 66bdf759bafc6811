"""What can be written, and that finding out writes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbt.errors import UsageError
from nbt.paths import check_writable_file, check_writable_folder


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to("gone")
    return tmp_path


@pytest.mark.parametrize("place", [".", "folder", "folder/deep/deeper", "new", "../new", "folder/../new"])
def test_what_is_there_or_can_be_made(own_folder: Path, place: str) -> None:
    before = sorted(own_folder.rglob("*"))
    check_writable_folder("--out", place)
    check_writable_folder("--out", own_folder / place)
    check_writable_file("--out", f"{place}/table.csv")
    assert sorted(own_folder.rglob("*")) == before


def test_a_file_that_is_there_is_replaced() -> None:
    check_writable_file("--out", "file")


@pytest.mark.parametrize("check", [check_writable_folder, check_writable_file])
@pytest.mark.parametrize(("place", "found"), [("file/deep", "file"), ("file/a/b", "file"), ("nowhere/a", "nowhere")])
def test_what_is_in_the_way_is_named(check: Callable[..., Any], own_folder: Path, place: str, found: str) -> None:
    with pytest.raises(UsageError, match=rf"^--out {place}: {own_folder / found} is no folder"):
        check("--out", place)


@pytest.mark.parametrize("place", ["file", "nowhere"])
def test_a_folder_is_no_file_and_no_link_to_nothing(place: str) -> None:
    with pytest.raises(UsageError, match=f"^--out {place}: .* is no folder"):
        check_writable_folder("--out", place)


def test_a_file_is_no_folder() -> None:
    with pytest.raises(UsageError, match=r"^--out folder: that is a folder"):
        check_writable_file("--out", "folder")


def test_what_must_not_be_written(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, whom permissions do not stop.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != own_folder / "folder")
    check_writable_folder("--out", "new")
    for check, place in (
        (check_writable_folder, "folder"),
        (check_writable_folder, "folder/deep"),
        (check_writable_file, "folder/a.csv"),
    ):
        with pytest.raises(UsageError, match=f"^--out {place}: {own_folder / 'folder'} cannot be written"):
            check("--out", place)

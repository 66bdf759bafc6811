"""Checks of output paths, which must not write anything."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbt.errors import UsageError
from nbt.paths import check_writable_file, check_writable_folder


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("content")
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to("gone")
    return tmp_path


@pytest.mark.parametrize("path", [".", "folder", "folder/deep/deeper", "new", "../new", "folder/../new"])
def test_existing_and_new_folders_are_accepted(working_folder: Path, path: str) -> None:
    before = sorted(working_folder.rglob("*"))
    check_writable_folder("--out", path)
    check_writable_folder("--out", working_folder / path)
    check_writable_file("--out", f"{path}/table.csv")
    assert sorted(working_folder.rglob("*")) == before


def test_an_existing_file_is_accepted() -> None:
    check_writable_file("--out", "file")


@pytest.mark.parametrize("check", [check_writable_folder, check_writable_file])
@pytest.mark.parametrize(("path", "blocker"), [("file/deep", "file"), ("file/a/b", "file"), ("nowhere/a", "nowhere")])
def test_a_file_in_the_way_is_named(check: Callable[..., Any], working_folder: Path, path: str, blocker: str) -> None:
    with pytest.raises(UsageError, match=rf"^--out {path}: {working_folder / blocker} is no folder"):
        check("--out", path)


@pytest.mark.parametrize("path", ["file", "nowhere"])
def test_files_and_dangling_links_are_no_folders(path: str) -> None:
    with pytest.raises(UsageError, match=f"^--out {path}: .* is no folder"):
        check_writable_folder("--out", path)


def test_a_folder_is_no_file() -> None:
    with pytest.raises(UsageError, match=r"^--out folder: that is a folder"):
        check_writable_file("--out", "folder")


def test_folders_without_write_permission_are_refused(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = tempfile.TemporaryFile

    def refuse(*, dir: Path) -> object:  # noqa: A002 - the tests may run as root, for whom all is permitted
        if Path(dir) == working_folder / "folder":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return create(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    check_writable_folder("--out", "new")
    for check, path in (
        (check_writable_folder, "folder"),
        (check_writable_folder, "folder/deep"),
        (check_writable_file, "folder/a.csv"),
    ):
        message = rf"^--out {path}: {working_folder / 'folder'} cannot be written \(Permission denied\)"
        with pytest.raises(UsageError, match=message):
            check("--out", path)
    assert list((working_folder / "folder").iterdir()) == [], "nothing is left behind"

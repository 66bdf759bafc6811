"""Which files and folders are entered."""

from __future__ import annotations

import os
from pathlib import Path

from nbt.data.image_files import LOOP, SPECIAL, PassedOver, scan_files, subfolders
from tests.data.pictures import save_image


def test_links_to_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    inside = save_image(tmp_path / "data/cat/1.png")
    save_image(tmp_path / "more/2.png")
    for name, target in (("loop", "data"), ("more", "more"), ("again", "more")):
        (tmp_path / "data/cat" / name).symlink_to(tmp_path / target)
    (tmp_path / "data/self").symlink_to(tmp_path / "data")
    cat = tmp_path / "data/cat"
    assert list(scan_files(cat)) == [
        PassedOver(cat / "loop", LOOP),
        PassedOver(cat / "more", LOOP),
        inside,
        cat / "again/2.png",
    ]
    assert subfolders(tmp_path / "data") == [cat]
    assert PassedOver(tmp_path / "data/self", LOOP) in scan_files(tmp_path / "data", recursive=False)


def test_two_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    images = [save_image(tmp_path / name / "1.png") for name in "ab"]
    (tmp_path / "a/b").symlink_to(tmp_path / "b")
    (tmp_path / "b/a").symlink_to(tmp_path / "a")
    found = list(scan_files(tmp_path / "a"))
    assert [file for file in found if isinstance(file, Path)] == [images[0], tmp_path / "a/b/1.png"]
    assert PassedOver(tmp_path / "a/b/a", LOOP) in found


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    for name in ("pipe", "pipe.png"):
        os.mkfifo(tmp_path / name)
    assert list(scan_files(tmp_path)) == [PassedOver(tmp_path / name, SPECIAL) for name in ("pipe", "pipe.png")]


def test_links_to_themselves_are_no_folders(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone").symlink_to("missing")
    (tmp_path / "a").mkdir()
    assert subfolders(tmp_path) == [tmp_path / "a"]

from __future__ import annotations

from pathlib import Path

import pytest

from nbt.data.output_place import check_outside_class_folders
from nbt.errors import UsageError
from tests.data.pictures import save_classes, save_image


@pytest.mark.parametrize(
    "path", ["birds/w.pth", "birds/new/deeper", "birds/a/w.pth", "parts/w.pth", "parts/train/a/w.pth", "parts/test"]
)
def test_paths_among_class_folders_are_refused(tmp_path: Path, path: str) -> None:
    save_classes(tmp_path / "birds", {"a": 1, "b": 1})
    for part in ("train", "test"):
        save_classes(tmp_path / "parts" / part, {"a": 1, "b": 1})
    (tmp_path / "birds" / "labels.csv").touch()
    with pytest.raises(UsageError, match=f"^--out {tmp_path / path}: is inside {tmp_path}/.*, a folder of class"):
        check_outside_class_folders("--out", tmp_path / path)


@pytest.mark.parametrize("path", ["w.pth", "pictures/w.pth", "work/w.pth", "work/out/w.pth", "new/w.pth"])
def test_other_folders_may_hold_images(tmp_path: Path, path: str) -> None:
    save_classes(tmp_path / "work" / "birds", {"a": 1, "b": 1})
    for name in ("pictures/1.png", "work/figures/1.png", "work/photos/1.png"):
        save_image(tmp_path / name)
    (tmp_path / "work" / "out").mkdir()
    check_outside_class_folders("--out", tmp_path / path)

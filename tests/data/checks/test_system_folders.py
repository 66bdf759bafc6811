from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.checks.checked import check_results, failed_codes
from tests.data.pictures import save_classes, save_image

FOLDERS = (
    "@eaDir",
    ".thumbnails",
    "__MACOSX",
    ".ipynb_checkpoints",
    "lost+found",
    "$RECYCLE.BIN",
    "#recycle",
    "Thumbs",
)
FILES = ("Thumbs.db", "desktop.ini", ".DS_Store", "._000.png")


@pytest.mark.parametrize("parent", [".", "a"])
@pytest.mark.parametrize("name", FOLDERS)
def test_system_folders_are_no_classes(tmp_path: Path, name: str, parent: str) -> None:
    save_classes(tmp_path, {"a": 6, "b": 6})
    save_image(tmp_path / parent / name / "a" / "000.png")
    assert failed_codes(tmp_path) == {"NBT110"}
    result = check_results(tmp_path)["NBT110"]
    assert (result.severity, result.count) == ("info", 1)
    assert result.examples == ((Path(parent) / name).as_posix(),)


@pytest.mark.parametrize("name", FILES)
def test_system_files_are_not_passed_over_as_images(tmp_path: Path, name: str) -> None:
    save_classes(tmp_path, {"a": 6, "b": 6})
    (tmp_path / "b" / name).write_bytes(b"system")
    assert failed_codes(tmp_path) == {"NBT110"}


def test_reports_and_models_of_nbt_are_no_classes(tmp_path: Path) -> None:
    save_classes(tmp_path, {"a": 6, "b": 6})
    save_image(tmp_path / "reports" / "study" / "figure.png")
    for name in ("report.html", "report.md"):
        (tmp_path / "reports" / "study" / name).write_text("a report")
    result = check_results(tmp_path)["NBT110"]
    assert result.is_failed and result.examples == ("reports/study",)


def test_a_system_folder_beside_an_inner_folder(tmp_path: Path) -> None:
    save_classes(tmp_path / "data", {"a": 6, "b": 6})
    save_image(tmp_path / "__MACOSX" / "data" / "a" / "000.png")
    assert failed_codes(tmp_path) == {"NBT101", "NBT110"}


def test_clean_folders_pass(tmp_path: Path) -> None:
    assert check_results(save_classes(tmp_path, {"a": 6, "b": 6}))["NBT110"].state == "passed"

from __future__ import annotations

from pathlib import Path

from tests.data.checks.checked import check_results, failed_codes
from tests.data.pictures import save_classes, save_image


def test_loose_images_and_empty_folders(tmp_path: Path) -> None:
    save_classes(tmp_path, {"a": 6, "b": 6})
    save_image(tmp_path / "loose.jpg")
    save_image(tmp_path / "more.jpg")
    (tmp_path / "c").mkdir()
    (tmp_path / "readme.md").write_text("birds")
    assert failed_codes(tmp_path) == {"NBT108"}
    result = check_results(tmp_path)["NBT108"]
    assert (result.severity, result.count) == ("warning", 4)
    assert "2 .jpg (outside the class folders)" in result.message and "1 .md (not an image)" in result.message
    assert set(result.examples[:3]) == {
        "c: folder without images",
        "loose.jpg: outside the class folders",
        "more.jpg: outside the class folders",
    }


def test_images_beside_the_splits(tmp_path: Path) -> None:
    save_classes(tmp_path / "train", {"a": 6, "b": 6})
    save_image(tmp_path / "test" / "1.png")
    result = check_results(tmp_path)["NBT108"]
    assert result.is_failed and result.severity == "warning" and result.examples[0].startswith("test/1.png: ")


def test_other_files_are_information(tmp_path: Path) -> None:
    save_classes(tmp_path, {"a": 6, "b": 6})
    (tmp_path / "a" / "labels.csv").write_text("x")
    result = check_results(tmp_path)["NBT108"]
    assert result.is_failed and (result.severity, result.examples) == ("info", ("a/labels.csv: not an image",))
    assert result.message == "1 file passed over: 1 .csv (not an image)."


def test_nothing_passed_over(tmp_path: Path) -> None:
    assert check_results(save_classes(tmp_path, {"a": 6, "b": 6}))["NBT108"].state == "passed"
    assert check_results("digits", 28)["NBT108"].state == "not_applicable"

from __future__ import annotations

from pathlib import Path

from tests.data.checks.checked import check_results, failed_codes
from tests.data.pictures import save_classes


def test_classes_of_one_and_two_images(tmp_path: Path) -> None:
    save_classes(tmp_path, {"a": 3, "b": 2, "c": 1})
    assert failed_codes(tmp_path) == {"NBT105", "NBT107"}
    result = check_results(tmp_path)["NBT107"]
    assert (result.severity, result.count, result.examples) == ("warning", 2, ("b: 2 images", "c: 1 image"))
    assert result.message.startswith("2 classes of 3 cannot be divided into training, validation and test images")


def test_with_official_test_images_two_images_suffice(tmp_path: Path) -> None:
    save_classes(tmp_path / "train", {"a": 3, "b": 2, "c": 1})
    save_classes(tmp_path / "test", {"a": 1, "b": 1, "c": 1})
    assert check_results(tmp_path)["NBT107"].examples == ("c: 2 images",)


def test_with_official_parts_nothing_is_divided(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        save_classes(tmp_path / part, {"a": 1, "b": 1})
    assert check_results(tmp_path)["NBT107"].state == "not_applicable"

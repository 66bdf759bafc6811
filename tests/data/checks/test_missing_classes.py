from __future__ import annotations

from pathlib import Path

from tests.data.checks.checked import check_results, failed_codes
from tests.data.pictures import save_classes


def test_a_class_without_test_images(tmp_path: Path) -> None:
    save_classes(tmp_path / "train", {"a": 6, "b": 6, "c": 6})
    save_classes(tmp_path / "test", {"a": 2, "b": 2})
    assert failed_codes(tmp_path) == {"NBT105"}
    result = check_results(tmp_path)["NBT105"]
    assert (result.severity, result.examples) == ("warning", ("c: no test image",))
    assert "metrics are over the classes present" in result.message


def test_a_class_without_training_images_is_left_out(tmp_path: Path) -> None:
    save_classes(tmp_path / "train", {"a": 6, "c": 6})
    save_classes(tmp_path / "val", {"a": 2, "b": 3, "c": 2})
    save_classes(tmp_path / "test", {"a": 2, "b": 2, "c": 2})
    assert failed_codes(tmp_path) == {"NBT105"}
    result = check_results(tmp_path)["NBT105"]
    assert (result.severity, result.examples) == ("error", ("b: no training image, 5 left out",))
    assert result.message == "1 class without training images left out, with 5 images."


def test_complete_parts_pass(tmp_path: Path) -> None:
    assert failed_codes(save_classes(tmp_path, {"a": 6, "b": 6})) == set()

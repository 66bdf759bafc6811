from __future__ import annotations

from pathlib import Path

from tests.data.checks.checked import check_results, failed_codes
from tests.data.pictures import save_classes, save_image


def test_damaged_and_truncated_images(tmp_path: Path) -> None:
    save_classes(tmp_path, {"a": 30, "b": 30}, suffix=".jpg")
    save_image(tmp_path / "a" / "large.jpg", size=(90, 70))
    content = (tmp_path / "a" / "large.jpg").read_bytes()
    (tmp_path / "a" / "large.jpg").write_bytes(content[: len(content) - 20])
    (tmp_path / "b" / "001.jpg").write_bytes(b"")
    assert failed_codes(tmp_path) == {"NBT109"}
    result = check_results(tmp_path)["NBT109"]
    assert (result.severity, result.count) == ("warning", 2)
    assert result.message == "2 of 61 images (3.3 %) cannot be read and are left out."
    assert "truncated" in result.examples[0] and result.examples[1].startswith(str(Path("b") / "001.jpg"))


def test_many_damaged_images_are_an_error(tmp_path: Path) -> None:
    save_classes(tmp_path, {"a": 9, "b": 9})
    (tmp_path / "a" / "000.png").write_bytes(b"no image")
    assert check_results(tmp_path)["NBT109"].severity == "error"


def test_readable_images_pass(tmp_path: Path) -> None:
    assert check_results(save_classes(tmp_path, {"a": 6, "b": 6}))["NBT109"].message == "All 12 images can be read."

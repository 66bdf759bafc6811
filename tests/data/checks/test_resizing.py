from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.checks.checked import check_results, failed_codes
from tests.data.pictures import save_classes, save_image


def save_sizes(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    for label in "ab":
        for number, size in enumerate(sizes):
            save_image(folder / label / f"{number}.png", size=size)
    return folder


def test_enlarged_images(tmp_path: Path) -> None:
    save_sizes(tmp_path, [(40, 30)] * 9 + [(400, 300)])
    assert failed_codes(tmp_path, size=128) == {"NBT113"}
    result = check_results(tmp_path, size=128)["NBT113"]
    assert result.count == 18 and result.advice == "Use a smaller --image-size, such as 32."
    assert result.message == "18 of 20 images (90.0 %) are enlarged more than twice to 128 px."
    assert failed_codes(tmp_path, size=60) == set()


@pytest.mark.parametrize("size", [(100, 40), (40, 100)])
def test_elongated_images(tmp_path: Path, size: tuple[int, int]) -> None:
    save_sizes(tmp_path, [size] * 3 + [(40, 40)] * 7)
    assert failed_codes(tmp_path) == {"NBT113"}
    result = check_results(tmp_path)["NBT113"]
    assert (result.count, result.severity) == (6, "warning")
    assert "loses 60 % of the area" in result.message and "--resize pad" in result.advice
    assert failed_codes(tmp_path, resize="pad") == failed_codes(tmp_path, resize="squash") == set()


def test_few_elongated_images_pass(tmp_path: Path) -> None:
    assert failed_codes(save_sizes(tmp_path, [(100, 40)] + [(40, 40)] * 39)) == set()


def test_images_in_memory(tmp_path: Path) -> None:
    assert check_results("digits", 28)["NBT113"].state == "not_applicable"
    assert check_results(save_classes(tmp_path, {"a": 6, "b": 6}))["NBT113"].state == "passed"

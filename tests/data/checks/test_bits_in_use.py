from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nbt.checks import CheckResult
from nbt.data.checks.bits_in_use import BitsInUse
from nbt.task.data import decode_selection, select_images
from nbt.task.options import check_task_options
from tests.data.pictures import save_classes


def check(folder: Path) -> CheckResult:
    options = check_task_options(folder, image_size=8)
    results = decode_selection(select_images(options, None), options, 8, None).checks
    return next(result for result in results if result.code == BitsInUse.code)


def save(folder: Path, highest: int, dtype: type = np.uint16, suffix: str = ".png") -> Path:
    for number in range(12):
        path = folder / "ab"[number % 2] / f"{number:02d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), highest - number, dtype)).save(path)
    return folder


def test_12_bits_in_16_bit_files_are_named(tmp_path: Path) -> None:
    result = check(save(tmp_path, 4000))
    assert (result.state, result.severity, result.count) == ("failed", "warning", 12)
    assert result.message.startswith("12 of 12 images (100.0 %) are of 16 bits and use 12 bits, 0 ... 4,095 only")
    assert result.examples[0] == f"{Path('a') / '00.png'}: values up to 4,000"


def test_integers_of_32_bits_are_named(tmp_path: Path) -> None:
    assert "use 10 bits, 0 ... 1,023 only" in check(save(tmp_path, 1000, np.int32, ".tif")).message


@pytest.mark.parametrize("highest", [65535, 32768])
def test_16_bits_pass(tmp_path: Path, highest: int) -> None:
    assert check(save(tmp_path, highest)).state == "passed"


def test_negative_values_pass(tmp_path: Path) -> None:
    assert check(save(tmp_path, -900, np.int32, ".tif")).state == "passed"


def test_8_bits_are_not_applicable(tmp_path: Path) -> None:
    assert check(save_classes(tmp_path, {"a": 5, "b": 5})).state == "not_applicable"

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nbt.checks import CheckResult
from nbt.data.checks.unusual_values import UnusualValues
from nbt.task.data import decode_selection, select_images
from nbt.task.options import check_task_options
from tests.data.pictures import save_classes


def check(folder: Path) -> CheckResult:
    options = check_task_options(folder, image_size=8)
    results = decode_selection(select_images(options, None), options, 8, None).checks
    return next(result for result in results if result.code == UnusualValues.code)


def save(folder: Path, unusual: float) -> Path:
    """Writes 12 images of floats in 0 ... 1, of which the fourth has one value that is unusual."""
    for number in range(12):
        values = np.full((8, 8), 0.5 + number / 100, np.float32)
        if number == 3:
            values[0, 0] = unusual
        path = folder / "ab"[number % 2] / f"{number:02d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    return folder


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.nan, "1 value not finite"),
        (np.inf, "1 value not finite"),
        (-3.4e38, "1 value not finite"),
        (-9999, "values -9999 ... 0.53"),
        (70000, "values 0.53 ... 70000"),
    ],
)
def test_unusual_values_are_named(tmp_path: Path, value: float, text: str) -> None:
    result = check(save(tmp_path, value))
    assert (result.state, result.severity, result.count) == ("failed", "warning", 1)
    assert "not finite or outside 0 ... 1" in result.message
    assert result.examples == (f"{Path('b') / '03.tif'}: {text}",)


def test_usual_floats_pass(tmp_path: Path) -> None:
    assert check(save(tmp_path, 0.9)).message == "All values are finite and in the range 0 ... 1."


def test_8_bits_are_not_applicable(tmp_path: Path) -> None:
    assert check(save_classes(tmp_path, {"a": 5, "b": 5})).state == "not_applicable"

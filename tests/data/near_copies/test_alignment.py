from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from nbt.data.near_copies.alignment import find_crops, search_shifts
from nbt.data.near_copies.thumbnails import sample_crops


def textures(n: int, width: float) -> np.ndarray:
    """Returns noise blurred to a width in pixels, float32 (n, 128, 128)."""
    noise = np.random.default_rng(0).normal(size=(n, 128, 128))
    return (40 * gaussian_filter(noise, (0, width, width)) / width).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 0.95, 0.9])
@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-4, 4)])
def test_the_shift_of_a_crop_is_found(scale: float, shift: tuple[int, int]) -> None:
    """Whole pixels at one of the scales are found without any step."""
    others = textures(4, 1.0)[:, ::2, ::2]
    crop = np.array([scale, scale, *(scale * 2 / 64 * np.array(shift))], dtype=np.float32)
    queries, _ = sample_crops(others, np.tile(crop, (4, 1)))
    assert search_shifts(queries, others) == pytest.approx(np.tile(crop, (4, 1)), abs=1e-6)


@pytest.mark.parametrize("width", [1.0, 4.0])
def test_crops_are_found_from_another_start(width: float) -> None:
    """On fine textures, steps from a start that is some pixels away end elsewhere."""
    others = textures(6, width)[:, :64, :64]
    crop = np.array([0.96, 0.94, 0.06, -0.05], dtype=np.float32)
    queries, _ = sample_crops(others, np.tile(crop, (6, 1)))
    start = np.tile(np.array([1, 1, 0, 0], dtype=np.float32), (6, 1))
    found, correlation = find_crops(queries, others, start, 10)
    assert found == pytest.approx(np.tile(crop, (6, 1)), abs=5e-3)
    assert (correlation > 0.98).all()

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from nbt.data.decoding import resize_pixels
from nbt.data.near_copies.comparison import MAX_DIFFERENCE, compare
from nbt.data.near_copies.simulation import simulate_changes

SIZE = 128
WHOLE = np.array([1, 1, 0, 0], dtype=np.float32)


def cells(n: int, spread: float = 6.0) -> np.ndarray:
    """Returns photographs of one design, as of solar cells: the same bars, and slightly different shades and grain."""
    rng = np.random.default_rng(0)
    bars = np.where(np.arange(SIZE) % 40 < 4, -80.0, 0.0)[:, None]
    shades = spread * SIZE / 4 * gaussian_filter(rng.normal(size=(n, SIZE, SIZE)), (0, 24, 24), mode="reflect")
    grain = gaussian_filter(rng.normal(size=(n, SIZE, SIZE)), (0, 1, 1)) * 4
    grey = (190 + bars + shades + grain).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3)


def fine_textures(n: int) -> np.ndarray:
    """Returns textures whose detail half the size destroys."""
    rng = np.random.default_rng(1)
    noise = gaussian_filter(rng.normal(size=(n, SIZE, SIZE, 3)), (0, 0.8, 0.8, 0))
    return (128 + 110 * noise).clip(0, 255).astype(np.uint8)


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=50)
    return Image.open(buffer).convert("RGB")


COPIES = {
    "jpeg": jpeg,
    "half": lambda image: image.resize((SIZE // 2, SIZE // 2)),
    "crop": lambda image: image.crop((6, 6, SIZE - 6, SIZE - 6)),
    "crop at a side": lambda image: image.crop((5, 1, SIZE - 1, SIZE - 5)),
}


def copies(images: np.ndarray, kind: str) -> np.ndarray:
    return np.stack([resize_pixels(np.asarray(COPIES[kind](Image.fromarray(image))), SIZE) for image in images])


def differences(queries: np.ndarray, others: np.ndarray) -> np.ndarray:
    return compare(queries, others, np.tile(WHOLE, (len(queries), 1)))


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("make", [cells, fine_textures])
def test_copies_differ_by_what_the_copy_changes(make, kind: str) -> None:  # type: ignore[no-untyped-def]
    images = make(8)
    assert (differences(copies(images, kind), images) <= MAX_DIFFERENCE).all()
    assert (differences(images, copies(images, kind)) <= MAX_DIFFERENCE).all()


@pytest.mark.parametrize("make", [cells, fine_textures])
def test_other_objects_of_one_design_differ_by_more(make) -> None:  # type: ignore[no-untyped-def]
    images = make(9)
    assert (differences(images[1:], images[:-1]) > 2 * MAX_DIFFERENCE).all()


def test_the_simulation_changes_fine_detail_and_not_the_mean_of_a_neighbourhood() -> None:
    changes = simulate_changes(fine_textures(3))
    assert changes.shape == (3, 3, 3, 64, 64)
    luma = changes[:, :, 0]
    blocks = luma.reshape(3, 3, 4, 16, 4, 16).mean((3, 5))
    assert (luma.std((2, 3))[:2] > 1).all()
    assert (blocks.std((2, 3))[:2] < 0.25 * luma.std((2, 3))[:2]).all()

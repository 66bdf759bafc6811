"""Generated images for benchmarks: stripes whose direction, width and colour depend on the class, on backgrounds.

Each image has its own background, so that images are as unlike as photographs: among stripes alone, the search for near
copies compares many times as many pairs.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def write_images(folder: Path, *, images: int, classes: int, size: int, seed: int = 0) -> Path:
    """Writes a folder of JPEG files with one subfolder per class; returns the folder, and reuses a complete one.

    Args:
        folder: Parent of the folder.
        images: Number of all images; the classes have equal numbers, as far as possible.
        classes: Number of classes.
        size: Height and width in pixels.
        seed: Seed of the images.
    """
    target = folder / f"generated-{images}-{classes}-{size}"
    done = target.with_suffix(".done")
    if done.exists():
        return target
    for label in range(classes):
        (target / f"c{label:04d}").mkdir(parents=True, exist_ok=True)

    def write(number: int) -> None:
        label = number % classes
        picture = draw(label, size, np.random.default_rng([seed, number]))
        Image.fromarray(picture).save(target / f"c{label:04d}" / f"{number:07d}.jpg", quality=85)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(write, range(images), chunksize=256):
            pass
    done.touch()
    return target


def draw(label: int, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Returns an image of a class, uint8 (size, size, 3)."""
    kind = np.random.default_rng([7, label])
    angle = kind.uniform(0, np.pi) + rng.normal(0, 0.1)
    cycles, colour = kind.uniform(2, 8) * rng.uniform(0.85, 1.2), kind.uniform(0.3, 1.0, 3)
    y, x = np.mgrid[:size, :size] / size
    wave = np.sin(2 * np.pi * cycles * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 2 * np.pi))
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    background = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)
    pixels = background + 70 * wave[..., None] * colour + rng.normal(0, 25, (size, size, 1))
    return np.asarray(np.clip(pixels, 0, 255), dtype=np.uint8)

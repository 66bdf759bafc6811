"""The embedded dataset: scikit-learn's handwritten digits (Alpaydin and Kaynak 1998, UCI)."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nbt.data.listing import Listing

SOURCE_CLASSES = range(5)
TARGET_CLASSES = range(5, 10)

_MAX_GREY_VALUE = 16.0
_FILE = "datasets/data/digits.csv.gz"


def read_digits(*, source: bool = False) -> Listing:
    """Returns the 8 x 8 grey images of five digits, as RGB.

    Args:
        source: True for the digits 0-4, on which a backbone is pretrained; False for 5-9, the target.
    """
    images, labels = _load_digits()
    classes = SOURCE_CLASSES if source else TARGET_CLASSES
    selected = np.isin(labels, list(classes))
    grey = np.rint(images[selected] * (255.0 / _MAX_GREY_VALUE)).astype(np.uint8)
    return Listing(
        name="digits source" if source else "digits",
        class_names=tuple(str(digit) for digit in classes),
        items=np.repeat(grey[..., None], 3, axis=3),
        labels=labels[selected].astype(np.int64) - classes[0],
        roles=np.full(int(selected.sum()), "", dtype="<U5"),
    )


@cache
def _load_digits() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the images, (1797, 8, 8), and the digits, (1797,), as `sklearn.datasets.load_digits` does."""
    # Importing scikit-learn takes about a second of the start of every search on the embedded datasets.
    spec = find_spec("sklearn")
    path = Path(next(iter(spec.submodule_search_locations or [""]))) / _FILE if spec is not None else Path()
    if path.is_file():
        table = np.loadtxt(path, delimiter=",")
        return table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images, digits.target

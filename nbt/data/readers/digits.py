"""The embedded dataset: scikit-learn's handwritten digits (Alpaydin and Kaynak 1998, UCI)."""

from __future__ import annotations

import numpy as np

from nbt.data.listing import Listing

SOURCE_CLASSES = range(5)
TARGET_CLASSES = range(5, 10)

_MAX_GREY_VALUE = 16.0


def read_digits(*, source: bool = False) -> Listing:
    """Returns the 8 x 8 grey images of five digits, as RGB.

    Args:
        source: True for the digits 0-4, on which a backbone is pretrained; False for 5-9, the target.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    classes = SOURCE_CLASSES if source else TARGET_CLASSES
    selected = np.isin(digits.target, list(classes))
    grey = np.rint(digits.images[selected] * (255.0 / _MAX_GREY_VALUE)).astype(np.uint8)
    return Listing(
        name="digits source" if source else "digits",
        class_names=tuple(str(digit) for digit in classes),
        items=np.repeat(grey[..., None], 3, axis=3),
        labels=digits.target[selected].astype(np.int64) - classes[0],
        roles=np.full(int(selected.sum()), "", dtype="<U5"),
    )

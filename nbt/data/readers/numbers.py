"""The embedded dataset of two-digit numbers, which are put together from scikit-learn's handwritten digits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nbt.data.listing import Listing
from nbt.data.readers.digits import SOURCE_CLASSES, TARGET_CLASSES, read_digits

TRAIN_IMAGES, TEST_IMAGES, SOURCE_IMAGES = 40, 20, 20
"""Images per number: for training and validation, for test, and of the source."""

_TEST_EVERY = 3  # every third image of a digit occurs in test images only
_SEED = 0x4E554D


def read_numbers(*, source: bool = False) -> Listing:
    """Returns 16 x 16 grey images of two digits side by side, as RGB; each of the 25 pairs of five digits is a class.

    The images of a number are distinct pairs of handwritten digits. No handwritten digit occurs both in a training and
    in a test image.

    Args:
        source: True for the digits 0-4, on which a backbone is pretrained; False for 5-9, the target.
    """
    digits = read_digits(source=source)
    names = [str(digit) for digit in (SOURCE_CLASSES if source else TARGET_CLASSES)]
    pixels = np.asarray(digits.items)
    rng = np.random.default_rng([_SEED, source])
    parts = {"": SOURCE_IMAGES} if source else {"": TRAIN_IMAGES, "test": TEST_IMAGES}
    images: list[npt.NDArray[np.uint8]] = []
    labels: list[int] = []
    roles: list[str] = []
    for number in range(len(names) ** 2):
        for role, n in parts.items():
            tens, units = (_members(digits.labels, digit, role) for digit in divmod(number, len(names)))
            pairs = rng.permutation(len(tens) * len(units))[:n]
            images += [_draw(pixels[tens[pair // len(units)]], pixels[units[pair % len(units)]]) for pair in pairs]
            labels += [number] * n
            roles += [role] * n
    return Listing(
        name="numbers source" if source else "numbers",
        class_names=tuple(tens + units for tens in names for units in names),
        items=np.stack(images),
        labels=np.array(labels, dtype=np.int64),
        roles=np.array(roles, dtype="<U5"),
    )


def _members(labels: npt.NDArray[np.int64], digit: int, role: str) -> npt.NDArray[np.int64]:
    """Returns the indices of the handwritten digits that occur in the images of a part."""
    members = np.flatnonzero(labels == digit)
    is_test = np.arange(len(members)) % _TEST_EVERY == 0
    chosen: npt.NDArray[np.int64] = members[is_test if role == "test" else ~is_test]
    return chosen


def _draw(tens: npt.NDArray[np.uint8], units: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Returns a square image, (16, 16, 3), with two digits, (8, 8, 3), in the middle of its height."""
    return np.pad(np.concatenate([tens, units], axis=1), ((4, 4), (0, 0), (0, 0)))

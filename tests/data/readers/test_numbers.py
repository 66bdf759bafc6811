"""The embedded two-digit numbers: their classes, and that no handwritten digit is in training and test images."""

from __future__ import annotations

import numpy as np

from nbt.data.catalog import dataset_spec
from nbt.data.readers.digits import read_digits
from nbt.data.readers.numbers import SOURCE_IMAGES, TEST_IMAGES, TRAIN_IMAGES, read_numbers


def halves(images: np.ndarray) -> set[bytes]:
    """Returns the digits in the images, which are 8 x 8 in the middle of the height."""
    return {image[4:12, columns].tobytes() for image in images for columns in (slice(0, 8), slice(8, 16))}


def test_classes_and_sizes_are_those_of_the_catalog() -> None:
    numbers, spec = read_numbers(), dataset_spec("numbers")
    assert numbers.class_names[:6] == ("55", "56", "57", "58", "59", "65") and numbers.class_names[-1] == "99"
    assert (len(numbers.class_names), len(numbers)) == (spec.classes, spec.images)
    assert np.bincount(numbers.labels[numbers.roles == ""]).tolist() == [TRAIN_IMAGES] * 25
    assert np.bincount(numbers.labels[numbers.roles == "test"]).tolist() == [TEST_IMAGES] * 25
    source = read_numbers(source=True)
    assert (source.name, source.class_names[0], source.class_names[-1]) == ("numbers source", "00", "44")
    assert np.bincount(source.labels).tolist() == [SOURCE_IMAGES] * 25


def test_an_image_shows_the_digits_of_its_class() -> None:
    numbers, digits = read_numbers(), read_digits()
    assert isinstance(numbers.items, np.ndarray) and numbers.items.shape[1:] == (16, 16, 3)
    digit_of = {image.tobytes(): str(label + 5) for image, label in zip(digits.items, digits.labels, strict=True)}
    for image, label in zip(numbers.items, numbers.labels, strict=True):
        shown = "".join(digit_of[image[4:12, columns].tobytes()] for columns in (slice(0, 8), slice(8, 16)))
        assert shown == numbers.class_names[label]
        assert not image[:4].any() and not image[12:].any()


def test_training_and_test_images_share_no_handwritten_digit_and_none_is_repeated() -> None:
    numbers = read_numbers()
    images, is_test = np.asarray(numbers.items), numbers.roles == "test"
    assert halves(images[is_test]) & halves(images[~is_test]) == set()
    assert len(np.unique(images, axis=0)) == len(images)
    np.testing.assert_array_equal(read_numbers().items, images, "every call returns the same images")

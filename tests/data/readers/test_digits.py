from importlib.machinery import ModuleSpec

import numpy as np
import pytest
from sklearn.datasets import load_digits

from nbt.data.readers import digits


@pytest.mark.parametrize("spec", ["installed", "elsewhere", None])
def test_the_images_are_those_of_scikit_learn(spec: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if spec != "installed":
        found = None if spec is None else ModuleSpec("sklearn", None)
        monkeypatch.setattr(digits, "find_spec", lambda name: found)
    expected = load_digits()
    images, labels = digits._load_digits.__wrapped__()
    np.testing.assert_array_equal(images, expected.images)
    np.testing.assert_array_equal(labels, expected.target)


def test_the_target_has_the_last_five_digits_and_the_source_the_first() -> None:
    target, source = digits.read_digits(), digits.read_digits(source=True)
    assert target.class_names == tuple("56789") and source.class_names == tuple("01234")
    assert len(target.labels) + len(source.labels) == len(load_digits().target)
    assert target.items.dtype == np.uint8 and target.items.max() == 255
    assert set(np.unique(target.labels)) == set(range(5))

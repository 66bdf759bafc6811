from __future__ import annotations

from dataclasses import replace

import pytest

from nbt.tuning.experience.dataset_names import canonical_dataset, is_same_dataset
from tests.tuning.synthetic import target_table


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cub", "cub"), ("CUB_200_2011", "cub"), ("/data/cub50", "cub"), ("photos/DTD10", "dtd10"), ("dtd10", "dtd10")],
)
def test_names_of_one_dataset_are_equal(name: str, expected: str) -> None:
    assert canonical_dataset(name) == expected


@pytest.mark.parametrize(
    ("dataset", "data_hash", "expected"),
    [
        ("CUB_200_2011", "another", True),
        ("unknown", "same", True),
        ("Cub", "another", True),
        ("dtd10", "another", False),
    ],
)
def test_tables_are_compared_by_name_and_by_images(dataset: str, data_hash: str, expected: bool) -> None:
    header = replace(target_table().header, dataset="cub", data_hash="same")
    other = replace(header, dataset=dataset, data_hash=data_hash)
    assert is_same_dataset(header, other) is is_same_dataset(other, header) is expected

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nbt.errors import UsageError
from nbt.report.comparison.same_data import check_same_data
from nbt.tuning.storage.records import StudyRecord
from tests.report.comparison.comparisons import study


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"backbone": "resnet18", "seed": 5, "metric": "log_loss"},
        {"data_hash": "other", "image_size": 224},
        {"content_hash": None},
    ],
)
def test_recipes_of_the_same_images_can_be_compared(changes: dict[str, Any]) -> None:
    check_same_data([study("a"), study("b", **changes)])


def with_class_images(record: StudyRecord) -> StudyRecord:
    return replace(record, class_images=(1, *record.class_images[1:]))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (study("b", content_hash="other", dataset="dogs"), "different data \\(cub, and dogs\\)"),
        (study("b", data_hash="other", content_hash=None, dataset="dogs"), "different data"),
        (study("b", data_hash="other", classes=3), "and cub with classes 3\\)"),
        (study("b", data_hash="other", shots=9, seed=4), "cub with shots 9, seed 4"),
        (with_class_images(study("b", data_hash="other")), "different data"),
        (study("b", scenario="class", tasks=3), "different streams of tasks"),
    ],
)
def test_other_data_are_refused_with_their_names(other: StudyRecord, message: str) -> None:
    with pytest.raises(UsageError, match=f"studies a and b cannot be compared: .*{message}"):
        check_same_data([study("a"), other])


def test_every_study_is_compared_with_the_first() -> None:
    with pytest.raises(UsageError, match="a and c cannot"):
        check_same_data([study("a"), study("b"), study("c", content_hash="other")])


def test_shots_of_one_seed_are_the_same_images() -> None:
    options = {"shots": 9, "seed": 4}
    check_same_data([study("a", **options), study("b", data_hash="other", image_size=64, **options)])

"""Scenarios: division of images and classes into tasks, and the active outputs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.data.splits import Split
from nbt.errors import UsageError
from nbt.training.continual.scenarios import (
    class_mask,
    class_order,
    make_stages,
    predicted_outputs,
    seen_classes,
    trained_outputs,
)

ROLES = ("train", "val", "test")


def fake_task(classes: int = 6, train: int = 10, val: int = 4, test: int = 5) -> Any:
    """Returns a task without images, whose roles are mixed over the indices."""
    per_class = train + val + test
    labels = np.tile(np.arange(classes), per_class)
    role = np.repeat(np.arange(per_class), classes)
    bounds = np.searchsorted([train, train + val], role, side="right")
    split = Split(*(np.flatnonzero(bounds == number) for number in range(3)))
    names = tuple(f"c{label}" for label in range(classes))
    return SimpleNamespace(dataset="fake", labels=labels, split=split, n_classes=classes, class_names=names)


@given(
    scenario=st.sampled_from(["data", "task", "class"]),
    classes=st.integers(4, 9),
    train=st.integers(2, 11),
    tasks=st.integers(2, 4),
    seed=st.integers(0, 5),
)
def test_every_image_of_a_role_is_in_one_task(scenario: str, classes: int, train: int, tasks: int, seed: int) -> None:
    if scenario == "task" and 2 * tasks > classes:
        return
    task = fake_task(classes, train)
    stages = make_stages(task, scenario, tasks, seed)
    assert [stage.number for stage in stages] == list(range(1, tasks + 1))
    for role in ROLES:
        images = np.concatenate([stage.images(role) for stage in stages])
        assert sorted(images.tolist()) == getattr(task.split, role).tolist()
        assert all((np.diff(stage.images(role)) > 0).all() for stage in stages), "sorted"
    assert sorted(class_order(task, stages)) == sorted(task.class_names)


@given(classes=st.integers(2, 7), train=st.integers(3, 12), tasks=st.integers(2, 5), seed=st.integers(0, 5))
def test_data_incremental_tasks_have_equal_shares_of_every_class(
    classes: int, train: int, tasks: int, seed: int
) -> None:
    task = fake_task(classes, train)
    stages = make_stages(task, "data", tasks, seed)
    for role in ROLES:
        counts = np.array([np.bincount(task.labels[stage.images(role)], minlength=classes) for stage in stages])
        assert (counts.max(axis=0) - counts.min(axis=0) <= 1).all()
        assert counts.sum(axis=1).max() - counts.sum(axis=1).min() <= 1
    assert all(stage.classes == tuple(range(classes)) for stage in stages)


@pytest.mark.parametrize("scenario", ["task", "class"])
def test_classes_are_divided_evenly_in_a_seeded_order(scenario: str) -> None:
    task = fake_task(classes=7)
    stages = make_stages(task, scenario, 3, seed=0)
    assert [len(stage.classes) for stage in stages] == [3, 2, 2]
    for stage in stages:
        for role in ROLES:
            assert set(task.labels[stage.images(role)].tolist()) == set(stage.classes)
    assert [stage.classes for stage in make_stages(task, scenario, 3, seed=0)] == [stage.classes for stage in stages]
    orders = {class_order(task, make_stages(task, scenario, 3, seed=seed)) for seed in range(6)}
    assert len(orders) > 3
    assert class_order(task, stages) == tuple(f"c{label}" for stage in stages for label in stage.classes)


def test_roles_are_divided_independently() -> None:
    task = fake_task()
    reduced = fake_task()
    reduced.split = Split(task.split.train, task.split.val[:3], task.split.test)
    for a, b in zip(make_stages(task, "data", 3, 0), make_stages(reduced, "data", 3, 0), strict=True):
        assert a.train.tolist() == b.train.tolist() and a.test.tolist() == b.test.tolist()


@pytest.mark.parametrize(
    ("scenario", "tasks", "message"),
    [
        ("class", 7, "6 classes; give --tasks 6"),
        ("task", 7, "6 classes"),
        ("task", 4, "one class.*--tasks 3"),
        ("data", 31, "task 31 would have no test image; fake has 30 in all"),
        ("domain", 2, "scenario 'domain'"),
    ],
)
def test_impossible_streams_are_refused(scenario: str, tasks: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_stages(fake_task(), scenario, tasks, 0)


def test_a_task_without_training_images_is_refused() -> None:
    with pytest.raises(UsageError, match="task 13 would have no training image; fake has 12 in all"):
        make_stages(fake_task(train=2), "data", 13, 0)


def test_a_task_without_evaluation_images_is_refused_only_if_they_are_used() -> None:
    task = fake_task(val=0)
    make_stages(task, "class", 2, 0)
    with pytest.raises(UsageError, match="no validation image"):
        make_stages(task, "class", 2, 0, evaluate_on="val")
    with pytest.raises(UsageError, match="evaluate on 'train'"):
        make_stages(task, "class", 2, 0, evaluate_on="train")
    with pytest.raises(UsageError, match="use --scenario class"):
        make_stages(fake_task(classes=3), "task", 2, 0)


def test_outputs_of_the_three_scenarios() -> None:
    task = fake_task(classes=4)
    stages = make_stages(task, "class", 2, 0)
    first, second = stages[0].classes, stages[1].classes
    masks = [class_mask(4, first).tolist(), class_mask(4, second).tolist()]
    all_outputs = [True] * 4
    assert seen_classes(stages, 1) == first and seen_classes(stages, 2) == first + second

    def trained(scenario: str, squared: bool) -> list[Any]:
        return [trained_outputs(stages, scenario, n, 4, squared=squared).tolist() for n in (1, 2)]

    assert trained("data", False) == trained("data", True) == [all_outputs, all_outputs]
    assert trained("task", False) == trained("task", True) == masks
    assert trained("class", False) == [masks[0], all_outputs], "cross-entropy: classes seen so far"
    assert trained("class", True) == [all_outputs, all_outputs], "squared error: all outputs"
    predicted = {
        scenario: [
            [predicted_outputs(stages, scenario, after, number, 4).tolist() for number in (1, 2)] for after in (0, 1, 2)
        ]
        for scenario in ("task", "class")
    }
    assert predicted["task"] == [masks, masks, masks]
    assert predicted["class"] == [[[False] * 4] * 2, [masks[0]] * 2, [all_outputs] * 2]

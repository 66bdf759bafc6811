"""Evaluation and all else where nothing is trained: large images go through fewer at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nbt import devices
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.continual.unaugmented_inputs import EvaluationInputs
from nbt.training.evaluation import evaluate_model
from nbt.training.recipe.augmentation import AugmentationPlan
from nbt.training.worker.context import WorkerContext
from tests.training.runs import losses, run

SMALL = TransferSettings(epochs=2, head_lr=0.1, body_lr=0.05, batch_size=4, views=1)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has images of 28 px count as large: of 4 times the usual size, so that 16 times fewer fit."""
    monkeypatch.setattr(devices, "_REFERENCE_IMAGE_SIZE", 7)


def spy(context: WorkerContext, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns the numbers of images that are asked for together, as they come."""
    sizes: list[int] = []
    load = context.load_images

    def counted(index: torch.Tensor, plan: AugmentationPlan) -> torch.Tensor:
        sizes.append(len(index))
        return load(index, plan)

    monkeypatch.setattr(context, "load_images", counted)
    return sizes


def whole(n: int, together: int) -> list[int]:
    return [len(part) for part in torch.arange(n).split(together)]


def test_a_whole_model_is_evaluated_on_fewer_with_the_same_result(
    digits: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = WorkerContext(digits)
    sizes, index = spy(context, monkeypatch), digits.split.train
    expected = evaluate_model(context, context.model, index)
    assert sizes == whole(len(index), 128)
    sizes.clear()
    monkeypatch.setattr(devices, "_REFERENCE_IMAGE_SIZE", 7)
    assert evaluate_model(context, context.model, index) == pytest.approx(expected, rel=1e-5)
    assert sizes == whole(len(index), 8)


@pytest.mark.usefixtures("large")
def test_a_trial_validates_on_fewer(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    context = WorkerContext(digits)
    sizes = spy(context, monkeypatch)
    run(digits, SMALL, context=context)
    assert max(sizes) == 8


@pytest.mark.usefixtures("large")
def test_inputs_as_they_are_come_in_fewer(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    context = WorkerContext(digits)
    sizes = spy(context, monkeypatch)
    inputs = EvaluationInputs(context, 0)
    assert inputs.accuracy(context.model, digits.split.train, np.ones(5, dtype=np.bool_)) >= 0
    assert sizes == whole(len(digits.split.train), 8)


@pytest.mark.usefixtures("large")
def test_frozen_units_run_on_fewer_and_always_as_many(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SMALL.replace(frozen_depth=0.67, augmentation="crop")
    context = WorkerContext(digits)
    sizes = spy(context, monkeypatch)
    found = losses(run(digits, settings, context=context))
    assert set(sizes) == {4}
    with monkeypatch.context() as patch:
        patch.setattr(devices, "_REFERENCE_IMAGE_SIZE", 224)
        expected = losses(run(digits, settings, context=WorkerContext(digits)))
    assert np.array(found) == pytest.approx(np.array(expected), rel=1e-3)

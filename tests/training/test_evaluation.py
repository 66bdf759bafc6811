"""Evaluation, and batch sizes of inference: batches of large images are smaller, with the same result."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nbt import devices
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.continual.unaugmented_inputs import EvaluationInputs
from nbt.training.evaluation import evaluate, evaluate_model, predictions_from_logits
from nbt.training.metrics import COMPUTE
from nbt.training.recipe.augmentation import AugmentationPlan
from nbt.training.worker.context import WorkerContext
from tests.training.runs import losses, run

SMALL = TransferSettings(epochs=2, head_lr=0.1, body_lr=0.05, batch_size=4, views=1)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes 28 px count as 4 times the reference image size, so that batches are 16 times smaller."""
    monkeypatch.setattr(devices, "_REFERENCE_IMAGE_SIZE", 7)


def spy_on_batch_sizes(context: WorkerContext, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that receives the number of images of every call of `load_images`."""
    sizes: list[int] = []
    load = context.load_images

    def recording_load(index: torch.Tensor, plan: AugmentationPlan) -> torch.Tensor:
        sizes.append(len(index))
        return load(index, plan)

    monkeypatch.setattr(context, "load_images", recording_load)
    return sizes


def batch_sizes(n: int, batch_size: int) -> list[int]:
    return [len(part) for part in torch.arange(n).split(batch_size)]


def test_smaller_batches_give_the_same_evaluation(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    context = WorkerContext(digits)
    sizes, index = spy_on_batch_sizes(context, monkeypatch), digits.split.train
    expected = evaluate_model(context, context.model, index)
    assert sizes == batch_sizes(len(index), 128)
    sizes.clear()
    monkeypatch.setattr(devices, "_REFERENCE_IMAGE_SIZE", 7)
    evaluation = evaluate_model(context, context.model, index)
    assert (evaluation.loss, evaluation.accuracy) == pytest.approx((expected.loss, expected.accuracy), rel=1e-5)
    assert sizes == batch_sizes(len(index), 8)


@pytest.mark.usefixtures("large")
def test_a_trial_validates_in_smaller_batches(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    context = WorkerContext(digits)
    sizes = spy_on_batch_sizes(context, monkeypatch)
    run(digits, SMALL, context=context)
    assert max(sizes) == 8


@pytest.mark.usefixtures("large")
def test_unaugmented_inputs_come_in_smaller_batches(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    context = WorkerContext(digits)
    sizes = spy_on_batch_sizes(context, monkeypatch)
    inputs = EvaluationInputs(context, 0)
    assert inputs.accuracy(context.model, digits.split.train, np.ones(5, dtype=np.bool_)) >= 0
    assert sizes == batch_sizes(len(digits.split.train), 8)


@pytest.mark.usefixtures("large")
def test_frozen_units_run_on_smaller_batches_of_fixed_size(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SMALL.replace(frozen_depth=0.67, augmentation="crop")
    context = WorkerContext(digits)
    sizes = spy_on_batch_sizes(context, monkeypatch)
    smaller_batches = losses(run(digits, settings, context=context))
    assert set(sizes) == {4}
    with monkeypatch.context() as patch:
        patch.setattr(devices, "_REFERENCE_IMAGE_SIZE", 224)
        expected = losses(run(digits, settings, context=WorkerContext(digits)))
    assert np.array(smaller_batches) == pytest.approx(np.array(expected), rel=1e-3)


class CountingLogits:
    """Classifier that returns given logits, in the order of the batches."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits, self.first = logits, 0

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = self.logits[self.first : self.first + len(inputs)]
        self.first += len(inputs)
        return rows


def test_the_evaluation_covers_all_batches() -> None:
    logits, labels = torch.randn(50, 4, generator=torch.manual_seed(0)), torch.arange(50) % 4
    batches = zip(torch.zeros(50, 1).split(16), labels.split(16), strict=True)
    evaluation = evaluate(CountingLogits(logits), batches, torch.device("cpu"), np.arange(100, 150))
    predictions = predictions_from_logits(logits, labels)
    assert evaluation.predictions is not None
    np.testing.assert_array_equal(evaluation.predictions.index, np.arange(100, 150))
    np.testing.assert_array_equal(evaluation.predictions.log_probabilities, predictions.log_probabilities)
    values = {**evaluation.metrics, "accuracy": evaluation.accuracy, "log_loss": evaluation.loss}
    assert values.keys() == COMPUTE.keys()
    for name, compute in COMPUTE.items():
        assert values[name] == pytest.approx(compute(predictions), rel=1e-6), name


def test_a_loss_that_is_not_finite_gives_no_metrics() -> None:
    logits = torch.full((8, 3), float("nan"))
    evaluation = evaluate(CountingLogits(logits), iter([(logits, torch.arange(8) % 3)]), torch.device("cpu"))
    assert np.isnan(evaluation.loss) and evaluation.metrics == {} and evaluation.predictions is None

"""Unaugmented inputs: the same results with and without frozen units and their cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nbt.task.task import Task
from nbt.training.continual.unaugmented_inputs import EvaluationInputs
from nbt.training.evaluation import evaluate_model
from nbt.training.worker.context import WorkerContext


@pytest.mark.parametrize("frozen", [0, 2, 3])
@pytest.mark.parametrize("role", ["train", "test"])
def test_accuracy_is_that_of_the_whole_model(digits: Task, frozen: int, role: str) -> None:
    context = WorkerContext(digits)
    index = getattr(digits.split, role)
    all_outputs = np.ones(5, dtype=np.bool_)
    expected = evaluate_model(context, context.model, index).accuracy
    assert EvaluationInputs(context, frozen).accuracy(context.model, index, all_outputs) == pytest.approx(expected)


def test_only_allowed_outputs_are_predicted(digits: Task) -> None:
    context = WorkerContext(digits)
    inputs = EvaluationInputs(context, 0)
    index = digits.split.test[digits.labels[digits.split.test] == 3]
    only = np.arange(5) == 3
    assert inputs.accuracy(context.model, index, only) == 1.0
    assert inputs.accuracy(context.model, index, ~only) == 0.0


def test_images_with_logits_that_are_not_finite_are_incorrect(digits: Task) -> None:
    def broken(inputs: torch.Tensor, start: int) -> torch.Tensor:
        return torch.full((len(inputs), 5), torch.nan)

    inputs = EvaluationInputs(WorkerContext(digits), 0)
    first = digits.split.test[digits.labels[digits.split.test] == 0]
    assert inputs.accuracy(broken, first, np.ones(5, dtype=np.bool_)) == 0.0


def test_batches_are_in_order_with_their_labels(digits: Task) -> None:
    inputs = EvaluationInputs(WorkerContext(digits), 2)
    index = digits.split.train[::-1].copy()
    batches = list(inputs.batches(index, size=7))
    assert [len(truth) for _, truth in batches[:-1]] == [7] * (len(batches) - 1)
    assert torch.cat([truth for _, truth in batches]).tolist() == digits.labels[index].tolist()
    assert list(inputs.batches(index[:0])) == []

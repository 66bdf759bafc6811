"""The penalty of a stage: equal to its derivation where the learning rate allows it, clipped elsewhere."""

from __future__ import annotations

import pytest
import torch

from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.continual.penalty import make_penalty, peak_learning_rates
from nbt.training.worker.context import WorkerContext
from nbt.transfer.curvature.estimate import DiagonalCurvature
from tests.training.continual.streams import make_stream_settings, run

RECIPE = TransferSettings(
    head_lr=0.1, body_lr=0.01, layer_lr_shape=(-1.0, 0.0, 0.0), penalty_strength=2.0, frozen_depth=0.34
)


def penalty_gradients(task: Task, recipe: TransferSettings, size: float) -> dict[str, float]:
    """Returns the gradients of the penalty with 10 images, a constant curvature and a deviation of 1, by name."""
    model, _ = WorkerContext(task).prepare_model(recipe, 0)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    diagonal = DiagonalCurvature({name: torch.full_like(p, size) for name, p in trained.items()}, 10)
    centre = {name: parameter.detach() - 1.0 for name, parameter in trained.items()}
    penalty = make_penalty([diagonal], centre, model, recipe, 10)
    penalty.bind(trained)
    penalty.add_to_gradients()
    return {name: float(p.grad.mean()) for name, p in trained.items() if p.grad is not None}


def test_a_small_curvature_is_not_clipped(digits: Task) -> None:
    gradients = penalty_gradients(digits, RECIPE, 3.0)
    assert all(gradient == pytest.approx(2.0 * 3.0 / 10, rel=1e-4) for gradient in gradients.values())


def test_a_large_curvature_is_clipped_by_the_learning_rate(digits: Task) -> None:
    gradients = penalty_gradients(digits, RECIPE, 1e6)
    model, _ = WorkerContext(digits).prepare_model(RECIPE, 0)
    rates = peak_learning_rates(model, RECIPE)
    assert rates.keys() == gradients.keys()
    assert rates["head.bias"] == 0.1 and {rates[name] for name in rates if name.startswith("units.1.")} == {0.01}
    assert all(gradients[name] * rate == pytest.approx(0.5, rel=1e-4) for name, rate in rates.items())


def test_the_curvature_is_not_clipped_with_adamw(digits: Task) -> None:
    gradients = penalty_gradients(digits, RECIPE.replace(optimizer="adamw"), 1e6)
    assert all(gradient == pytest.approx(2e5, rel=1e-4) for gradient in gradients.values())


def test_a_strong_penalty_does_not_diverge(digits: Task) -> None:
    recipe = {"epochs": 4, "body_lr": 0.05, "head_lr": 0.1}
    settings = make_stream_settings("ewc", "data", tasks=3, recipe={**recipe, "penalty_strength": 1e8})
    context = WorkerContext(digits)
    penalised = run(digits, settings, context=context)
    assert not penalised.diverged
    free = run(
        digits,
        make_stream_settings("ewc", "data", tasks=3, recipe={**recipe, "penalty_strength": 0.0}),
        context=context,
    )
    assert penalised.scores[0].accuracies == free.scores[0].accuracies
    assert penalised.matrix.std(axis=0).max() < free.matrix.std(axis=0).max(), "the weights hardly change"

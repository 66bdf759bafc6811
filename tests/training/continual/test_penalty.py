"""The penalty of a task: as derived where the optimiser can follow it, and no steeper."""

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


def scaled_deviations(task: Task, recipe: TransferSettings, size: float) -> dict[str, float]:
    """What the penalty on 10 images adds to gradients of weights 1 off the centre, for a curvature of one size."""
    model, _ = WorkerContext(task).prepare_model(recipe, 0)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    diagonal = DiagonalCurvature({name: torch.full_like(p, size) for name, p in trained.items()}, 10)
    centre = {name: parameter.detach() - 1.0 for name, parameter in trained.items()}
    penalty = make_penalty([diagonal], centre, model, recipe, 10)
    penalty.bind(trained)
    penalty.add_to_gradients()
    return {name: float(p.grad.mean()) for name, p in trained.items() if p.grad is not None}


def test_a_mild_penalty_is_as_derived(digits: Task) -> None:
    assert all(
        pull == pytest.approx(2.0 * 3.0 / 10, rel=1e-4) for pull in scaled_deviations(digits, RECIPE, 3.0).values()
    )


def test_a_steep_penalty_is_cut_to_what_each_rate_can_follow(digits: Task) -> None:
    found = scaled_deviations(digits, RECIPE, 1e6)
    model, _ = WorkerContext(digits).prepare_model(RECIPE, 0)
    rates = peak_learning_rates(model, RECIPE)
    assert rates.keys() == found.keys()
    assert rates["head.bias"] == 0.1 and {rates[name] for name in rates if name.startswith("units.1.")} == {0.01}
    assert all(found[name] * rate == pytest.approx(0.5, rel=1e-4) for name, rate in rates.items())


def test_adamw_takes_it_whole(digits: Task) -> None:
    found = scaled_deviations(digits, RECIPE.replace(optimizer="adamw"), 1e6)
    assert all(pull == pytest.approx(2e5, rel=1e-4) for pull in found.values())


def test_a_penalty_of_any_strength_does_not_diverge(digits: Task) -> None:
    recipe = {"epochs": 4, "body_lr": 0.05, "head_lr": 0.1}
    settings = make_stream_settings("ewc", "data", tasks=3, recipe={**recipe, "penalty_strength": 1e8})
    context = WorkerContext(digits)
    firm = run(digits, settings, context=context)
    assert not firm.diverged
    free = run(
        digits,
        make_stream_settings("ewc", "data", tasks=3, recipe={**recipe, "penalty_strength": 0.0}),
        context=context,
    )
    assert firm.scores[0].accuracies == free.scores[0].accuracies
    assert firm.matrix.std(axis=0).max() < free.matrix.std(axis=0).max(), "it holds the weights where they are"

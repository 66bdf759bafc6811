"""Heads that are fitted by a ridge regression on a stage's images, around which a network is linearised."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nbt.errors import UsageError
from nbt.training.continual.incremental_ridge import IncrementalRidge
from nbt.training.continual.scenarios import ContinualStage
from nbt.training.continual.unaugmented_inputs import EvaluationInputs


def one_hot(labels: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Returns one-hot labels, float64 (n, C)."""
    return F.one_hot(labels, n_classes).double()


def fit_ridge_head(
    inputs: EvaluationInputs, stage: ContinualStage, n_classes: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the weights, (C, D), and biases, (C,), of a ridge regression on a stage's training images, float64.

    All images of a stage with one class have the same target. With an intercept, the weights would be 0 and the
    linearised network a linear probe; such a stage is fitted without one.

    Args:
        inputs: Inputs of a worker context whose model has the weights that give the features.
        stage: The stage.
        n_classes: Number of classes C of the stream; rows of classes without training images are 0.
        scale: Target of an image's class; the target of other classes is 0.

    Raises:
        UsageError: The stage has no validation images.
    """
    ridge = IncrementalRidge(inputs.context.model.feature_dim, n_classes, device=inputs.context.device)
    norm = inputs.context.model.feature_norm
    with torch.no_grad():
        for features, truth in inputs.feature_batches(stage.train):
            ridge.add(norm(features), one_hot(truth, n_classes))
    share = choose_ridge_strength(inputs, ridge, stage, n_classes)
    weight, bias = ridge.solve(share, intercept=len(stage.classes) > 1)
    return scale * weight, scale * bias


def choose_ridge_strength(
    inputs: EvaluationInputs, ridge: IncrementalRidge, stage: ContinualStage, n_classes: int
) -> float:
    """Returns the ridge strength with the smallest squared error on a stage's validation images.

    Raises:
        UsageError: The stage has no validation images.
    """
    if not len(stage.val):
        raise UsageError(
            f"task {stage.number} has no validation image to choose the strength of its ridge regression; "
            "use fewer tasks or a split with validation images"
        )
    norm = inputs.context.model.feature_norm
    batches = [(norm(features), truth) for features, truth in inputs.feature_batches(stage.val)]
    features = torch.cat([values for values, _ in batches])
    targets = one_hot(torch.cat([truth for _, truth in batches]), n_classes)
    return ridge.choose_strength(features, targets, intercept=len(stage.classes) > 1)

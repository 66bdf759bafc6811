"""Heads that are fitted and not drawn: a ridge regression on a task's images, around which a network is linearised."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nbt.errors import UsageError
from nbt.training.continual.incremental_ridge import IncrementalRidge
from nbt.training.continual.scenarios import ContinualStage
from nbt.training.continual.unaugmented_inputs import EvaluationInputs


def one_hot(labels: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Returns 1 at each label and 0 elsewhere, float64 (n, C)."""
    return F.one_hot(labels, n_classes).double()


def fit_ridge_head(
    inputs: EvaluationInputs, stage: ContinualStage, n_classes: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns weight, (C, D), and bias, (C,), of a ridge regression on a task's training images, float64.

    A task of one class has the same target everywhere. With an intercept the weights would be 0, and a network
    linearised around them a linear probe; so it is fitted without one.

    Args:
        inputs: Of a workbench whose skeleton has the weights that features are of.
        stage: The task.
        n_classes: C; rows of classes that are not the task's are not meant to be used.
        scale: Target of an image's class; that of the others is 0.
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
    """Returns the strength with the least squared error on a task's validation images.

    Raises:
        UsageError: There are none.
    """
    if not len(stage.val):
        raise UsageError(
            f"task {stage.number} has no validation image to choose the strength of its ridge regression by; "
            "give fewer tasks, or a task whose split has validation images"
        )
    norm = inputs.context.model.feature_norm
    batches = [(norm(features), truth) for features, truth in inputs.feature_batches(stage.val)]
    features = torch.cat([values for values, _ in batches])
    targets = one_hot(torch.cat([truth for _, truth in batches]), n_classes)
    return ridge.choose_strength(features, targets, intercept=len(stage.classes) > 1)

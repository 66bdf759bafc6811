"""Predictions of a given accuracy without a model."""

from __future__ import annotations

import numpy as np
import torch

from nbt.training.evaluation import predictions_from_logits
from nbt.training.metrics import Predictions


def fake_predictions(accuracy: float, images: int, classes: int = 5, seed: int = 0) -> Predictions:
    """Returns predictions of which the given share is right; classes are of equal size, later ones have more errors."""
    labels = np.sort(np.arange(images) % classes)
    is_right = np.arange(images) < round(accuracy * images)
    predicted = np.where(is_right, labels, (labels + 1 + np.arange(images) % 2) % classes)
    logits = np.random.default_rng(seed).normal(size=(images, classes)) + 9.0 * np.eye(classes)[predicted]
    return predictions_from_logits(torch.from_numpy(logits).float(), torch.from_numpy(labels), np.arange(images))

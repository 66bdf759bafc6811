"""Fit profiles with realistic values, built from the ridge accuracies of pretrained and of random weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from nbt.fit.advantage import advantage
from nbt.fit.fit_profile import LAYER_COLUMNS, FitProfile
from nbt.fit.knee import knee_depth

RISING = (0.15, 0.3, 0.4, 0.5, 0.6)
RANDOM = (0.16, 0.12, 0.08, 0.05, 0.03)


def make_profile(
    pretrained: Sequence[float] = RISING,
    random: Sequence[float] = RANDOM,
    *,
    samples: int = 1000,
    backbone: str = "mobilenet_v2",
    weights: str = "default",
    left_out: dict[str, str] | None = None,
    **scalars: float,
) -> FitProfile:
    """Returns a profile of 20 balanced classes.

    Args:
        pretrained: Ridge accuracy of each unit with pretrained weights.
        random: Ridge accuracy of each unit with random weights.
        samples: Number of images.
        backbone: Name of the backbone.
        weights: Source of the weights.
        left_out: Reasons why measures are missing; LEEP by default.
        scalars: Scalars to replace or add; None removes a scalar.
    """
    units = len(pretrained)
    layers = pd.DataFrame(
        {
            "unit": [f"features.{i}" for i in range(units)],
            "depth": [(i + 1) / units for i in range(units)],
            "ridge_accuracy": pretrained,
            "ridge_accuracy_random": random,
        }
    ).reindex(columns=list(LAYER_COLUMNS), fill_value=0.25)
    layers["gain"] = layers["ridge_accuracy"] - layers["ridge_accuracy_random"]
    layers["mean_shift"] = math.nan
    all_scalars = {
        "classes": 20.0,
        "train_images": 1200.0,
        "smallest_class": 60.0,
        "imbalance": 1.0,
        "image_size": 96.0,
        "samples": float(samples),
        "ridge_accuracy": pretrained[-1],
        "ridge_accuracy_random": random[-1],
        "advantage": advantage(pretrained[-1], random[-1]),
        "knn_accuracy": pretrained[-1] - 0.05,
        "logme": 0.6,
        "h_score_regularized": 12.5,
        "nleep": -0.9,
        "gbc": -3.0,
        "transrate": 3200.0,
        "mean_gain": 0.25,
        "dead_channels": 0.001,
        "knee_depth": knee_depth(layers["ridge_accuracy"], layers["ridge_accuracy_random"], samples),
        **scalars,
    }
    facts = {"dataset": "cub", "backbone": backbone, "weights": weights, "samples": samples, "image_size": 96}
    no_head = {"leep": "the weights came without a classifier of their source's classes"}
    present = {name: value for name, value in all_scalars.items() if value is not None}
    return FitProfile(present, layers, facts, no_head if left_out is None else left_out)


def profile_dict(**changes: Any) -> dict[str, Any]:
    """Returns the profile in the form of a study's record."""
    return make_profile(**changes).to_dict()

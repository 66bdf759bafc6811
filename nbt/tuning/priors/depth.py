"""Priors on how many units are transferred and frozen."""

from __future__ import annotations

import math

import numpy as np

from nbt.tuning.priors.measures import ADVANTAGE, IMAGES_PER_CLASS, KNEE, PROBE_ACCURACY
from nbt.tuning.priors.prior import PriorSuggestion, prior
from nbt.tuning.priors.statement import at_least, at_most, near, setting
from nbt.tuning.target import Target

PLESTED_2021 = "Plested, Shen, Gedeon 2021, arXiv 2107.08585"

_TRANSFER_DEPTH = setting("transfer_depth", low=0.0, high=1.0)
_FROZEN_DEPTH = setting("frozen_depth", low=0.0, high=1.0)
# A smaller gain is within the error of a probe on a few hundred images.
_MIN_GAIN = 0.03


@prior(
    source=f"{PLESTED_2021}: the best number of layers differs by dataset; nbt uses the knee of the per-unit gain",
    dimensions=("transfer_depth",),
    needs=(KNEE, ADVANTAGE),
    strength=0.6,
)
def transfer_up_to_the_knee(target: Target) -> PriorSuggestion | None:
    """Transfers the units up to which the gain grows; above them the weights do no harm unless the gain falls."""
    gain, knee = target.layer("gain"), target.scalars["knee_depth"]
    if not gain or max(gain) < _MIN_GAIN or knee <= 0.0:
        return None
    if gain[-1] >= 0.9 * max(gain):
        because = "up to there the gain over random weights grows, and it persists above"
        return PriorSuggestion((at_least(_TRANSFER_DEPTH, knee, 0.15),), because)
    return PriorSuggestion(
        (at_least(_TRANSFER_DEPTH, knee, 0.15), at_most(_TRANSFER_DEPTH, min(knee + 0.2, 1.0), 0.2)),
        "the gain over random weights grows up to the first depth and falls again above it",
    )


@prior(
    source=f"{PLESTED_2021}; recorded runs of nbt, where a partial freeze adds up to seven points",
    dimensions=("frozen_depth",),
    needs=(IMAGES_PER_CLASS, PROBE_ACCURACY, ADVANTAGE),
    strength=0.4,
)
def freeze_when_images_are_few(target: Target) -> PriorSuggestion | None:
    """Freezes more units with fewer images and with better features."""
    images_per_class, probe = target.images_per_class or 1.0, target.probe or 0.0
    if (target.advantage or 0.0) <= 0.0:
        return None
    # With 10 images per class most units are frozen, with 1000 almost none. A high probe accuracy needs less training.
    centre = float(np.clip(1.15 - 0.35 * math.log10(max(images_per_class, 1.0)) + 0.2 * (probe - 0.5), 0.0, 0.95))
    return PriorSuggestion(
        (near(_FROZEN_DEPTH, centre, 0.3),),
        f"{images_per_class:.0f} images per class, probe accuracy {100 * probe:.0f} %",
    )

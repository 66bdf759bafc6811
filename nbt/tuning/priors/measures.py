"""Measures and facts that priors need, by the name that reports show where one is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nbt.tuning.target import Target

IMAGES_PER_CLASS = "images per class"
TRAINING_IMAGES = "training images"
PROBE_ACCURACY = "probe accuracy"
ADVANTAGE = "advantage over random weights"
KNEE = "knee of the gain"
SIMILARITY = "similarity of source and target"
TLI_SIMILARITY = "TLI similarity"
TLI_SIMILARITIES = "TLI similarity of several teachers"
STATISTICS_SHIFT = "statistics shift by unit"

MEASURES: Mapping[str, Callable[[Target], object]] = {
    IMAGES_PER_CLASS: lambda target: target.images_per_class,
    TRAINING_IMAGES: lambda target: target.train_images,
    PROBE_ACCURACY: lambda target: target.probe,
    ADVANTAGE: lambda target: target.advantage,
    KNEE: lambda target: target.scalars.get("knee_depth"),
    SIMILARITY: lambda target: target.scalars.get("similarity"),
    TLI_SIMILARITY: lambda target: target.tli_similarity,
    TLI_SIMILARITIES: lambda target: target.tli_similarities,
    STATISTICS_SHIFT: lambda target: target.layer("mean_shift") or None,
}
"""Functions that return a measure of a target, or None if it is unknown."""

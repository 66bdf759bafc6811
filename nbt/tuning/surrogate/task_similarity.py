"""The similarity of two tasks, by which recorded runs are weighted."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nbt.tuning.experience.recorded_table import TableHeader
from nbt.tuning.target import Target

FloatArray = NDArray[np.float64]

# Advantage of pretraining, accuracy of the ridge probe, log of the images per class, log of the classes: the difference
# that counts as one unit, and the value of a task of which the measure is unknown.
_SCALES = np.array([0.25, 0.3, 1.0, 1.5])
_TYPICAL = np.array([0.5, 0.6, math.log(30), math.log(10)])
# The greater, the less is learned from tasks that differ. Chosen on the data sets that tune, each left out in turn.
_DECAY = 0.1


def target_from_header(header: TableHeader) -> Target:
    """Returns the target of a recorded table."""
    return Target.of(header.facts, header.profile, header.epochs, backbone=header.backbone)


def task_measures(target: Target) -> FloatArray:
    """Returns the measures that `similarities` compares, each divided by its scale, (measures,)."""
    images_per_class, classes = target.images_per_class, target.classes
    values = [
        None if target.advantage is None else max(target.advantage, 0.0),
        target.probe,
        math.log(images_per_class) if images_per_class else None,
        math.log(classes) if classes else None,
    ]
    known = [typical if value is None else value for value, typical in zip(values, _TYPICAL, strict=True)]
    return np.asarray(np.array(known) / _SCALES)


def similarities(first: FloatArray, second: FloatArray) -> FloatArray:
    """Returns the similarity of each pair of tasks, (first, second), above 0 and at most 1.

    It is a squared-exponential kernel of the tasks' measures, and so a valid covariance.

    Args:
        first: Measures of tasks, (first, measures).
        second: Measures of tasks, (second, measures).
    """
    return np.asarray(np.exp(-_DECAY * np.square(first[:, None] - second[None]).sum(axis=2)))


def task_similarity(first: Target, second: Target) -> float:
    """Returns the similarity of two targets, above 0 and at most 1.

    The measures compared are the advantage of pretraining, the accuracy of the ridge probe, the number of images per
    class and the number of classes; one that a target lacks has a typical value.
    """
    return float(similarities(task_measures(first)[None], task_measures(second)[None])[0, 0])

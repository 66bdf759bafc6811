"""Models of recorded tasks, and the similarity between tasks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbt.settings import TransferSettings
from nbt.tuning.experience.recorded_table import RecordedTable, TableHeader
from nbt.tuning.space.encoding import encode
from nbt.tuning.surrogate.gaussian_process import GaussianProcess, Kernel
from nbt.tuning.surrogate.kernel import default_kernel
from nbt.tuning.surrogate.logit_score import MAX_GAP_TO_BEST, logit_score, logit_score_variance
from nbt.tuning.target import Target

FloatArray = NDArray[np.float64]

_MIN_SETTINGS = 12
# The maximum of many noisy scores is biased upwards, so a quantile is the reference of the floor.
_REFERENCE_QUANTILE = 0.95
# On the data sets that tune, tables of another architecture hardly say which settings train well, or mislead, while
# those of the same one do (`studies/prior_check.py`).
_OTHER_ARCHITECTURE = 0.1


@dataclass(frozen=True, eq=False)
class TaskModel:
    """A Gaussian process over the recorded settings of a task, in units of the logit score.

    Attributes:
        header: Header of the recorded table.
        process: Process fitted to the logit scores of the validation accuracies; scores far below the best are raised
            to a floor.
        median_score: Score that the process predicts for the median setting.
        best: Settings with the highest denoised scores, best first.
        varied: Names of the settings that the table varies; a few baseline recipes do not count as variation.
    """

    header: TableHeader
    process: GaussianProcess
    median_score: float
    best: tuple[TransferSettings, ...]
    varied: frozenset[str]

    @classmethod
    def of(cls, table: RecordedTable, kernel: Kernel | None = None) -> TaskModel | None:
        """Returns the model of a table; None if the table has too few settings.

        Args:
            table: The table.
            kernel: Kernel of the process as it was fitted before; it is fitted now if None.
        """
        runs: dict[TransferSettings, list[float]] = {}
        for run in table.runs:
            runs.setdefault(run.settings, []).append(run.val_accuracy)
        if len(runs) < _MIN_SETTINGS:
            return None
        accuracies = np.array([np.mean(values) for values in runs.values()])
        images = target_from_header(table.header).validation_images
        values = logit_score(accuracies, images)
        values = np.maximum(values - np.quantile(values, _REFERENCE_QUANTILE), -MAX_GAP_TO_BEST)
        settings = list(runs)
        points, values, noise = encode(settings), values - np.median(values), logit_score_variance(accuracies, images)
        if kernel is None:
            kernel = GaussianProcess.fit(points, values, noise=noise, prior_mode=default_kernel()).kernel
        process = GaussianProcess.with_kernel(kernel, points, values, noise=noise)
        order = np.argsort(-process.denoised_values(), kind="stable")
        median_score = float(np.median(process.mean(process.points)))
        best = tuple(settings[i] for i in order[:_MIN_SETTINGS])
        return cls(table.header, process, median_score, best, _varied_settings(settings))

    def predict(self, points: FloatArray) -> FloatArray:
        """Returns the predicted logit scores relative to that of the task's median setting, (points,).

        Args:
            points: Encoded settings, (points, coordinates).
        """
        return self.process.mean(points) - self.median_score


def _varied_settings(settings: Sequence[TransferSettings]) -> frozenset[str]:
    """Returns the names of settings of which enough runs have another than the most frequent value."""
    rows = [recipe.to_dict() for recipe in settings]
    counts = {name: Counter(str(row.get(name)) for row in rows) for name in rows[0]}
    return frozenset(name for name, count in counts.items() if len(rows) - max(count.values()) >= _MIN_SETTINGS)


def target_from_header(header: TableHeader) -> Target:
    """Returns the target of a recorded table."""
    return Target.of(header.facts, header.profile, header.epochs)


def task_similarity(first: Target, second: Target) -> float:
    """Returns the similarity of two targets, 0 ... 1, by which experience is weighted.

    The measures compared are the advantage of pretraining, the accuracy of the ridge probe, the number of images per
    class and the number of classes. A measure that one of the targets lacks counts as a difference of one scale.
    """
    scales = np.array([0.25, 0.3, 1.0, 1.5])
    differences = (np.array(_similarity_features(first)) - np.array(_similarity_features(second))) / scales
    return float(np.exp(-0.25 * np.square(np.where(np.isnan(differences), 1.0, differences)).sum()))


def table_weights(target: Target, tables: Sequence[Target]) -> FloatArray:
    """Returns the weights of recorded tables for a target, (tables,), 0 ... 1 each.

    The weight is the similarity of the tasks. The more the tables of the target's own architecture weigh together, the
    less the others count: with a total of 1 or more they have a tenth of their similarity.

    Args:
        target: The target.
        tables: Targets of the recorded tables.
    """
    weights = np.array([task_similarity(target, table) for table in tables])
    is_own = np.array([table.architecture == target.architecture for table in tables], dtype=bool)
    replaced = min(float(weights[is_own].sum()), 1.0)
    return np.where(is_own, weights, weights * (1.0 - (1.0 - _OTHER_ARCHITECTURE) * replaced))


def _similarity_features(target: Target) -> list[float]:
    """Returns the measures that `task_similarity` compares; NaN for missing ones."""
    missing = math.nan
    images_per_class, classes = target.images_per_class, target.classes
    return [
        missing if target.advantage is None else max(target.advantage, 0.0),
        missing if target.probe is None else target.probe,
        np.log(images_per_class) if images_per_class else missing,
        np.log(classes) if classes else missing,
    ]

"""TaskModel: what one recorded task says of any settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbt.settings import TransferSettings
from nbt.tuning.experience.recorded_table import RecordedTable, TableHeader
from nbt.tuning.space.encoding import encode
from nbt.tuning.surrogate.gaussian_process import GaussianProcess
from nbt.tuning.surrogate.kernel import default_kernel
from nbt.tuning.surrogate.logit_score import MAX_GAP_TO_BEST, logit_score, logit_score_variance
from nbt.tuning.target import Target

FloatArray = NDArray[np.float64]

_MIN_SETTINGS = 12
# The best of many noisy runs is too good to measure from.
_REFERENCE_QUANTILE = 0.95


@dataclass(frozen=True, eq=False)
class TaskModel:
    """A Gaussian process over the recorded settings of a task, in units of merit.

    Attributes:
        header: Of the table.
        process: Fitted to the runs' validation accuracies; runs far below the best count alike.
        median_score: Merit of the median setting.
        best: The settings that the process holds for the best ones, the best first.
    """

    header: TableHeader
    process: GaussianProcess
    median_score: float
    best: tuple[TransferSettings, ...]

    @classmethod
    def of(cls, table: RecordedTable) -> TaskModel | None:
        """Returns the model of a table; None of one that has too few settings to tell anything."""
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
        process = GaussianProcess.fit(
            encode(settings),
            values - np.median(values),
            noise=logit_score_variance(accuracies, images),
            around=default_kernel(),
        )
        order = np.argsort(-process.smoothed(), kind="stable")
        median_score = float(np.median(process.mean(process.points)))
        return cls(table.header, process, median_score, tuple(settings[i] for i in order[:_MIN_SETTINGS]))

    def predict(self, points: FloatArray) -> FloatArray:
        """Returns the merit of settings, (points,), from that of the task's median setting."""
        return self.process.mean(points) - self.median_score


def target_from_header(header: TableHeader) -> Target:
    """Returns the target that a table was recorded on."""
    return Target.of(header.facts, header.profile, header.epochs)


def task_similarity(one: Target, other: Target) -> float:
    """Returns how alike two targets are, 0 ... 1: what is recorded on one says so much on the other.

    It compares how much pretraining helps, how good the features are, images a class and number of classes; what is
    not known of one of them counts as one scale apart.
    """
    scales = np.array([0.25, 0.3, 1.0, 1.5])
    gaps = (np.array(_similarity_features(one)) - np.array(_similarity_features(other))) / scales
    return float(np.exp(-0.25 * np.square(np.where(np.isnan(gaps), 1.0, gaps)).sum()))


def _similarity_features(target: Target) -> list[float]:
    missing = float("nan")
    shots, classes = target.images_per_class, target.classes
    return [
        missing if target.pretraining_advantage is None else max(target.pretraining_advantage, 0.0),
        missing if target.probe is None else target.probe,
        np.log(shots) if shots else missing,
        np.log(classes) if classes else missing,
    ]

"""The experience model: one Gaussian process over the runs of all recorded tables.

The covariance of two runs is the product of three kernels, of their settings, of their tasks and of their
architectures, so that a task learns from the runs of all others, most from similar ones (Bonilla, Chai, Williams 2008,
Multi-task Gaussian Process Prediction, with task features). Every table also has a level of its own, because tables
differ in the range of their settings. All values are in units of the logit score.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nbt.settings import TransferSettings
from nbt.tuning.experience.recorded_table import RecordedTable, TableHeader
from nbt.tuning.space.encoding import coordinate_names, encode_with_length
from nbt.tuning.surrogate.gaussian_process import Kernel
from nbt.tuning.surrogate.kernel import default_kernel
from nbt.tuning.surrogate.logit_score import MAX_GAP_TO_BEST, logit_score, logit_score_variance
from nbt.tuning.surrogate.task_similarity import (
    similarities,
    target_from_header,
    task_measures,
    task_similarity,
)
from nbt.tuning.target import Target

FloatArray = NDArray[np.float64]

MIN_SETTINGS = 12
# The constants were chosen on the data sets that tune, each left out in turn (`studies/surrogates.py`). Half or twice
# their values make little difference, except that half of these length scales makes replayed searches worse.
_LENGTH_SCALE_FACTOR, _MAIN_LENGTH_SCALE_FACTOR = 0.7, 0.35
# These coordinates decide most on every recorded task and have the shorter length scale.
_MAIN_COORDINATES = frozenset({"transfer_depth", "frozen_depth", "head_rate", "body_rate", "mean_rate"})
_SHARED_VARIANCE, _TASK_VARIANCE, _LEVEL_VARIANCE, _MEAN_VARIANCE, _NOISE_VARIANCE = 1.0, 1.0, 4.0, 1.0, 0.1
# Factor of the covariance with runs of another architecture: those that come with nbt tell next to nothing of which
# settings train well (`studies/surrogates.py`).
_OTHER_ARCHITECTURE = 0.1
# The maximum of many noisy scores is biased upwards, so a quantile is the reference of the floor.
_REFERENCE_QUANTILE = 0.95
# Share of the settings of a table that are candidates of proposals, and their number at most.
_BEST_SHARE, _MAX_BEST = 0.3, 12
# The model's time grows with the third power of the number of settings, its memory with the second.
_MAX_SETTINGS = 3000


@dataclass(frozen=True, eq=False)
class ExperienceModel:
    """A Gaussian process over the settings of recorded tables; see the module's documentation.

    Attributes:
        headers: Headers of the tables.
        best: Settings with the highest denoised scores of each table, the best of a table first.
        varied: Names of the settings that the tables vary; a few runs do not count as variation.
        tasks: Targets of the tables.
        points: Encoded settings with the length of their training, (settings, coordinates).
        table: Index of the table of each setting, (settings,).
        weights: Weight of each setting in a prediction, (settings,).
    """

    headers: tuple[TableHeader, ...]
    best: tuple[TransferSettings, ...]
    varied: frozenset[str]
    tasks: tuple[Target, ...]
    points: FloatArray
    table: NDArray[np.intp]
    weights: FloatArray

    @classmethod
    def fit(cls, tables: Sequence[RecordedTable]) -> ExperienceModel | None:
        """Returns the model of some tables; None if they have fewer than `MIN_SETTINGS` settings together."""
        found = [_RecordedScores.of(table) for table in tables if table.runs]
        limit = max(MIN_SETTINGS, _MAX_SETTINGS // max(len(found), 1))
        recorded = [scores.limited(limit) for scores in found]
        counts = [len(found.settings) for found in recorded]
        if sum(counts) < MIN_SETTINGS:
            return None
        tasks = tuple(target_from_header(found.header) for found in recorded)
        table = np.repeat(np.arange(len(recorded)), counts)
        points = np.concatenate([encode_with_length(found.settings) for found in recorded])
        scores = np.concatenate([found.scores for found in recorded])
        noise = np.concatenate([found.noise for found in recorded]) + _NOISE_VARIANCE
        covariance = _kernel().covariance_between(points, points)
        covariance *= _task_covariance(tasks, tasks)[np.ix_(table, table)]
        covariance += _LEVEL_VARIANCE * (table[:, None] == table[None]) + _MEAN_VARIANCE
        weights = _solve(covariance, noise, scores)
        denoised = np.split(scores - noise * weights, np.cumsum(counts)[:-1])
        best = [_best(found.settings, values) for found, values in zip(recorded, denoised, strict=True)]
        return cls(
            headers=tuple(found.header for found in recorded),
            best=tuple(dict.fromkeys(itertools.chain.from_iterable(best))),
            varied=_varied(recorded),
            tasks=tasks,
            points=points,
            table=table,
            weights=weights,
        )

    def for_target(self, target: Target) -> TaskExperience:
        """Returns what the model says of a task."""
        return TaskExperience(self, target)


@dataclass(frozen=True, eq=False)
class TaskExperience:
    """What recorded tables say of the settings of a task.

    Attributes:
        model: Model of the tables.
        target: The task.
    """

    model: ExperienceModel
    target: Target

    def predict(self, settings: Sequence[TransferSettings], points: FloatArray | None = None) -> FloatArray:
        """Returns the expected logit scores relative to that of the median recorded setting, (settings,).

        Args:
            settings: Settings to predict.
            points: `encode` of the settings, if already computed.
        """
        return self._predict(encode_with_length(settings, points)) - self._median

    @property
    def similarities(self) -> dict[str, float]:
        """Similarity of the task to that of each recorded dataset with the same architecture, 0 ... 1, by its name.

        Of several tables of a dataset, the most similar counts.
        """
        found: dict[str, float] = {}
        for header, task in zip(self.model.headers, self.model.tasks, strict=True):
            if _have_same_architecture(self.target, task):
                value = task_similarity(self.target, task)
                found[header.dataset] = max(value, found.get(header.dataset, 0.0))
        return found

    @property
    def own_architecture(self) -> float:
        """Sum of `similarities`, where a dataset with fewer than `MIN_SETTINGS` settings counts in part, at least 0."""
        counts = Counter[str]()
        for table, count in enumerate(np.bincount(self.model.table).tolist()):
            if _have_same_architecture(self.target, self.model.tasks[table]):
                counts[self.model.headers[table].dataset] += count
        return sum(value * min(1.0, counts[name] / MIN_SETTINGS) for name, value in self.similarities.items())

    @cached_property
    def _weights(self) -> FloatArray:
        covariance = _task_covariance([self.target], self.model.tasks)[0]
        return np.asarray(self.model.weights * covariance[self.model.table])

    @cached_property
    def _median(self) -> float:
        return float(np.median(self._predict(self.model.points)))

    def _predict(self, points: FloatArray) -> FloatArray:
        return np.asarray(_kernel().covariance_between(points, self.model.points) @ self._weights)


@dataclass(frozen=True)
class _RecordedScores:
    """The settings of a table with the logit scores that they reached.

    Attributes:
        header: Header of the table.
        settings: Distinct settings.
        scores: Mean logit score of each setting relative to the best ones, (settings,); scores far below are raised to
            a floor.
        noise: Variance of each score due to the draw of the images, (settings,).
    """

    header: TableHeader
    settings: tuple[TransferSettings, ...]
    scores: FloatArray
    noise: FloatArray

    @classmethod
    def of(cls, table: RecordedTable) -> _RecordedScores:
        """Returns the scores of a table with at least one run."""
        runs: dict[TransferSettings, list[float]] = {}
        for run in table.runs:
            runs.setdefault(run.settings, []).append(run.val_accuracy)
        accuracies = np.array([np.mean(values) for values in runs.values()])
        images = target_from_header(table.header).validation_images
        scores = logit_score(accuracies, images)
        scores = np.maximum(scores - np.quantile(scores, _REFERENCE_QUANTILE), -MAX_GAP_TO_BEST)
        return cls(table.header, tuple(runs), scores, logit_score_variance(accuracies, images))

    def limited(self, count: int) -> _RecordedScores:
        """Returns at most `count` of the settings: half of them the best, the others spread over the rest."""
        if len(self.settings) <= count:
            return self
        order = np.argsort(-self.scores, kind="stable")
        rest = order[count // 2 :]
        spread = rest[np.linspace(0, len(rest) - 1, count - count // 2).astype(int)]
        kept = np.sort(np.concatenate([order[: count // 2], spread]))
        settings = tuple(self.settings[i] for i in kept)
        return _RecordedScores(self.header, settings, self.scores[kept], self.noise[kept])


def _kernel() -> Kernel:
    """Returns the kernel of the settings, with variance 1."""
    is_main = np.array([name in _MAIN_COORDINATES for name in coordinate_names()])
    factors = np.where(is_main, _MAIN_LENGTH_SCALE_FACTOR, _LENGTH_SCALE_FACTOR)
    scales = default_kernel().length_scales
    return Kernel(np.r_[factors * scales, _LENGTH_SCALE_FACTOR * scales[:1]], 1.0, 0.0)


def _task_covariance(first: Sequence[Target], second: Sequence[Target]) -> FloatArray:
    """Returns the covariance of equal settings of each pair of tasks, (first, second)."""
    by_measures = similarities(*(np.array([task_measures(task) for task in tasks]) for tasks in (first, second)))
    is_same = np.array([[_have_same_architecture(one, other) for other in second] for one in first])
    by_architecture = np.where(is_same, 1.0, _OTHER_ARCHITECTURE)
    return np.asarray(by_architecture * (_SHARED_VARIANCE + _TASK_VARIANCE * by_measures))


def _have_same_architecture(one: Target, other: Target) -> bool:
    return one is other or one.architecture == other.architecture != ""


def _solve(covariance: FloatArray, noise: FloatArray, values: FloatArray) -> FloatArray:
    """Returns the inverse of the noisy covariance times the values; the covariance is overwritten."""
    from scipy.linalg import cho_factor, cho_solve

    covariance[np.diag_indices_from(covariance)] += noise
    factor = cho_factor(covariance, lower=True, overwrite_a=True, check_finite=False)
    return np.asarray(cho_solve(factor, values, check_finite=False))


def _best(settings: Sequence[TransferSettings], scores: FloatArray) -> list[TransferSettings]:
    count = min(_MAX_BEST, math.ceil(_BEST_SHARE * len(settings)))
    return [settings[i] for i in np.argsort(-scores, kind="stable")[:count]]


def _varied(tables: Iterable[_RecordedScores]) -> frozenset[str]:
    """Returns the names of settings of which enough runs have another than the most frequent value of their table."""
    total = Counter[str]()
    for table in tables:
        rows = [recipe.to_dict() for recipe in table.settings]
        for name in rows[0]:
            counts = Counter(str(row.get(name)) for row in rows)
            total[name] += len(rows) - max(counts.values())
    return frozenset(name for name, count in total.items() if count >= MIN_SETTINGS)

"""Forecasts of the result of partial learning curves, learned from recorded curves of other tasks.

A partial curve is compared with a finished reference curve of the same task at the same fraction of the schedule. The
comparison removes the difficulty of the task, so that curves of other tasks can serve as training examples. Two
quantile forests are trained on such pairs: one predicts the difference between the two curves at the end, which is more
accurate early in a trial, and one predicts the remaining gain of the partial curve, which is more accurate late. The
forecast is a mixture of both, weighted by the fraction of the schedule. The leaves keep their training outcomes, so
that a forest predicts a distribution (Meinshausen 2006, Quantile Regression Forests).

Each tree holds one recorded dataset out. The forecasts for held-out datasets calibrate the intervals to their nominal
coverage (conformal prediction by groups: Vovk, Gammerman, Shafer 2005).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nbt.metrics import DEFAULT_METRIC
from nbt.seeds import derive_seed
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.experience.dataset_names import is_same_dataset
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.pruners.quantile_forest import QuantileForest
from nbt.tuning.space.encoding import log_effective_lr
from nbt.tuning.surrogate.experience_model import ExperienceModel
from nbt.tuning.surrogate.logit_score import logit_score
from nbt.tuning.surrogate.task_similarity import target_from_header
from nbt.tuning.target import Target

FloatArray = NDArray[np.float64]

# Nominal coverage of the intervals, and the probability in each tail before calibration.
COVERAGE, DEFAULT_TAIL_PROBABILITY = 0.8, 0.1

# Curves of a task to calibrate with it, and curves of all tasks together.
_MIN_CURVES_TO_CALIBRATE, _MAX_CALIBRATION_CURVES = 20, 300
_CALIBRATION_FRACTIONS = (0.2, 0.35, 0.5, 0.7, 0.85)
_TAIL_PROBABILITY_RANGE = (0.01, 0.35)
# Training references come from the best quarter of the runs, similar to the references of a search.
_REFERENCE_FRACTION = 0.25
_LOSS_CLIP_RANGE = (1e-3, 20.0)
_SLOPE_WINDOW = 0.25


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """A learning curve in logit scores and log losses.

    Attributes:
        settings: Settings of the run.
        logit_scores: Logit score of the validation after each epoch, (epochs,).
        log_train_loss: Natural logarithm of the training loss, clipped, (epochs,).
        log_val_loss: Natural logarithm of the validation loss, clipped, (epochs,).
        total_epochs: Epochs of the whole run.
        expected_score: Logit score that recorded runs of other tasks predict for the settings.
    """

    settings: TransferSettings
    logit_scores: FloatArray
    log_train_loss: FloatArray
    log_val_loss: FloatArray
    total_epochs: int
    expected_score: float = 0.0

    @classmethod
    def from_epochs(
        cls,
        settings: TransferSettings,
        epochs: Sequence[EpochResult],
        *,
        images: int,
        total_epochs: int,
        expected_score: float = 0.0,
        metric: str = DEFAULT_METRIC,
    ) -> LearningCurve:
        """Creates the curve of a run.

        Args:
            settings: Settings of the run.
            epochs: Results of at least one epoch. Missing losses and scores count as the worst possible values.
            images: Number of validation images.
            total_epochs: Epochs of the whole run.
            expected_score: Logit score that recorded runs of other tasks predict for the settings.
            metric: Name of the metric whose scores the curve has.
        """
        worst = float("inf")
        losses = [(result.train_loss, worst if result.val_loss is None else result.val_loss) for result in epochs]
        logs = np.log(np.clip(np.array(losses), *_LOSS_CLIP_RANGE))
        scores = np.array([result.score(metric) or 0.0 for result in epochs])
        return cls(settings, logit_score(scores, images), logs[:, 0], logs[:, 1], total_epochs, expected_score)

    @property
    def end_score(self) -> float:
        """Logit score after the last epoch."""
        return float(self.logit_scores[-1])

    def until(self, epoch: int) -> LearningCurve:
        """Returns the curve truncated after an epoch, counted from 1."""
        part = slice(0, epoch)
        return LearningCurve(
            self.settings,
            self.logit_scores[part],
            self.log_train_loss[part],
            self.log_val_loss[part],
            self.total_epochs,
            self.expected_score,
        )


def forecast_features(curve: LearningCurve, reference: LearningCurve, probe: float) -> list[float]:
    """Returns the input features of the forests for a partial curve and a finished reference curve.

    Args:
        curve: Partial curve.
        reference: Finished curve of the same task.
        probe: Logit score of the ridge probe on the pretrained features, NaN if it is unknown.
    """
    epoch = len(curve.logit_scores)
    fraction = epoch / curve.total_epochs
    reference_epoch = min(max(1, round(fraction * reference.total_epochs)), len(reference.logit_scores))
    window_start, reference_window_start = (
        max(1, round((fraction - _SLOPE_WINDOW) * each.total_epochs)) for each in (curve, reference)
    )
    window_start = min(window_start, epoch)
    reference_window_start = min(reference_window_start, reference_epoch)
    best, reference_best = curve.logit_scores.max(), reference.logit_scores[:reference_epoch].max()
    last, reference_last = curve.logit_scores[-1], reference.logit_scores[reference_epoch - 1]
    rise = last - curve.logit_scores[window_start - 1]
    reference_rise = reference_last - reference.logit_scores[reference_window_start - 1]
    settings = curve.settings
    return [
        fraction,
        best - reference_best,
        last - reference_last,
        (reference_last - last) * (1 - fraction),
        rise,
        rise - reference_rise,
        curve.log_train_loss[-1] - reference.log_train_loss[reference_epoch - 1],
        curve.log_train_loss[-1] - curve.log_train_loss[window_start - 1],
        curve.log_val_loss[-1] - reference.log_val_loss[reference_epoch - 1],
        curve.log_val_loss.min() - reference.log_val_loss[:reference_epoch].min(),
        reference.end_score - reference_best,
        0.0 if np.isnan(probe) else probe - reference.end_score,
        0.0 if np.isnan(probe) else probe - best,
        curve.expected_score - reference.expected_score,
        log_effective_lr(settings, settings.head_lr),
        log_effective_lr(settings, settings.body_lr),
        settings.transfer_depth - settings.frozen_depth,
        -np.log10(1 - settings.ema),
        settings.mixup,
        settings.label_smoothing,
        float(settings.optimizer == "adamw"),
    ]


@dataclass(frozen=True, eq=False)
class ForecastDistribution:
    """A discrete distribution: weighted values in increasing order.

    Attributes:
        values: Values, (n,).
        weights: Weights with sum 1, (n,).
    """

    values: FloatArray
    weights: FloatArray

    @classmethod
    def mixture(cls, parts: Sequence[tuple[FloatArray, FloatArray]]) -> ForecastDistribution:
        """Returns the mixture of several components.

        Args:
            parts: Pairs of values and weights, one per component; all weights together sum to 1.
        """
        values = np.concatenate([values for values, _ in parts])
        weights = np.concatenate([weights for _, weights in parts])
        order = np.argsort(values, kind="stable")
        return cls(values[order], weights[order])

    @property
    def mean(self) -> float:
        """Mean of the distribution."""
        return float(self.values @ self.weights)

    def quantile(self, probability: float) -> float:
        """Returns the quantile at a probability, 0 ... 1."""
        index = int(np.searchsorted(np.cumsum(self.weights), probability))
        return float(self.values[min(index, len(self.values) - 1)])

    def probability_below(self, value: float) -> float:
        """Returns the probability of values below `value`."""
        return float(self.weights[self.values < value].sum())

    def probability_above(self, value: float, error: float = 0.0) -> float:
        """Returns the probability of values above `value`.

        Args:
            value: Value to exceed.
            error: Standard error of `value`.
        """
        if error == 0:
            return float(self.weights[self.values > value].sum())
        from scipy.special import ndtr  # slow to import

        return float(self.weights @ ndtr((self.values - value) / error))


@dataclass(frozen=True, eq=False)
class CurveForecaster:
    """Forecaster of the logit score at the end of a trial; see the module's documentation.

    Attributes:
        by_difference: Forest of the difference of the two curves at the end.
        by_gain: Forest of the remaining gain of the partial curve.
        level: Tail probability: quantile level of the lower end of the calibrated 80 % interval; `1 - level` is that of
            the upper end.
    """

    by_difference: QuantileForest
    by_gain: QuantileForest
    level: float = DEFAULT_TAIL_PROBABILITY

    @classmethod
    def fit(cls, tables: Sequence[RecordedTable]) -> CurveForecaster:
        """Fits the forests and calibrates the intervals.

        Args:
            tables: Recorded tasks, at least one with usable curves (`has_usable_curves`).
        """
        groups = _dataset_groups(tables)
        models = {
            group: ExperienceModel.fit([table for table, other in zip(tables, groups, strict=True) if other != group])
            for group in set(groups)
        }
        tasks = [
            _RecordedTask.from_table(table, models[group], group) for table, group in zip(tables, groups, strict=True)
        ]
        examples = [_training_examples(task) for task in tasks]
        inputs = np.array([row for rows in examples for row, _, _ in rows], dtype=np.float32)
        outcomes = np.array([(difference, gain) for rows in examples for _, difference, gain in rows])
        example_groups = np.repeat(groups, [len(rows) for rows in examples])
        by_difference, by_gain = (QuantileForest.fit(inputs, outcomes[:, i], example_groups) for i in range(2))
        forecaster = cls(by_difference, by_gain)
        return replace(forecaster, level=forecaster._calibrate(tasks))

    def forecast(
        self, curve: LearningCurve, references: Sequence[LearningCurve], probe: float, held_out_group: int | None = None
    ) -> ForecastDistribution:
        """Returns the distribution of the logit score at the end of a run.

        Args:
            curve: Partial curve of the run.
            references: Finished curves of the same task, at least one.
            probe: Logit score of the ridge probe, NaN if it is unknown.
            held_out_group: Number of a recorded dataset; only trees that were trained without it are used. None uses
                all trees.
        """
        rows = np.array([forecast_features(curve, reference, probe) for reference in references], dtype=np.float32)
        fraction = len(curve.logit_scores) / curve.total_epochs
        parts = []
        for forest, weight in ((self.by_difference, 1 - fraction), (self.by_gain, fraction)):
            for reference, (values, weights) in zip(references, forest.outcomes(rows, held_out_group), strict=True):
                start = reference.end_score if forest is self.by_difference else curve.end_score
                parts.append((start + values, weights * weight / len(references)))
        return ForecastDistribution.mixture(parts)

    def interval(self, distribution: ForecastDistribution) -> tuple[float, float]:
        """Returns the lower and upper end of the calibrated 80 % interval of a forecast."""
        return distribution.quantile(self.level), distribution.quantile(1 - self.level)

    def _calibrate(self, tasks: Sequence[_RecordedTask]) -> float:
        """Returns the tail probability at which 80 % of the recorded runs end inside their held-out intervals."""
        usable = [task for task in tasks if len(task.curves) >= _MIN_CURVES_TO_CALIBRATE]
        if len({task.group for task in usable}) < 2:
            return DEFAULT_TAIL_PROBABILITY
        limit = max(_MIN_CURVES_TO_CALIBRATE, _MAX_CALIBRATION_CURVES // len(usable))
        levels = [level for task in usable for level in self._tail_probabilities(task, limit)]
        return float(np.clip(np.quantile(levels, 1 - COVERAGE), *_TAIL_PROBABILITY_RANGE))

    def _tail_probabilities(self, task: _RecordedTask, limit: int) -> list[float]:
        """Returns the greatest tail probability whose interval contains the result, for about `limit` curves."""
        rng = np.random.default_rng(derive_seed(0, "calibration"))
        levels = []
        for curve in task.curves[:: max(1, len(task.curves) // limit)]:
            others = [other for other in task.top_curves if other is not curve]
            references = [others[i] for i in rng.choice(len(others), min(3, len(others)), replace=False)]
            for fraction in _CALIBRATION_FRACTIONS:
                part = curve.until(max(1, round(fraction * curve.total_epochs)))
                forecast = self.forecast(part, references, task.probe_score, held_out_group=task.group)
                below = forecast.probability_below(curve.end_score)
                above = forecast.probability_above(curve.end_score)
                levels.append(min(1 - above, 1 - below))
        return levels


@dataclass(frozen=True, eq=False)
class _RecordedTask:
    """The curves of a recorded task.

    Attributes:
        curves: Curves of the runs that did not diverge.
        top_curves: The best quarter of `curves`, from which references are drawn.
        probe_score: Logit score of the ridge probe, NaN if it is unknown.
        group: Number of the task's dataset.
    """

    curves: Sequence[LearningCurve]
    top_curves: Sequence[LearningCurve]
    probe_score: float
    group: int

    @classmethod
    def from_table(cls, table: RecordedTable, others: ExperienceModel | None, group: int) -> _RecordedTask:
        """Creates the curves of a table, with expected scores from the runs of other datasets."""
        curves = table_curves(table, others)
        ranked = sorted(curves, key=lambda curve: -curve.end_score)
        top_curves = ranked[: max(2, int(_REFERENCE_FRACTION * len(curves)))]
        return cls(curves, top_curves, probe_logit_score(target_from_header(table.header)), group)


def _dataset_groups(tables: Sequence[RecordedTable]) -> list[int]:
    """Returns the number of each table's dataset."""
    groups: list[int] = []
    for table in tables:
        known = zip(tables, groups, strict=False)
        matches = [group for other, group in known if is_same_dataset(other.header, table.header)]
        groups.append(matches[0] if matches else max(groups, default=-1) + 1)
    return groups


def expected_scores(
    experience: ExperienceModel | None, target: Target
) -> Callable[[Sequence[TransferSettings]], FloatArray]:
    """Returns a function that maps settings to the scores that recorded runs predict on a task, 0 without any."""
    if experience is None:
        return lambda settings: np.zeros(len(settings))
    return experience.for_target(target).predict


def has_usable_curves(table: RecordedTable) -> bool:
    """Returns whether a table can train the forecaster: at least two epochs, and two runs that did not diverge."""
    return table.header.epochs > 1 and sum(not run.diverged for run in table.runs) > 1


def table_curves(table: RecordedTable, others: ExperienceModel | None) -> list[LearningCurve]:
    """Returns the curves of a table's runs that did not diverge.

    Args:
        table: Recorded task.
        others: Model of other tasks, which predicts the expected score of each run.
    """
    target = target_from_header(table.header)
    images = target.validation_images
    runs = [run for run in table.runs if not run.diverged]
    expected = expected_scores(others, target)([run.settings for run in runs])
    return [
        LearningCurve.from_epochs(
            run.settings, run.curve, images=images, total_epochs=len(run.curve), expected_score=float(value)
        )
        for run, value in zip(runs, expected, strict=True)
    ]


def probe_logit_score(target: Target) -> float:
    """Returns the logit score of the ridge probe on a target, NaN if it is unknown or the metric is another."""
    if target.probe is None or target.metric != DEFAULT_METRIC:
        return float("nan")
    return float(logit_score(target.probe, target.validation_images))


def _training_examples(task: _RecordedTask) -> list[tuple[list[float], float, float]]:
    """Returns features, end difference and remaining gain of every run of a task after every epoch but the last."""
    rng = np.random.default_rng(derive_seed(0, "references"))
    examples = []
    for curve in task.curves:
        for epoch in range(1, len(curve.logit_scores)):
            reference = task.top_curves[int(rng.integers(len(task.top_curves)))]
            if reference is not curve:
                part = curve.until(epoch)
                row = forecast_features(part, reference, task.probe_score)
                examples.append((row, curve.end_score - reference.end_score, curve.end_score - part.end_score))
    return examples

"""CurveForecaster: what a partial learning curve comes to at its end, learned from recorded curves.

A curve is compared with a finished one of the same task at the same place of the schedule (under a warm-up and a cosine
an accuracy says little by itself). That takes the difficulty of the task out, so that curves of other tasks are
examples. Two forests over such pairs forecast the difference at the end, which is what an early curve tells, and the
gain from now on, which is what a late one tells; in between they are mixed. A forest keeps, with each leaf, the
outcomes that it was trained with, and so gives a distribution and not a number (Meinshausen 2006, Quantile Regression
Forests).

Each tree leaves one recorded dataset out. So the forecaster knows how it does on tasks that it has not seen, and widens
or narrows its intervals until they hold as often as they say (conformal prediction across tasks: Vovk, Gammerman,
Shafer 2005, by groups).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbt.seeds import derive_seed
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.space.encoding import log_effective_lr
from nbt.tuning.surrogate.logit_score import logit_score
from nbt.tuning.surrogate.task_model import TaskModel, target_from_header
from nbt.tuning.target import Target

FloatArray = NDArray[np.float64]

# Of intervals: how many of them hold, and the share of the weight that an uncalibrated one leaves on each side.
COVERAGE, DEFAULT_TAIL_PROBABILITY = 0.8, 0.1

_NUM_TREES, _MIN_SAMPLES_LEAF = 60, 10
_MIN_CURVES_TO_CALIBRATE, _MAX_CALIBRATION_CURVES, _CALIBRATION_FRACTIONS, _TAIL_PROBABILITY_RANGE = (
    20,
    60,
    (0.2, 0.35, 0.5, 0.7, 0.85),
    (0.01, 0.35),
)
# Comparisons are with what a search would compare with: a run of the best quarter.
_REFERENCE_FRACTION = 0.25
_LOSS_CLIP_RANGE = (1e-3, 20.0)
_SLOPE_WINDOW = 0.25


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """A learning curve in the units of the forecast.

    Attributes:
        settings: That it was trained with.
        merits: After each epoch, (epochs,).
        train: Log training loss, (epochs,).
        validation: Log validation loss, (epochs,).
        length: Epochs of the whole run.
        expected: Merit that other tasks expect of the settings.
    """

    settings: TransferSettings
    logit_scores: FloatArray
    train: FloatArray
    validation: FloatArray
    length: int
    expected: float = 0.0

    @classmethod
    def of(
        cls,
        settings: TransferSettings,
        epochs: Sequence[EpochResult],
        *,
        images: int,
        length: int,
        expected: float = 0.0,
    ) -> LearningCurve:
        """Returns the curve of a run.

        Args:
            settings: Its recipe.
            epochs: At least one, none of them diverged.
            images: Validation images.
            length: Epochs of the whole run.
            expected: See the class.
        """
        worst = float("inf")
        losses = [(one.train_loss, worst if one.val_loss is None else one.val_loss) for one in epochs]
        logs = np.log(np.clip(np.array(losses), *_LOSS_CLIP_RANGE))
        accuracies = np.array([one.val_accuracy or 0.0 for one in epochs])
        return cls(settings, logit_score(accuracies, images), logs[:, 0], logs[:, 1], length, expected)

    @property
    def final(self) -> float:
        """Merit of the best epoch."""
        return float(self.logit_scores.max())

    def until(self, epoch: int) -> LearningCurve:
        """Returns its first epochs."""
        part = slice(0, epoch)
        return LearningCurve(
            self.settings, self.logit_scores[part], self.train[part], self.validation[part], self.length, self.expected
        )


def features(curve: LearningCurve, reference: LearningCurve, probe: float) -> list[float]:
    """Returns what the forest sees of a partial curve beside a finished one.

    Args:
        curve: Up to now.
        reference: A whole one of the same task.
        probe: Merit of the ridge probe on the pretrained features, NaN where it is not known.
    """
    now = len(curve.logit_scores)
    share = now / curve.length
    then = min(max(1, round(share * reference.length)), len(reference.logit_scores))
    past, past_then = (max(1, round((share - _SLOPE_WINDOW) * one.length)) for one in (curve, reference))
    best, best_then = curve.logit_scores.max(), reference.logit_scores[:then].max()
    rise = curve.logit_scores[-1] - curve.logit_scores[min(past, now) - 1]
    rise_then = reference.logit_scores[then - 1] - reference.logit_scores[min(past_then, then) - 1]
    settings = curve.settings
    return [
        share,
        best - best_then,
        curve.logit_scores[-1] - reference.logit_scores[then - 1],
        (reference.logit_scores[then - 1] - curve.logit_scores[-1]) * (1 - share),
        rise,
        rise - rise_then,
        curve.train[-1] - reference.train[then - 1],
        curve.train[-1] - curve.train[min(past, now) - 1],
        curve.validation[-1] - reference.validation[then - 1],
        curve.validation.min() - reference.validation[:then].min(),
        reference.final - best_then,
        0.0 if np.isnan(probe) else probe - reference.final,
        0.0 if np.isnan(probe) else probe - best,
        curve.expected - reference.expected,
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
    """Weighted values in increasing order.

    Attributes:
        values: (n,).
        weights: (n,), their sum is 1.
    """

    values: FloatArray
    weights: FloatArray

    @classmethod
    def mixture(cls, parts: Sequence[tuple[FloatArray, FloatArray]]) -> ForecastDistribution:
        """Returns the mixture of parts, each values and weights; the sum of all weights is 1."""
        values = np.concatenate([values for values, _ in parts])
        weights = np.concatenate([weights for _, weights in parts])
        order = np.argsort(values, kind="stable")
        return cls(values[order], weights[order])

    @property
    def mean(self) -> float:
        """The mean."""
        return float(self.values @ self.weights)

    def quantile(self, share: float) -> float:
        """Returns the value that a share of the weight does not exceed."""
        index = int(np.searchsorted(np.cumsum(self.weights), share))
        return float(self.values[min(index, len(self.values) - 1)])

    def below(self, value: float) -> float:
        """Returns the weight of what falls short of a value."""
        return float(self.weights[self.values < value].sum())

    def above(self, value: float, error: float = 0.0) -> float:
        """Returns the weight of what exceeds a value, which is known to within a standard error."""
        if error == 0:
            return float(self.weights[self.values > value].sum())
        from scipy.special import ndtr  # takes long to import

        return float(self.weights @ ndtr((self.values - value) / error))


class CurveForecaster:
    """See the module.

    Args:
        tables: Recorded tasks, at least one that `has_usable_curves`.
        models: Of these tables; None where one has none.

    Attributes:
        level: Share of the weight below the lower end of the interval that holds in 80 % of the cases, and above the
            upper one.
    """

    def __init__(self, tables: Sequence[RecordedTable], models: Sequence[TaskModel | None]) -> None:
        groups = _dataset_groups(tables)
        tasks = [_RecordedTask.of(tables, models, groups, i) for i in range(len(tables))]
        examples = [_training_examples(task) for task in tasks]
        inputs = np.array([row for part in examples for row, _, _ in part], dtype=np.float32)
        outcomes = np.array([(difference, gain) for part in examples for _, difference, gain in part])
        group = np.repeat(groups, [len(part) for part in examples])
        self._difference, self._gain = (_QuantileForest(inputs, outcomes[:, i], group) for i in range(2))
        self.level = self._calibrate(tasks)

    def forecast(
        self, curve: LearningCurve, references: Sequence[LearningCurve], probe: float, held_out_group: int | None = None
    ) -> ForecastDistribution:
        """Returns the distribution of the merit at the end of a run.

        Args:
            curve: Up to now.
            references: Finished ones of the same task, at least one.
            probe: See `features`.
            held_out_group: Group of recorded tables; trees that have seen one of them are not asked.
        """
        rows = np.array([features(curve, one, probe) for one in references], dtype=np.float32)
        share = len(curve.logit_scores) / curve.length
        parts = []
        for forest, weight in ((self._difference, 1 - share), (self._gain, share)):
            for one, (values, weights) in zip(references, forest.outcomes(rows, held_out_group), strict=True):
                start = one.final if forest is self._difference else curve.final
                # What was reached already cannot be lost: the best epoch is kept.
                parts.append((np.maximum(start + values, curve.final), weights * weight / len(references)))
        return ForecastDistribution.mixture(parts)

    def interval(self, distribution: ForecastDistribution) -> tuple[float, float]:
        """Returns the ends of the 80 % interval of a forecast."""
        return distribution.quantile(self.level), distribution.quantile(1 - self.level)

    def _calibrate(self, tasks: Sequence[_RecordedTask]) -> float:
        """Returns the level at which 80 % of recorded runs end inside, forecast without their own dataset."""
        known = [task for task in tasks if len(task.curves) >= _MIN_CURVES_TO_CALIBRATE]
        if len({task.group for task in known}) < 2:
            return DEFAULT_TAIL_PROBABILITY
        needed = [level for task in known for level in self._tail_probabilities(task)]
        return float(np.clip(np.quantile(needed, 1 - COVERAGE), *_TAIL_PROBABILITY_RANGE))

    def _tail_probabilities(self, task: _RecordedTask) -> list[float]:
        """Returns, for a sample of forecasts of a task, the greatest level whose interval has the end inside."""
        rng = np.random.default_rng(derive_seed(0, "calibration"))
        found = []
        for curve in task.curves[:: max(1, len(task.curves) // _MAX_CALIBRATION_CURVES)]:
            good = [one for one in task.good if one is not curve]
            references = [good[i] for i in rng.choice(len(good), min(3, len(good)), replace=False)]
            for share in _CALIBRATION_FRACTIONS:
                part = curve.until(max(1, round(share * curve.length)))
                end = self.forecast(part, references, task.probe, held_out_group=task.group)
                below, above = end.below(curve.final), end.above(curve.final)
                found.append(min(1 - above, 1 - below))
        return found


@dataclass(frozen=True, eq=False)
class _RecordedTask:
    """The curves of a recorded task.

    Attributes:
        curves: Of the runs that did not diverge.
        good: The best quarter of them, which is what a search would compare with.
        probe: See `features`.
        group: Number of its dataset.
    """

    curves: Sequence[LearningCurve]
    good: Sequence[LearningCurve]
    probe: float
    group: int

    @classmethod
    def of(
        cls,
        tables: Sequence[RecordedTable],
        models: Sequence[TaskModel | None],
        groups: Sequence[int],
        index: int,
    ) -> _RecordedTask:
        own = groups[index]
        others = [model for model, group in zip(models, groups, strict=True) if model is not None and group != own]
        curves = table_curves(tables[index], others)
        order = sorted(curves, key=lambda curve: -curve.final)
        good = order[: max(2, int(_REFERENCE_FRACTION * len(curves)))]
        return cls(curves, good, probe_logit_score(target_from_header(tables[index].header)), own)


def _dataset_groups(tables: Sequence[RecordedTable]) -> list[int]:
    """Returns the number of each table's dataset; of the same images, or the same name, is the same dataset."""
    groups: list[int] = []
    for table in tables:
        mine = table.header
        alike = [
            group
            for other, group in zip(tables, groups, strict=False)
            if other.header.data_hash == mine.data_hash or other.header.dataset == mine.dataset
        ]
        groups.append(alike[0] if alike else max(groups, default=-1) + 1)
    return groups


class _QuantileForest:
    """Randomised trees that keep the outcomes in their leaves; each leaves the examples of one dataset out.

    Args:
        inputs: (examples, features).
        outcomes: (examples,).
        group: Number of the dataset of each example, (examples,).
    """

    def __init__(self, inputs: NDArray[np.float32], outcomes: FloatArray, group: NDArray[np.int64]) -> None:
        from sklearn.tree import ExtraTreeRegressor

        known = np.unique(group)
        # With one dataset there is none to spare; with very many each is left out by at least one tree.
        order = np.arange(max(_NUM_TREES, len(known)))
        self._held_out_groups = known[order % len(known)] if len(known) > 1 else np.full(_NUM_TREES, -1)
        trees, self._leaves = [], []
        for seed, held_out_group in enumerate(self._held_out_groups):
            seen = group != held_out_group
            tree = ExtraTreeRegressor(min_samples_leaf=_MIN_SAMPLES_LEAF, max_features=0.6, random_state=seed)
            tree.fit(inputs[seen], outcomes[seen])
            trees.append(tree.tree_)
            self._leaves.append(_group_by_leaf(tree.apply(inputs[seen]), outcomes[seen]))
        self._flattened = _FlattenedForest.of(trees)

    def outcomes(
        self, rows: NDArray[np.float32], held_out_group: int | None = None
    ) -> list[tuple[FloatArray, FloatArray]]:
        """Returns the outcomes that each row may have, and their weights, whose sum is 1."""
        asked = (
            np.arange(len(self._held_out_groups))
            if held_out_group is None
            else np.flatnonzero(self._held_out_groups == held_out_group)
        )
        found = []
        for leaves in self._flattened.leaves(rows):
            parts = [self._leaves[tree][int(leaves[tree])] for tree in asked]
            weights = np.repeat([1.0 / len(part) for part in parts], [len(part) for part in parts])
            found.append((np.concatenate(parts), weights / len(parts)))
        return found


@dataclass(frozen=True, eq=False)
class _FlattenedForest:
    """All trees of a forest as one, walked level by level: scikit-learn's own way takes 20 ms for a handful of rows.

    Attributes:
        roots: Node at which each tree begins, (trees,).
        feature: That a node asks for, (nodes,); below 0 in a leaf.
        threshold: Up to which it goes left, (nodes,).
        left: Node, (nodes,); a leaf leads to itself.
        right: Likewise.
    """

    roots: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: FloatArray
    left: NDArray[np.int64]
    right: NDArray[np.int64]

    @classmethod
    def of(cls, trees: Sequence[Any]) -> _FlattenedForest:
        sizes = np.array([tree.node_count for tree in trees])
        roots = np.cumsum(sizes) - sizes
        nodes = np.arange(sizes.sum())
        offsets = np.repeat(roots, sizes)
        feature = np.concatenate([tree.feature for tree in trees]).astype(np.int64)
        ways = (np.concatenate([getattr(tree, f"children_{side}") for tree in trees]) for side in ("left", "right"))
        left, right = (np.where(feature < 0, nodes, way + offsets) for way in ways)
        return cls(roots, feature, np.concatenate([tree.threshold for tree in trees]), left, right)

    def leaves(self, rows: NDArray[np.float32]) -> NDArray[np.int64]:
        """Returns the leaf of each tree, by its number in the tree, that each row comes to, (rows, trees)."""
        at = np.broadcast_to(self.roots, (len(rows), len(self.roots))).copy()
        each = np.arange(len(rows))[:, None]
        while (inner := self.feature[at] >= 0).any():
            goes_left = rows[each, self.feature[at]] <= self.threshold[at]
            at = np.where(inner, np.where(goes_left, self.left[at], self.right[at]), at)
        return np.asarray(at - self.roots)


def mean_task_prediction(models: Sequence[TaskModel]) -> Callable[[Sequence[TransferSettings]], FloatArray]:
    """Returns what recorded tasks expect of settings on average; 0 without any."""
    from nbt.tuning.space.encoding import encode

    def expected(settings: Sequence[TransferSettings]) -> FloatArray:
        points = encode(settings)
        return np.mean([model.predict(points) for model in models], axis=0) if models else np.zeros(len(points))

    return expected


def has_usable_curves(table: RecordedTable) -> bool:
    """Returns whether a table has curves to learn from: at least two that did not diverge, of at least two epochs."""
    return table.header.epochs > 1 and sum(not run.diverged for run in table.runs) > 1


def table_curves(table: RecordedTable, models: Sequence[TaskModel]) -> list[LearningCurve]:
    """Returns the curves of a table's runs that did not diverge, with what other tasks expect of their settings."""
    images = target_from_header(table.header).validation_images
    runs = [run for run in table.runs if not run.diverged]
    expected = mean_task_prediction(models)([run.settings for run in runs])
    return [
        LearningCurve.of(run.settings, run.curve, images=images, length=len(run.curve), expected=float(value))
        for run, value in zip(runs, expected, strict=True)
    ]


def probe_logit_score(target: Target) -> float:
    """Returns the merit of the ridge probe on a target, NaN where it is not known."""
    return float("nan") if target.probe is None else float(logit_score(target.probe, target.validation_images))


def _training_examples(task: _RecordedTask) -> list[tuple[list[float], float, float]]:
    """Returns features, difference at the end and gain from now: every run at every epoch but the last."""
    rng = np.random.default_rng(derive_seed(0, "references"))
    found = []
    for curve in task.curves:
        for epoch in range(1, len(curve.logit_scores)):
            reference = task.good[int(rng.integers(len(task.good)))]
            if reference is not curve:
                part = curve.until(epoch)
                row = features(part, reference, task.probe)
                found.append((row, curve.final - reference.final, curve.final - part.final))
    return found


def _group_by_leaf(leaves: NDArray[np.int64], outcomes: FloatArray) -> dict[int, FloatArray]:
    order = np.argsort(leaves, kind="stable")
    found, starts = np.unique(leaves[order], return_index=True)
    return dict(zip(found.tolist(), np.split(outcomes[order], starts[1:]), strict=True))

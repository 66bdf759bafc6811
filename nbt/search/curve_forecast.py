"""CurveForecaster: what a partial learning curve comes to at its end, learned from recorded curves.

A curve is compared with a finished one of the same task at the same place of the schedule (under a warm-up and a cosine
an accuracy says little by itself), and the forecast is the difference at the end. That takes the difficulty of the task
out, so that curves of other tasks are examples; a forest over such pairs keeps, with each leaf, the differences that it
was trained with, and so gives a distribution and not a number: Meinshausen 2006, Quantile Regression Forests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbt.search.encoding import effective_rate
from nbt.search.merit import merit
from nbt.search.recorded import RecordedTable
from nbt.search.target import Target
from nbt.search.task_model import TaskModel, table_target
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.training.seeds import derive_seed

Vector = NDArray[np.float64]

_TREES, _LEAF = 100, 10
# Comparisons are with what a search would compare with: a run of the best quarter.
_GOOD = 0.25
_LOSSES = (1e-3, 20.0)
_LOOK_BACK = 0.25


@dataclass(frozen=True, eq=False)
class Curve:
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
    merits: Vector
    train: Vector
    validation: Vector
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
    ) -> Curve:
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
        logs = np.log(np.clip(np.array(losses), *_LOSSES))
        accuracies = np.array([one.val_accuracy or 0.0 for one in epochs])
        return cls(settings, merit(accuracies, images), logs[:, 0], logs[:, 1], length, expected)

    @property
    def final(self) -> float:
        """Merit of the best epoch."""
        return float(self.merits.max())

    def until(self, epoch: int) -> Curve:
        """Returns its first epochs."""
        part = slice(0, epoch)
        return Curve(
            self.settings, self.merits[part], self.train[part], self.validation[part], self.length, self.expected
        )


def features(curve: Curve, reference: Curve, probe: float) -> list[float]:
    """Returns what the forest sees of a partial curve beside a finished one.

    Args:
        curve: Up to now.
        reference: A whole one of the same task.
        probe: Merit of the ridge probe on the pretrained features, NaN where it is not known.
    """
    now = len(curve.merits)
    share = now / curve.length
    then = min(max(1, round(share * reference.length)), len(reference.merits))
    past, past_then = (max(1, round((share - _LOOK_BACK) * one.length)) for one in (curve, reference))
    best, best_then = curve.merits.max(), reference.merits[:then].max()
    rise = curve.merits[-1] - curve.merits[min(past, now) - 1]
    rise_then = reference.merits[then - 1] - reference.merits[min(past_then, then) - 1]
    settings = curve.settings
    return [
        share,
        best - best_then,
        curve.merits[-1] - reference.merits[then - 1],
        (reference.merits[then - 1] - curve.merits[-1]) * (1 - share),
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
        effective_rate(settings, settings.head_lr),
        effective_rate(settings, settings.body_lr),
        settings.transfer_depth - settings.frozen_depth,
        -np.log10(1 - settings.ema),
        settings.mixup,
        settings.label_smoothing,
        float(settings.optimizer == "adamw"),
    ]


@dataclass(frozen=True, eq=False)
class Distribution:
    """Weighted values in increasing order.

    Attributes:
        values: (n,).
        weights: (n,), their sum is 1.
    """

    values: Vector
    weights: Vector

    @classmethod
    def mix(cls, parts: Sequence[tuple[Vector, Vector]]) -> Distribution:
        """Returns the even mixture of parts, each values and weights whose sum is 1."""
        values = np.concatenate([values for values, _ in parts])
        weights = np.concatenate([weights for _, weights in parts]) / len(parts)
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

    def above(self, value: float) -> float:
        """Returns the weight of what exceeds a value."""
        return float(self.weights[self.values > value].sum())


class CurveForecaster:
    """See the module.

    Args:
        tables: Recorded tasks, at least one.
        models: Of these tables; None where one has none.
    """

    def __init__(self, tables: Sequence[RecordedTable], models: Sequence[TaskModel | None]) -> None:
        from sklearn.ensemble import ExtraTreesRegressor

        pairs = [pair for i in range(len(tables)) for pair in _examples(tables, models, i)]
        inputs = np.array([row for row, _ in pairs], dtype=np.float32)
        outcomes = np.array([outcome for _, outcome in pairs])
        forest = ExtraTreesRegressor(_TREES, min_samples_leaf=_LEAF, max_features=0.6, random_state=0)
        forest.fit(inputs, outcomes)
        self._walk = _Walk.of([tree.tree_ for tree in forest.estimators_])
        self._leaves = [_by_leaf(leaves, outcomes) for leaves in forest.apply(inputs).T]

    def forecast(self, curve: Curve, references: Sequence[Curve], probe: float) -> Distribution:
        """Returns the distribution of the merit at the end of a run.

        Args:
            curve: Up to now.
            references: Finished ones of the same task, at least one.
            probe: See `features`.
        """
        rows = np.array([features(curve, one, probe) for one in references], dtype=np.float32)
        leaves = self._walk.leaves(rows)
        parts = []
        for one, reached in zip(references, leaves, strict=True):
            outcomes = [tree[int(leaf)] for tree, leaf in zip(self._leaves, reached, strict=True)]
            weights = np.repeat([1.0 / len(part) for part in outcomes], [len(part) for part in outcomes])
            parts.append((one.final + np.concatenate(outcomes), weights / len(outcomes)))
        mixed = Distribution.mix(parts)
        # What was reached already cannot be lost: the best epoch is kept.
        return Distribution(np.maximum(mixed.values, curve.final), mixed.weights)


@dataclass(frozen=True, eq=False)
class _Walk:
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
    threshold: Vector
    left: NDArray[np.int64]
    right: NDArray[np.int64]

    @classmethod
    def of(cls, trees: Sequence[Any]) -> _Walk:
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


def expect(models: Sequence[TaskModel]) -> Callable[[Sequence[TransferSettings]], Vector]:
    """Returns what recorded tasks expect of settings on average; 0 without any."""
    from nbt.search.encoding import encode

    def expected(settings: Sequence[TransferSettings]) -> Vector:
        points = encode(settings)
        return np.mean([model.predict(points) for model in models], axis=0) if models else np.zeros(len(points))

    return expected


def table_curves(table: RecordedTable, models: Sequence[TaskModel]) -> list[Curve]:
    """Returns the curves of a table's runs that did not diverge, with what other tasks expect of their settings."""
    images = table_target(table.header).validation_images
    runs = [run for run in table.runs if not run.diverged]
    expected = expect(models)([run.settings for run in runs])
    return [
        Curve.of(run.settings, run.curve, images=images, length=len(run.curve), expected=float(value))
        for run, value in zip(runs, expected, strict=True)
    ]


def probe_merit(target: Target) -> float:
    """Returns the merit of the ridge probe on a target, NaN where it is not known."""
    return float("nan") if target.probe is None else float(merit(target.probe, target.validation_images))


def _examples(
    tables: Sequence[RecordedTable], models: Sequence[TaskModel | None], index: int
) -> list[tuple[list[float], float]]:
    """Returns pairs of features and outcome of one table: every run at every epoch but the last, beside a good run."""
    header = tables[index].header
    others = [model for model in models if model is not None and model.header.dataset != header.dataset]
    curves = table_curves(tables[index], others)
    if len(curves) < 2:
        return []
    order = sorted(range(len(curves)), key=lambda i: -curves[i].final)
    good = order[: max(2, int(_GOOD * len(curves)))]
    draws = np.random.default_rng(derive_seed(0, "references"))
    probe = probe_merit(table_target(header))
    pairs = []
    for i, curve in enumerate(curves):
        for epoch in range(1, len(curve.merits)):
            reference = curves[good[int(draws.integers(len(good)))]]
            if reference is curve:
                reference = curves[good[0] if good[0] != i else good[1]]
            pairs.append((features(curve.until(epoch), reference, probe), curve.final - reference.final))
    return pairs


def _by_leaf(leaves: NDArray[np.int64], outcomes: Vector) -> dict[int, Vector]:
    order = np.argsort(leaves, kind="stable")
    found, starts = np.unique(leaves[order], return_index=True)
    return dict(zip(found.tolist(), np.split(outcomes[order], starts[1:]), strict=True))

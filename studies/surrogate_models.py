"""The models that `surrogates.py` compares: each predicts how well settings train on a task from recorded tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from small_tasks import BACKBONE

from nbt.settings import TransferSettings
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.space.encoding import encode
from nbt.tuning.surrogate.experience_model import ExperienceModel
from nbt.tuning.surrogate.gaussian_process import GaussianProcess
from nbt.tuning.surrogate.kernel import default_kernel
from nbt.tuning.surrogate.logit_score import MAX_GAP_TO_BEST, logit_score, logit_score_variance
from nbt.tuning.surrogate.task_similarity import target_from_header, task_measures, task_similarity
from nbt.tuning.target import Target

FloatArray = NDArray[np.float64]
Predict = Callable[[Sequence[RecordedTable], Target, Sequence[TransferSettings]], FloatArray]


def is_own(table: RecordedTable) -> bool:
    """Returns whether a table is of the backbone of the judging runs."""
    return target_from_header(table.header).backbone == BACKBONE


def experience(tables: Sequence[RecordedTable], target: Target, settings: Sequence[TransferSettings]) -> FloatArray:
    """Predicts by the experience model."""
    model = ExperienceModel.fit(tables)
    assert model is not None
    return model.for_target(target).predict(settings)


def without_measures(
    tables: Sequence[RecordedTable], target: Target, settings: Sequence[TransferSettings]
) -> FloatArray:
    """Predicts by the experience model for a task of which only the backbone is known."""
    return experience(tables, Target(epochs=target.epochs, backbone=target.backbone), settings)


def least_similar(tables: Sequence[RecordedTable], target: Target, settings: Sequence[TransferSettings]) -> FloatArray:
    """Predicts by the experience model for the least similar recorded task of the backbone."""
    others = [target_from_header(table.header) for table in filter(is_own, tables)]
    return experience(tables, min(others, key=lambda other: task_similarity(target, other)), settings)


def per_table(tables: Sequence[RecordedTable], target: Target, settings: Sequence[TransferSettings]) -> FloatArray:
    """Predicts by one Gaussian process per table of the backbone, weighted by the similarity of the tasks."""
    total: FloatArray = np.zeros(len(settings))
    for table in filter(is_own, tables):
        points, scores, noise = scores_of(table)
        process = GaussianProcess.fit(points, scores - np.median(scores), noise=noise, prior_mode=default_kernel())
        total += task_similarity(target, target_from_header(table.header)) * process.mean(encode(settings))
    return total


def regression(make: Callable[[int], Any], n: int, has_measures: bool) -> Predict:
    """Returns the mean prediction of `n` models of scikit-learn.

    Args:
        make: Creates a model with a seed.
        n: Number of models.
        has_measures: Whether the measures of the task are inputs.
    """

    def predict(tables: Sequence[RecordedTable], target: Target, settings: Sequence[TransferSettings]) -> FloatArray:
        inputs, outcomes = [], []
        for table in tables:
            points, scores, _ = scores_of(table)
            inputs.append(with_measures(points, target_from_header(table.header), has_measures))
            outcomes.append(scores)
        new = with_measures(encode(settings), target, has_measures)
        models = [make(seed).fit(np.concatenate(inputs), np.concatenate(outcomes)) for seed in range(n)]
        return np.asarray(np.mean([model.predict(new) for model in models], axis=0))

    return predict


def with_measures(points: FloatArray, target: Target, has_measures: bool) -> FloatArray:
    """Returns points with the measures of a task as further coordinates."""
    return np.c_[points, np.tile(task_measures(target), (len(points), 1))] if has_measures else points


def scores_of(table: RecordedTable) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Returns points, logit scores relative to the best runs, not below a floor, and their variance."""
    images = target_from_header(table.header).validation_images
    accuracies = np.array([run.val_accuracy for run in table.runs])
    scores = logit_score(accuracies, images)
    scores = np.maximum(scores - np.quantile(scores, 0.95), -MAX_GAP_TO_BEST)
    return encode([run.settings for run in table.runs]), scores, logit_score_variance(accuracies, images)


def boosted_trees(seed: int) -> Any:
    """Returns gradient-boosted trees."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        max_iter=150, learning_rate=0.05, max_leaf_nodes=12, min_samples_leaf=15, max_features=0.3, random_state=seed
    )


def network(seed: int) -> Any:
    """Returns a network with two layers."""
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    layers = MLPRegressor(hidden_layer_sizes=(64, 64), alpha=1.0, learning_rate_init=3e-3, early_stopping=True)
    return make_pipeline(StandardScaler(), layers.set_params(random_state=seed))


MODELS: dict[str, Predict] = {
    "experience model": experience,
    "experience model, no measures": without_measures,
    "experience model, measures of the least similar task": least_similar,
    "one process per table": per_table,
    "boosted trees": regression(boosted_trees, 3, True),
    "boosted trees, no measures": regression(boosted_trees, 3, False),
    "networks": regression(network, 5, True),
    "networks, no measures": regression(network, 5, False),
}

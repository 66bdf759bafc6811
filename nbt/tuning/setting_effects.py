"""The effect of each setting of a recipe, estimated by a Gaussian process of the study's own trials."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nbt.settings import SETTINGS, TransferSettings, repair
from nbt.tuning.intervals import Interval
from nbt.tuning.space.encoding import encode
from nbt.tuning.storage.records import StudyRecord
from nbt.tuning.surrogate.gaussian_process import GaussianProcess
from nbt.tuning.surrogate.kernel import default_kernel
from nbt.tuning.surrogate.logit_score import MAX_GAP_TO_BEST, accuracy_from_logit_score
from nbt.tuning.surrogate.observation import limit_observations, to_observation
from nbt.tuning.target import Target

MIN_TRIALS = 8
"""Least number of full-length trials from which effects are estimated."""

_Z95 = 1.96


def setting_effects(
    record: StudyRecord, recipe: TransferSettings, reference: TransferSettings
) -> Mapping[str, Interval]:
    """Returns how much each setting of a recipe changes its score, compared with the same recipe with one other value.

    The value of one setting at a time is replaced by that of the reference, and the posterior of the difference of both
    recipes gives the effect with its 95 % interval. Priors and recorded tasks are not used: the interval says what the
    trials of this study know. Stopped trials enter by their forecasts.

    Args:
        record: The study.
        recipe: A recipe, usually the recommended one.
        reference: The recipe of the other values, usually the default recipe.

    Returns:
        Name of each setting that differs and has an effect alone -> difference in score, with the number of trials;
        empty with fewer than `MIN_TRIALS` full-length trials of the backbone of the recipe.
    """
    # Effects differ between backbones.
    trials = [trial for trial in record.trials if trial.settings.backbone == recipe.backbone]
    if sum(trial.state == "complete" for trial in trials) < MIN_TRIALS:
        return {}
    facts, metric = record.dataset, record.config.metric
    images = Target(epochs=record.config.epochs, facts=facts, metric=metric).validation_images
    changed = {
        name: repair(recipe.replace(**{name: reference.value(name)}))
        for name in SETTINGS
        if recipe.value(name) != reference.value(name) and name != "backbone"
    }
    others = {name: settings for name, settings in changed.items() if settings != recipe}
    if not others:
        return {}
    found = [to_observation(trial, images, metric) for trial in trials]
    observations = limit_observations([o for o in found if o is not None and o.logit_score is not None])
    scores = np.array([o.logit_score for o in observations], dtype=float)
    scores = np.maximum(scores, scores.max() - MAX_GAP_TO_BEST)
    level = float(scores.mean())
    process = GaussianProcess.fit(
        encode([o.settings for o in observations]),
        scores - level,
        noise=np.array([o.variance for o in observations]),
        prior_mode=default_kernel(),
    )
    point, points = encode([recipe]), encode(list(others.values()))
    means, variances = process.difference(np.repeat(point, len(points), axis=0), points)
    reached = level + float(process.mean(point)[0])

    def effect(difference: float) -> float:
        """Returns a difference of logit scores below that of the recipe as a difference of scores."""
        ends = accuracy_from_logit_score(np.array([reached, reached - difference]), images)
        return float(ends[0] - ends[1])

    return {
        name: Interval(
            mean=effect(mean), low=effect(mean - _Z95 * error), high=effect(mean + _Z95 * error), n=len(observations)
        )
        for name, mean, error in zip(others, means.tolist(), np.sqrt(variances).tolist(), strict=True)
    }

"""Hyperparameter importance by PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

MIN_TRIALS = 8
_TOP_QUANTILE = 0.25
RESAMPLES = 100
"""Number of bootstrap resamples of the intervals."""
_MAX_DRAWN = 200


def importance(study: optuna.Study) -> dict[str, float]:
    """Returns the importance of each parameter for reaching the best quarter of the full-length trials.

    Pruned trials are excluded because their learning rate was not annealed. The paper's default quantile, the best
    tenth, would be one or two trials in a study of common size.

    Args:
        study: A study to be maximised.

    Returns:
        Parameter name -> share. The shares sum to 1 and are sorted, largest first. Empty with fewer than 8 full-length
        trials, or if the lowest value occurs in the best quarter.
    """
    trials = _full_trials(study)
    values = sorted((trial.value for trial in trials if trial.value is not None), reverse=True)
    if len(values) < MIN_TRIALS or values[-1] == values[math.ceil(_TOP_QUANTILE * len(values)) - 1]:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # imports scikit-learn

    # Without `target` the evaluator uses the study's direction; with `target` it assumes that lower is better.
    shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=_TOP_QUANTILE))
    return {name: float(share) for name, share in sorted(shares.items(), key=lambda item: -item[1])}


def importance_bounds(study: optuna.Study) -> dict[str, tuple[float, float]]:
    """Returns the 95 % interval of each importance: quantiles over bootstrap resamples of the full-length trials.

    Trials are drawn with replacement, as if the same search were repeated with other trials: as many as there are, but
    at most 200, in which case the deviations are scaled by the square root of the ratio (Bickel et al. 1997,
    "Resampling fewer than n observations"). The resamples are the same at every call. Those in which no importance is
    defined are left out.

    Args:
        study: A study to be maximised.

    Returns:
        Parameter name -> lower and upper bound, 0 ... 1. Empty where `importance` is.
    """
    shares, trials = importance(study), _full_trials(study)
    if not shares:
        return {}
    plain = [create_trial(value=t.value, params=t.params, distributions=t.distributions) for t in trials]
    n_drawn = min(len(plain), _MAX_DRAWN)
    drawn = np.random.default_rng(0).integers(len(plain), size=(RESAMPLES, n_drawn))
    samples = [importance(_study_of([plain[index] for index in row])) for row in drawn.tolist()]
    centre = np.array(list(shares.values()))
    deviations = np.array([[sample.get(name, 0.0) for name in shares] for sample in samples if sample]) - centre
    scaled = np.quantile(deviations, (0.025, 0.975), axis=0) * math.sqrt(n_drawn / len(plain))
    bounds = np.clip(centre + scaled, 0.0, 1.0).T.tolist()
    return {name: (low, high) for name, (low, high) in zip(shares, bounds, strict=True)}


def _full_trials(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _study_of(trials: Sequence[FrozenTrial]) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return study

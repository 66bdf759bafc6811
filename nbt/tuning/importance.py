"""Hyperparameter importance by PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255)."""

from __future__ import annotations

import math

import optuna
from optuna.trial import TrialState

MIN_TRIALS = 8
_TOP_QUANTILE = 0.25


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
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = sorted((trial.value for trial in trials if trial.value is not None), reverse=True)
    if len(values) < MIN_TRIALS or values[-1] == values[math.ceil(_TOP_QUANTILE * len(values)) - 1]:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # imports scikit-learn

    # Without `target` the evaluator uses the study's direction; with `target` it assumes that lower is better.
    shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=_TOP_QUANTILE))
    return {name: float(share) for name, share in sorted(shares.items(), key=lambda item: -item[1])}

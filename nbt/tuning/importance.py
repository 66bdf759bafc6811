"""Importance: which dimensions decided on accuracy, by PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255)."""

from __future__ import annotations

import math

import optuna
from optuna.trial import TrialState

MIN_TRIALS = 8
_TOP_QUANTILE = 0.25


def importance(study: optuna.Study) -> dict[str, float]:
    """Returns parameter -> share of what sets the best quarter of the full-length trials apart from all of them.

    Pruned trials are left out: their last value is of a training that was not annealed. The paper's default, the best
    tenth, would be one or two trials in a study of usual size.

    Returns:
        Shares that sum to 1, largest first; empty below 8 full-length trials, or where the best quarter cannot be
        told from the rest.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = sorted((trial.value for trial in trials if trial.value is not None), reverse=True)
    if len(values) < MIN_TRIALS or values[-1] == values[math.ceil(_TOP_QUANTILE * len(values)) - 1]:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # brings scikit-learn along

    # Without a target the study's direction counts; with one the evaluator would take less for better.
    shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=_TOP_QUANTILE))
    return {name: float(share) for name, share in sorted(shares.items(), key=lambda item: -item[1])}

"""Importance of settings for the best trials of a study by PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255)."""

from __future__ import annotations

import copy
import math
from collections.abc import Container, Sequence

import numpy as np
import optuna
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

MIN_TRIALS = 8
_TOP_QUANTILE = 0.25
RESAMPLES = 100
"""Number of bootstrap resamples of the intervals."""
_MAX_DRAWN = 200


class Importance:
    """Importance of each parameter of a study for reaching the best quarter of its full-length trials.

    Pruned trials are excluded because their learning rate was not annealed. The paper's default quantile, the best
    tenth, would be one or two trials in a study of common size.

    Args:
        trials: Trials of a study to be maximised; of their contents, parameters and values are kept.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        full = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.value is not None]
        self._trials = [create_trial(value=t.value, params=t.params, distributions=t.distributions) for t in full]

    def shares(self) -> dict[str, float]:
        """Returns the share of each parameter by name.

        The shares sum to 1 and are sorted, largest first. The result is empty with fewer than 8 full-length trials, or
        if the lowest value occurs in the best quarter.
        """
        return _shares(self._trials)

    def bounds(self) -> dict[str, tuple[float, float]]:
        """Returns the 95 % interval of each share: quantiles over bootstrap resamples of the full-length trials.

        Trials are drawn with replacement, as if the same search were repeated with other trials: as many as there are,
        but at most 200, in which case the deviations are scaled by the square root of the ratio (Bickel et al. 1997,
        "Resampling fewer than n observations"). The resamples are the same at every call. Those in which no share is
        defined are left out.

        Returns:
            Parameter name -> lower and upper bound, 0 ... 1. The result is empty where that of `shares` is.
        """
        shares, trials = self.shares(), self._trials
        if not shares:
            return {}
        n_drawn = min(len(trials), _MAX_DRAWN)
        drawn = np.random.default_rng(0).integers(len(trials), size=(RESAMPLES, n_drawn))
        samples = [_shares([trials[index] for index in row]) for row in drawn.tolist()]
        centre = np.array(list(shares.values()))
        deviations = np.array([[sample.get(name, 0.0) for name in shares] for sample in samples if sample]) - centre
        scaled = np.quantile(deviations, (0.025, 0.975), axis=0) * math.sqrt(n_drawn / len(trials))
        bounds = np.clip(centre + scaled, 0.0, 1.0).T.tolist()
        return {name: (low, high) for name, (low, high) in zip(shares, bounds, strict=True)}


class _FixedTrials(InMemoryStorage):
    """A storage of one study, whose trials it returns as they are: Optuna's own copies every trial that is added.

    Args:
        trials: The trials; one of them may occur several times.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self.create_new_study([StudyDirection.MAXIMIZE], "importance")
        self._fixed = [_numbered(trial, number) for number, trial in enumerate(trials)]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._fixed


def _numbered(trial: FrozenTrial, number: int) -> FrozenTrial:
    """Returns a trial with the same contents and another number, by which Optuna tells trials apart."""
    numbered = copy.copy(trial)
    numbered.number = numbered._trial_id = number
    return numbered


def _shares(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Returns the share of each parameter of full-length trials; see `Importance.shares`."""
    values = sorted((trial.value for trial in trials if trial.value is not None), reverse=True)
    if len(values) < MIN_TRIALS or values[-1] == values[math.ceil(_TOP_QUANTILE * len(values)) - 1]:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # imports scikit-learn

    study = optuna.Study("importance", _FixedTrials(trials))
    # Without `target` the evaluator uses the study's direction; with `target` it assumes that lower is better.
    shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=_TOP_QUANTILE))
    # By name where shares are equal: Optuna returns them in the order of a set.
    return {name: float(share) for name, share in sorted(shares.items(), key=lambda item: (-item[1], item[0]))}

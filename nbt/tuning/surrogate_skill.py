"""Cross-validation of the prior surrogate on the trials of a search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbt.tuning.storage.records import TrialRecord
from nbt.tuning.surrogate.observation import condition_on_trials, to_observation
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate

FloatArray = NDArray[np.float64]

_FOLDS = 10
_MIN_TRIALS = 5
# Conditioning is cubic in the number of trials, so only the newest are used.
_MAX_TRIALS = 300
# The predictions of equal settings differ by rounding errors.
_SAME_SCORE_TOLERANCE = 1e-9


def cross_validate(surrogate: PriorSurrogate, trials: Sequence[TrialRecord]) -> dict[str, Any] | None:
    """Returns the rank correlation of trials with what the surrogate predicts for them without them, in JSON types.

    The trials are divided into at most ten folds, and the surrogate, with its kernel and the weights of its sources, is
    conditioned on the trials of the other folds. Stopped trials are used for this, but only full-length ones are
    predicted. The 95 % interval of Spearman's correlation is that of Bonett and Wright (2000, doi 10.1007/BF02294183).

    Args:
        surrogate: The prior surrogate of the search, before any trial.
        trials: Trials of the search; running and failed ones are not used.

    Returns:
        `correlation`, `low` and `high` (None if results or predictions are all equal) and `trials`, the number of
        predicted trials; None with fewer than five of them.
    """
    images = surrogate.target.validation_images
    pairs = [(trial, observation) for trial in trials if (observation := to_observation(trial, images)) is not None]
    pairs = [(trial, observation) for trial, observation in pairs if observation.logit_score is not None][-_MAX_TRIALS:]
    full = [i for i, (trial, _) in enumerate(pairs) if trial.state == "complete"]
    if len(full) < _MIN_TRIALS:
        return None
    observations = [observation for _, observation in pairs]
    predicted = np.full(len(pairs), np.nan)
    for fold in range(_FOLDS):
        held_out = full[fold::_FOLDS]
        if held_out:
            rest = [observation for i, observation in enumerate(observations) if i not in held_out]
            conditioned = condition_on_trials(surrogate, rest)
            predicted[held_out] = conditioned.mean([observations[i].settings for i in held_out])
    measured = np.array([observations[i].logit_score for i in full], dtype=float)
    return {**_rank_correlation(predicted[full], measured), "trials": len(full)}


def _rank_correlation(predicted: FloatArray, measured: FloatArray) -> dict[str, float | None]:
    """Returns Spearman's correlation with its interval; see `cross_validate`."""
    from scipy.stats import spearmanr

    if np.ptp(measured) == 0.0 or np.ptp(predicted) < _SAME_SCORE_TOLERANCE:
        return {"correlation": None, "low": None, "high": None}
    correlation = float(spearmanr(predicted, measured).statistic)
    # Of a perfect correlation, the transform is infinite.
    centre = math.atanh(min(max(correlation, -0.999), 0.999))
    error = NormalDist().inv_cdf(0.975) * math.sqrt((1 + correlation**2 / 2) / (len(measured) - 3))
    values = {"correlation": correlation, "low": math.tanh(centre - error), "high": math.tanh(centre + error)}
    return {name: round(value, 4) for name, value in values.items()}

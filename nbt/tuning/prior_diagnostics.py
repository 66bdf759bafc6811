"""Diagnostics of priors: their weights before a search and after its trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbt.tuning.storage.records import TrialRecord
from nbt.tuning.surrogate.observation import condition_on_trials, to_observation
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
from nbt.tuning.surrogate_skill import cross_validate

_MIN_TRIALS_FOR_CORRELATION = 5
# The scores of equal settings differ by rounding errors.
_SAME_SCORE_TOLERANCE = 1e-9


def diagnose_priors(surrogate: PriorSurrogate, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """Returns the priors and recorded tasks of a search with their weights before and after its trials, in JSON types.

    Args:
        surrogate: The prior surrogate of the search.
        trials: Trials of the study; running and failed ones are not used.

    Returns:
        A mapping with four keys. `sources` lists the active priors and recorded tasks: `name`, `words` (the
        suggestion), `origin` (its reference), `mean` and `spread` of the weight before any trial, `after` and
        `after_spread` given the trials, and `agreement`, the rank correlation of the source's scores with the
        scores of the full-length trials, whose number is `trials` (None for fewer than five, or if either are
        all equal). `silent` lists the inactive priors with `name` and `reason`. `tables` lists the names
        of the recorded tasks. `skill` is the result of `nbt.tuning.surrogate_skill.cross_validate`. Weights are in
        units of the logit score per standard deviation of the source's scores.
    """
    images, metric = surrogate.target.validation_images, surrogate.target.metric
    observations = [to_observation(trial, images, metric) for trial in trials]
    scored = [
        observation for observation in observations if observation is not None and observation.logit_score is not None
    ]
    full_length = [trial for trial in trials if trial.state == "complete"]
    diagnostics = surrogate.explain()
    weights = condition_on_trials(surrogate, scored).weights() if scored else []
    agreements = _rank_correlations(surrogate, full_length)
    for i, source in enumerate(diagnostics["sources"]):
        source |= weights[i] if weights else {"after": source["mean"], "after_spread": source["spread"]}
        source |= {"agreement": agreements[i], "trials": len(full_length)}
    return diagnostics | {"skill": cross_validate(surrogate, trials)}


def _rank_correlations(surrogate: PriorSurrogate, trials: Sequence[TrialRecord]) -> list[float | None]:
    """Returns the rank correlation of each source's scores with those of the trials; see `diagnose_priors`."""
    if len(trials) < _MIN_TRIALS_FOR_CORRELATION:
        return [None] * len(surrogate.sources)
    from scipy.stats import spearmanr

    results = np.array([trial.score(surrogate.target.metric) or 0.0 for trial in trials])
    scores = surrogate.source_scores([trial.settings for trial in trials])
    constant = np.ptp(results) == 0.0
    return [
        None
        if constant or np.ptp(source_scores) < _SAME_SCORE_TOLERANCE
        else round(float(spearmanr(source_scores, results).statistic), 4)
        for source_scores in scores
    ]

"""Review: what guided a search, and what the search's own trials made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbt.tuning.samplers.bayesian import condition_on_trials, to_observation
from nbt.tuning.storage.records import TrialRecord
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate

_MIN_TRIALS_FOR_CORRELATION = 5
# Opinions of equal settings differ by rounding.
_SAME_SCORE_TOLERANCE = 1e-9


def diagnose_priors(surrogate: PriorSurrogate, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """Returns what guided a search, in JSON types.

    Args:
        guide: Of the search.
        trials: Of the study, finished or not.

    Returns:
        `sources`: each with `name`, `words` (what it proposes), `origin` (where that is from), `mean` and `spread` of
        its weight before any trial, `after` and `after_spread` given the trials, and `agreement`, the rank correlation
        of what it says with the accuracy of `trials` full-length trials (None for fewer than five, or where it says
        the same of all); `silent`: heuristics that did not fire, with `name` and `reason`; `tables`: names of the
        recorded tasks. Weights are in units of merit for a standard deviation of what the source says.
    """
    images = surrogate.target.validation_images
    judged = [
        one for trial in trials if (one := to_observation(trial, images)) is not None and one.logit_score is not None
    ]
    full = [trial for trial in trials if trial.state == "complete"]
    found = surrogate.explain()
    weights = condition_on_trials(surrogate, judged).weights() if judged else []
    agreements = _rank_correlations(surrogate, full)
    for i, source in enumerate(found["sources"]):
        source |= weights[i] if weights else {"after": source["mean"], "after_spread": source["spread"]}
        source |= {"agreement": agreements[i], "trials": len(full)}
    return found


def _rank_correlations(surrogate: PriorSurrogate, trials: Sequence[TrialRecord]) -> list[float | None]:
    if len(trials) < _MIN_TRIALS_FOR_CORRELATION:
        return [None] * len(surrogate.sources)
    from scipy.stats import spearmanr

    accuracies = np.array([trial.val_accuracy or 0.0 for trial in trials])
    scores = surrogate.source_scores([trial.settings for trial in trials])
    flat = np.ptp(accuracies) == 0.0
    return [
        None if flat or np.ptp(row) < _SAME_SCORE_TOLERANCE else round(float(spearmanr(row, accuracies).statistic), 4)
        for row in scores
    ]

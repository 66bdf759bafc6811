"""Observations: the logit scores of trials, on which the prior surrogate is conditioned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbt.metrics import DEFAULT_METRIC
from nbt.settings import TransferSettings
from nbt.tuning.storage.records import TrialRecord
from nbt.tuning.surrogate.logit_score import MAX_GAP_TO_BEST, logit_score, logit_score_variance
from nbt.tuning.surrogate.prior_surrogate import ConditionedSurrogate, PriorSurrogate

FloatArray = NDArray[np.float64]

# Fitting is cubic in the number of trials, so only the best and the newest are modelled.
_MAX_MODELLED_TRIALS = 300
# Gain that a pruned trial without a forecast is assumed to have had at its end, and the variance of that gain.
_PRUNED_GAIN, _PRUNED_VARIANCE = 0.5, 1.0


@dataclass(frozen=True)
class Observation:
    """The observed or forecast logit score of one trial.

    Attributes:
        settings: Settings of the trial.
        logit_score: Score that the trial reached, or its forecast; None while the trial runs.
        variance: Variance of the logit score.
    """

    settings: TransferSettings
    logit_score: float | None
    variance: float


def to_observation(record: TrialRecord, images: int, metric: str = DEFAULT_METRIC) -> Observation | None:
    """Converts a trial to an observation; None for a failed trial.

    Args:
        record: Stored trial.
        images: Number of validation images.
        metric: Name of the metric of the study.
    """
    if record.state == "failed":
        return None
    if record.state == "running":
        return Observation(record.settings, None, 0.0)
    score = record.last_score(metric) or 0.0
    noise = float(logit_score_variance(score, images))
    if record.state == "complete":
        return Observation(record.settings, float(logit_score(score, images)), noise)
    forecast = record.forecast
    if not forecast:
        return Observation(record.settings, float(logit_score(score, images)) + _PRUNED_GAIN, noise + _PRUNED_VARIANCE)
    low, high = (float(logit_score(forecast[name], images)) for name in ("low", "high"))
    # 80 % of a normal distribution lie within 1.28 standard deviations.
    std = max((high - low) / 2.56, 0.1)
    return Observation(record.settings, float(logit_score(forecast["mean"], images)), noise + std**2)


def condition_on_trials(
    surrogate: PriorSurrogate,
    observations: Sequence[Observation],
    source_scores: FloatArray | None = None,
    points: FloatArray | None = None,
) -> ConditionedSurrogate:
    """Returns the surrogate conditioned on trials; scores far below the best are raised to a floor.

    Args:
        surrogate: Surrogate of the study.
        observations: At least one, each with a logit score.
        source_scores: `PriorSurrogate.source_scores` of the settings, if already computed.
        points: `encode` of the settings, if already computed.
    """
    logit_scores = np.array([observation.logit_score for observation in observations], dtype=float)
    variance = np.array([observation.variance for observation in observations])
    floored = np.maximum(logit_scores, logit_scores.max() - MAX_GAP_TO_BEST)
    settings = [observation.settings for observation in observations]
    return surrogate.condition(settings, floored, variance, source_scores, points)


def limit_observations(observations: list[Observation]) -> list[Observation]:
    """Keeps the best and the newest observations, at most `_MAX_MODELLED_TRIALS`, in their order."""
    if len(observations) <= _MAX_MODELLED_TRIALS:
        return observations
    return [observations[i] for i in _best_and_newest(observations)]


class ObservationLog:
    """The observations of a growing study, of which only those are kept that `limit_observations` can choose.

    Its memory and the time of its methods do not grow with the number of trials.
    """

    def __init__(self) -> None:
        self._finished: dict[int, Observation] = {}  # by the number of the trial
        self._n_dropped = 0

    def add(self, number: int, observation: Observation) -> None:
        """Adds the observation of the finished trial with the given number."""
        self._finished[number] = observation
        if len(self._finished) > 2 * _MAX_MODELLED_TRIALS:
            numbers = sorted(self._finished)
            kept = [numbers[i] for i in _best_and_newest([self._finished[number] for number in numbers])]
            self._n_dropped += len(numbers) - len(kept)
            self._finished = {number: self._finished[number] for number in kept}

    def limited(self, running: Mapping[int, Observation]) -> list[Observation]:
        """Returns what `limit_observations` returns for all finished and the given running trials.

        Args:
            running: The observations of the running trials by their numbers.
        """
        by_number = {**self._finished, **running}
        observations = [by_number[number] for number in sorted(by_number)]
        if len(observations) + self._n_dropped <= _MAX_MODELLED_TRIALS:
            return observations
        return [observations[i] for i in _best_and_newest(observations)]


def _best_and_newest(observations: Sequence[Observation]) -> list[int]:
    """Returns the indices of the best and of the newest observations, half of `_MAX_MODELLED_TRIALS` each, in order."""
    half = _MAX_MODELLED_TRIALS // 2
    best = sorted(range(len(observations)), key=lambda i: -(observations[i].logit_score or 0.0))[:half]
    return sorted({*best, *range(max(0, len(observations) - half), len(observations))})

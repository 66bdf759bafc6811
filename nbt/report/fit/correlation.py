"""MeasureCorrelation: how well the measures of the fit profile told this study's trials apart, beside a trivial baseline.

A measure of units says something on a trial through the depth up to which the trial transfers or freezes: its value
at the last of those units. The trivial baseline is that depth itself, which needs no measuring.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbt.report.stored_values import mappings_at, number_at
from nbt.settings import TransferSettings
from nbt.tuning.storage.records import StudyRecord, TrialRecord

MIN_TRIALS = 8
"""Full-length trials below which no correlation is given."""

DEPTHS = ("transfer_depth", "frozen_depth")
MEASURES = (
    "ridge_accuracy",
    "gain",
    "logme",
    "h_score",
    "mean_shift",
    "variance_shift",
    "dead_channels",
    "cka_next",
)
"""Columns of the profile that are judged; those of random weights are part of `gain`."""


@dataclass(frozen=True, kw_only=True)
class MeasureCorrelation:
    """How a measure at one depth went with the accuracy of the trials.

    Attributes:
        measure: One of `MEASURES`.
        depth: One of `DEPTHS`.
        tau: Kendall's tau-b, -1 ... 1; None below `MIN_TRIALS` trials, or where all have the same value.
        baseline: That of the depth itself on the same trials.
        trials: How many had a value.
    """

    measure: str
    depth: str
    tau: float | None
    baseline: float | None
    trials: int


def comparable_trials(record: StudyRecord) -> list[TrialRecord]:
    """Returns the trials that measures are judged by: of full length, and not diverged."""
    return [
        trial
        for trial in record.trials
        if trial.state == "complete" and not trial.diverged and trial.val_accuracy is not None
    ]


def measure_correlations(record: StudyRecord) -> list[MeasureCorrelation]:
    """Returns the skill of every measure that the profile has, at both depths; none without a profile.

    Trials that transfer (or freeze) nothing have no unit to take a value from and are left out there.
    """
    layers = mappings_at(record.profile or {}, "layers")
    trials = comparable_trials(record)
    known = [name for name in MEASURES if any(number_at(row, name) is not None for row in layers)]
    return [_measure_correlation(name, depth, layers, trials) for name in known for depth in DEPTHS]


def unit_count(settings: TransferSettings, depth: str, units: int) -> int:
    """Returns how many of so many units a recipe transfers or freezes, as training does.

    A depth is rounded to the nearest whole number of units, halves up, and no more units are frozen than transferred;
    see `nbt.transfer.transfer_depth`, which this repeats because a report must not need torch.
    """
    transferred = _rounded(settings.transfer_depth, units)
    return transferred if depth == "transfer_depth" else min(_rounded(settings.frozen_depth, units), transferred)


def chance_level(trials: int) -> float:
    """Returns the largest tau, in size, that chance gives in 95 % of cases where nothing is related."""
    return 1.96 * math.sqrt(2 * (2 * trials + 5) / (9 * trials * (trials - 1)))


def _rounded(share: float, units: int) -> int:
    return min(units, math.floor(share * units + 0.5))


def _measure_correlation(
    name: str, depth: str, layers: Sequence[Mapping[str, Any]], trials: Sequence[TrialRecord]
) -> MeasureCorrelation:
    values, counts, accuracies = [], [], []
    for trial in trials:
        count = unit_count(trial.settings, depth, len(layers))
        value = number_at(layers[count - 1], name) if count else None
        if value is not None:
            values.append(value)
            counts.append(float(count))
            accuracies.append(trial.val_accuracy or 0.0)
    return MeasureCorrelation(
        measure=name,
        depth=depth,
        tau=_tau(values, accuracies),
        baseline=_tau(counts, accuracies),
        trials=len(values),
    )


def _tau(values: Sequence[float], accuracies: Sequence[float]) -> float | None:
    if len(values) < MIN_TRIALS or len(set(values)) < 2 or len(set(accuracies)) < 2:
        return None
    from scipy.stats import kendalltau

    return round(float(kendalltau(values, accuracies).statistic), 4)

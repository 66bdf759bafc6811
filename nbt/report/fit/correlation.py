"""Rank correlation of the fit profile's unit measures with the accuracy of the study's trials.

The value of a measure for a trial is the value at the last unit that the trial transfers or freezes. The baseline is
that depth itself, which requires no measurement.
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
"""Minimum number of full-length trials for a correlation."""

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
    "relative_gradient",
)
"""Columns of the profile's unit table that are correlated; those at random weights are contained in `gain`."""


@dataclass(frozen=True, kw_only=True)
class MeasureCorrelation:
    """Correlation of a measure at one depth with the accuracy of the trials.

    Attributes:
        measure: One of `MEASURES`.
        depth: One of `DEPTHS`.
        tau: Kendall's tau-b, -1 ... 1; None for fewer than `MIN_TRIALS` trials or constant values.
        baseline: Kendall's tau-b of the depth itself on the same trials.
        trials: Number of trials that have a value.
    """

    measure: str
    depth: str
    tau: float | None
    baseline: float | None
    trials: int


def comparable_trials(record: StudyRecord, backbone: str = "") -> list[TrialRecord]:
    """Returns the full-length trials of a backbone that did not diverge.

    Args:
        record: The study.
        backbone: The setting `backbone` of the trials; "" is the reference.
    """
    return [
        trial
        for trial in record.trials
        if trial.state == "complete"
        and not trial.diverged
        and trial.val_accuracy is not None
        and trial.settings.backbone == backbone
    ]


def measure_correlations(record: StudyRecord, backbone: str = "") -> list[MeasureCorrelation]:
    """Returns the correlation of every measure of the profile at both depths; an empty list without a profile.

    Trials that transfer (or freeze) no unit have no value at that depth and are left out.

    Args:
        record: The study.
        backbone: The setting `backbone` of profile and trials; "" is the reference.
    """
    layers = mappings_at(record.profile_of(backbone) or {}, "layers")
    trials = comparable_trials(record, backbone)
    available = [name for name in MEASURES if any(number_at(row, name) is not None for row in layers)]
    return [_measure_correlation(name, depth, layers, trials) for name in available for depth in DEPTHS]


def unit_count(settings: TransferSettings, depth: str, units: int) -> int:
    """Returns the number of units that the settings transfer or freeze, as training computes it.

    A depth is rounded to the nearest number of units, halves up, and at most as many units are frozen as transferred.
    This repeats `nbt.transfer.transfer_depth`, because reports must not require torch.

    Args:
        settings: The settings of a trial.
        depth: One of `DEPTHS`.
        units: Number of units of the backbone.
    """
    transferred = _rounded(settings.transfer_depth, units)
    return transferred if depth == "transfer_depth" else min(_rounded(settings.frozen_depth, units), transferred)


def chance_level(trials: int) -> float:
    """Returns the bound that |tau| stays below in 95 % of cases if `trials` values are unrelated."""
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

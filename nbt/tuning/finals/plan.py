"""The size of the finals: how many finalists run on how many folds, within the trainings that the search allows."""

from __future__ import annotations

from dataclasses import dataclass

N_RETRAININGS = 2
"""Trainings on all labelled images after the finals: the recommended recipe and the baseline."""

MIN_FINALISTS, MAX_FINALISTS = 2, 4
"""Finalists, the baseline included."""

MIN_FOLDS = 3
"""Folds before the first decision, unless the user wants fewer."""


@dataclass(frozen=True, kw_only=True)
class FinalsPlan:
    """The finals of a study before they start; they may end with fewer runs.

    Attributes:
        finalists: Number of finalists, the baseline included.
        folds: Maximum number of runs per finalist, each with its own seed and split.
    """

    finalists: int
    folds: int

    @property
    def trainings(self) -> int:
        """Number of full-length trainings of finals and last training together."""
        return self.finalists * self.folds + N_RETRAININGS


def plan_finals(trainings: float, max_folds: int) -> FinalsPlan:
    """Returns the largest finals that fit, but never fewer than two finalists on three folds (`max_folds` if lower).

    Folds come first: a finalist is added only if every finalist still has three folds.

    Args:
        trainings: Full-length trainings that finals and last training together may take.
        max_folds: Maximum number of runs per finalist, 1 or more.
    """
    runs, folds = max(0, int(trainings) - N_RETRAININGS), min(MIN_FOLDS, max_folds)
    finalists = min(max(runs // folds, MIN_FINALISTS), MAX_FINALISTS)
    return FinalsPlan(finalists=finalists, folds=min(max(runs // finalists, folds), max_folds))


def is_cheaper(cost: float, other: float) -> bool:
    """Returns whether a relative cost is lower than another one by at least 10 %; they are not more precise."""
    return cost <= 0.9 * other


def allowed_trainings(epochs: int, trial_epochs: int) -> float:
    """Returns the trainings that finals and last training may take: half of what the trials took.

    Args:
        epochs: Epochs that the trials took, or will take.
        trial_epochs: Epochs of a full trial.
    """
    return epochs / trial_epochs / 2

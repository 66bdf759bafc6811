"""The size of the finals: how many finalists run on how many folds, within half of what the trials cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MIN_FINALISTS, MAX_FINALISTS = 2, 4
"""Finalists, the baseline included."""

MAX_FINALS_SHARE = 0.5
"""What finals and last training may cost at most, relative to the trials; the smallest finals may cost more."""

MIN_FOLDS = 3
"""Folds before the first decision, unless the user wants fewer."""


@dataclass(frozen=True, kw_only=True)
class FinalsPlan:
    """The finals of a study before they start; they may end with fewer runs.

    Attributes:
        finalists: Number of finalists, the baseline included.
        folds: Maximum number of runs per finalist, each with its own seed and split.
        cost: Cost of finals and last training together, in trainings of the baseline.
        allowed: What they may cost; only the smallest finals cost more.
    """

    finalists: int
    folds: int
    cost: float
    allowed: float

    @property
    def fits(self) -> bool:
        """Whether finals and last training cost no more than they may."""
        return self.cost <= self.allowed


def plan_finals(
    trials: float, costs: Sequence[float], max_folds: int, *, retraining: float = 1.0, max_cost: float = math.inf
) -> FinalsPlan:
    """Returns the largest finals that cost, with the last training, at most half of what the trials cost.

    There are never fewer than two finalists on three folds (`max_folds` if lower). Folds come first: a finalist is
    added only if every finalist still has three folds. All costs are relative to a training of the baseline in a trial;
    none depends on a clock.

    Args:
        trials: Cost of all trials.
        costs: Cost of a training of each possible finalist but the baseline, best first.
        max_folds: Maximum number of runs per finalist, 1 or more.
        retraining: Cost of a training of the baseline on training and validation images.
        max_cost: Further bound of the cost of finals and last training.
    """
    allowed, least = min(MAX_FINALS_SHARE * trials, max_cost), min(MIN_FOLDS, max_folds)
    most = max(MIN_FINALISTS, min(MAX_FINALISTS, 1 + len(costs)))
    by_size = [_plan(n, least, allowed, costs, retraining) for n in range(most, MIN_FINALISTS - 1, -1)]
    plan = next((plan for plan in by_size if plan.fits), by_size[-1])
    by_folds = (_plan(plan.finalists, n, allowed, costs, retraining) for n in range(max_folds, least, -1))
    return next((larger for larger in by_folds if larger.fits), plan)


def _plan(finalists: int, folds: int, allowed: float, costs: Sequence[float], retraining: float) -> FinalsPlan:
    challengers = costs[: finalists - 1]
    # The recommended recipe is not known before the finals: the most expensive one is counted.
    cost = folds * (1.0 + sum(challengers)) + retraining * (1.0 + max(challengers, default=0.0))
    return FinalsPlan(finalists=finalists, folds=folds, cost=cost, allowed=allowed)


def is_cheaper(cost: float, other: float) -> bool:
    """Returns whether a relative cost is lower than another one by at least 10 %; they are not more precise."""
    return cost <= 0.9 * other

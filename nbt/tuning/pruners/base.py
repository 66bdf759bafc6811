"""Pruners: which trials are stopped before their last epoch, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from nbt.errors import UsageError, nearest

if TYPE_CHECKING:
    import optuna

    from nbt.settings import TransferSettings
    from nbt.training.results import EpochResult

PRUNER_NAMES = ("fit", "asha", "none")


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialContext:
    """A trial that has just finished an epoch which is not its last.

    Attributes:
        study: With all trials, finished and running; their intermediate values are accuracies by epoch.
        number: Of the trial.
        settings: Its recipe.
        curve: Its epochs so far, at least one.
    """

    study: optuna.Study
    number: int
    settings: TransferSettings
    curve: tuple[EpochResult, ...]


class Pruner(Protocol):
    """Decides on every epoch but the last of every trial, in order, those that may not be stopped included."""

    def decide(self, context: TrialContext) -> str | None:
        """Returns why the trial should stop, in a sentence, or None."""
        ...


@runtime_checkable
class ForecastingPruner(Protocol):
    """A pruner that can say what it expected of a trial."""

    def forecast(self, number: int) -> Mapping[str, Any] | None:
        """Returns what was forecast of a trial, in JSON types, or None; see `FitPruner.forecast`."""
        ...


class NoPruner:
    """Stops nothing."""

    def decide(self, context: TrialContext) -> str | None:
        """Returns None."""
        return None


class AshaPruner:
    """Asynchronous successive halving (Li et al. 2018, arXiv 1810.05934), optuna's implementation.

    A trial goes on past a rung only if its accuracy is among the best half of all that have reached the rung. The
    rungs are at a third and at two thirds of the trial: under a warm-up and cosine schedule the rank correlation of
    the accuracy after epoch e of 12 with the final one is about 0 to .3 up to epoch 3, .5 at 4, .7 at 6 and .8 to .9
    at 8, so a rung before a third would throw good settings away, and a halving is the mildest cut there is. The
    last epoch is no rung.

    Args:
        length: Epochs of a full trial.
    """

    def __init__(self, length: int) -> None:
        from optuna.pruners import SuccessiveHalvingPruner

        first = max(1, math.ceil(length / 3))
        self._rungs = (first, 2 * first)
        self._pruner = SuccessiveHalvingPruner(min_resource=first, reduction_factor=2)

    def decide(self, context: TrialContext) -> str | None:
        """Returns why the trial falls behind at a rung, or None."""
        last = context.curve[-1]
        if last.epoch not in self._rungs:
            return None
        trial = context.study.get_trials(deepcopy=False)[context.number]
        if not self._pruner.prune(context.study, trial):
            return None
        return f"epoch {last.epoch}: accuracy {last.val_accuracy or 0.0:.3f} is not among the best half at this rung"


def make_pruner(name: str, length: int) -> Pruner:
    """Returns the pruner of that name, of those that need no experience.

    Args:
        name: "asha" or "none"; "fit" is made by `nbt.tuning.transferred_priors.TransferredPriors.pruner`.
        length: Epochs of a full trial.

    Raises:
        UsageError: The name is unknown, or its pruner needs experience.
    """
    if name == "asha":
        return AshaPruner(length)
    if name == "none":
        return NoPruner()
    if name in PRUNER_NAMES:
        raise UsageError(
            f"the pruner {name!r} needs recorded curves: see nbt.tuning.transferred_priors.TransferredPriors.pruner"
        )
    raise UsageError(f"unknown pruner {name!r}; {nearest(name, PRUNER_NAMES)}")

"""The pruner protocol, and the pruners that need no recorded curves."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from nbt.errors import UsageError, nearest
from nbt.metrics import DEFAULT_METRIC, METRICS
from nbt.search_config import PRUNERS
from nbt.settings import TransferSettings

if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner

    from nbt.training.results import EpochResult


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialContext:
    """State of a trial after an epoch other than its last.

    Attributes:
        study: Optuna study with all trials, finished and running; intermediate values are scores of the metric of
            the study by epoch.
        number: Number of the trial.
        settings: Settings of the trial.
        curve: Epochs so far, at least one.
        index: Number that the trial would have if no trial had been interrupted, for random decisions; None for
            `number`.
    """

    study: optuna.Study
    number: int
    settings: TransferSettings
    curve: tuple[EpochResult, ...]
    index: int | None = None


class Pruner(Protocol):
    """Decides after each epoch whether to stop a trial.

    The controller calls it in order for every epoch but the last of every trial, including trials that must not be
    stopped.
    """

    def decide(self, context: TrialContext) -> str | None:
        """Returns the reason for which the trial should stop, as a sentence, or None to continue."""
        ...


@runtime_checkable
class ForecastingPruner(Protocol):
    """A pruner that forecasts the result of each trial."""

    def forecast(self, number: int) -> Mapping[str, Any] | None:
        """Returns the forecasts of a trial in JSON types, or None; see `FitPruner.forecast`."""
        ...


def is_in_best_half(score: float, scores: Collection[float]) -> bool:
    """Returns whether a score is among the best half, rounded down but at least one, of the scores at a rung.

    Args:
        score: The score.
        scores: All scores at the rung, this one included.
    """
    return score >= sorted(scores, reverse=True)[max(1, len(scores) // 2) - 1]


class NoPruner:
    """Pruner that never stops a trial."""

    def decide(self, context: TrialContext) -> str | None:
        """Returns None."""
        return None


class OptunaPruner:
    """Adapter of an Optuna pruner.

    Args:
        pruner: Optuna pruner.
        reason: Reason to report for a stopped trial, without the epoch; "{value}" is the value of the metric in it.
        rungs: Epochs at which a trial may be stopped; every epoch when None.
        metric: Name of the metric of the study.
    """

    def __init__(
        self,
        pruner: BasePruner,
        reason: str,
        rungs: tuple[int, ...] | None = None,
        metric: str = DEFAULT_METRIC,
    ) -> None:
        self._pruner, self._reason, self._rungs, self._metric = pruner, reason, rungs, metric

    def decide(self, context: TrialContext) -> str | None:
        """Returns the reason for which the trial should stop, or None."""
        last = context.curve[-1]
        if self._rungs is not None and last.epoch not in self._rungs:
            return None
        trial = context.study.get_trials(deepcopy=False)[context.number]
        if not self._pruner.prune(context.study, trial):
            return None
        return f"epoch {last.epoch}: {self._reason.format(value=f'{last.value(self._metric) or 0.0:.3f}')}"


class AshaPruner(OptunaPruner):
    """Asynchronous successive halving (Li et al. 2018, arXiv 1810.05934), as Optuna implements it.

    A trial passes a rung only if its score is in the upper half of all trials that have reached the rung. The rungs
    are at one and two thirds of the trial: under a warm-up and cosine schedule, the rank correlation of the accuracy
    after epoch e of 12 with the final accuracy is about 0 to 0.3 up to epoch 3, 0.5 at 4, 0.7 at 6 and 0.8 to 0.9 at 8,
    so that an earlier rung would stop good settings. A reduction factor of 2 is the smallest that Optuna accepts. The
    last epoch is not a rung.

    Args:
        length: Epochs of a full trial.
        metric: Name of the metric of the study.
    """

    def __init__(self, length: int, metric: str = DEFAULT_METRIC) -> None:
        from optuna.pruners import SuccessiveHalvingPruner

        first_rung = max(1, math.ceil(length / 3))
        super().__init__(
            SuccessiveHalvingPruner(min_resource=first_rung, reduction_factor=2),
            METRICS[metric].label + " {value} is not among the best half at this rung",
            rungs=(first_rung, 2 * first_rung),
            metric=metric,
        )


class PositionHalvingPruner:
    """The rule of `AshaPruner` for trials of different lengths: rungs are at a third and two thirds of each schedule.

    Optuna compares trials at equal epochs, at which the learning rates of trials of different lengths differ.

    Args:
        metric: Name of the metric of the study.
    """

    def __init__(self, metric: str = DEFAULT_METRIC) -> None:
        self._metric = METRICS[metric]
        self._scores: dict[int, dict[int, float]] | None = None  # of the trials at each third, by their number

    def decide(self, context: TrialContext) -> str | None:
        """Returns the reason for which the trial should stop, or None."""
        last, length = context.curve[-1], context.settings.epochs
        rung = self._rung(last, length)
        if rung is None:
            return None
        if self._scores is None:
            self._scores = self._scores_of(context.study, context.number)
        scores = self._scores[rung]
        scores[context.number] = score = last.score(self._metric.name) or 0.0
        if is_in_best_half(score, scores.values()):
            return None
        value = self._metric.format_score(score)
        return f"epoch {last.epoch}: {value} is not among the best half at {rung}/3 of the schedule"

    def _rung(self, result: EpochResult, length: int) -> int | None:
        """Returns the third at whose end an epoch is, 1 or 2; None for other epochs."""
        is_last = result.epoch >= length
        return next((third for third in (1, 2) if not is_last and result.epoch == math.ceil(third * length / 3)), None)

    def _scores_of(self, study: optuna.Study, running: int) -> dict[int, dict[int, float]]:
        """Returns the scores of the trials of earlier sessions at each third."""
        from nbt.tuning.storage.reader import read_trial

        scores: dict[int, dict[int, float]] = {1: {}, 2: {}}
        for record in filter(None, map(read_trial, study.get_trials(deepcopy=False))):
            for result in () if record.number == running or record.end == "interrupted" else record.curve:
                if (rung := self._rung(result, record.settings.epochs)) is not None:
                    scores[rung][record.number] = result.score(self._metric.name) or 0.0
        return scores


def make_pruner(name: str, length: int, metric: str = DEFAULT_METRIC, *, equal_lengths: bool = True) -> Pruner:
    """Creates a pruner that needs no experience.

    Args:
        name: "asha" or "none"; `nbt.tuning.transferred_priors.TransferredPriors.pruner` creates "fit".
        length: Epochs of a full trial.
        metric: Name of the metric of the study.
        equal_lengths: Whether all trials have this length.

    Raises:
        UsageError: The name is unknown, or the pruner needs experience.
    """
    if name == "asha":
        return AshaPruner(length, metric) if equal_lengths else PositionHalvingPruner(metric)
    if name == "none":
        return NoPruner()
    if name in PRUNERS:
        raise UsageError(
            f"the pruner {name!r} needs recorded curves: see nbt.tuning.transferred_priors.TransferredPriors.pruner"
        )
    raise UsageError(f"unknown pruner {name!r}; {nearest(name, PRUNERS)}")

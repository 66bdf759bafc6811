"""Estimate of the duration of a search: what each phase takes, before the first trial and refined while it runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.baseline_recipes import default_recipe
from nbt.tuning.budget import MIN_PROPOSAL, Budget
from nbt.tuning.finals.plan import MAX_FINALISTS, FinalsPlan, plan_finals
from nbt.tuning.job_clock import FINALS, PHASES, PROFILE, REPORT, TRAIN, TRIALS, JobClock, JobEstimate
from nbt.tuning.relative_cost import CostModel
from nbt.tuning.space.sampling import sample_many_params
from nbt.tuning.space.space import Space
from nbt.tuning.storage.records import StudyRecord

# Share of the time of the workers between trials: proposals, storage, idle workers at the end.
_OVERHEAD = 1.1
_SPACE_SAMPLES = 256
# Weight of the estimated relative cost beside the measured one, in trials.
_PRIOR_TRIALS = 4
# The fit profile is one forward pass over at most 1000 images of two networks, and measures of each unit.
_PROFILE_SECONDS, _PROFILE_IMAGES, _PROFILE_COST = 2.0, 1000, 1.0
# Fitting forests to the curves of the recorded tables, which belongs to the phase of the fit profile.
_MODELS_SECONDS = 5.0
_REPORT_SECONDS = 3.0
# A budget in time that is just long enough by the estimate may be too short by the clock.
_MARGIN = 1.1


def mean_relative_cost(
    model: CostModel, space: Space, epochs: int, first: Iterable[TransferSettings], trials: int | None
) -> float:
    """Returns the estimated mean cost of the trainings of a search relative to the default recipe.

    Args:
        model: Estimates the cost of trainings.
        space: The search space, from which the settings of later trials are assumed to be drawn at random.
        epochs: Epochs of a full trial.
        first: Settings of the first trials.
        trials: Number of trials; None for a budget in time.
    """
    params = sample_many_params(space, np.random.default_rng(0), _SPACE_SAMPLES)
    later = fmean(model.training(space.settings(values, epochs)) / epochs for values in params)
    known = [model.training(settings) / epochs for settings in first][:trials]
    n_later = max(0, (20 if trials is None else trials) - len(known))
    return (sum(known) + n_later * later) / (len(known) + n_later)


@dataclass(frozen=True, kw_only=True)
class StoredWork:
    """What earlier sessions of a study have done.

    Attributes:
        cost: Cost of its trials, in epochs of the default recipe.
        phases: Phases after the trials whose results are stored; only further trials can change them.
    """

    cost: float = 0.0
    phases: frozenset[str] = frozenset()

    @classmethod
    def of(cls, record: StudyRecord) -> StoredWork:
        """Returns the stored work of a study."""
        results = {FINALS: record.recommended, TRAIN: record.test}
        phases = frozenset(phase for phase, result in results.items() if result)
        return cls(cost=record.budget_spent, phases=phases)


class JobEstimator:
    """Estimates what the phases of a search take, from the duration of an epoch of the default recipe.

    It bounds searches with a budget in time, and only informs about searches with a budget in trials.

    Args:
        budget: The budget of the search.
        trial_epochs: Epochs of a full trial.
        max_folds: Maximum number of final runs per finalist.
        epoch_seconds: Duration of an epoch of the default recipe while all workers train.
        workers: Number of runs at a time.
        relative_cost: Mean cost of a training of the search relative to the default recipe, see `mean_relative_cost`.
        retraining_cost: Cost of an epoch on training and validation images relative to one of a trial.
        profile_share: Images of the fit profile as a share of the training images; 0 if it exists already.
        fits_models: Whether forests have to be fitted to recorded curves, as they are not cached.
        stored: What earlier sessions have done.
    """

    def __init__(
        self,
        budget: Budget,
        trial_epochs: int,
        *,
        max_folds: int,
        epoch_seconds: float,
        workers: int,
        relative_cost: float,
        retraining_cost: float = 1.0,
        profile_share: float = 0.0,
        fits_models: bool = False,
        stored: StoredWork = StoredWork(),
    ) -> None:
        self._budget, self._max_folds, self._trial_epochs = budget, max_folds, trial_epochs
        self._epoch_seconds, self._workers = epoch_seconds, max(1, workers)
        self._prior_cost, self._retraining_cost = relative_cost, retraining_cost
        self._profile_share, self._fits_models = profile_share, fits_models
        self._spent, self._stored = stored.cost, stored
        self._default = default_recipe(trial_epochs)
        self._default_seconds: list[float] = []
        # Of all epochs: their number, their duration, and their duration times the relative length of their trials.
        self._n_epochs, self._trial_seconds, self._weighted_seconds = 0, 0.0, 0.0
        self._final_runs: tuple[int, list[float]] | None = None  # number of runs, and seconds of those that ended

    def add_epoch(self, settings: TransferSettings, result: EpochResult, spent: float) -> None:
        """Refines the estimate by an epoch of a trial.

        Args:
            settings: Settings of the trial.
            result: Result of the epoch.
            spent: Cost of all trials so far, in epochs of the default recipe.
        """
        self._spent = spent
        self._n_epochs += 1
        self._trial_seconds += result.seconds
        self._weighted_seconds += result.seconds * settings.epochs / self._trial_epochs
        if settings == self._default and result.epoch > 1:  # the first one may include the start of libraries
            self._default_seconds.append(result.seconds)
            self._epoch_seconds = fmean(self._default_seconds)

    def start_finals(self, runs: int) -> None:
        """Replaces the estimated number of final runs."""
        self._final_runs = (runs, [])

    def add_final_run(self, curve: Sequence[EpochResult]) -> None:
        """Refines the estimate by a final run that ended."""
        if self._final_runs is not None:
            self._final_runs[1].append(sum(result.seconds for result in curve))

    def estimate(self, clock: JobClock) -> JobEstimate:
        """Returns the estimate at this moment; phases before the one that runs now took what they took."""
        measured, elapsed = clock.seconds(), clock.total
        now = PHASES.index(clock.phase)
        phases, trials_end = dict(measured), self._trials_have_ended(elapsed)
        predicted = self._predicted(measured[TRIALS])
        if now < PHASES.index(REPORT):  # each session writes a report
            predicted[REPORT] += measured[REPORT]
        for phase, seconds in predicted.items():
            is_stored = trials_end and phase in self._stored.phases | {TRIALS}
            if PHASES.index(phase) >= now and not is_stored:
                phases[phase] = max(measured[phase], seconds)
        if self._budget.seconds is not None and now <= PHASES.index(TRIALS) and not trials_end:
            others = sum(seconds for phase, seconds in phases.items() if phase != TRIALS)
            phases[TRIALS] = max(measured[TRIALS], self._trial_length, self._budget.seconds - others)
        return JobEstimate(phases, elapsed, is_limit=self._budget.min_gain is not None, earlier=clock.earlier)

    def minimum_seconds(self, elapsed: float) -> float:
        """Returns the shortest budget in time that suffices for a baseline trial and for finals.

        Args:
            elapsed: Seconds so far.
        """
        closing = self._closing_seconds(self._plan(0))
        return _MARGIN * (elapsed + self._profile_seconds + self._trial_length + closing)

    def closing_seconds(self, cost: float) -> float:
        """Returns the seconds of finals, last training and report after trials of this cost in total."""
        return self._closing_seconds(self._plan(cost))

    def affordable_cost(self, elapsed: float) -> float:
        """Returns the trainings of the default recipe for which a budget in time has room after the trials.

        Args:
            elapsed: Seconds so far.
        """
        seconds = (self._budget.seconds or math.inf) - elapsed - _REPORT_SECONDS
        return seconds * self._workers / (_OVERHEAD * self._trial_length)

    def _trials_have_ended(self, elapsed: float) -> bool:
        """Returns whether earlier sessions have left no budget for another trial."""
        budget = self._budget.total_epochs(self._trial_epochs)
        if budget is not None:
            return budget - self._spent < MIN_PROPOSAL * self._trial_epochs
        return bool(self._stored.phases) and (self._budget.seconds or 0.0) - elapsed < self._trial_length

    @property
    def _trial_length(self) -> float:
        """Duration of a trial of the default recipe in seconds."""
        return self._trial_epochs * self._epoch_seconds

    @property
    def _relative_cost(self) -> float:
        """Mean cost of a training relative to the default recipe: the estimated one and that of the trials so far."""
        weight = _PRIOR_TRIALS * self._trial_epochs
        observed = self._weighted_seconds / self._epoch_seconds
        return (weight * self._prior_cost + observed) / (weight + self._n_epochs)

    @property
    def _measured_cost(self) -> float:
        """Seconds of the trials so far relative to their estimated cost; close to 1 before many trials ran."""
        weight = _PRIOR_TRIALS * self._trial_epochs
        observed = self._trial_seconds / self._epoch_seconds
        return (weight + observed) / (weight + max(0.0, self._spent - self._stored.cost))

    @property
    def _profile_seconds(self) -> float:
        models = _MODELS_SECONDS if self._fits_models else 0.0
        if not self._profile_share:
            return models
        return models + _PROFILE_SECONDS + _PROFILE_COST * self._profile_share * self._epoch_seconds

    def _plan(self, cost: float) -> FinalsPlan:
        costs = [self._relative_cost] * (MAX_FINALISTS - 1)
        return plan_finals(cost / self._trial_epochs, costs, self._max_folds, retraining=self._retraining_cost)

    def _predicted(self, trials_so_far: float) -> dict[str, float]:
        """Returns the predicted seconds of each phase; the trials of a budget in time are left out."""
        budget = self._budget.total_epochs(self._trial_epochs)
        predicted = {PROFILE: self._profile_seconds, TRAIN: self._train_seconds, REPORT: _REPORT_SECONDS}
        if budget is not None:
            left = max(0.0, budget - self._spent) * self._epoch_seconds * self._measured_cost
            predicted[TRIALS] = trials_so_far + self._spread(left)
        predicted[FINALS] = self._finals_seconds(self._plan(self._spent if budget is None else budget))
        return predicted

    def _finals_seconds(self, plan: FinalsPlan) -> float:
        runs, ended = self._final_runs or (plan.finalists * plan.folds, [])
        length = self._trial_length * (1.0 + (plan.finalists - 1) * self._relative_cost) / plan.finalists
        return self._spread(sum(ended) + max(0, runs - len(ended)) * (fmean(ended) if ended else length))

    @property
    def _train_seconds(self) -> float:
        """Duration of the last training of two recipes, of which two workers run one each."""
        runs = 1.0 if self._workers > 1 else 1.0 + self._relative_cost
        return _OVERHEAD * runs * self._trial_length * self._retraining_cost

    def _closing_seconds(self, plan: FinalsPlan) -> float:
        return self._finals_seconds(plan) + self._train_seconds + _REPORT_SECONDS

    def _spread(self, seconds: float) -> float:
        """Returns the wall-clock time of runs of so many seconds in total, on all workers."""
        return _OVERHEAD * seconds / self._workers

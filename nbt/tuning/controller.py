"""The search controller: it chooses the settings of the next trial and decides whether a running trial continues."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

import optuna
from optuna.trial import FrozenTrial, TrialState

from nbt.errors import NbtError
from nbt.metrics import METRICS
from nbt.seeds import derive_seed
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec, last_score
from nbt.tuning.baseline_recipes import baseline_recipes
from nbt.tuning.budget import MIN_PROPOSAL, OUT_OF_TIME, Budget
from nbt.tuning.budget_account import BudgetAccount
from nbt.tuning.job_clock import TRIALS, JobClock
from nbt.tuning.observers import ObserverGroup
from nbt.tuning.pruners.base import ForecastingPruner, Pruner, TrialContext
from nbt.tuning.relative_cost import CostModel
from nbt.tuning.repeated_failures import MAX_EQUAL_FAILURES, RepeatedFailures
from nbt.tuning.samplers.bayesian import BayesianSampler
from nbt.tuning.space.space import EPOCHS, Space
from nbt.tuning.storage import codec
from nbt.tuning.storage.records import FORECAST, INTERRUPTED, PRIOR_ORIGIN_PREFIX, StudyObserver, StudyRecord
from nbt.tuning.storage.study_store import StudyStore, TrialPlan
from nbt.tuning.trial_queue import QueuedTrial, RunningTrial, TrialQueue

SamplerFactory: TypeAlias = Callable[[int], optuna.samplers.BaseSampler]

BASELINE_ORIGIN_PREFIX = "anchor: "
_SECONDS_BETWEEN_WRITES = 10.0


class SearchController:
    """The trial source of a search (`nbt.tuning.engines.base.TrialSource`).

    The order of trials is: trials that an earlier session left unfinished, resumed from their checkpoints; the baseline
    recipes; the recommended settings; then the sampler's proposals. The seed of a trial is derived from the study's
    seed and the trial's index, its number without interruptions, so that head initialisation, order of images and
    augmentation differ between trials. All trials share the study's train/validation split.

    Seeds, proposals and epochs spent do not depend on interruptions: with one worker, an interrupted search ends as it
    would have without them. The random state of a `BayesianSampler` is stored with each trial that it proposes; any
    other sampler is created anew for each proposal if there are checkpoints.

    Args:
        store: The study, locked by this driver.
        space: The search space.
        budget: Budget of all sessions of the study together.
        pruner: Stops trials early, except the baseline recipes.
        sampler: Function from a seed to the sampler; `tpe` when None.
        baselines: Baseline recipes as pairs of name and settings; `baseline_recipes` when None. Recipes outside the
            space are skipped.
        recommended: Pairs of name and settings that run after the baseline recipes; the pruner may stop them.
        checkpoints: Folder for the checkpoints of running trials; None disables checkpoints.
        observers: Observers of the study.
        clock: Returns a monotonic time in seconds.
        job: The clock of the whole search, which bounds a budget in time; None bounds it by the trials alone.
        closing_seconds: Returns the seconds that a budget in time needs after the trials, from their cost.
        cost_model: Estimates the cost of trials, by which they count in the budget; every epoch counts as one of the
            default recipe when None.
    """

    def __init__(
        self,
        store: StudyStore,
        space: Space,
        *,
        budget: Budget,
        pruner: Pruner,
        sampler: SamplerFactory | None = None,
        baselines: Sequence[tuple[str, TransferSettings]] | None = None,
        recommended: Sequence[tuple[str, TransferSettings]] = (),
        checkpoints: Path | None = None,
        observers: Sequence[StudyObserver] = (),
        clock: Callable[[], float] = time.monotonic,
        job: JobClock | None = None,
        closing_seconds: Callable[[float], float] | None = None,
        cost_model: CostModel | None = None,
    ) -> None:
        self._store, self._space, self._pruner = store, space, pruner
        self._checkpoints, self._clock, self._cost_model = checkpoints, clock, cost_model
        self._observers = ObserverGroup(observers)
        self._trial_epochs = store.config.epochs
        self._distributions, self._epochs = space.distributions(), space.epochs
        self._failures = RepeatedFailures()
        self._running: dict[str, RunningTrial] = {}
        baselines = baseline_recipes(self._trial_epochs) if baselines is None else baselines
        initial = [(BASELINE_ORIGIN_PREFIX + name, settings) for name, settings in baselines]
        initial += [(PRIOR_ORIGIN_PREFIX + name, settings) for name, settings in recommended]
        record, trials = store.record(), store.trials()
        self._job = job or JobClock(clock, phase=TRIALS, earlier={TRIALS: record.seconds_spent})
        self._queue = TrialQueue(trials, space, initial)
        self._next_index = max((index for trial in trials if (index := _index(trial)) is not None), default=-1) + 1
        self._account = BudgetAccount(
            budget,
            self._trial_epochs,
            spent=record.budget_spent,
            full_trials=_full_trial_seconds(record),
            elapsed=lambda: self._job.total,
            closing_seconds=closing_seconds,
        )
        self._make_sampler, self._proposals = sampler or tpe, sum(map(_is_proposal, trials))
        self._seed_sampler()
        states = [trial.user_attrs[codec.SAMPLER] for trial in trials if codec.SAMPLER in trial.user_attrs]
        if states and isinstance(store.study.sampler, BayesianSampler):
            store.study.sampler.random_state = states[-1]
        self._closed, self._has_trained, self._min_gain = False, False, budget.min_gain
        self._gain: tuple[int, float | None] = (-1, None)  # number of finished trials, and the gain expected after them
        if budget.min_gain is not None:
            store.put(codec.ENDED, "")
        self._observers.study_started(record)
        self._last_write_at = clock()

    @property
    def spent(self) -> float:
        """Cost of all epochs so far in all sessions, those of pruned and failed trials, too."""
        return self._account.spent

    @property
    def seconds(self) -> float:
        """Wall-clock time of the trials of all sessions so far, in seconds."""
        return self._job.seconds()[TRIALS]

    def next_trial(self) -> TrialSpec | None:
        """Returns the next trial, or None if the remaining budget does not suffice for a trial now."""
        queued = self._queue.first()
        required = self._required_cost(queued)
        if not self._account.can_start(required):
            self._note_end("the limit of its budget is used up")
            return None
        if queued.plan is None and queued.params is None and (gain := self._small_gain()) is not None:
            self._note_end(f"a further trial is expected to gain {gain:.2g} points, less than {self._min_gain}")
            return None
        self._queue.remove_first()
        run = queued.run or self._start(queued)
        self._running[run.spec.key], self._has_trained = run, True
        if queued.plan is None:
            required = run.plan.settings.epochs * run.plan.epoch_cost
        self._account.reserve(run.spec.key, self._available(required))
        self._observers.trial_started(run.trial.number, run.plan.settings, run.plan.origin)
        return run.spec

    def _small_gain(self) -> float | None:
        """Returns the expected gain of a further trial in points if it is too small; None if the search goes on.

        It also goes on while no trial is complete, because nothing is known about the gain.
        """
        study, sampler = self._store.study, self._store.study.sampler
        if self._min_gain is None or not isinstance(sampler, BayesianSampler):
            return None
        finished = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
        if finished != self._gain[0]:  # an engine may ask several times
            self._gain = (finished, sampler.expected_gain(study))
        gain = self._gain[1]
        return None if gain is None or 100 * gain >= self._min_gain else 100 * gain

    def _note_end(self, reason: str) -> None:
        """Stores why a search with the budget "auto" starts no further trial now."""
        if self._min_gain is not None:
            self._store.put(codec.ENDED, reason)

    def on_placed(self, spec: TrialSpec, location: Mapping[str, Any]) -> None:
        """Notifies the observers of the location of a trial."""
        self._observers.trial_placed(self._running[spec.key].trial.number, location)

    def on_epoch(self, spec: TrialSpec, result: EpochResult) -> str | None:
        """Stores the result of an epoch and returns the reason to stop the trial, or None to continue."""
        run = self._running[spec.key]
        prune_reason, trained = None, run.trained_epochs
        for unreported in run.add_epoch(result):
            self._store.report(run.trial, unreported)
            prune_reason = self._prune_reason(run, unreported)
        self._account.count_epoch(
            spec.key,
            run.epochs_left,
            cost=run.plan.epoch_cost,
            seconds=fmean(earlier.seconds for earlier in run.curve),
            repeated=run.trained_epochs == trained,
        )
        self._store.write_progress(run.trial, run.curve, run.trained_epochs, first_epoch=result.epoch)
        self._write_seconds(_SECONDS_BETWEEN_WRITES)
        self._observers.epoch_finished(run.trial.number, result, self.spent)
        if _is_last(spec.settings, result):
            return None
        # A trial that repeats its last epochs needs nothing more of the budget.
        return (self._account.stop_reason(spec.key) if run.epochs_left else None) or prune_reason

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        """Stores the end of a trial as complete, pruned or failed.

        Raises:
            NbtError: Three trials in a row failed with the same error.
        """
        run = self._running.pop(spec.key)
        self._account.release(spec.key)
        run.curve = list(outcome.curve) or run.curve
        state, value, reason = _trial_result(outcome, spec.settings.epochs, self._store.config.metric)
        facts, source = self._facts(run, outcome), outcome.source_accuracy
        self._end(run, state, value=value, reason=reason, facts=facts, source_accuracy=source)
        self._write_seconds()
        if state is not TrialState.FAIL:
            self._failures.reset()
            if (state is TrialState.COMPLETE or reason == OUT_OF_TIME) and run.curve and not outcome.diverged:
                self._account.note_trial(spec.settings.epochs * fmean(result.seconds for result in run.curve))
            return
        if spec.checkpoint is not None:
            spec.checkpoint.unlink(missing_ok=True)
        if self._failures.add(reason):
            raise NbtError(
                f"{MAX_EQUAL_FAILURES} trials in a row failed in the same way: {reason} "
                "(all results are kept; fix the cause and run the same command again to resume)"
            )

    def on_abandoned(self, spec: TrialSpec) -> None:
        """Queues a trial that the engine returned unfinished: it runs again in this session or a later one."""
        self._account.release(spec.key)
        self._queue.returned.append(self._running.pop(spec.key))

    def close(self) -> None:
        """Ends the session and marks unfinished trials as interrupted; may be called twice."""
        if self._closed:
            return
        self._closed = True
        for run in (*self._running.values(), *self._queue.returned):
            self._end(run, TrialState.FAIL, reason=INTERRUPTED, interrupted=True)
        self._write_seconds()

    def _required_cost(self, queued: QueuedTrial) -> float:
        """Returns the estimated cost of what a trial still needs.

        Epochs that it repeats, because its checkpoint is older, were counted when they were trained first. The
        sampler's proposal is not known yet: it fits into what is left, see `_limit_proposal`.
        """
        if queued.plan is not None:
            return (queued.plan.settings.epochs - len(queued.curve)) * queued.plan.epoch_cost
        if queued.params is not None:
            settings = self._space.settings(queued.params, self._trial_epochs)
            return settings.epochs * self._epoch_cost(settings)
        if self._cost_model is not None and isinstance(self._store.study.sampler, BayesianSampler):
            return MIN_PROPOSAL * self._trial_epochs
        return self._trial_epochs if self._epochs is None else int(self._epochs.low or 1)

    def _epoch_cost(self, settings: TransferSettings) -> float:
        return 1.0 if self._cost_model is None else round(self._cost_model.epoch(settings), 4)

    def _available(self, cost: float) -> float:
        """Returns the cost, or what the budget has left if that is less."""
        left = self._account.left
        return cost if left is None else min(cost, left)

    def _limit_proposal(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """Returns the distributions of the next proposal, which fits into what the budget has left.

        Only the Bayesian sampler knows the cost of its candidates. For other samplers, the number of epochs is limited.
        """
        left, sampler = self._account.left, self._store.study.sampler
        if left is not None and self._cost_model is not None and isinstance(sampler, BayesianSampler):
            sampler.max_cost = left / self._trial_epochs
            return self._distributions
        if self._epochs is None or left is None:
            return self._distributions
        low, high = int(self._epochs.low or 1), int(self._epochs.high or 1)
        dimension = dataclasses.replace(self._epochs, high=max(low, min(high, int(left))))
        return {**self._distributions, EPOCHS: dimension.distribution()}

    def _start(self, queued: QueuedTrial) -> RunningTrial:
        """Starts a new trial: with given parameters, with those of an interrupted trial, or as the sampler proposes."""
        trial = self._propose() if queued.params is None else self._store.ask(self._distributions, queued.params)
        plan = queued.plan or self._plan(queued, trial)
        self._store.write_plan(trial, plan, queued.curve)
        spec = TrialSpec(
            key=f"trial-{trial.number:04d}",
            settings=plan.settings,
            seed=plan.seed,
            checkpoint=self._checkpoint(plan),
            known_epochs=len(queued.curve),
            measure_source=True,
        )
        return RunningTrial(trial, plan, spec, list(queued.curve))

    def _propose(self) -> optuna.Trial:
        """Returns a new trial with parameters of the sampler, whose random state is stored with it."""
        # A search without checkpoints, such as a replay, is never resumed.
        if self._checkpoints is not None and not isinstance(self._store.study.sampler, BayesianSampler):
            self._seed_sampler()
        trial = self._store.ask(self._limit_proposal())
        self._proposals += 1
        if isinstance(self._store.study.sampler, BayesianSampler):
            trial.set_user_attr(codec.SAMPLER, self._store.study.sampler.random_state)
        return trial

    def _seed_sampler(self) -> None:
        seed = derive_seed(self._store.config.seed, "sampler", self._proposals, bits=31)
        self._store.study.sampler = self._make_sampler(seed)

    def _plan(self, queued: QueuedTrial, trial: optuna.Trial) -> TrialPlan:
        settings, index = self._space.settings(trial.params, self._trial_epochs), self._next_index
        self._next_index += 1
        return TrialPlan(
            settings=settings,
            origin=queued.origin,
            seed=derive_seed(self._store.config.seed, "trial", index, bits=31),
            checkpoint=f"trial-{index:04d}",
            epoch_cost=self._epoch_cost(settings),
        )

    def _checkpoint(self, plan: TrialPlan) -> Path | None:
        return None if self._checkpoints is None else self._checkpoints / f"{plan.checkpoint}.pt"

    def _prune_reason(self, run: RunningTrial, result: EpochResult) -> str | None:
        """Returns the pruner's reason to stop a trial after an epoch, or None.

        The pruner is called for every trial, so that its rungs include the baseline recipes and resumed trials.
        """
        if _is_last(run.plan.settings, result):
            return None
        curve = tuple(earlier for earlier in run.curve if earlier.epoch <= result.epoch)
        reason = self._pruner.decide(
            TrialContext(
                study=self._store.study,
                number=run.trial.number,
                settings=run.plan.settings,
                curve=curve,
                index=run.index,
            )
        )
        return None if run.plan.origin.startswith(BASELINE_ORIGIN_PREFIX) else reason

    def _facts(self, run: RunningTrial, outcome: TrialOutcome) -> dict[str, Any]:
        """Returns the facts to store with a trial."""
        forecast = self._pruner.forecast(run.trial.number) if isinstance(self._pruner, ForecastingPruner) else None
        added = {"continues": run.plan.continues, FORECAST: forecast, "traceback": outcome.traceback}
        return {**outcome.facts, **{name: value for name, value in added.items() if value is not None}}

    def _end(self, run: RunningTrial, state: TrialState, **ending: Any) -> None:
        """Stores the end of a trial and notifies the observers."""
        record = self._store.finish(run.trial, state, curve=run.curve, trained=run.trained_epochs, **ending)
        self._observers.trial_finished(record)

    def _write_seconds(self, min_interval: float = 0.0) -> None:
        """Stores the time spent, unless no trial has started or it was stored less than `min_interval` seconds ago."""
        if self._has_trained and self._clock() - self._last_write_at >= min_interval:
            self._last_write_at = self._clock()
            self._store.put(codec.SECONDS, self.seconds)


def _index(trial: FrozenTrial) -> int | None:
    """Returns the index of a trial; None for one that was never planned, or whose stored plan is damaged."""
    try:
        return TrialPlan.from_attributes(trial.user_attrs).index
    except (KeyError, TypeError, ValueError):
        return None


def _is_proposal(trial: FrozenTrial) -> bool:
    """Returns whether the sampler proposed a trial, rather than the trial that it continues."""
    run = trial.user_attrs.get(codec.RUN, {})
    return trial.user_attrs.get(codec.ORIGIN) == QueuedTrial.origin and run.get("continues") is None


def _is_last(settings: TransferSettings, result: EpochResult) -> bool:
    return result.diverged or result.epoch >= settings.epochs


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    """Returns the default sampler: multivariate TPE with constant liar for running trials."""
    return optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed)


def _trial_result(outcome: TrialOutcome, length: int, metric: str) -> tuple[TrialState, float | None, str]:
    """Returns the final state, the value (None unless complete) and the reason ("" for a regular end) of a trial."""
    is_full_length = bool(outcome.curve) and outcome.curve[-1].epoch >= length
    if outcome.error is not None:
        return TrialState.FAIL, None, outcome.error
    if outcome.diverged:
        return TrialState.COMPLETE, 0.0, "the loss became infinite or NaN"
    # A stream of tasks reports the epochs of its last task when the task has ended: a stopped trial can be complete.
    if outcome.stopped is not None and not is_full_length:
        return TrialState.PRUNED, None, outcome.stopped
    score = last_score(outcome.curve, metric)
    if score is None:
        label = METRICS[metric].label
        return TrialState.FAIL, None, f"the last epoch has no validation {label}: the search needs validation images"
    return TrialState.COMPLETE, float(score), ""


def _full_trial_seconds(record: StudyRecord) -> list[float]:
    """Returns the durations of the full trials of a study in seconds."""
    return [trial.seconds for trial in record.trials if trial.state == "complete" and not trial.diverged]

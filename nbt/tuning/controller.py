"""The search controller: it chooses the settings of the next trial and decides whether a running trial continues."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import optuna
from optuna.trial import FrozenTrial, TrialState

from nbt.errors import NbtError
from nbt.seeds import derive_seed
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.baseline_recipes import baseline_recipes
from nbt.tuning.budget import OUT_OF_EPOCHS, Budget
from nbt.tuning.observers import ObserverGroup
from nbt.tuning.pruners.base import ForecastingPruner, Pruner, TrialContext
from nbt.tuning.repeated_failures import MAX_EQUAL_FAILURES, RepeatedFailures
from nbt.tuning.space.dimension import ParamValue
from nbt.tuning.space.space import Space
from nbt.tuning.storage import codec
from nbt.tuning.storage.reader import read_trial
from nbt.tuning.storage.records import FORECAST, INTERRUPTED, PRIOR_ORIGIN_PREFIX, StudyObserver, TrialRecord
from nbt.tuning.storage.study_store import StudyStore, TrialPlan

SamplerFactory: TypeAlias = Callable[[int], optuna.samplers.BaseSampler]

BASELINE_ORIGIN_PREFIX = "anchor: "
_SECONDS_BETWEEN_WRITES = 10.0


@dataclass(eq=False)
class _OpenTrial:
    """A trial that has started and not ended: it is running, or the engine has returned it unfinished.

    Attributes:
        trial: Optuna's trial object.
        plan: The stored plan of the trial.
        spec: The trial specification given to the engine.
        curve: Results of its epochs, including those before a resume.
        trained_epochs: Number of epochs trained for it in this session, including those of attempts that were
            returned.
        last_reported_epoch: Last epoch reported to Optuna.
        reserved_epochs: Number of epochs that the budget reserves for it.
    """

    trial: optuna.Trial
    plan: TrialPlan
    spec: TrialSpec
    curve: list[EpochResult] = field(default_factory=list)
    trained_epochs: int = 0
    last_reported_epoch: int = 0
    reserved_epochs: int = 0


class SearchController:
    """The trial source of a search (`nbt.tuning.engines.base.TrialSource`).

    The order of trials is: trials that an earlier session left unfinished, resumed from their checkpoints; the baseline
    recipes; the recommended settings; then the sampler's proposals. The seed of a trial is derived from the study's
    seed and the trial's number, so that head initialisation, order of images and augmentation differ between trials.
    All trials share the study's train/validation split. The sampler's seed is derived from the study's seed and the
    number of trials at the start of the session, so that a resumed search does not repeat proposals.

    Args:
        store: The study, locked by this driver.
        space: The search space.
        budget: Budget of all sessions of the study together.
        pruner: Stops trials early, except the baseline recipes.
        sampler: Function from a seed to the sampler; `tpe` when None.
        first: Baseline recipes as pairs of name and settings; `baseline_recipes` when None. Recipes outside the space
            are skipped.
        recommended: Pairs of name and settings that run after the baseline recipes; the pruner may stop them.
        checkpoints: Folder for the checkpoints of running trials; None disables checkpoints.
        observers: Observers of the study.
        clock: Returns a monotonic time in seconds.
    """

    def __init__(
        self,
        store: StudyStore,
        space: Space,
        *,
        budget: Budget,
        pruner: Pruner,
        sampler: SamplerFactory | None = None,
        first: Sequence[tuple[str, TransferSettings]] | None = None,
        recommended: Sequence[tuple[str, TransferSettings]] = (),
        checkpoints: Path | None = None,
        observers: Sequence[StudyObserver] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._space, self._budget, self._pruner = store, space, budget, pruner
        self._checkpoints, self._clock = checkpoints, clock
        self._observers = ObserverGroup(observers)
        self._trial_epochs = store.config.epochs
        self._distributions = space.distributions()
        self._running: dict[str, _OpenTrial] = {}
        self._requeued: deque[_OpenTrial] = deque()
        self._failures = RepeatedFailures()
        self._initial_trials = [
            *(
                (BASELINE_ORIGIN_PREFIX + name, settings)
                for name, settings in (baseline_recipes(self._trial_epochs) if first is None else first)
            ),
            *((PRIOR_ORIGIN_PREFIX + name, settings) for name, settings in recommended),
        ]
        store.fail_unfinished_trials()
        trials = store.trials()
        self._interrupted, self._queue = _interrupted_trials(trials), self._pending_initial_trials(trials)
        seed = derive_seed(store.config.seed, "sampler", len(trials), bits=31)
        store.study.sampler = (sampler or tpe)(seed)
        self._spent = store.spent_epochs()
        self._previous_seconds = float(store.get(codec.SECONDS, 0.0))
        self._shortest_trial_seconds = min(map(_full_length_seconds, trials), default=math.inf)
        self._closed = False
        self._observers.study_started(store.record())
        self._started_at = self._last_write_at = clock()

    @property
    def spent_epochs(self) -> int:
        """Number of epochs trained so far in all sessions, including those of pruned and failed trials."""
        return self._spent

    @property
    def seconds(self) -> float:
        """Wall-clock time of all sessions so far, in seconds."""
        return self._previous_seconds + self._clock() - self._started_at

    def next_trial(self) -> TrialSpec | None:
        """Returns the next trial, or None if the remaining budget does not suffice for a trial now."""
        run = self._restart_requeued() or self._start_trial()
        if run is None:
            return None
        self._running[run.spec.key] = run
        self._observers.trial_started(run.trial.number, run.plan.settings, run.plan.origin)
        return run.spec

    def on_placed(self, spec: TrialSpec, location: Mapping[str, Any]) -> None:
        """Notifies the observers of the location of a trial."""
        self._observers.trial_placed(self._running[spec.key].trial.number, location)

    def on_epoch(self, spec: TrialSpec, result: EpochResult) -> str | None:
        """Stores the result of an epoch and returns the reason to stop the trial, or None to continue."""
        run = self._running[spec.key]
        self._count_epoch(run, result)
        prune_reason = self._append_epoch(run, result)
        self._store.write_progress(run.trial, run.curve, run.trained_epochs)
        self._write_seconds(_SECONDS_BETWEEN_WRITES)
        self._observers.epoch_finished(run.trial.number, result, self._spent)
        if result.diverged or result.epoch >= self._trial_epochs:
            return None
        budget_reason = OUT_OF_EPOCHS if run.reserved_epochs <= 0 else None
        return self._budget.stop_reason(self.seconds) or budget_reason or prune_reason

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        """Stores the end of a trial as complete, pruned or failed.

        Raises:
            NbtError: Three trials in a row failed with the same error.
        """
        run = self._running.pop(spec.key)
        run.curve = list(outcome.curve) or run.curve
        record = self._finish(run, outcome)
        self._write_seconds()
        if _is_full_length(record):
            self._shortest_trial_seconds = min(self._shortest_trial_seconds, record.seconds)
        self._observers.trial_finished(record)
        if record.state == "failed":
            _delete_checkpoint(spec)
            self._count_failure(outcome.error or record.reason)
        else:
            self._failures.reset()

    def on_abandoned(self, spec: TrialSpec) -> None:
        """Queues a trial that the engine returned unfinished: it runs again in this session or a later one."""
        run = self._running.pop(spec.key)
        run.reserved_epochs = 0
        self._requeued.append(run)

    def close(self) -> None:
        """Ends the session and marks unfinished trials as interrupted; may be called twice."""
        if self._closed:
            return
        self._closed = True
        for run in (*self._running.values(), *self._requeued):
            run.reserved_epochs = 0
            record = self._store.finish(
                run.trial,
                TrialState.FAIL,
                curve=run.curve,
                trained=run.trained_epochs,
                reason=INTERRUPTED,
                interrupted=True,
            )
            self._observers.trial_finished(record)
        self._running.clear()
        self._requeued.clear()
        self._write_seconds()

    def _restart_requeued(self) -> _OpenTrial | None:
        """Returns a trial that the engine returned unfinished, if there is one and the budget suffices for it."""
        if not self._requeued:
            return None
        run = self._requeued[0]
        required = self._required_epochs(run.spec.checkpoint, len(run.curve))
        if not self._may_start(required):
            return None
        self._requeued.popleft()
        run.reserved_epochs = required
        return run

    def _start_trial(self) -> _OpenTrial | None:
        """Starts a new trial if the budget suffices for it."""
        interrupted_trial = self._interrupted[0] if self._interrupted else None
        checkpoint = None if interrupted_trial is None else self._checkpoint(_stored_plan(interrupted_trial).checkpoint)
        required = self._required_epochs(
            checkpoint, 0 if interrupted_trial is None else len(_stored_curve(interrupted_trial))
        )
        if not self._may_start(required):
            return None
        if interrupted_trial is not None:
            self._interrupted.popleft()
            trial, plan = self._ask_interrupted(interrupted_trial)
        else:
            trial, plan = self._ask_next()
        spec = TrialSpec(
            key=_trial_key(trial.number),
            settings=plan.settings,
            seed=plan.seed,
            checkpoint=self._checkpoint(plan.checkpoint),
        )
        run = _OpenTrial(trial, plan, spec, reserved_epochs=required)
        if interrupted_trial is not None:
            run.curve = list(_stored_curve(interrupted_trial))
            self._store.write_progress(run.trial, run.curve, run.trained_epochs)
        return run

    def _ask_interrupted(self, interrupted_trial: FrozenTrial) -> tuple[optuna.Trial, TrialPlan]:
        """Starts a trial with the parameters, seed and checkpoint of an interrupted trial."""
        stored = _stored_plan(interrupted_trial)
        plan = TrialPlan(
            settings=stored.settings,
            origin=stored.origin,
            seed=stored.seed,
            checkpoint=stored.checkpoint,
            continues=interrupted_trial.number,
        )
        params = interrupted_trial.system_attrs.get("fixed_params", interrupted_trial.params)
        return self._store.ask(self._distributions, params, plan), plan

    def _ask_next(self) -> tuple[optuna.Trial, TrialPlan]:
        """Starts the next initial trial or, when none is left, a trial with settings that the sampler proposes."""
        origin, params = self._queue.popleft() if self._queue else ("sampler", None)
        trial = self._store.ask(self._distributions, params)
        plan = TrialPlan(
            settings=self._space.settings(trial.params, self._trial_epochs),
            origin=origin,
            seed=derive_seed(self._store.config.seed, "trial", trial.number, bits=31),
            checkpoint=_trial_key(trial.number),
        )
        self._store.write_plan(trial, plan)
        return trial, plan

    def _pending_initial_trials(self, trials: Sequence[FrozenTrial]) -> deque[tuple[str, dict[str, ParamValue]]]:
        """Returns the initial trials that the space can express and that no session has started."""
        started = {trial.user_attrs.get(codec.ORIGIN) for trial in trials}
        return deque(
            (origin, self._space.params(settings))
            for origin, settings in self._initial_trials
            if origin not in started and self._space.can_express(settings)
        )

    def _checkpoint(self, name: str) -> Path | None:
        return None if self._checkpoints is None else self._checkpoints / f"{name}.pt"

    def _required_epochs(self, checkpoint: Path | None, reported: int) -> int:
        """Returns the estimated number of epochs that a trial still needs.

        The checkpoint may be older than the last reported epoch; the budget may then stop the trial before its full
        length.

        Args:
            checkpoint: File of the trial's checkpoint, which may be missing; None without checkpoints.
            reported: Number of epochs that the trial has reported.
        """
        completed = reported if checkpoint is not None and checkpoint.exists() else 0
        return max(1, self._trial_epochs - completed)

    def _may_start(self, required_epochs: int) -> bool:
        return self._budget.can_start(
            self._trial_epochs,
            spent=self._spent,
            reserved=self._reserved(),
            seconds=self.seconds,
            required_epochs=required_epochs,
            min_trial_seconds=self._shortest_trial_seconds if math.isfinite(self._shortest_trial_seconds) else 0.0,
        )

    def _reserved(self) -> int:
        return sum(run.reserved_epochs for run in self._running.values())

    def _count_epoch(self, run: _OpenTrial, result: EpochResult) -> None:
        """Counts an epoch and reserves the remaining epochs of the trial, as far as the budget suffices."""
        run.trained_epochs += 1
        self._spent += 1
        run.reserved_epochs = 0
        available = self._budget.remaining_epochs(self._trial_epochs, spent=self._spent, reserved=self._reserved())
        remaining = self._trial_epochs - result.epoch
        run.reserved_epochs = remaining if available is None else min(remaining, available)

    def _append_epoch(self, run: _OpenTrial, result: EpochResult) -> str | None:
        """Adds an epoch to the curve, reports it to Optuna, and returns the reason to prune the trial, or None."""
        # A run that restarts, or resumes from an older checkpoint, repeats epochs; the curve keeps the newest ones.
        run.curve = [*(earlier for earlier in run.curve if earlier.epoch < result.epoch), result]
        reason = None
        for epoch_result in run.curve:
            if epoch_result.epoch > run.last_reported_epoch:
                reason = self._report(run, epoch_result)
                run.last_reported_epoch = epoch_result.epoch
        return None if run.plan.origin.startswith(BASELINE_ORIGIN_PREFIX) else reason

    def _report(self, run: _OpenTrial, result: EpochResult) -> str | None:
        """Reports an epoch to Optuna and returns the pruner's reason to stop the trial, or None.

        The pruner is called for every trial, so that its rungs include the baseline recipes and resumed trials.
        """
        self._store.report(run.trial, result)
        if result.diverged or result.epoch >= self._trial_epochs:
            return None
        curve = tuple(earlier for earlier in run.curve if earlier.epoch <= result.epoch)
        context = TrialContext(
            study=self._store.study, number=run.trial.number, settings=run.plan.settings, curve=curve
        )
        with self._store.convert_errors():
            return self._pruner.decide(context)

    def _finish(self, run: _OpenTrial, outcome: TrialOutcome) -> TrialRecord:
        state, value, reason = _trial_result(outcome, self._trial_epochs)
        facts = dict(outcome.facts)
        if run.plan.continues is not None:
            facts["continues"] = run.plan.continues
        if (
            isinstance(self._pruner, ForecastingPruner)
            and (forecast := self._pruner.forecast(run.trial.number)) is not None
        ):
            facts[FORECAST] = forecast
        if outcome.traceback is not None:
            facts["traceback"] = outcome.traceback
        return self._store.finish(
            run.trial, state, curve=run.curve, trained=run.trained_epochs, value=value, reason=reason, facts=facts
        )

    def _count_failure(self, error: str) -> None:
        """Ends the search at the third equal failure in a row.

        Raises:
            NbtError: Three trials in a row failed with the same error.
        """
        if self._failures.add(error):
            raise NbtError(
                f"{MAX_EQUAL_FAILURES} trials in a row failed in the same way: {error} "
                "(all results are kept; fix the cause and run the same command again to resume)"
            )

    def _write_seconds(self, min_interval: float = 0.0) -> None:
        """Stores the time spent, unless it was stored less than `min_interval` seconds ago."""
        if self._clock() - self._last_write_at >= min_interval:
            self._last_write_at = self._clock()
            self._store.put(codec.SECONDS, self.seconds)


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    """Returns the default sampler: multivariate TPE with constant liar for running trials."""
    return optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed)


def _trial_result(outcome: TrialOutcome, length: int) -> tuple[TrialState, float | None, str]:
    """Returns the final state, the value (None unless complete) and the reason ("" for a regular end) of a trial."""
    is_full_length = bool(outcome.curve) and outcome.curve[-1].epoch >= length
    if outcome.error is not None:
        return TrialState.FAIL, None, outcome.error
    if outcome.diverged:
        return TrialState.COMPLETE, 0.0, "the loss became infinite or NaN"
    # A stream of tasks reports the epochs of its last task when the task has ended: a stopped trial can be complete.
    if outcome.stopped is not None and not is_full_length:
        return TrialState.PRUNED, None, outcome.stopped
    best = outcome.best
    if best is None or best.val_accuracy is None:
        return TrialState.FAIL, None, "no epoch has a validation accuracy: the search needs validation images"
    return TrialState.COMPLETE, float(best.val_accuracy), ""


def _interrupted_trials(trials: Sequence[FrozenTrial]) -> deque[FrozenTrial]:
    """Returns the interrupted trials that no later trial has continued, oldest first."""
    continued = {trial.user_attrs.get(codec.RUN, {}).get("continues") for trial in trials}
    return deque(
        trial
        for trial in trials
        if trial.user_attrs.get(codec.INTERRUPTED) and trial.number not in continued and read_trial(trial) is not None
    )


def _stored_plan(trial: FrozenTrial) -> TrialPlan:
    return TrialPlan.from_attributes(trial.user_attrs)


def _stored_curve(trial: FrozenTrial) -> tuple[EpochResult, ...]:
    record = read_trial(trial)
    return () if record is None else record.curve


def _is_full_length(record: TrialRecord) -> bool:
    return record.state == "complete" and not record.diverged


def _full_length_seconds(trial: FrozenTrial) -> float:
    """Returns the duration of a full-length trial in seconds, infinity for any other."""
    record = read_trial(trial)
    return record.seconds if record is not None and _is_full_length(record) else math.inf


def _trial_key(number: int) -> str:
    return f"trial-{number:04d}"


def _delete_checkpoint(spec: TrialSpec) -> None:
    if spec.checkpoint is not None:
        spec.checkpoint.unlink(missing_ok=True)

"""SearchController: which settings to run next, and whether a running trial may go on. It knows no engine and no model."""

from __future__ import annotations

import math
import re
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
from nbt.tuning.space.dimension import ParamValue
from nbt.tuning.space.space import Space
from nbt.tuning.storage import codec as codec
from nbt.tuning.storage.reader import read_trial
from nbt.tuning.storage.records import FORECAST, INTERRUPTED, StudyObserver, TrialRecord
from nbt.tuning.storage.study_store import StudyStore, TrialPlan

SamplerFactory: TypeAlias = Callable[[int], optuna.samplers.BaseSampler]

BASELINE_ORIGIN_PREFIX = "anchor: "
PRIOR_ORIGIN_PREFIX = "recommended: "
_MAX_EQUAL_FAILURES = 3
_SECONDS_BETWEEN_WRITES = 10.0


@dataclass(eq=False)
class _OpenTrial:
    """A trial that was started and not ended: running, or put back by the engine.

    Attributes:
        trial: Optuna's handle.
        plan: What it runs.
        spec: What the engine gets.
        curve: Its epochs, those before a resume included.
        trained: Epochs that it has cost, those of attempts that were put back included.
        reported: Last epoch that optuna was told of.
        reserved_epochs: Epochs that the budget reserves for it.
    """

    trial: optuna.Trial
    plan: TrialPlan
    spec: TrialSpec
    curve: list[EpochResult] = field(default_factory=list)
    trained: int = 0
    reported: int = 0
    reserved_epochs: int = 0


class SearchController:
    """A study's search as a source of specs for an engine (`nbt.tuning.engines.base.TrialSource`).

    First come trials that an earlier session left unfinished, from their checkpoints, then the baseline_recipes, then what
    was recommended beforehand, then what the sampler proposes. A trial's seed follows from the study's seed
    and the trial's number: head, order and augmentation differ between trials, so that no single draw decides the
    search; all trials share the study's train/validation split. The sampler's seed follows from the study's seed and
    the number of trials that the session started with, so a resumed search proposes nothing twice.

    Args:
        store: The study, held by this driver.
        space: What is searched.
        budget: For all sessions of the study together.
        pruner: Who stops trials early; baseline_recipes are never stopped by it.
        sampler: Seed -> who proposes settings; `tpe` when None.
        first: The baseline_recipes by name, as many of them as the space can_express; those of `baseline_recipes` when None.
        recommended: Settings by name that run after the baseline_recipes; the pruner may stop them.
        checkpoints: Folder for the checkpoints of running trials; None keeps none.
        observers: Told of everything.
        clock: Seconds, ever growing.
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
        self._repeated_failure: tuple[str, int] = ("", 0)
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
        """Epochs trained so far in all sessions, whatever became of their trials."""
        return self._spent

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of all sessions so far."""
        return self._previous_seconds + self._clock() - self._started_at

    def next_trial(self) -> TrialSpec | None:
        """Returns the next trial, None where the budget has no room for one now."""
        run = self._restart_requeued() or self._start_trial()
        if run is None:
            return None
        self._running[run.spec.key] = run
        self._observers.trial_started(run.trial.number, run.plan.settings, run.plan.origin)
        return run.spec

    def on_placed(self, spec: TrialSpec, location: Mapping[str, Any]) -> None:
        """Passes on where a trial runs."""
        self._observers.trial_placed(self._running[spec.key].trial.number, location)

    def on_epoch(self, spec: TrialSpec, result: EpochResult) -> str | None:
        """Stores an epoch; returns why the trial should stop, or None."""
        run = self._running[spec.key]
        self._charge_epoch(run, result)
        prune_reason = self._append_epoch(run, result)
        self._store.write_progress(run.trial, run.curve, run.trained)
        self._write_seconds(_SECONDS_BETWEEN_WRITES)
        self._observers.epoch_finished(run.trial.number, result, self._spent)
        if result.diverged or result.epoch >= self._trial_epochs:
            return None
        budget_reason = OUT_OF_EPOCHS if run.reserved_epochs <= 0 else None
        return self._budget.stop_reason(self.seconds) or budget_reason or prune_reason

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        """Ends a trial in the storage: complete, pruned or failed.

        Raises:
            NbtError: It is the third in a row that failed in the same way.
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
            self._repeated_failure = ("", 0)

    def on_abandoned(self, spec: TrialSpec) -> None:
        """Keeps a trial that the engine gave up, to be handed out again or to be resumed by a later session."""
        run = self._running.pop(spec.key)
        run.reserved_epochs = 0
        self._requeued.append(run)

    def close(self) -> None:
        """Ends the session: what runs or was put back is marked as interrupted; may be called twice."""
        if self._closed:
            return
        self._closed = True
        for run in (*self._running.values(), *self._requeued):
            run.reserved_epochs = 0
            record = self._store.finish(
                run.trial, TrialState.FAIL, curve=run.curve, trained=run.trained, reason=INTERRUPTED, interrupted=True
            )
            self._observers.trial_finished(record)
        self._running.clear()
        self._requeued.clear()
        self._write_seconds()

    def _restart_requeued(self) -> _OpenTrial | None:
        """Returns a trial that the engine put back, if there is one and the budget has room for it."""
        if not self._requeued:
            return None
        run = self._requeued[0]
        needs = self._required_epochs(run.spec.checkpoint, len(run.curve))
        if not self._may_start(needs):
            return None
        self._requeued.popleft()
        run.reserved_epochs = needs
        return run

    def _start_trial(self) -> _OpenTrial | None:
        """Starts a new trial, if the budget has room for it."""
        interrupted_trial = self._interrupted[0] if self._interrupted else None
        checkpoint = None if interrupted_trial is None else self._checkpoint(_stored_plan(interrupted_trial).checkpoint)
        needs = self._required_epochs(
            checkpoint, 0 if interrupted_trial is None else len(_stored_curve(interrupted_trial))
        )
        if not self._may_start(needs):
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
        run = _OpenTrial(trial, plan, spec, reserved_epochs=needs)
        if interrupted_trial is not None:
            run.curve = list(_stored_curve(interrupted_trial))
            self._store.write_progress(run.trial, run.curve, run.trained)
        return run

    def _ask_interrupted(self, interrupted_trial: FrozenTrial) -> tuple[optuna.Trial, TrialPlan]:
        """Starts a trial with the parameters, seed and checkpoint of one that was interrupted."""
        before = _stored_plan(interrupted_trial)
        plan = TrialPlan(
            settings=before.settings,
            origin=before.origin,
            seed=before.seed,
            checkpoint=before.checkpoint,
            continues=interrupted_trial.number,
        )
        params = interrupted_trial.system_attrs.get("fixed_params", interrupted_trial.params)
        return self._store.ask(self._distributions, params, plan), plan

    def _ask_next(self) -> tuple[optuna.Trial, TrialPlan]:
        """Starts one of the first trials, or what the sampler proposes."""
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
        """Returns the first trials that the space can express and that no session has started."""
        started = {trial.user_attrs.get(codec.ORIGIN) for trial in trials}
        return deque(
            (origin, self._space.params(settings))
            for origin, settings in self._initial_trials
            if origin not in started and self._space.can_express(settings)
        )

    def _checkpoint(self, name: str) -> Path | None:
        return None if self._checkpoints is None else self._checkpoints / f"{name}.pt"

    def _required_epochs(self, checkpoint: Path | None, done: int) -> int:
        """Returns the epochs that a trial needs: from a checkpoint on only what is missing, as far as we know.

        A checkpoint may be older than the last epoch that was reported; then the trial may have to stop short.
        """
        known = done if checkpoint is not None and checkpoint.exists() else 0
        return max(1, self._trial_epochs - known)

    def _may_start(self, needs: int) -> bool:
        return self._budget.can_start(
            self._trial_epochs,
            spent=self._spent,
            reserved=self._reserved(),
            seconds=self.seconds,
            needs=needs,
            min_trial_seconds=self._shortest_trial_seconds if math.isfinite(self._shortest_trial_seconds) else 0.0,
        )

    def _reserved(self) -> int:
        return sum(run.reserved_epochs for run in self._running.values())

    def _charge_epoch(self, run: _OpenTrial, result: EpochResult) -> None:
        """Counts an epoch and reserves what the trial still needs, as far as the budget has it."""
        run.trained += 1
        self._spent += 1
        run.reserved_epochs = 0
        left = self._budget.remaining_epochs(self._trial_epochs, spent=self._spent, reserved=self._reserved())
        missing = self._trial_epochs - result.epoch
        run.reserved_epochs = missing if left is None else min(missing, left)

    def _append_epoch(self, run: _OpenTrial, result: EpochResult) -> str | None:
        """Adds an epoch to the curve, tells optuna, and returns why the pruner would stop the trial now."""
        # A run that starts over, or from an older checkpoint, repeats epochs: the curve is the newest attempt's.
        run.curve = [*(known for known in run.curve if known.epoch < result.epoch), result]
        reason = None
        for known in run.curve:
            if known.epoch > run.reported:
                reason = self._report(run, known)
                run.reported = known.epoch
        return None if run.plan.origin.startswith(BASELINE_ORIGIN_PREFIX) else reason

    def _report(self, run: _OpenTrial, result: EpochResult) -> str | None:
        """Tells optuna of an epoch. The pruner sees every trial, so that baseline_recipes and resumed trials fill its rungs."""
        self._store.report(run.trial, result)
        if result.diverged or result.epoch >= self._trial_epochs:
            return None
        curve = tuple(known for known in run.curve if known.epoch <= result.epoch)
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
            run.trial, state, curve=run.curve, trained=run.trained, value=value, reason=reason, facts=facts
        )

    def _count_failure(self, error: str) -> None:
        """Ends the search at the third failure of one kind in a row; numbers in the message do not make a new kind."""
        kind = re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "#", error)
        self._repeated_failure = (kind, self._repeated_failure[1] + 1 if kind == self._repeated_failure[0] else 1)
        if self._repeated_failure[1] >= _MAX_EQUAL_FAILURES:
            raise NbtError(
                f"{_MAX_EQUAL_FAILURES} trials in a row failed in the same way: {error} "
                "(everything is kept; the same command goes on once the cause is gone)"
            )

    def _write_seconds(self, after: float = 0.0) -> None:
        """Stores the time spent, unless that was done less than `after` seconds ago."""
        if self._clock() - self._last_write_at >= after:
            self._last_write_at = self._clock()
            self._store.put(codec.SECONDS, self.seconds)


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    """Returns the default sampler: multivariate TPE, with running trials as constant liars."""
    return optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed)


def _trial_result(outcome: TrialOutcome, length: int) -> tuple[TrialState, float | None, str]:
    """Returns the state to tell, with the value of a complete trial or the reason of another."""
    full = bool(outcome.curve) and outcome.curve[-1].epoch >= length
    if outcome.error is not None:
        return TrialState.FAIL, None, outcome.error
    if outcome.diverged:
        return TrialState.COMPLETE, 0.0, "the loss left the finite numbers"
    if outcome.stopped is not None and not full:  # a stream is told of its last task's epochs when all are over
        return TrialState.PRUNED, None, outcome.stopped
    best = outcome.best
    if best is None or best.val_accuracy is None:
        return TrialState.FAIL, None, "nothing was validated: the search needs validation images"
    return TrialState.COMPLETE, float(best.val_accuracy), ""


def _interrupted_trials(trials: Sequence[FrozenTrial]) -> deque[FrozenTrial]:
    """Returns the interrupted trials that no later one has run again, oldest first."""
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
    """Returns how long a full trial took, infinity for any other."""
    record = read_trial(trial)
    return record.seconds if record is not None and _is_full_length(record) else math.inf


def _trial_key(number: int) -> str:
    return f"trial-{number:04d}"


def _delete_checkpoint(spec: TrialSpec) -> None:
    if spec.checkpoint is not None:
        spec.checkpoint.unlink(missing_ok=True)

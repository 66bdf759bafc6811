"""The trials that run before the sampler's proposals, and the trials that run now."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, TrialSpec
from nbt.tuning.repeated_failures import MAX_EQUAL_FAILURES, failure_kind
from nbt.tuning.space.space import Space
from nbt.tuning.storage import codec
from nbt.tuning.storage.reader import read_trial
from nbt.tuning.storage.study_store import TrialPlan


@dataclass(eq=False)
class RunningTrial:
    """A trial that has started and not ended: it is running, or the engine has returned it unfinished.

    Attributes:
        trial: Optuna's trial object.
        plan: The stored plan of the trial.
        spec: The specification given to the engine.
        curve: Results of its epochs, including those before a resume.
        trained_epochs: Number of epochs by which this session extended its curve; repeated ones do not count.
        last_reported_epoch: Last epoch reported to Optuna.
    """

    trial: optuna.Trial
    plan: TrialPlan
    spec: TrialSpec
    curve: list[EpochResult] = field(default_factory=list)
    trained_epochs: int = 0
    last_reported_epoch: int = 0

    @property
    def index(self) -> int:
        """Number of the trial if no trial had been interrupted."""
        return self.plan.index

    @property
    def epochs_left(self) -> int:
        """Number of epochs that the curve lacks."""
        return self.spec.settings.epochs - (self.curve[-1].epoch if self.curve else 0)

    def add_epoch(self, result: EpochResult) -> list[EpochResult]:
        """Adds an epoch to the curve and returns the epochs up to it that are not reported to Optuna yet.

        A trial that restarts, or resumes from an older checkpoint, repeats epochs: the newest results replace the
        earlier ones, and each epoch counts once.
        """
        by_epoch = {epoch.epoch: epoch for epoch in self.curve}
        self.trained_epochs += result.epoch not in by_epoch
        by_epoch[result.epoch] = result
        self.curve = [by_epoch[epoch] for epoch in sorted(by_epoch)]
        unreported = [epoch for epoch in self.curve if self.last_reported_epoch < epoch.epoch <= result.epoch]
        self.last_reported_epoch = max(self.last_reported_epoch, result.epoch)
        return unreported


@dataclass(frozen=True, eq=False)
class QueuedTrial:
    """A trial that waits for a worker.

    Attributes:
        origin: Origin of its settings, e.g. "anchor: linear probe" for a baseline recipe, or "sampler".
        params: Its parameters; None asks the sampler.
        plan: Its plan, if it continues an interrupted trial.
        curve: Results of its epochs so far.
        run: The running trial, if the engine has returned it unfinished.
    """

    origin: str = "sampler"
    params: Mapping[str, Any] | None = None
    plan: TrialPlan | None = None
    curve: Sequence[EpochResult] = ()
    run: RunningTrial | None = None


class TrialQueue:
    """The order of trials: those that the engine has returned, unfinished ones, initial ones, then the sampler's.

    Args:
        trials: All trials of the study.
        space: The search space.
        initial: Pairs of origin and settings. Settings outside the space, and origins that an earlier session has
            started, are left out.

    Attributes:
        returned: Trials that the engine has returned unfinished.
    """

    def __init__(
        self, trials: Sequence[FrozenTrial], space: Space, initial: Iterable[tuple[str, TransferSettings]]
    ) -> None:
        started = {trial.user_attrs.get(codec.ORIGIN) for trial in trials}
        self.returned: deque[RunningTrial] = deque()
        self._waiting = deque(
            [
                *_unfinished_trials(trials),
                *(
                    QueuedTrial(origin, space.params(settings))
                    for origin, settings in initial
                    if origin not in started and space.can_express(settings)
                ),
            ]
        )

    def first(self) -> QueuedTrial:
        """Returns the next trial without removing it."""
        if self.returned:
            run = self.returned[0]
            return QueuedTrial(run.plan.origin, plan=run.plan, curve=run.curve, run=run)
        return self._waiting[0] if self._waiting else QueuedTrial()

    def remove_first(self) -> None:
        """Removes the next trial; does nothing if the sampler proposes it."""
        queue: deque[Any] = self.returned or self._waiting
        if queue:
            queue.popleft()


def _unfinished_trials(trials: Sequence[FrozenTrial]) -> list[QueuedTrial]:
    """Returns the trials that an earlier session did not finish and no later trial has continued, oldest first.

    These are interrupted trials, and those whose equal failures have ended the search: the user has resumed it to run
    them again.
    """
    continued = {trial.user_attrs.get(codec.RUN, {}).get("continues") for trial in trials}
    unfinished = {trial.number for trial in trials if trial.user_attrs.get(codec.INTERRUPTED)} | _last_failures(trials)
    queued = []
    for trial in trials:
        if trial.number not in unfinished - continued:
            continue
        record = read_trial(trial)
        if record is not None:
            plan = dataclasses.replace(TrialPlan.from_attributes(trial.user_attrs), continues=trial.number)
            params = trial.system_attrs.get("fixed_params", trial.params)
            queued.append(QueuedTrial(plan.origin, params, plan, record.curve))
    return queued


def _last_failures(trials: Sequence[FrozenTrial]) -> set[int]:
    """Returns the numbers of the last trials if so many of them failed in the same way that the search ended."""
    numbers: set[int] = set()
    kinds: set[str] = set()
    for trial in reversed(trials):
        if trial.user_attrs.get(codec.INTERRUPTED):
            continue
        kinds.add(failure_kind(str(trial.user_attrs.get(codec.REASON, ""))))
        if trial.state is not TrialState.FAIL or len(kinds) > 1:
            break
        numbers.add(trial.number)
    return numbers if len(numbers) >= MAX_EQUAL_FAILURES else set()

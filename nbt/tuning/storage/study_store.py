"""The store of a study: every write access of the study's driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from nbt.errors import NbtError
from nbt.search_config import SearchConfig
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.storage import codec
from nbt.tuning.storage.database import close, convert_errors
from nbt.tuning.storage.locks import StudyLock
from nbt.tuning.storage.reader import read_trial, study_record, trained_epochs
from nbt.tuning.storage.records import INTERRUPTED, StudyConfig, StudyRecord, TrialRecord
from nbt.tuning.storage.write_through import WriteThroughStorage


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """The plan of a trial, stored before it starts so that it can be resumed after a crash.

    Attributes:
        settings: The repaired recipe.
        origin: Origin of the settings, e.g. "sampler" or "anchor: linear probe".
        seed: Seed of the trial.
        checkpoint: Name of the checkpoint: the key of the first trial with these settings.
        continues: Number of the interrupted trial that it continues; None for a new trial.
    """

    settings: TransferSettings
    origin: str
    seed: int
    checkpoint: str
    continues: int | None = None

    def to_attributes(self) -> dict[str, Any]:
        """Returns the plan as attributes of a trial."""
        run = {"seed": self.seed, "checkpoint": self.checkpoint, "continues": self.continues}
        return {codec.SETTINGS: self.settings.to_dict(), codec.ORIGIN: self.origin, codec.RUN: run}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> TrialPlan:
        """Creates a plan from the attributes of a trial.

        Raises:
            KeyError, TypeError, ValueError: The attributes are damaged.
        """
        settings = TransferSettings.from_dict(attributes[codec.SETTINGS])
        return cls(settings=settings, origin=attributes[codec.ORIGIN], **attributes[codec.RUN])


class StudyStore:
    """A study that is locked for this driver.

    As a context manager, it releases the lock and closes the connections at the end.

    Args:
        study: The Optuna study.
        config: Configuration of the study.
        storage: Storage of the study.
        lock: The acquired lock of the study.
    """

    def __init__(
        self,
        study: optuna.Study,
        config: StudyConfig,
        storage: WriteThroughStorage | optuna.storages.InMemoryStorage,
        lock: StudyLock,
    ) -> None:
        self.study = study
        self.config = config
        self._storage, self._lock = storage, lock
        self._closed = False

    def __enter__(self) -> StudyStore:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the lock and closes the connections; may be called twice."""
        if not self._closed:
            self._closed = True
            try:
                with self.convert_errors():
                    self._lock.release()
            finally:
                if isinstance(self._storage, WriteThroughStorage):
                    close(self._storage.database)

    def convert_errors(self) -> AbstractContextManager[None]:
        """Returns a context that converts exceptions of the database to NbtError, for direct use of `study`."""
        storage = self._storage
        return convert_errors(storage.database.url) if isinstance(storage, WriteThroughStorage) else nullcontext()

    def get(self, name: str, default: Any = None) -> Any:
        """Returns an attribute of the study, or `default` if it is missing."""
        with self.convert_errors():
            return self.study.user_attrs.get(name, default)

    def attributes(self) -> dict[str, Any]:
        """Returns all attributes of the study."""
        with self.convert_errors():
            return self.study.user_attrs

    def put(self, name: str, value: Any) -> None:
        """Stores an attribute of the study, converted to JSON types.

        Raises:
            NbtError: The database fails, or another driver has taken the lock.
        """
        self._lock.check()
        with self.convert_errors():
            self.study.set_user_attr(name, codec.to_json(value))

    def put_search(self, search: SearchConfig) -> None:
        """Stores the options of this session, without passwords.

        Raises:
            NbtError: The database fails, or another driver has taken the lock.
        """
        self.put(codec.SEARCH, search.to_record())

    def put_profile(self, profile: Mapping[str, Any]) -> None:
        """Stores a fit profile as returned by `FitProfile.to_dict`.

        Raises:
            NbtError: The database fails, or another driver has taken the lock.
        """
        self.put(codec.PROFILE, codec.encode_profile(profile))

    def put_prior_diagnostics(self, diagnostics: Mapping[str, Any]) -> None:
        """Stores the diagnostics of the priors; see `nbt.tuning.prior_diagnostics`.

        Raises:
            NbtError: The database fails, or another driver has taken the lock.
        """
        self.put(codec.PRIOR_DIAGNOSTICS, diagnostics)

    def add_note(self, note: str) -> None:
        """Adds a note to the study unless it is there already.

        Raises:
            NbtError: The database fails, or another driver has taken the lock.
        """
        notes = list(self.get(codec.NOTES, ()))
        if note not in notes:
            self.put(codec.NOTES, [*notes, note])

    def record(self) -> StudyRecord:
        """Returns the current record of the study."""
        with self.convert_errors():
            return study_record(self.study)

    def trials(self) -> list[FrozenTrial]:
        """Returns Optuna's trial objects; they are shared and must not be changed."""
        with self.convert_errors():
            return self.study.get_trials(deepcopy=False)

    def spent_epochs(self) -> int:
        """Returns the number of epochs trained so far, including those of pruned and failed trials."""
        return sum(map(trained_epochs, self.trials()))

    def ask(
        self,
        distributions: dict[str, BaseDistribution],
        params: Mapping[str, Any] | None = None,
        plan: TrialPlan | None = None,
    ) -> optuna.Trial:
        """Starts a trial with the parameters that the sampler proposes, or with the given ones.

        Args:
            distributions: Distributions of all parameters.
            params: A value for every parameter, inside its distribution; None to ask the sampler.
            plan: Stored together with `params`; without it, call `write_plan` afterwards.
        """
        self._lock.check()
        with self.convert_errors():
            if params is not None:
                self.study.enqueue_trial(dict(params), user_attrs=None if plan is None else plan.to_attributes())
            trial = self.study.ask(distributions)
            if plan is not None:
                self._ensure_written(trial)
            return trial

    def write_plan(self, trial: optuna.Trial, plan: TrialPlan) -> None:
        """Stores the plan of a trial that was started without one."""
        with self.convert_errors():
            for name, value in plan.to_attributes().items():
                trial.set_user_attr(name, value)
            self._ensure_written(trial)

    def report(self, trial: optuna.Trial, result: EpochResult) -> None:
        """Reports the accuracy of an epoch to Optuna: 0 if the trial diverged or was not validated."""
        is_worst = result.diverged or result.val_accuracy is None
        with self.convert_errors():
            trial.report(0.0 if is_worst else float(result.val_accuracy or 0.0), result.epoch)

    def write_progress(self, trial: optuna.Trial, curve: Sequence[EpochResult], trained: int) -> None:
        """Stores the curve of a running trial and the number of epochs trained for it."""
        self._lock.check()
        with self.convert_errors():
            self._put_progress(trial, curve, trained)

    def finish(
        self,
        trial: optuna.Trial,
        state: TrialState,
        *,
        curve: Sequence[EpochResult],
        trained: int,
        value: float | None = None,
        reason: str = "",
        facts: Mapping[str, Any] | None = None,
        interrupted: bool = False,
    ) -> TrialRecord:
        """Ends a trial and returns its record.

        Args:
            trial: The trial.
            state: COMPLETE, PRUNED or FAIL.
            curve: Results of its epochs.
            trained: Number of epochs trained for it.
            value: Its value, for COMPLETE only.
            reason: Reason for which it was pruned or failed.
            facts: Facts to store with the trial.
            interrupted: Whether a later session should continue it.

        Raises:
            NbtError: The database fails, or another driver has taken the lock.
        """
        self._lock.check()
        with self.convert_errors():
            self._put_progress(trial, curve, trained)
            if reason:
                trial.set_user_attr(codec.REASON, reason)
            if facts:
                trial.set_user_attr(codec.FACTS, codec.to_json(facts))
            if interrupted:
                trial.set_user_attr(codec.INTERRUPTED, True)
            frozen = self.study.tell(trial, value, state=state)
        record = read_trial(frozen)
        if record is None:
            raise NbtError(f"study {self.config.name}: trial {frozen.number} could not be read back")
        return record

    def fail_unfinished_trials(self) -> None:
        """Marks trials that an earlier driver left running or queued as failed and interrupted.

        Otherwise the sampler would treat them as running trials.
        """
        for frozen in self.trials():
            if not frozen.state.is_finished():
                with self.convert_errors():
                    self._storage.set_trial_user_attr(frozen._trial_id, codec.REASON, INTERRUPTED)
                    self._storage.set_trial_user_attr(frozen._trial_id, codec.INTERRUPTED, True)
                    self._storage.set_trial_state_values(frozen._trial_id, TrialState.FAIL)

    def _ensure_written(self, trial: optuna.Trial) -> None:
        """Writes a new trial to the database, before it is given to a worker."""
        if isinstance(self._storage, WriteThroughStorage):
            self._storage.write(trial._trial_id)

    def _put_progress(self, trial: optuna.Trial, curve: Sequence[EpochResult], trained: int) -> None:
        trial.set_user_attr(codec.PROGRESS, {"trained": trained, "curve": codec.encode_curve(curve)})

"""StudyStore: a study in the hands of its one driver. Everything that is written goes through here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from nbt.errors import NbtError
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.storage import codec as codec
from nbt.tuning.storage.database import close, convert_errors
from nbt.tuning.storage.locks import StudyLock
from nbt.tuning.storage.reader import read_trial, study_record, trained_epochs
from nbt.tuning.storage.records import INTERRUPTED, StudyConfig, StudyRecord, TrialRecord
from nbt.tuning.storage.write_through import WriteThroughStorage


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """What is stored of a trial before it starts, so that it can be run again after a crash.

    Attributes:
        settings: The repaired recipe.
        origin: "sampler", or "anchor: linear probe".
        seed: Of the run.
        checkpoint: Name of its checkpoint: the key of the trial that ran these settings first.
        continues: Number of the interrupted trial that it runs again.
    """

    settings: TransferSettings
    origin: str
    seed: int
    checkpoint: str
    continues: int | None = None

    def to_attributes(self) -> dict[str, Any]:
        """Returns the attributes of the trial."""
        run = {"seed": self.seed, "checkpoint": self.checkpoint, "continues": self.continues}
        return {codec.SETTINGS: self.settings.to_dict(), codec.ORIGIN: self.origin, codec.RUN: run}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> TrialPlan:
        """Reads what `to_attributes` wrote.

        Raises:
            KeyError, TypeError, ValueError: It is damaged.
        """
        settings = TransferSettings.from_dict(attributes[codec.SETTINGS])
        return cls(settings=settings, origin=attributes[codec.ORIGIN], **attributes[codec.RUN])


class StudyStore:
    """One study of the storage, locked for this driver. A context: leaving it gives lock and connections free."""

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
        """Gives the study free; may be called twice."""
        if not self._closed:
            self._closed = True
            try:
                with self.convert_errors():
                    self._lock.release()
            finally:
                if isinstance(self._storage, WriteThroughStorage):
                    close(self._storage.database)

    def convert_errors(self) -> AbstractContextManager[None]:
        """Returns a context that turns what the database raises into NbtError; for use of `study` itself."""
        storage = self._storage
        return convert_errors(storage.database.url) if isinstance(storage, WriteThroughStorage) else nullcontext()

    def get(self, name: str, default: Any = None) -> Any:
        """Returns an attribute of the study."""
        with self.convert_errors():
            return self.study.user_attrs.get(name, default)

    def attributes(self) -> dict[str, Any]:
        """Returns all attributes of the study."""
        with self.convert_errors():
            return self.study.user_attrs

    def put(self, name: str, value: Any) -> None:
        """Sets an attribute of the study, cast to JSON types.

        Raises:
            NbtError: The database fails, or another driver took the study over.
        """
        self._lock.check()
        with self.convert_errors():
            self.study.set_user_attr(name, codec.to_json(value))

    def put_profile(self, profile: Mapping[str, Any]) -> None:
        """Stores the fit profile, as `FitProfile.to_dict` returns it.

        Raises:
            NbtError: The database fails, or another driver took the study over.
        """
        self.put(codec.PROFILE, codec.encode_profile(profile))

    def put_prior_diagnostics(self, surrogate: Mapping[str, Any]) -> None:
        """Stores what guides the search, see `nbt.tuning.prior_diagnostics`.

        Raises:
            NbtError: The database fails, or another driver took the study over.
        """
        self.put(codec.PRIOR_DIAGNOSTICS, surrogate)

    def add_note(self, note: str) -> None:
        """Adds what a reader must know to the study's notes, once.

        Raises:
            NbtError: The database fails, or another driver took the study over.
        """
        notes = list(self.get(codec.NOTES, ()))
        if note not in notes:
            self.put(codec.NOTES, [*notes, note])

    def record(self) -> StudyRecord:
        """Returns the study as it is stored now."""
        with self.convert_errors():
            return study_record(self.study)

    def trials(self) -> list[FrozenTrial]:
        """Returns the trials as optuna has them; they are shared and must not be changed."""
        with self.convert_errors():
            return self.study.get_trials(deepcopy=False)

    def spent_epochs(self) -> int:
        """Returns the epochs trained so far, whatever became of their trials."""
        return sum(map(trained_epochs, self.trials()))

    def ask(
        self,
        distributions: dict[str, BaseDistribution],
        params: Mapping[str, Any] | None = None,
        plan: TrialPlan | None = None,
    ) -> optuna.Trial:
        """Starts a trial with what the sampler proposes, or with given parameters.

        Args:
            distributions: Of all parameters.
            params: A value inside its distribution for every parameter, or None.
            plan: Stored with given parameters in one go; without it, `write_plan` has to follow.
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
        """Stores the plan of a trial that the sampler proposed."""
        with self.convert_errors():
            for name, value in plan.to_attributes().items():
                trial.set_user_attr(name, value)
            self._ensure_written(trial)

    def report(self, trial: optuna.Trial, result: EpochResult) -> None:
        """Tells the sampler and the pruner of an epoch."""
        is_worst = result.diverged or result.val_accuracy is None
        with self.convert_errors():
            trial.report(0.0 if is_worst else float(result.val_accuracy or 0.0), result.epoch)

    def write_progress(self, trial: optuna.Trial, curve: Sequence[EpochResult], trained: int) -> None:
        """Stores the curve of a running trial so far, and how many epochs it has cost."""
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
        """Ends a trial and returns its record. A value is told for COMPLETE alone."""
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
        """Marks as failed what an earlier driver left running or queued: it would repel the sampler for ever."""
        for frozen in self.trials():
            if not frozen.state.is_finished():
                with self.convert_errors():
                    self._storage.set_trial_user_attr(frozen._trial_id, codec.REASON, INTERRUPTED)
                    self._storage.set_trial_user_attr(frozen._trial_id, codec.INTERRUPTED, True)
                    self._storage.set_trial_state_values(frozen._trial_id, TrialState.FAIL)

    def _ensure_written(self, trial: optuna.Trial) -> None:
        """Makes sure that the database has a new trial: from here on it may be handed out."""
        if isinstance(self._storage, WriteThroughStorage):
            self._storage.write(trial._trial_id)

    def _put_progress(self, trial: optuna.Trial, curve: Sequence[EpochResult], trained: int) -> None:
        trial.set_user_attr(codec.PROGRESS, {"trained": trained, "curve": codec.encode_curve(curve)})

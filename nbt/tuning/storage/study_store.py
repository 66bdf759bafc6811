"""The store of a study: every write access of the study's driver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from nbt.errors import NbtError
from nbt.search_config import SearchConfig
from nbt.settings import TransferSettings
from nbt.training.metrics import Predictions
from nbt.training.results import EpochResult
from nbt.tuning.storage import codec
from nbt.tuning.storage.candidates import CandidateRecord
from nbt.tuning.storage.prediction_reader import PredictionReader
from nbt.tuning.storage.reader import read_profile, read_trial, study_record
from nbt.tuning.storage.records import StudyConfig, StudyRecord, TrialRecord
from nbt.tuning.storage.source import SourceRecord
from nbt.tuning.storage.study_writer import StudyWriter


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """The plan of a trial, stored before it starts so that it can be resumed after a crash.

    Attributes:
        settings: The repaired recipe.
        origin: Origin of the settings, e.g. "sampler" or "anchor: linear probe".
        seed: Seed of the trial.
        checkpoint: Name of the checkpoint, which ends in the index: "trial-0003".
        continues: Number of the interrupted trial that it continues; None for a new trial.
        epoch_cost: Cost of each of its epochs, in epochs of the default recipe.
    """

    settings: TransferSettings
    origin: str
    seed: int
    checkpoint: str
    continues: int | None = None
    epoch_cost: float = 1.0

    @property
    def index(self) -> int:
        """Number that the trial would have if no trial had been interrupted; seeds are derived from it."""
        return int(self.checkpoint.rpartition("-")[2])

    def to_attributes(self) -> dict[str, Any]:
        """Returns the plan as attributes of a trial."""
        run = {"seed": self.seed, "checkpoint": self.checkpoint, "continues": self.continues}
        return {
            codec.SETTINGS: self.settings.to_dict(),
            codec.ORIGIN: self.origin,
            codec.RUN: run,
            codec.EPOCH_COST: self.epoch_cost,
        }

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> TrialPlan:
        """Creates a plan from the attributes of a trial.

        Raises:
            KeyError, TypeError, ValueError: The attributes are damaged.
        """
        settings = TransferSettings.from_dict(attributes[codec.SETTINGS])
        cost = float(attributes.get(codec.EPOCH_COST, 1.0))
        return cls(settings=settings, origin=attributes[codec.ORIGIN], epoch_cost=cost, **attributes[codec.RUN])


class StudyStore:
    """A study that is locked for this driver.

    Its trials are kept in memory and written in batches, see `StudyWriter`: the end of a trial and an attribute of the
    study are stored when the method returns, started trials and epochs a little later.

    As a context manager, it writes all changes, releases the lock and closes the connections at the end.

    Args:
        study: The study in memory.
        config: Configuration of the study.
        writer: Write access to the database; None for a study that exists only in memory.
    """

    def __init__(self, study: optuna.Study, config: StudyConfig, writer: StudyWriter | None = None) -> None:
        self.study, self.config, self._writer = study, config, writer
        self._closed = False
        # Those of a study in memory; a stored study reads them from its database.
        self._predictions: dict[str, Predictions] = {}

    def __enter__(self) -> StudyStore:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Writes all changes, releases the lock and closes the connections; may be called twice."""
        if self._writer is not None and not self._closed:
            self._closed = True
            self._writer.close()

    def get(self, name: str, default: Any = None) -> Any:
        """Returns an attribute of the study, or `default` if it is missing."""
        return self.attributes().get(name, default)

    def attributes(self) -> dict[str, Any]:
        """Returns all attributes of the study."""
        return self.study.user_attrs if self._writer is None else self._writer.attributes()

    def put(self, name: str, value: Any) -> None:
        """Stores an attribute of the study, converted to JSON types.

        Raises:
            NbtError: The database fails, or another driver has taken the lock.
        """
        stored = self.study if self._writer is None else self._writer
        (stored.set_user_attr if isinstance(stored, optuna.Study) else stored.put)(name, codec.to_json(value))

    def put_predictions(self, run: str, predictions: Predictions | None) -> None:
        """Stores the predictions of a run, in place of earlier ones; None, of a run without any, is ignored.

        Args:
            run: Key of the run, see `nbt.tuning.storage.codec.final_key` and `test_key`.
            predictions: The predictions.

        Raises:
            NbtError: The database fails, or another driver has taken the lock.
        """
        if predictions is None:
            return
        if self._writer is None:
            self._predictions[run] = predictions
        else:
            self._writer.put_bytes(run, predictions.to_bytes())

    def put_search(self, search: SearchConfig) -> None:
        """Stores the options of this session, without passwords.

        Raises:
            NbtError: The database fails, or another driver has taken the lock.
        """
        self.put(codec.SEARCH, search.to_record())

    def put_classes(self, names: Sequence[str], images: Iterable[int]) -> None:
        """Stores the names of the classes and their numbers of training and validation images, (C,) each.

        Raises:
            NbtError: The database fails, or another driver has taken the lock.
        """
        classes = {"names": list(names), "images": [int(number) for number in images]}
        if self.get(codec.CLASSES) != classes:
            self.put(codec.CLASSES, classes)

    def put_profile(self, profile: Mapping[str, Any], candidate: str = "") -> None:
        """Stores a fit profile as returned by `FitProfile.to_dict`.

        Args:
            profile: The profile.
            candidate: Name of the backbone, "" for that of the study.

        Raises:
            NbtError: The database fails, or another driver has taken the lock.
        """
        key = codec.profile_key(candidate) if candidate else codec.PROFILE
        self.put(key, codec.encode_profile(profile))

    def candidate_profile(self, candidate: str) -> dict[str, Any] | None:
        """Returns the stored fit profile of a backbone other than that of the study; None without one."""
        return read_profile(self.attributes(), codec.profile_key(candidate))

    def put_candidates(self, candidates: Iterable[CandidateRecord], left_out: Mapping[str, str]) -> None:
        """Stores what is known of the backbones to choose from, and why others were left out.

        Raises:
            NbtError: The database fails, or another driver has taken the lock.
        """
        listed = [candidate.to_dict() for candidate in candidates]
        self.put(codec.CANDIDATES, {"candidates": listed, "left_out": left_out})

    def put_source(self, source: SourceRecord | None) -> None:
        """Stores the source accuracy of the pretrained weights; None, of a study without `--source-data`, is ignored.

        Raises:
            NbtError: The database fails, or another driver has taken the lock.
        """
        if source is not None and self.get(codec.SOURCE) != source.to_dict():
            self.put(codec.SOURCE, source.to_dict())

    def put_prior_diagnostics(self, diagnostics: Mapping[str, Any]) -> None:
        """Stores the diagnostics of the priors; see `nbt.tuning.prior_diagnostics`.

        Raises:
            NbtError: The database fails, or another driver has taken the lock.
        """
        self.put(codec.PRIOR_DIAGNOSTICS, diagnostics)

    def put_experience(self, text: str) -> None:
        """Stores which recorded tables the search uses.

        Raises:
            NbtError: The database fails, or another driver has taken the lock.
        """
        self.put(codec.EXPERIENCE, text)

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
        stored = None if self._writer is None else PredictionReader(self._writer.url, self.config.name)
        load_predictions = self._predictions.get if stored is None else stored
        return study_record(self.config.name, self.trials(), self.attributes(), load_predictions)

    def trials(self) -> list[FrozenTrial]:
        """Returns Optuna's trial objects; they are shared and must not be changed."""
        return self.study.get_trials(deepcopy=False)

    def ask(self, distributions: dict[str, BaseDistribution], params: Mapping[str, Any] | None = None) -> optuna.Trial:
        """Starts a trial with the parameters that the sampler proposes, or with the given ones; see `write_plan`.

        Args:
            distributions: Distributions of all parameters.
            params: A value for every parameter, inside its distribution; None to ask the sampler.
        """
        if params is not None:
            self.study.enqueue_trial(dict(params))
        return self.study.ask(distributions)

    def write_plan(self, trial: optuna.Trial, plan: TrialPlan, curve: Sequence[EpochResult] = ()) -> None:
        """Stores a new trial with its plan and, if it continues an interrupted trial, the epochs of that trial.

        Raises:
            NbtError: An earlier change could not be written.
        """
        trial.set_user_attr(codec.PROGRESS, {"trained": 0, "curve": tuple(curve)})
        for name, value in plan.to_attributes().items():
            trial.set_user_attr(name, codec.to_json(value))
        self._changed(trial, first_epoch=0)

    def report(self, trial: optuna.Trial, result: EpochResult) -> None:
        """Reports the score of an epoch to Optuna, for samplers and pruners."""
        trial.report(codec.intermediate_value(result, self.config.metric), result.epoch)

    def write_progress(
        self, trial: optuna.Trial, curve: Sequence[EpochResult], trained: int, *, first_epoch: int
    ) -> None:
        """Stores the curve of a running trial, which changed from an epoch on, and the number of epochs it trained.

        Raises:
            NbtError: An earlier change could not be written, or another driver has taken the lock.
        """
        trial.set_user_attr(codec.PROGRESS, {"trained": trained, "curve": tuple(curve)})
        self._changed(trial, first_epoch=first_epoch)

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
        source_accuracy: float | None = None,
        interrupted: bool = False,
    ) -> TrialRecord:
        """Ends a trial, stores it and returns its record.

        Args:
            trial: The trial.
            state: COMPLETE, PRUNED or FAIL.
            curve: Results of its epochs.
            trained: Number of epochs trained for it.
            value: Its value, for COMPLETE only.
            reason: Reason for which it was pruned or failed.
            facts: Facts to store with the trial.
            source_accuracy: See `TrialRecord`.
            interrupted: Whether a later session should continue it.

        Raises:
            NbtError: The database fails, or another driver has taken the lock.
        """
        trial.set_user_attr(codec.PROGRESS, {"trained": trained, "curve": tuple(curve)})
        ending = {codec.REASON: reason, codec.FACTS: codec.to_json(facts), codec.INTERRUPTED: interrupted}
        for name, stored in ending.items():
            if stored:
                trial.set_user_attr(name, stored)
        if source_accuracy is not None:
            trial.set_user_attr(codec.SOURCE_ACCURACY, source_accuracy)
        self.study.tell(trial, value, state=state)
        if self._writer is not None:
            self._writer.end_trial(trial.number)
        record = read_trial(self.trials()[trial.number])
        if record is None:
            raise NbtError(f"study {self.config.name}: trial {trial.number} could not be read back")
        return record

    def _changed(self, trial: optuna.Trial, first_epoch: int) -> None:
        if self._writer is not None:
            self._writer.change_trial(trial.number, first_epoch)
